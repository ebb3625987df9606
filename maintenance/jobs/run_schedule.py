"""run-schedule: the jobs on their times where there is no cron."""

import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from maintenance import keeper
from maintenance.errors import Exit, ImagewardenError, ToolError
from maintenance.jobs.timetable import Timetable
from maintenance.programs import Child, How
from maintenance.shell.job import Context, Job
from maintenance.text import show

# Job, as in [schedule], and its script.
SCRIPTS = {"definitions": "update-definitions", "rescan": "rescan-store",
           "optimize": "optimize-images", "checks": "send-checks", "hits": "flush-hits"}
HANDED_ON = ("TZ", "TMPDIR", "IMAGEWARDEN_CONFIG")  # of our environment, to the jobs
TICK = 1.0  # seconds
UNSTARTABLE = 127
ORDINARY = {Exit.DONE, Exit.BUSY}


@dataclass(slots=True)
class ScheduleReport:
    """What was started, and how it last ended."""

    runs: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)

    def status(self) -> Exit:
        """Return 0: what jobs end with is theirs."""
        return Exit.DONE

    def members(self) -> Mapping[str, object]:
        """Return the runs of each job."""
        return {"runs": [{"job": job, "started": started, "last_status": self.statuses.get(job)}
                         for job, started in self.runs.items()]}

    def summary(self) -> Iterator[str]:
        """Yield nothing: all has been said in its time."""
        yield from ()

    def alerts(self) -> Iterator[str]:
        """Yield nothing: jobs speak for themselves."""
        yield from ()


class Troupe:
    """The jobs that run: one child each, beside each other.

    What a job leaves running, the rescan that new definitions start, goes on
    under its keeper: it is nobody's run here, but it ends with us.
    """

    def __init__(self, context: Context, report: ScheduleReport) -> None:
        """Know the scripts; start nothing."""
        self._context, self._report = context, report
        self._running: dict[str, Child] = {}
        self._outlived: list[Child] = []
        self._told: set[str] = set()  # whose missed times were spoken of
        self._nowhere = Path(os.devnull).open("wb")  # noqa: SIM115 - as long as we
        self._how = How(outlived=True, environment={
            name: os.environ[name] for name in HANDED_ON if name in os.environ})

    def start(self, name: str) -> None:
        """Start a job; one that still runs is left alone. Raises ToolError."""
        if name in self._running:
            if name not in self._told:
                self._context.log.warning("%s still runs at its next time: left alone", name)
                self._told.add(name)
            return
        self._context.log.info("%s starts", name)
        self._running[name] = Child(command(self._context, name), self._how, self._nowhere,
                                    sys.stderr.buffer)
        self._report.runs[name] = self._report.runs.get(name, 0) + 1

    def wait(self, seconds: float) -> None:
        """Wait until a job ends, or no longer than this; raises ToolError when one is lost."""
        ready, _, _ = select.select([child.news for child in self._running.values()], [], [],
                                    seconds)
        for name, child in list(self._running.items()):
            if child.news in ready:
                self._conclude(name, child)
        self._outlived = [child for child in self._outlived if not _over(child)]
        _reap_orphans({child.pid for child in (*self._running.values(), *self._outlived)})

    def _conclude(self, name: str, child: Child) -> None:
        try:
            status = child.result()
        except ToolError as error:
            raise ToolError(f"{name}: {error}") from None
        if status is None:
            return
        if status == UNSTARTABLE:
            raise ToolError(f"{name}: {show(script_of(self._context, name))} cannot be started")
        log = self._context.log.info if status in ORDINARY else self._context.log.warning
        log("%s ended with status %d", name, status)
        self._report.statuses[name] = status
        self._told.discard(name)
        self._outlived.append(self._running.pop(name))

    def close(self) -> None:
        """End all that runs, at the same time."""
        children = [*self._running.values(), *self._outlived]
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end()
        keeper.clear_away()  # what a killed keeper had in its care, or a start that was cut short
        self._nowhere.close()


def _over(child: Child) -> bool:
    if child.lost:
        raise ToolError(f"the keeper of a rescan (pid {child.pid}) was killed")
    if child.ended:
        child.end()
    return child.ended


def _reap_orphans(own: set[int]) -> None:
    """Take note of the dead who became our children: the first process of a container has them."""
    options = os.WEXITED | os.WNOHANG
    try:
        while (found := os.waitid(os.P_ALL, 0, options | os.WNOWAIT)) is not None:
            if found.si_pid in own:
                return  # looked at in the next round
            os.waitid(os.P_PID, found.si_pid, options)
    except ChildProcessError:
        return


def run_schedule(context: Context) -> ScheduleReport:
    """Start every job on its times, until told to stop or something of ours fails."""
    report = ScheduleReport()
    context.report = report
    keeper.adopt()
    with closing(Troupe(context, report)) as troupe:
        timetable = Timetable(troupe.start)
        for name in SCRIPTS:
            script = script_of(context, name)
            if not os.access(script, os.X_OK):
                raise ImagewardenError(f"{name}: {show(script)} is not there or cannot be started")
            times = getattr(context.config.schedule, name)
            if context.options.dry_run:
                context.log.warning("would start %s %s", name, times)
            timetable.add(name, times)
        while not context.options.dry_run:
            timetable.tick()
            troupe.wait(TICK)
    return report


def script_of(context: Context, name: str) -> Path:
    """Return the script of a job: a neighbour of ours."""
    return context.script.parent / SCRIPTS[name]


def command(context: Context, name: str) -> list[str]:
    """Return how a job is started; its JSON goes nowhere, and no bar garbles a terminal."""
    options = context.options
    words = [str(script_of(context, name)), "--json", "--log-format", options.log_format]
    words += ["--verbose"] if options.verbose else ["--quiet"] if options.quiet else []
    if context.config_path is not None:
        words += ["--config", context.config_path]
    return words


JOB = Job(script="run-schedule", name="schedule", run=run_schedule, changes=True, remembers=False,
          resident=True, purpose="Start the jobs on the times of [schedule] where there is no cron,"
          ' in a container say. What runs "every" so often first runs at once.')
