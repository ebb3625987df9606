"""The shell common to all scripts: from the command line to the exit status."""

import argparse
import errno
import importlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from maintenance import config as configuration
from maintenance.accounts import PATH, Account
from maintenance.errors import Busy, ConfigError, Exit, ImagewardenError, UsageError
from maintenance.forks import become
from maintenance.settings import Config
from maintenance.shell import account, logs, options, result, signals
from maintenance.shell.job import Context, Job
from maintenance.shell.lock import only_one
from maintenance.shell.progress import Progress
from maintenance.shell.purging import purge
from maintenance.text import show

if TYPE_CHECKING:
    from maintenance.monitoring.heartbeat import Heartbeat

WORKED = {Exit.DONE, Exit.INCOMPLETE, Exit.INFECTED}  # what they found is for others to tell


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the job in module ``maintenance.jobs.NAME`` and return the exit status."""
    os.environ.update(PATH=PATH, LC_ALL="C.UTF-8")
    if os.geteuid() == 0:  # root's own temporary directory is closed to the jobs' user
        for variable in ("TMPDIR", "TEMP", "TMP"):
            os.environ.pop(variable, None)
    os.umask(0o077)
    job: Job = importlib.import_module(f"maintenance.jobs.{name}").JOB
    words = options.names_apart(sys.argv[1:] if argv is None else argv)
    chosen = options.parser(job).parse_intermixed_args(words)
    log = logs.start(job.script, _level(chosen), chosen.log_format)
    signals.listen()
    try:
        context = _context(job, chosen, log)
        return _run(job, context)
    except (ConfigError, UsageError) as error:
        log.error("%s", error)
        return int(error.status)
    except signals.Stopped as stopped:
        return stopped.status


def _context(job: Job, chosen: argparse.Namespace, log: logging.Logger) -> Context:
    if job.settings is Config:
        # Every run that is recorded is also sent, and told of.
        sections = (*job.sections, *(["zabbix", "notify"] if job.records else []))
        config = configuration.load(chosen.config, sections)
        host = config.zabbix.host or socket.gethostname()
    else:
        part = (configuration.load_part(chosen.config, job.sections, job.settings)
                if job.load is None else job.load(chosen.config))
        config, host = cast(Config, part), socket.gethostname()
    bars = sys.stderr.isatty() and not chosen.quiet and not chosen.json
    script = Path(os.path.realpath(sys.argv[0]))
    # For the scripts that we start elsewhere: both may be relative to where we were started.
    named = chosen.config or os.environ.get(configuration.VARIABLE)
    where = str(Path(named).absolute()) if named else None
    return Context(config, host, chosen, log, Progress(bars), script, where)


def _level(chosen: argparse.Namespace) -> int:
    if chosen.quiet:
        return logging.ERROR
    return logging.DEBUG if chosen.verbose else logging.WARNING


def _run(job: Job, context: Context) -> int:
    started, clock = time.time(), time.monotonic()
    report = None
    signalled = None
    with ExitStack() as stack:
        stack.callback(context.close)
        try:
            stack.enter_context(_ready(job, context, started))
            if context.heartbeat is not None:
                context.heartbeat.started()
            report = job.run(context)
        except signals.Stopped as stopped:
            signalled = stopped.status
            context.troubles.append(str(stopped))
            context.log.warning("%s", stopped)
        except Busy as busy:
            return _busy(job, context, started, busy)
        except (ConfigError, UsageError):
            raise
        except ImagewardenError as error:
            context.trouble(str(error))
        except Exception as bug:  # noqa: BLE001 - the admin gets one line, the log the traceback
            context.log.debug("unexpected error", exc_info=True)
            context.trouble(_in_one_line(bug))
        report = report or context.report
        ending = result.Ending.of(job, started, time.monotonic() - clock, report,
                                  context.troubles, signalled)
        return _leave(ending, context)


def _in_one_line(bug: Exception) -> str:
    if isinstance(bug, OSError) and bug.errno in {errno.ENOSPC, errno.EDQUOT}:
        place = bug.filename if isinstance(bug.filename, str | bytes) else "a file of this run"
        return f"{show(place)}: {bug.strerror}"
    return (f"unexpected error: {type(bug).__name__}: {show(str(bug))}"
            " (its traceback: in the log, or with -v)")


@contextmanager
def _ready(job: Job, context: Context, now: float) -> Iterator[None]:
    """Take the log and the lock as the job's user, then become him for good."""
    entry = configuration.job_user(context.config)
    who = context.account = None if entry is None else account.account_of(entry)
    with ExitStack() as stack:
        try:
            if job.records:
                _directories(context, who)
                context.ready = not job.resident
            with account.acting_as(who):
                if job.records and not job.resident and context.config.logs is not None:
                    logs.add_file(context.config.logs / f"{job.name}.log",
                                  context.options.log_format)
                if job.records and job.locked(context.options):
                    stack.enter_context(only_one(lock_of(context, job.name), now))
            if job.prepare is not None:
                job.prepare(context)
        finally:  # whatever failed, and a signal too, must not be recorded as root
            if job.remembers:  # now: later our own files may be out of reach
                importlib.import_module("maintenance.ledger.ledger")
            if job.records:
                importlib.import_module("maintenance.shell.handover")
                if context.config.notify.purge_url:
                    importlib.import_module("maintenance.monitoring.purge")
                context.heartbeat = _heartbeat(job, context)
            become(None if job.resident else who)
        yield


