"""What an update of the definitions came to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from maintenance.clamav import freshclam
from maintenance.errors import Exit
from maintenance.shell.job import worst
from maintenance.shell.result import SIGNALLED
from maintenance.times import iso

LINES = 20  # of freshclam's last ones that a result shows
Proof = Literal["reloaded", "unproven", "none"]  # that a running clamd has what is on disk
Fetched = Literal["changed", "unchanged", "cool-down", "daemon", "failed"]


@dataclass(slots=True)
class Freshclam:
    """freshclam's part: ``status`` is its own, None when it did not run."""

    outcome: Fetched = "failed"
    status: int | None = None
    until: float | None = None  # epoch; the end of a cool-down
    last_lines: list[str] = field(default_factory=list)
    refuser: str | None = None  # who begins a cool-down, if it is known
    stopped: bool = False  # by somebody, which its status does not say

    def judge(self, *, differs: bool) -> None:
        """Decide by content what a run came to; freshclam's status only explains."""
        if differs:
            self.outcome = "changed"
        elif self.until is not None and self.status in freshclam.REFUSED:
            self.outcome = "cool-down"
        else:
            self.outcome = "failed" if self.status or self.stopped else "unchanged"

    def explained(self) -> str:
        """Return what its status means, with what failed and why."""
        if self.stopped:
            return "freshclam failed: somebody stopped it"
        status = self.status or 0
        meaning = ("it was killed" if status > SIGNALLED else
                   freshclam.STATUSES.get(status, "see its lines in the log"))
        detail = freshclam.detail(self.last_lines)
        return (f"freshclam failed with status {status}: {meaning}"
                f"{f' ({detail})' if detail else ''}")


@dataclass(slots=True)
class DefinitionsReport:
    """The result of update-definitions, filled in while it works."""

    changed: bool = False
    generation: int | None = None
    databases: list[dict[str, object]] = field(default_factory=list)
    freshclam: Freshclam = field(default_factory=Freshclam)
    engine: Proof = "none"
    rescan: str | Mapping[str, object] = "off"
    rescan_status: Exit = Exit.DONE  # of one that was waited for
    notices: list[str] = field(default_factory=list)  # what somebody should hear of

    def status(self) -> Exit:
        """Return the status of the rescan that was waited for; troubles come on top."""
        return worst([self.rescan_status])

    def members(self) -> dict[str, object]:
        """Return the job's part of its JSON result."""
        fetched = self.freshclam
        return {"changed": self.changed, "generation": self.generation,
                "databases": self.databases,
                "freshclam": {"outcome": fetched.outcome, "status": fetched.status,
                              "until": iso(fetched.until), "last_lines": fetched.last_lines},
                "engine": self.engine, "rescan": self.rescan, "notices": list(self.alerts())}

    def summary(self) -> Iterator[str]:
        """Yield what an admin wants to know first."""
        yield f"freshclam: {self.freshclam.outcome}" + (
            f" until {iso(self.freshclam.until)}" if self.freshclam.until else "")
        for one in self.databases:
            before = f"{one['from']} -> " if one["from"] not in {None, one["to"]} else ""
            version = "" if one["to"] is None else f" version {before}{one['to']}"
            yield f"{one['name']}:{version} {one['signatures']} signatures"
        if self.generation is not None:
            yield (f"generation {self.generation}{' (new)' if self.changed else ''},"
                   f" engine {self.engine}")
        if isinstance(self.rescan, str):
            yield f"rescan: {self.rescan}"
        else:
            yield f"rescan: {self.rescan.get('outcome')}, status {int(self.rescan_status)}"

    def alerts(self) -> Iterator[str]:
        """Yield what is no failure yet, and may become one; failures are troubles."""
        yield from self.notices
        if self.freshclam.until is not None:
            yield (f"{self.freshclam.refuser or 'the mirror'} refuses us until"
                   f" {iso(self.freshclam.until)}")
