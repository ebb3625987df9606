"""What a run leaves behind: its JSON object, its row in the ledger, its status."""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from maintenance.errors import Exit, ImagewardenError
from maintenance.shell.job import OUTCOMES, Context, Job, Report, worst
from maintenance.times import iso

SIGNALLED = 128  # from here on a status names the signal that ended the run


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    job: Job
    started: float  # epoch seconds
    seconds: float
    status: int
    error: str | None
    report: Report | None

    @classmethod
    def of(cls, job: Job, started: float, seconds: float, report: Report | None,
           troubles: list[str], signalled: int | None) -> "Ending":
        """Weigh what happened: signal, 1, 4, 3, 0 in that order."""
        own = [] if report is None else [report.status()]
        status = worst([*own, *([Exit.FAILED] if troubles else [])])
        return cls(job, started, seconds, signalled or int(status),
                   "; ".join(troubles) or None, report)

    @property
    def outcome(self) -> str:
        """Return the one word for it."""
        closed = getattr(self.report, "closed", False)
        word = OUTCOMES.get(Exit(self.status), "failed") if self.status < SIGNALLED else "failed"
        return "closed" if closed and word == "done" else word

    def members(self, host: str) -> dict[str, object]:
        """Return the JSON object of the run."""
        common = {"job": self.job.name, "outcome": self.outcome,
                  "started": iso(self.started), "seconds": round(self.seconds, 3), "host": host}
        error = {} if self.error is None else {"error": self.error}
        return {**common, **error, **({} if self.report is None else self.report.members())}


def record(ending: Ending, context: Context, members: Mapping[str, object]) -> str | None:
    """Put the run into the ledger, and the outbox; return why that failed."""
    from maintenance.ledger.ledger import Run  # noqa: PLC0415 - not for uploads: SQLAlchemy

    try:
        ledger = context.ledger
        ledger.record_run(
            Run(ending.job.name, ending.started, time.time(), ending.outcome, ending.status,
                dict(members), context.run_generation),
            send=bool(context.config.zabbix.servers))
    except ImagewardenError as error:
        return str(error)
    return None


def show_json(members: Mapping[str, object]) -> None:
    """Print the object."""
    show_lines([json.dumps(members, ensure_ascii=False)])


def show_lines(lines: Iterable[str]) -> None:
    """Print lines; a reader that went away is not our failure."""
    try:
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
