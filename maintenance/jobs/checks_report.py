"""What became of the values for Zabbix."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from maintenance.errors import Exit
from maintenance.jobs.upload_counts import Folded
from maintenance.monitoring.delivery import Delivery
from maintenance.monitoring.values import Value
from maintenance.times import epoch


@dataclass(frozen=True, slots=True)
class Discovered:
    """What became of discovery, and what the next run must know of it."""

    outcome: str = "unsent"  # sent, current, refused
    fingerprint: str | None = None  # of what was last offered
    sent: str | None = None  # when all of it was last taken

    @classmethod
    def of(cls, stored: object) -> "Discovered":
        """Read it from the result of an earlier run, whatever that holds."""
        if not isinstance(stored, dict):
            return cls()
        sent = str(stored.get("sent"))
        try:
            epoch(sent)
        except ValueError:
            return cls()
        return cls("unsent", str(stored.get("fingerprint")), sent)


@dataclass(slots=True)
class ChecksReport:
    """The result of send-checks."""

    server: str | None = None
    sent: int = 0
    dropped: int = 0
    waiting: int = 0
    set_aside: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refused_items: list[str] = field(default_factory=list)
    discovery: Discovered = field(default_factory=Discovered)
    values: Sequence[Value] | None = None  # shown instead of sent
    form: str | None = None
    complaint: str | None = None
    folded: Folded = field(default_factory=Folded)

    def take(self, outgoing: Delivery) -> None:
        """Take over what a delivery came to."""
        answered = outgoing.zabbix.answered
        self.server = None if answered is None else str(answered)
        self.sent, self.dropped = outgoing.sent, outgoing.dropped
        self.refused = {key: count for key, count in outgoing.refused.items() if count > 0}

    @property
    def shows(self) -> bool:
        """Tell whether the summary is what was asked for, also without a terminal."""
        return self.form is not None

    def status(self) -> Exit:
        """Return 0: what went wrong has been said, and makes it 1."""
        return Exit.DONE

    def members(self) -> dict[str, object]:
        """Return the job's part of its JSON result."""
        shown = {} if self.values is None else {
            "values": [value.members() for value in self.values]}
        return {"server": self.server, "sent": self.sent, "waiting": self.waiting,
                "set_aside": self.set_aside, "dropped": self.dropped, "refused": self.refused,
                "refused_items": self.refused_items, "discovery": asdict(self.discovery),
                "uploads": asdict(self.folded), **shown}

    def summary(self) -> Iterator[str]:
        """Yield the values when they were asked for, else one line."""
        if self.values is not None and self.form == "sender":
            yield from (value.line() for value in self.values)
        elif self.values is not None and self.form == "json":
            yield json.dumps({"values": [value.members() for value in self.values]},
                             ensure_ascii=False)
        elif self.values is not None:
            yield f"{len(self.values)} values would be sent"
        elif self.server is not None:
            yield f"{self.server}: {self.sent} values sent, {self.waiting} wait"

    def alerts(self) -> Iterator[str]:
        """Yield what is lost, and what is refused when that is new."""
        if self.dropped:
            yield f"outbox: {self.dropped} values dropped that Zabbix never took"
        if self.folded.set_aside:
            yield (f"{self.folded.set_aside} lines of the spool of uploads are no counts:"
                   " see set-aside.txt there")
        for one in self.folded.undone:
            yield f"spool of uploads: {one}"
        if self.complaint is not None:
            yield self.complaint
