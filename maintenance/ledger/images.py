"""What the ledger knows about the images of one store."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

import sqlalchemy as sa

from maintenance.ledger import purges
from maintenance.ledger.coverage import covered
from maintenance.ledger.database import plain_rows, reading
from maintenance.ledger.due import open_to_delta, ranges, rolled, young
from maintenance.ledger.missing import Missing
from maintenance.ledger.rows import (
    COLUMNS,
    STAMP,
    Asked,
    Coverage,
    ImageRow,
    Known,
    Need,
    Rolling,
    Stamp,
)
from maintenance.ledger.schema import UNCLEAN, images
from maintenance.ledger.upserts import ANSWERED, SEEN
from maintenance.verdict import Verdict

PAGE = 1000
_HERE = images.c.missing_since.is_(None)


class Images:
    """The images of one store. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine, store: str, notes_purges: bool = False) -> None:
        self._engine = engine
        self._store = store
        self._notes_purges = notes_purges
        self._mine = images.c.store == store
        self.missing = Missing(engine, store)

    def pages(self) -> Iterator[list[Known]]:
        """Yield every row in the order of the walk, a page at a time."""
        columns = [images.c[name] for name in ("key", *STAMP, "missing_since")]
        query = sa.select(*columns).where(self._mine).order_by(images.c.key).limit(PAGE)
        further: sa.ColumnElement[bool] = sa.true()
        while True:
            with reading(self._engine) as connection:
                page = plain_rows(connection, query.where(further))
                keys = [row[0] for row in page]
                # Whoever merges this with a tree relies on the order; text would sort before bytes.
                if keys and (not isinstance(keys[0], bytes) or keys != sorted(keys)):
                    raise ValueError
            if page:
                yield page
            if len(page) < PAGE:
                return
            further = images.c.key > page[-1][0]

    def due(self, need: Need) -> Iterator[ImageRow]:
        """Yield what is due and old enough, page by page: never checked first, then the oldest.

        What is booked meanwhile does not come up again.
        """
        for one in ranges(need):
            yield from self._pages(one.order, one.condition, _HERE, ~young(need))

    def older(self, need: Need) -> Sequence[int]:
        """Return the generations before that of ``need`` at which something due was checked."""
        query = sa.select(images.c.generation).distinct().where(
            self._mine, _HERE, images.c.generation < need.generation,
            images.c.checked < need.started)
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def due_by_delta(self, need: Need, older: int) -> Iterator[ImageRow]:
        """Yield what a delta from generation ``older`` may be enough for, the oldest first.

        As ``due``: what is booked meanwhile does not come up again.
        """
        one = open_to_delta(need, older)
        yield from self._pages(one.order, one.condition, _HERE, ~young(need))

    def count_by_delta(self, need: Need, older: int) -> int:
        """Return how many ``due_by_delta`` yields."""
        return self.count(open_to_delta(need, older).condition, _HERE, ~young(need))

    def signatures(self, older: int) -> set[str]:
        """Return the signatures by which images were found infected at a generation."""
        query = sa.select(images.c.signature).distinct().where(
            self._mine, UNCLEAN, images.c.verdict == Verdict.INFECTED.value, _HERE,
            images.c.generation == older)
        with reading(self._engine) as connection:
            return {str(name) for name in connection.execute(query).scalars() if name}

    def any_has_come_round(self, rolling: Rolling) -> bool:
        """Tell whether a full scan of some clean image has."""
        query = sa.select(sa.literal(1)).where(
            self._mine, images.c.verdict == Verdict.CLEAN.value, rolled(rolling), _HERE).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(query).first() is not None

    def _pages(self, order: Sequence[sa.ColumnElement[Any]], *where: sa.ColumnElement[bool]
               ) -> Iterator[ImageRow]:
        further: sa.ColumnElement[bool] = sa.true()
        while True:
            page = self._rows(*where, further, order=order, limit=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            last = [sa.literal(getattr(page[-1], column.name)) for column in order]
            further = sa.tuple_(*order) > sa.tuple_(*last)

    def count_present(self) -> int:
        """Return how many rows are not missing."""
        return self.count(_HERE)

    def count_due(self, need: Need) -> int:
        """Return how many rows are due, the young ones included."""
        return self._count(need, _HERE)

    def count_young(self, need: Need) -> int:
        """Return how many of those that are due wait for a later run."""
        return self._count(need, _HERE, young(need)) if need.min_age > 0 else 0

    def count_due_among(self, keys: Sequence[bytes], need: Need, *, missing: bool) -> int:
        """Return how many of ``keys`` are due; ``missing``: or would be, were they there."""
        return self._count(need, images.c.key.in_(keys), ~_HERE if missing else _HERE)

    def never_since(self) -> float | None:
        """Return since when (epoch) an image has been as it is, and was never checked so.

        The oldest such moment; None when every image was checked.
        """
        query = sa.select(sa.func.min(images.c.ctime_ns)).where(
            self._mine, images.c.generation.is_(None), images.c.checked.is_(None), _HERE)
        with reading(self._engine) as connection:
            found = connection.execute(query).scalar()
        return None if found is None else int(found) / 1e9

    def with_verdict(self, verdict: Verdict) -> Iterator[ImageRow]:
        """Yield the images in the store that have ``verdict``, in the order of paths."""
        yield from self._pages((images.c.key,), UNCLEAN, images.c.verdict == verdict.value, _HERE)

    def infected(self) -> Iterator[ImageRow]:
        """Yield every image that was found infected, also those that are there no longer."""
        yield from self._pages((images.c.key,), UNCLEAN,
                               images.c.verdict == Verdict.INFECTED.value)

    def forget(self, key: bytes, stamp: Stamp) -> None:
        """Drop the row of a file that was taken out of the store, not that of a successor."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(images).where(
                self._mine, images.c.key == key, images.c.inode == stamp[0]))
            if self._notes_purges:
                purges.note(connection, self._store, [key])

    def find(self, key: bytes) -> ImageRow | None:
        """Return one row."""
        return next(iter(self._rows(images.c.key == key, order=(), limit=1)), None)

    def among(self, keys: Sequence[bytes]) -> Sequence[ImageRow]:
        """Return the rows that there are of ``keys``."""
        return self._rows(images.c.key.in_(keys), order=(), limit=len(keys))

    def coverage(self, generation: int | None) -> Coverage:
        """Count the images of the store by what is known of them, in one pass."""
        with reading(self._engine) as connection:
            return covered(connection, self._mine, generation)

    def record_seen(self, seen: Sequence[Known]) -> None:
        """Write what is new or changed: it is here, in this form, and was never checked."""
        if seen:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(SEEN, [(self._store, *one[:5]) for one in seen])

    def record_back(self, keys: Sequence[bytes]) -> None:
        """Write that images that were missing are here again, as they were."""
        if keys:
            back = sa.update(images).where(self._mine, images.c.key == sa.bindparam("at")).values(
                missing_since=None)
            with self._engine.begin() as connection:
                connection.execute(back, [{"at": key} for key in keys])

    def record_answers(self, answers: Iterable[Asked], generation: int) -> None:
        """Book verdicts under ``generation``, in one transaction.

        An unchanged infected image about which nobody could say anything stays
        infected, as it was found and with the reason: it is asked about again.
        """
        now = time.time()
        rows = [{**_stamped(one.stamp), "store": self._store, "key": one.key,
                 "verdict": one.answer.verdict.value, "signature": one.answer.signature,
                 "reason": one.answer.reason, "generation": generation, "checked": now,
                 "full_checked": now if one.full else None, "missing_since": None}
                for one in answers]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(ANSWERED, rows)

    def count(self, *conditions: sa.ColumnElement[bool]) -> int:
        """Return how many rows of this store meet all ``conditions``."""
        with reading(self._engine) as connection:
            return int(connection.execute(self._counting(*conditions)).scalar_one())

    def _count(self, need: Need, *conditions: sa.ColumnElement[bool]) -> int:
        counts = [self._counting(one.condition, *conditions).scalar_subquery()
                  for one in ranges(need)]
        with reading(self._engine) as connection:
            return int(connection.execute(sa.select(reduce(add, counts))).scalar_one())

    def _counting(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
        return sa.select(sa.func.count()).select_from(images).where(self._mine, *conditions)

    def _rows(self, *where: sa.ColumnElement[bool], order: Sequence[sa.ColumnElement[object]],
              limit: int) -> Sequence[ImageRow]:
        columns = [images.c[name] for name in COLUMNS]
        query = sa.select(*columns).where(self._mine, *where).order_by(*order).limit(limit)
        with reading(self._engine) as connection:
            return [ImageRow.of(row) for row in connection.execute(query)]


def _stamped(stamp: Stamp) -> dict[str, int]:
    return dict(zip(STAMP, stamp, strict=True))
