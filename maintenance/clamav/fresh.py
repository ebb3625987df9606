"""Which of millions of digests are new, in bounded memory."""

from array import array
from collections.abc import Callable, Sequence

MOST = 2**20  # beyond it nothing is small any more
_PIECE = 2**19  # digests in a set at a time: 100 bytes of memory each
_SLACK = 2**15  # how far insertions may have moved a line within its file


class TooMany(Exception):
    """More than MOST are new."""


def fresh(digests: "array[int]", known: Sequence[Callable[[], "array[int]"]]) -> "array[int]":
    """Return the positions of those ``digests`` that none of ``known`` has.

    The first of ``known`` is best the one most like them. Raises TooMany.
    """
    new: set[int] = set()
    left: set[int] = set()
    alike = known[0]() if known else array("Q")
    for start in range(0, len(digests), _PIECE):
        piece = set(digests[start:start + _PIECE])
        piece.difference_update(alike[max(0, start - _SLACK):start + _PIECE + _SLACK])
        left |= piece
        if len(left) > MOST - _PIECE:
            new |= _without(left, known)
            left = set()
        if len(new) > MOST:
            raise TooMany
    new |= _without(left, known)
    return array("I", (at for at, digest in enumerate(digests) if digest in new) if new else ())


def _without(digests: set[int], known: Sequence[Callable[[], "array[int]"]]) -> set[int]:
    for one in known:
        if digests:
            digests.difference_update(one())
    return digests
