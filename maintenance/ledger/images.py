"""What the ledger knows about the images of one store."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from maintenance.ledger.database import reading
from maintenance.ledger.missing import Missing
from maintenance.ledger.rows import STAMP, Asked, Coverage, ImageRow, Need, Seen, Stamp
from maintenance.ledger.schema import images
from maintenance.verdict import Verdict

PAGE = 1000
_INSERT = insert(images)
_EXCLUDED = _INSERT.excluded  # the values an upsert came with
_STILL_INFECTED = sa.and_(images.c.verdict == "infected", _EXCLUDED["verdict"] == "unknown",
                          *(images.c[name] == _EXCLUDED[name] for name in STAMP))
_FORGET = {name: None for name in ("verdict", "signature", "reason", "generation", "checked",
                                   "full_checked")}


class Images:
    """The images of one store. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine, store: str) -> None:
        self._engine = engine
        self._store = store
        self._mine = images.c.store == store
        self.missing = Missing(engine, store)

    def in_order(self) -> Iterator[ImageRow]:
        """Yield every row in the order of the walk, a page at a time."""
        yield from self._pages(self._mine, lambda row: (row.key,), (images.c.key,))

    def due(self, need: Need) -> Iterator[ImageRow]:
        """Yield what is due and old enough, page by page: never checked first, then the oldest.

        What is booked meanwhile does not come up again.
        """
        here = self._mine & images.c.missing_since.is_(None) & ~_young(need)
        yield from self._pages(here & images.c.checked.is_(None), lambda row: (row.key,),
                               (images.c.key,))
        yield from self._pages(here & _again(need), lambda row: (row.checked, row.key),
                               (images.c.checked, images.c.key))

    def _pages(self, where: sa.ColumnElement[bool],
               position: Callable[[ImageRow], Sequence[object]],
               order: Sequence[sa.ColumnElement[Any]]) -> Iterator[ImageRow]:
        further: sa.ColumnElement[bool] = sa.true()
        while True:
            page = self._rows(where, further, order=order, limit=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            further = sa.tuple_(*order) > sa.tuple_(*map(sa.literal, position(page[-1])))

    def count_present(self) -> int:
        """Return how many rows are not missing."""
        return self.count(images.c.missing_since.is_(None))

    def count_due(self, need: Need) -> int:
        """Return how many rows are due, the young ones included."""
        return self.count(_due(need))

    def count_young(self, need: Need) -> int:
        """Return how many of those that are due wait for a later run."""
        return self.count(_due(need), _young(need))

    def never_since(self) -> float | None:
        """Return since when (epoch) an image has been as it is, and was never checked so.

        The oldest such moment; None when every image was checked.
        """
        query = sa.select(sa.func.min(images.c.ctime_ns)).where(
            self._mine, images.c.checked.is_(None), images.c.missing_since.is_(None))
        with reading(self._engine) as connection:
            found = connection.execute(query).scalar()
        return None if found is None else int(found) / 1e9

    def with_verdict(self, verdict: Verdict, limit: int) -> Sequence[ImageRow]:
        """Return images in the store that have ``verdict``, in the order of paths."""
        return self._rows(self._mine, images.c.verdict == verdict.value,
                          images.c.missing_since.is_(None), order=(images.c.key,), limit=limit)

    def infected(self) -> Sequence[ImageRow]:
        """Return every image that was found infected, also those that are there no longer."""
        return self._rows(self._mine, images.c.verdict == Verdict.INFECTED.value,
                          order=(images.c.key,), limit=-1)

    def forget(self, key: bytes, stamp: Stamp) -> None:
        """Drop the row of a file that was taken out of the store, not that of a successor."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(images).where(
                self._mine, images.c.key == key, images.c.inode == stamp[0]))

    def find(self, key: bytes) -> ImageRow | None:
        """Return one row."""
        return next(iter(self._rows(self._mine, images.c.key == key, order=(), limit=1)), None)

    def among(self, keys: Sequence[bytes]) -> Sequence[ImageRow]:
        """Return the rows that there are of ``keys``."""
        return self._rows(self._mine, images.c.key.in_(keys), order=(), limit=len(keys))

    def coverage(self, generation: int | None) -> Coverage:
        """Count the images of the store by what is known of them, in one pass."""
        here = images.c.missing_since.is_(None)
        clean = here & (images.c.verdict == "clean")
        current = images.c.generation == generation
        counts = [sa.func.count().filter(one) for one in (
            here, clean & current, clean & (images.c.generation.is_distinct_from(generation)),
            here & (images.c.verdict == "unknown"), here & (images.c.verdict == "infected"),
            here & images.c.verdict.is_(None), ~here)]
        query = sa.select(*counts, sa.func.min(images.c.checked).filter(here),
                          sa.func.coalesce(sa.func.sum(images.c.size).filter(here), 0),
                          sa.func.coalesce(sa.func.sum(images.c.bytes_saved).filter(here), 0)
                          ).select_from(images).where(self._mine)
        with reading(self._engine) as connection:
            found = connection.execute(query).one()
        return Coverage(*found[:7], oldest_check=found[7], bytes=found[8], bytes_saved=found[9])

    def record_seen(self, seen: Sequence[Seen]) -> None:
        """Write what a walk met; a changed image forgets its verdict."""
        fresh = {name: _EXCLUDED[name] for name in (*STAMP, "missing_since")}
        for changed, values in ((False, fresh), (True, {**fresh, **_FORGET})):
            part = [{**_stamped(one.stamp), "store": self._store, "key": one.key,
                     "missing_since": None} for one in seen if one.changed is changed]
            if part:
                with self._engine.begin() as connection:
                    connection.execute(
                        _INSERT.on_conflict_do_update(index_elements=["store", "key"],
                                                      set_=values), part)

    def record_answers(self, answers: Iterable[Asked], generation: int) -> None:
        """Book verdicts of full scans under ``generation``, in one transaction.

        An unchanged infected image about which nobody could say anything stays
        infected, as it was found and with the reason: it is asked about again.
        """
        now = time.time()
        rows = [{**_stamped(one.stamp), "store": self._store, "key": one.key,
                 "verdict": one.answer.verdict.value, "signature": one.answer.signature,
                 "reason": one.answer.reason, "generation": generation, "checked": now,
                 "full_checked": now, "missing_since": None} for one in answers]
        if rows:
            kept = {name: sa.case((_STILL_INFECTED, images.c[name]), else_=_EXCLUDED[name])
                    for name in ("verdict", "signature", "generation", "full_checked")}
            fresh = {name: _EXCLUDED[name]
                     for name in (*STAMP, "reason", "checked", "missing_since")}
            with self._engine.begin() as connection:
                connection.execute(_INSERT.on_conflict_do_update(
                    index_elements=["store", "key"], set_={**kept, **fresh}), rows)

    def count(self, *conditions: sa.ColumnElement[bool]) -> int:
        """Return how many rows of this store meet all ``conditions``."""
        query = sa.select(sa.func.count()).select_from(images).where(self._mine, *conditions)
        with reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def _rows(self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[object]],
              limit: int) -> Sequence[ImageRow]:
        query = sa.select(images).where(*where).order_by(*order).limit(limit)
        with reading(self._engine) as connection:
            return [_row(row) for row in connection.execute(query)]


def _due(need: Need) -> sa.ColumnElement[bool]:
    return images.c.missing_since.is_(None) & (images.c.checked.is_(None) | _again(need))


def _again(need: Need) -> sa.ColumnElement[bool]:
    stale = (images.c.verdict == "unknown") | images.c.reason.is_not(None) | (
        images.c.generation != need.generation)
    asked = images.c.checked < need.started
    return asked if need.full else asked & stale


def _young(need: Need) -> sa.ColumnElement[bool]:
    """Choose what waits for a later run; a ctime in the future is a wrong clock, not youth."""
    if need.min_age <= 0:
        return sa.false()
    return (images.c.ctime_ns > need.grown) & (images.c.ctime_ns <= time.time_ns())


def _row(row: sa.Row[tuple[object, ...]]) -> ImageRow:
    """Return a row as we wrote it; raises ValueError when we cannot have."""
    verdict = None if row.verdict is None else Verdict(row.verdict)
    stamp = (row.inode, row.size, row.mtime_ns, row.ctime_ns)
    if not (isinstance(row.key, bytes) and isinstance(row.checked, float | None)
            and all(isinstance(number, int) for number in stamp)):
        raise ValueError
    return ImageRow(row.key, stamp, verdict, row.signature, row.reason, row.generation,
                    row.checked, row.missing_since is not None)


def _stamped(stamp: Stamp) -> dict[str, int]:
    return dict(zip(STAMP, stamp, strict=True))
