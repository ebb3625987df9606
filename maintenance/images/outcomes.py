"""What came of one image."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Smaller:
    """Finished, verified bytes; ``result`` is a sealed descriptor, positioned at 0."""

    result: int
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Nothing is to be done; reasons are few, so that they can be counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """It could not be read to its end, or reading it cost a worker its life."""

    reason: str


Outcome = Smaller | Kept | Damaged


class LeaveAlone(Exception):
    """Inside a worker: the image is kept, for this reason."""


class Broken(Exception):
    """Inside a worker: the image is damaged, in this way."""
