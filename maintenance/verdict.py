"""What is known about an image: never more than an engine really said."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Three-valued: no answer, an error or a limit reached is ``unknown``."""

    CLEAN = "clean"
    INFECTED = "infected"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """One engine's word on one image; ``reason`` explains an unknown one."""

    verdict: Verdict
    signature: str | None = None
    reason: str | None = None


CLEAN = Answer(Verdict.CLEAN)


def infected(signature: str) -> Answer:
    """Return the answer of an engine that found ``signature``."""
    return Answer(Verdict.INFECTED, signature=signature)


def unknown(reason: str) -> Answer:
    """Return the answer when nobody can tell, and why not."""
    return Answer(Verdict.UNKNOWN, reason=reason)
