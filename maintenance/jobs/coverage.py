"""How far a store is checked: the same members and the same table wherever it is told."""

import time
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from maintenance.ledger.rows import Coverage
from maintenance.times import ago, iso
from maintenance.units import roughly

TIMES = {"oldest_check", "built", "checked", "finished", "last_success"}
SIZES = {"bytes", "bytes_saved"}
# The members that stand in the table, each with the head of its column.
HEADS = {"name": "store", "images": "images", "clean_current": "clean",
         "clean_older": "clean by older\ndefinitions", "unknown": "unknown",
         "infected": "infected", "never": "never\nchecked", "oldest_check": "oldest check"}


def members(known: Coverage | None) -> dict[str, object]:
    """Return what a rescan's result says besides its own counts; None: of no store."""
    if known is None:
        return {"clean_current": None, "clean_older": None, "never": None, "oldest_check": None}
    return {"clean_current": known.clean_current, "clean_older": known.clean_older,
            "never": known.never, "oldest_check": iso(known.oldest_check)}


def row(name: str, known: Coverage) -> dict[str, object]:
    """Return the line of one store, for ``table``."""
    return {"name": name, "images": known.images, "unknown": known.unknown,
            "infected": known.infected, **members(known)}


def table(rows: Sequence[Mapping[str, object]], heads: Mapping[str, str] = HEADS) -> str:
    """Return rows of members for people: large numbers in groups, times with how long ago.

    There has to be a row.
    """
    now = time.time()
    lines = [[_told(key, one[key], now) for key in heads] for one in rows]
    numbers = [all(isinstance(one[key], int | None) for one in rows) for key in heads]
    return tabulate(lines, list(heads.values()), disable_numparse=True, missingval="-",
                    colalign=["right" if number else "left" for number in numbers])


def _told(key: str, value: object, now: float) -> object:
    if isinstance(value, int) and key != "version":
        return roughly(value) if key in SIZES else f"{value:,}"
    return ago(value, now) if isinstance(value, str) and key in TIMES else value
