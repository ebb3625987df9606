"""update-definitions: run freshclam, know what changed, prove that the engine has it."""

import argparse
import json
import os
import pwd
import random
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from maintenance.clamav import databases, freshclam, system
from maintenance.clamav.canary import Canary
from maintenance.clamav.caretaker import Caretaker
from maintenance.clamav.freshclam import Sources
from maintenance.errors import Busy, EngineError, Exit, ImagewardenError, ToolError
from maintenance.jobs.definitions_report import DefinitionsReport, Freshclam, Proof
from maintenance.jobs.generation import Definitions, directory_of, on_disk, uses_system_engine
from maintenance.ledger.generations import Generation
from maintenance.programs import Account, Ran, run
from maintenance.shell.account import account_of, ensure_directory
from maintenance.shell.job import Context, Job
from maintenance.shell.lock import is_held
from maintenance.shell.main import lock_of
from maintenance.shell.options import duration
from maintenance.shell.successor import Successor
from maintenance.text import show
from maintenance.times import iso


@dataclass(slots=True)
class Prepared:
    """What was started before privileges were dropped."""

    directory: Path
    fetched: Freshclam
    ran: Ran | None
    failure: str | None  # why freshclam could not be run at all
    caretaker: Caretaker
    successor: Successor


def prepare(context: Context) -> None:
    """Run freshclam as the owner of the database directory; read nothing it wrote."""
    if context.options.dry_run:
        return
    time.sleep(random.uniform(0, context.options.jitter))  # noqa: S311 - spreads a fleet
    directory = directory_of(context.config)
    owner = _owner(context, directory)
    successor = Successor(_rescan_command(context))
    caretaker = Caretaker(directory, owner)
    fetched, ran, failure = Freshclam(), None, None
    other = freshclam.running(directory)
    if other is not None and not other.daemon:
        raise Busy(f"another freshclam works in {show(directory)} (pid {other.pid})")
    if other is not None:
        fetched.outcome = "daemon"
    else:
        try:
            ran = _fetch(context, directory, owner)
        except ToolError as error:
            failure = str(error)
    context.prepared = Prepared(directory, fetched, ran, failure, caretaker, successor)


def update(context: Context) -> DefinitionsReport:
    """Find out what freshclam's run came to, and act on a change."""
    report = DefinitionsReport()
    context.report = report
    if context.options.dry_run:
        return _foretell(context, report)
    prepared: Prepared = context.prepared
    report.freshclam = prepared.fetched
    refused = prepared.caretaker.open_up()
    if refused is not None:
        context.log.warning("%s", refused)
    known = context.ledger.generations.current()
    definitions = _read(context, prepared, known)
    if definitions is not None:
        _judge(context, prepared, definitions, known, report)
        report.engine = _prove(context, prepared, definitions)
        _rescan(context, prepared, report)
    return report


def _fetch(context: Context, directory: Path, owner: Account | None) -> Ran | None:
    settings = context.config.definitions
    sources = Sources(settings.official, settings.mirror, settings.custom_urls,
                      settings.freshclam_config)
    return None if sources.none else freshclam.fetch(sources, directory, owner)


def _read(context: Context, prepared: Prepared, known: Generation | None) -> Definitions | None:
    """Read freshclam's words and what is on disk; a damaged database is a trouble."""
    fetched = prepared.fetched
    if prepared.ran is not None:
        fetched.status = prepared.ran.status
        fetched.last_lines = freshclam.last_lines(prepared.ran.tail())
        for line in fetched.last_lines:
            context.log.info("freshclam: %s", line)
    fetched.until = freshclam.cool_down(prepared.directory)
    if prepared.failure is not None:
        context.trouble(prepared.failure)
    try:
        definitions = on_disk(context.config)
        _verify(definitions, known)
    except ImagewardenError as error:
        why = _why_none(prepared, str(error))
        if why is not None:
            context.trouble(why)
        return None
    return definitions


def _why_none(prepared: Prepared, error: str) -> str | None:
    """Return what to say of definitions that cannot be read; None: it has been said."""
    fetched = prepared.fetched
    if databases.stamps(prepared.directory):
        return error
    if prepared.failure is not None:
        return None
    if fetched.until is not None:
        return f"no definitions yet, and the mirror refuses us until {iso(fetched.until)}"
    return _failure(fetched.status) if fetched.status else error


def _failure(status: int | None) -> str:
    meaning = freshclam.STATUSES.get(status or 0, "see its lines in the log")
    return f"freshclam failed with status {status}: {meaning}"


def _verify(definitions: Definitions, known: Generation | None) -> None:
    """Check the signature and checksum of signed databases that are new to us."""
    before = {one.get("sha256") for one in known.databases} if known else set()
    for one in definitions.content.databases:
        if one.version is not None and one.sha256 not in before:
            checked = run(["sigtool", f"--info={definitions.directory / one.file}"])
            if checked.status != 0:
                raise ToolError(f"{show(definitions.directory / one.file)}: damaged"
                                " (sigtool --info); remove it and run update-definitions")


