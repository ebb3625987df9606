"""What the ledger tells about images, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from maintenance.verdict import Answer, Verdict

STAMP = ("inode", "size", "mtime_ns", "ctime_ns")
COLUMNS = ("key", *STAMP, "verdict", "signature", "reason", "generation", "checked",
           "full_checked", "missing_since")

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
    full_checked: float | None  # the last time against all definitions
    missing: bool

    @property
    def path(self) -> bytes:
        """Return the path relative to the store."""
        return self.key.replace(b"\0", b"/")

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """Return what stands in COLUMNS, as we wrote it; ValueError when we cannot have."""
        (key, inode, size, mtime, ctime, verdict, signature, reason, generation, checked,
         full_checked, since) = values
        stamp = (inode, size, mtime, ctime)
        if not (isinstance(key, bytes) and isinstance(checked, float | None)
                and all(isinstance(number, int) for number in stamp)):
            raise ValueError
        return cls(key, stamp, None if verdict is None else Verdict(verdict), signature, reason,
                   generation, checked, full_checked, since is not None)


@dataclass(frozen=True, slots=True)
class Rolling:
    """The full scans that come round for what is clean: each image's on a day of its own.

    By its inode and size, one comes round between half of ``span`` seconds and all of them,
    so that a store that was scanned in one night is not due again in one. ``today`` (epoch)
    is the moment by which ages are told; as it stands for a while, the first run after it
    has all of this work, and not every run a little.
    """

    today: float
    span: float

    def has_come(self, row: ImageRow) -> bool:
        """Tell whether an image is to be scanned in full again."""
        inode, size, *_ = row.stamp
        share = 512 + ((inode & 511) * 31 + (size & 511) & 511)
        return (row.full_checked or 0.0) < self.today - self.span * share / 1024


class Extent(Enum):
    """How much of what was checked by other definitions is due."""

    ALL = "everything"
    UNCLEAN = "what was not clean"
    UNSURE = "what nobody could say anything about"


@dataclass(frozen=True, slots=True)
class Need:
    """What makes an image due in one run."""

    generation: int
    started: float  # epoch seconds: what was asked since is not asked again
    full: bool = False  # everything, current or not
    min_age: float = 0.0  # seconds; a younger image is due, and waits for a later run
    rolling: Rolling | None = None  # also what it calls for
    extent: Extent = Extent.ALL

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
    """An image as it was when opened, and what an engine said of it."""

    key: bytes
    stamp: Stamp
    answer: Answer
    full: bool = True  # the engine had all definitions; else only what is new, and that was enough
