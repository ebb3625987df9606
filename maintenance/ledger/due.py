"""What is due in one run: a few ranges of the ledger's indexes, one after the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from maintenance.ledger.rows import Extent, Need, Rolling
from maintenance.ledger.schema import UNCLEAN, UNSURE, images

_EXTENTS = {Extent.ALL: sa.true(), Extent.UNCLEAN: UNCLEAN, Extent.UNSURE: UNSURE}
_CLEAN = images.c.verdict == sa.literal_column("'clean'")


@dataclass(frozen=True, slots=True)
class Range:
    """Rows that stand together in an index, in its order; no row is in two ranges."""

    condition: sa.ColumnElement[bool]
    order: Sequence[sa.ColumnElement[Any]]


def ranges(need: Need) -> Sequence[Range]:
    """Return what is due, missing and young images included, in the order of the work.

    Never checked, then the oldest: generations grow with time. Equality with a
    generation, or being on one side of it, is what lets an index find ten due images
    among a million, and count them; "any other generation" would walk over them all.
    """
    generation, asked = images.c.generation, images.c.checked < need.started
    by_key, by_time = (images.c.key,), (images.c.checked, images.c.key)
    current = asked & (generation == need.generation)
    if not need.full:
        current &= UNSURE if need.rolling is None else UNSURE | (_CLEAN & rolled(need.rolling))
    other = asked & _EXTENTS[need.extent]
    return (Range(generation.is_(None) & images.c.checked.is_(None), by_key),
            Range(other & (generation < need.generation), (generation, *by_time)),
            Range(other & (generation > need.generation), (generation, *by_time)),
            Range(current, by_time))


def open_to_delta(need: Need, older: int) -> Range:
    """Choose what a scan against what is new since ``older`` may be enough for.

    What is infected is when it is found so again; see ``DeltaScan``.
    """
    clean = _CLEAN if need.rolling is None else _CLEAN & ~rolled(need.rolling)
    known = clean | ((images.c.verdict == sa.literal_column("'infected'"))
                     & images.c.reason.is_(None))
    return Range((images.c.generation == older) & (images.c.checked < need.started) & known,
                 (images.c.checked, images.c.key))


def rolled(rolling: Rolling) -> sa.ColumnElement[bool]:
    """Choose as ``Rolling.has_come`` does."""
    share = 512 + ((images.c.inode.bitwise_and(511) * 31 + images.c.size.bitwise_and(511))
                   .bitwise_and(511))
    return sa.func.coalesce(images.c.full_checked, 0.0) < (
        rolling.today - rolling.span * share / 1024.0)


def young(need: Need) -> sa.ColumnElement[bool]:
    """Choose what waits for a later run; a ctime in the future is a wrong clock, not youth."""
    if need.min_age <= 0:
        return sa.false()
    return (images.c.ctime_ns > need.grown) & (images.c.ctime_ns <= time.time_ns())
