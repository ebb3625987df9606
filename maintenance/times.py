"""Points in time: shown as UTC, measured on the monotonic clock."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Self

DAY = 86400.0  # seconds
_UNITS = ((DAY, "days"), (3600.0, "h"), (60.0, "min"))


def iso(epoch: float | None) -> str | None:
    """Return an epoch time as results show it, such as 2026-11-21T01:00:03Z."""
    return None if epoch is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def epoch(text: str) -> float:
    """Return what ``iso`` was given; ValueError for any other text."""
    return datetime.fromisoformat(text).timestamp()


def ago(text: str, now: float) -> str:
    """Return a time as results show it for people, in UTC too: 2026-11-21 01:00 (3 h ago)."""
    passed = now - epoch(text)
    worth, unit = next((one for one in _UNITS if passed >= 2 * one[0]), _UNITS[-1])
    since = f"{passed // worth:.0f} {unit} ago" if passed >= 0 else "in the future"
    return f"{text[:10]} {text[11:16]} ({since})"


def spoken(seconds: float) -> str:
    """Return a duration for people, such as 12 s or 3 h."""
    worth, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), (1.0, "s"))
    return f"{seconds / worth:,.0f} {unit}"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock: clock changes and ``date -s`` do not move it."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline ``seconds`` from now; 0 means there is none."""
        return cls(time.monotonic() + seconds if seconds else float("inf"))

    @property
    def left(self) -> float:
        """Return the seconds until then, never less than none."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Tell whether it is over."""
        return time.monotonic() >= self.at