def _heartbeat(job: Job, context: Context) -> "Heartbeat | None":
    """Return who is told of this job's runs; a dry run is nobody's business."""
    told = context.config.notify.heartbeat_urls
    url = next((told[name] for name in told if name == job.name), None)
    if url is None or getattr(context.options, "dry_run", False) or job.resident:
        return None
    from maintenance.monitoring.heartbeat import Heartbeat  # noqa: PLC0415 - 115 ms

    return Heartbeat(url)


def lock_of(context: Context, name: str) -> Path:
    """Return the lock of the job called ``name``."""
    return context.config.state / "locks" / f"{name}.lock"


def _directories(context: Context, who: Account | None) -> None:
    account.ensure_directory(context.config.state, account.STATE_MODE, who)
    account.ensure_directory(context.config.state / "locks", account.STATE_MODE, who)
    if context.config.logs is not None:
        account.ensure_directory(context.config.logs, account.LOGS_MODE, who)
    context.ready = True


def _busy(job: Job, context: Context, started: float, busy: Busy) -> int:
    if sys.stderr.isatty():
        context.log.error("%s", busy)
    if context.options.json:
        ending = result.Ending(job, started, 0.0, Exit.BUSY, str(busy), None)
        result.show_json(ending.members(context.host))
    return Exit.BUSY


def _leave(ending: result.Ending, context: Context) -> int:
    members = ending.members(context.host)
    recorded = context.ready and not getattr(context.options, "dry_run", False)
    if recorded:
        lost = result.record(ending, context, members)
        if lost is not None and lost not in context.troubles:
            # One line is enough for a run that failed: the reason is likely the same.
            context.log.log(logging.INFO if context.troubles else logging.ERROR, "%s", lost)
            if ending.status < Exit.FAILED or ending.status in {Exit.INCOMPLETE, Exit.INFECTED}:
                ending = replace(ending, status=int(Exit.FAILED), error=lost)
                members = ending.members(context.host)
    told = [] if ending.report is None else [*ending.report.alerts()]
    for line in told:
        context.log.warning("%s", line)
    if context.options.json:
        result.show_json(members)
    elif ending.report is not None and (
            ending.job.shows or getattr(ending.report, "shows", False) or sys.stdout.isatty()):
        result.show_lines(ending.report.summary())
    context.log.info("%s, status %d, %.1f s", ending.outcome, ending.status, ending.seconds)
    if context.heartbeat is not None and context.ready:
        context.heartbeat.ended(ending.status, "\n".join([ending.error or "", *told]),
                                worked=ending.status in WORKED)
    if recorded and ending.status < result.SIGNALLED:  # who is told to stop does not stay to send
        from maintenance.shell.handover import hand_over  # noqa: PLC0415 - not for uploads

        hand_over(context)
        purge(context)
    return ending.status