def _judge(context: Context, prepared: Prepared, definitions: Definitions,
           known: Generation | None, report: DefinitionsReport) -> None:
    """Decide by content what happened; freshclam's status only explains."""
    fetched = prepared.fetched
    report.changed = known is None or known.fingerprint != definitions.fingerprint
    status = fetched.status
    if fetched.outcome != "daemon" and prepared.failure is None:
        fetched.outcome = ("changed" if _differs(known, definitions)
                           else "cool-down" if fetched.until is not None
                           else "failed" if status else "unchanged")
    confirmed = fetched.outcome == "daemon" or (status == 0 and fetched.until is None)
    generation = definitions.met(context.ledger, confirmed=confirmed)
    report.generation = generation.number
    report.databases = _changes(definitions, known)
    if fetched.outcome == "failed" and prepared.failure is None:
        context.trouble(_failure(status))
    elif fetched.outcome == "cool-down":
        _mind_age(context, definitions, generation)


def _differs(known: Generation | None, definitions: Definitions) -> bool:
    after = {(one["name"], one["sha256"]) for one in definitions.facts()}
    return known is None or after != {(one["name"], one["sha256"]) for one in known.databases}


def _mind_age(context: Context, definitions: Definitions, generation: Generation) -> None:
    """During a cool-down all is well until the definitions are too old."""
    built = [one.built for one in definitions.content.databases if one.built is not None]
    age = time.time() - max(built, default=generation.checked)
    if age > context.config.definitions.fail_age:
        context.trouble(f"the mirror refuses us and the definitions are {age / 86400:.1f} days old")


def _changes(definitions: Definitions, known: Generation | None) -> list[dict[str, object]]:
    before = {one["name"]: one for one in known.databases} if known else {}
    return [{"name": one["name"], "from": before.get(one["name"], {}).get("version"),
             "to": one["version"], "signatures": one["signatures"], "built": one["built"]}
            for one in definitions.facts()]


def _prove(context: Context, prepared: Prepared, definitions: Definitions) -> Proof:
    """See to it that a running clamd has loaded what is on disk, and that it is shown."""
    needed = uses_system_engine(context.config)
    try:
        engine = system.connect(context.config.clamav.socket)
        if engine.proven(Canary.read(definitions.directory), definitions.content):
            return "reloaded"
        canary = Canary.hatch(definitions.content)
        refused = prepared.caretaker.write_canary(canary.line)
        if refused is not None:
            context.log.warning("no canary could be written (%s)", refused)
        elif engine.prove_reload(canary, definitions.content):
            return "reloaded"
        raise EngineError(f"clamd at {context.config.clamav.socket} did not load the definitions"
                          " on disk; its log says why")
    except EngineError as error:
        if needed or Path(context.config.clamav.socket).exists():
            context.trouble(str(error))
            return "unproven"
        return "none"


def _rescan(context: Context, prepared: Prepared, report: DefinitionsReport) -> None:
    """Start what the change calls for, as a process of its own."""
    if context.options.wait:
        status, output = prepared.successor.finish()
        report.rescan_status = Exit(status) if status in set(Exit) else Exit.FAILED
        try:
            report.rescan = json.loads(output)
        except ValueError:
            report.rescan = {"outcome": "failed", "error": f"rescan-store ended with {status}"}
    elif not context.config.definitions.start_rescan or context.options.no_rescan:
        report.rescan = "off"
    elif report.generation == context.ledger.last_rescan():
        report.rescan = "not needed"
    elif is_held(lock_of(context, "rescan")):
        report.rescan = "running"  # and it will serve this generation before it ends
    else:
        prepared.successor.start()
        report.rescan = "started"


def _rescan_command(context: Context) -> list[str | Path]:
    command: list[str | Path] = [context.script.parent / "rescan-store", "--json"]
    if context.config_path is not None:
        command += ["--config", Path.cwd() / context.config_path]
    return command


def _owner(context: Context, directory: Path) -> Account | None:
    """Return whom freshclam runs as; None: as ourselves."""
    if directory == context.config.own_databases:
        ensure_directory(directory, 0o755, context.account)
    try:
        info = directory.stat()
    except OSError as error:
        raise ImagewardenError(f"{show(directory)}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise ImagewardenError(f"{show(directory)}: not a directory")
    if os.geteuid() != 0:
        if info.st_uid != os.geteuid() and not os.access(directory, os.W_OK):
            raise ImagewardenError(f"{show(directory)} is {_name(info.st_uid)}'s: start"
                                   " update-definitions as root, or as that user")
        return None
    name = context.config.definitions.user
    try:
        return account_of(pwd.getpwnam(name) if name else pwd.getpwuid(info.st_uid))
    except KeyError:
        raise ImagewardenError(f"definitions.user: no such user {name or info.st_uid}") from None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _foretell(context: Context, report: DefinitionsReport) -> DefinitionsReport:
    directory = directory_of(context.config)
    context.log.warning("would run freshclam for %s", show(directory))
    report.freshclam.outcome = "daemon" if freshclam.running(directory) else "unchanged"
    return report


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-rescan", action="store_true", help="do not start a rescan")
    parser.add_argument("--wait", action="store_true",
                        help="run the rescan in the foreground; its status becomes ours")
    parser.add_argument("--jitter", type=duration, default=0.0, metavar="30m",
                        help="sleep a random part of this time first")


JOB = Job(script="update-definitions", name="definitions", run=update, prepare=prepare,
          options=_options, sections=("store", "clamav", "definitions"), changes=True,
          purpose="Fetch new definitions, know what changed, and rescan when something did.")
