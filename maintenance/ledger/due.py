"""What is due in one run: a few ranges of the ledger's indexes, one after the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from maintenance.ledger.rows import Need
from maintenance.ledger.schema import UNSURE, images


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
    return (Range(generation.is_(None) & images.c.checked.is_(None), by_key),
            Range(asked & (generation < need.generation), (generation, *by_time)),
            Range(asked & (generation > need.generation), (generation, *by_time)),
            Range(current if need.full else current & UNSURE, by_time))


def young(need: Need) -> sa.ColumnElement[bool]:
    """Choose what waits for a later run; a ctime in the future is a wrong clock, not youth."""
    if need.min_age <= 0:
        return sa.false()
    return (images.c.ctime_ns > need.grown) & (images.c.ctime_ns <= time.time_ns())
