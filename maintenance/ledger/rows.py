"""What the ledger tells about images, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from maintenance.verdict import Answer, Verdict

STAMP = ("inode", "size", "mtime_ns", "ctime_ns")
COLUMNS = ("key", *STAMP, "verdict", "signature", "reason", "generation", "checked",
           "missing_since")

Stamp = tuple[int, int, int, int]  # as STAMP
# The key, the four of STAMP, and since when it is missing. What a walk meets has the same
# form, with None at the end: so a million images are compared without naming one of their
# parts, and those that are as they were are simply equal. A plain tuple, because making a
# dataclass of each would take longer than reading it.
Known = tuple[bytes, int, int, int, int, float | None]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as last seen; ``verdict`` None means it was never checked."""

    key: bytes
    stamp: Stamp
    verdict: Verdict | None
    signature: str | None
    reason: str | None
    generation: int | None
    checked: float | None  # epoch seconds
    missing: bool

    @property
    def path(self) -> bytes:
        """Return the path relative to the store."""
        return self.key.replace(b"\0", b"/")

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """Return what stands in COLUMNS, as we wrote it; ValueError when we cannot have."""
        key, inode, size, mtime, ctime, verdict, signature, reason, generation, checked, since = (
            values)
        stamp = (inode, size, mtime, ctime)
        if not (isinstance(key, bytes) and isinstance(checked, float | None)
                and all(isinstance(number, int) for number in stamp)):
            raise ValueError
        return cls(key, stamp, None if verdict is None else Verdict(verdict), signature, reason,
                   generation, checked, since is not None)


@dataclass(frozen=True, slots=True)
class Need:
    """What makes an image due in one run."""

    generation: int
    started: float  # epoch seconds: what was asked since is not asked again
    full: bool = False  # everything, current or not
    min_age: float = 0.0  # seconds; a younger image is due, and waits for a later run

    @property
    def grown(self) -> int:
        """Return the ctime (ns) up to which an image was old enough when the run began."""
        return int((self.started - self.min_age) * 1e9)


@dataclass(frozen=True, slots=True)
class Coverage:
    """A store's images by what is known of them; the first is the sum of the next five."""

    images: int
    clean_current: int
    clean_older: int
    unknown: int
    infected: int
    never: int
    missing: int
    oldest_check: float | None  # epoch seconds
    bytes: int
    bytes_saved: int


@dataclass(frozen=True, slots=True)
class Asked:
    """An image as it was when opened, and what the engine said of it."""

    key: bytes
    stamp: Stamp
    answer: Answer
