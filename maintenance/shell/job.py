"""What a script in bin/ is made of, and what it gets to work with."""

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from maintenance.accounts import Account
from maintenance.errors import Exit, ImagewardenError, LedgerError, NoRoom
from maintenance.settings import Config
from maintenance.shell.progress import Progress

if TYPE_CHECKING:  # SQLAlchemy takes 200 ms that an upload must not wait for
    from maintenance.ledger.ledger import Ledger
    from maintenance.monitoring.heartbeat import Heartbeat

OUTCOMES = {Exit.DONE: "done", Exit.INCOMPLETE: "incomplete", Exit.INFECTED: "infected",
            Exit.BUSY: "busy"}  # any other status: failed
# BUSY and CONFIG are those of a rescan that was waited for.
SEVERITY = (Exit.FAILED, Exit.CONFIG, Exit.INFECTED, Exit.INCOMPLETE, Exit.REFUSED, Exit.BUSY,
            Exit.DONE)


class Report(Protocol):
    """What a run has found so far; readable at any moment, also when it is stopped."""

    def status(self) -> Exit:
        """Return what the run comes to, as an exit status."""
        ...

    def members(self) -> Mapping[str, object]:
        """Return the job's own part of its JSON result."""
        ...

    def summary(self) -> Iterable[str]:
        """Yield the lines that an admin reads at a terminal."""
        ...

    def alerts(self) -> Iterable[str]:
        """Yield what somebody should hear of, in the log and from cron's mail."""
        ...


@dataclass(slots=True)
class Context:
    """One run: its settings, its options, and what it may use."""

    config: Config  # or what ``Job.settings`` names
    host: str  # as Zabbix knows it
    options: argparse.Namespace
    log: logging.Logger
    progress: Progress
    script: Path  # as started, links resolved: its neighbours are the other scripts
    config_path: str | None  # absolute; None: the usual one
    troubles: list[str] = field(default_factory=list)  # each makes the run a failed one
    run_generation: int | None = None  # what a completed rescan brought the stores to
    account: Account | None = None  # whom a job started by root becomes
    ready: bool = False  # the job's directories are there: its run can be recorded
    prepared: Any = None  # what the job's ``prepare`` leaves to its ``run``
    hands_over: bool = True  # what waits for Zabbix, at its end
    report: Report | None = None  # what is known so far, should the run be stopped
    heartbeat: "Heartbeat | None" = None  # who else is told of the run
    _ledger: "Ledger | None" = None

    @property
    def ledger(self) -> "Ledger":
        """Return the ledger, opened at the first use; raises LedgerError."""
        if self._ledger is None:
            from maintenance.ledger.ledger import Ledger  # noqa: PLC0415 - see above

            self._ledger = Ledger.open(self.config.state)
            self._ledger.notes_purges = bool(self.config.notify.purge_url)
            if self._ledger.rebuilt:
                self.trouble(self._ledger.rebuilt)
        return self._ledger

    def trouble(self, line: str) -> None:
        """Say what failed and go on: the run's status will be 1."""
        self.troubles.append(line)
        self.log.error("%s", line)

    @contextmanager
    def going_on(self, prefix: str = "") -> Iterator[None]:
        """Turn a failure inside the block into a trouble.

        A full disk or a lost ledger is one for the whole run, and ends it.
        """
        try:
            yield
        except (NoRoom, LedgerError):
            raise
        except ImagewardenError as error:
            self.trouble(f"{prefix}{error}")

    def close(self) -> None:
        """Close what was opened."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _no_options(_parser: argparse.ArgumentParser) -> None:
    return


@dataclass(frozen=True, slots=True)
class Job:
    """A script: what it is called, what it takes, and what it does."""

    script: str
    name: str  # in results, item keys, locks and logs
    purpose: str
    run: Callable[[Context], Report]
    options: Callable[[argparse.ArgumentParser], None] = _no_options
    sections: tuple[str, ...] = ()  # of the configuration whose secrets it reads
    settings: type[msgspec.Struct] = Config  # the part of the configuration it looks at
    load: Callable[[str | None], msgspec.Struct] | None = None  # reads it, where not as usual
    changes: bool = False  # takes --dry-run
    records: bool = True  # has a log, a lock, and a row in the ledger for every run
    remembers: bool = True  # opens the ledger
    shows: bool = False  # its output is what it is for, also without a terminal
    # Before privileges are dropped: children of another user can be started here.
    # What they wrote must not be read before ``run``.
    prepare: Callable[[Context], None] | None = None
    locked: Callable[[argparse.Namespace], bool] = lambda options: True
    # Starts other jobs and reads nothing of theirs: stays who it is, because they
    # need root to become their user; keeps the lock only, and says all on stderr.
    resident: bool = False


def worst(statuses: Iterable[Exit]) -> Exit:
    """Return the status that stands for all of ``statuses``."""
    found = set(statuses)
    return next((status for status in SEVERITY if status in found), Exit.DONE)
