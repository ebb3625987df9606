"""What the ledger knows of the optimiser's work in one store."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa

from maintenance.ledger import purges
from maintenance.ledger.database import reading
from maintenance.ledger.rows import STAMP, Stamp
from maintenance.ledger.schema import images

# Each page is one pass over the rows of the store, for there is no index by size: it would
# have every first walk write all over the file, which takes five times as long, and no pass
# takes long beside the work on the images of a page.
PAGE = 5000
INFECTED = "infected"

_HERE = images.c.missing_since.is_(None)
_INFECTED = images.c.verdict.is_not_distinct_from("infected")
Keys = Sequence[bytes] | None  # of the images that are meant; None: all of the store


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that is due; the optimiser's part of its row is from an earlier run."""

    key: bytes
    stamp: Stamp
    expected: bytes | None  # the SHA-256 that means: nothing to do after all
    kept_reason: str | None  # and why it was kept then
    saved: int  # bytes, in the form it has now

    @property
    def path(self) -> bytes:
        """Return the path relative to the store."""
        return self.key.replace(b"\0", b"/")


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an image; ``reason`` None: it is as this recipe makes it.

    The SHA-256 lets the image be known again after a chown, a touch or a restore;
    None where the reason does not lie in its content.
    """

    key: bytes
    stamp: Stamp
    sha256: bytes | None
    reason: str | None
    saved: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How the images of a store stand to the recipe."""

    due: int
    current: int
    kept: Mapping[str, int]  # by reason


class Optimized:
    """The images of one store under one recipe. Every method is its own short transaction.

    An image is in step when it has the size, mtime and ctime that it was left with
    under this recipe. All others are due, but for infected ones.
    """

    def __init__(self, engine: sa.Engine, store: str, recipe: str, notes_purges: bool = False
                 ) -> None:
        self._engine = engine
        self._store = store
        self._notes_purges = notes_purges
        self._recipe = recipe
        self._mine = images.c.store == store
        self._dealt_with = sa.and_(
            images.c.recipe.is_not(None),
            images.c.optimized_size.is_not_distinct_from(images.c.size),
            images.c.optimized_mtime_ns.is_not_distinct_from(images.c.mtime_ns),
            images.c.optimized_ctime_ns.is_not_distinct_from(images.c.ctime_ns))
        self._in_step = sa.and_(images.c.recipe.is_not_distinct_from(recipe), self._dealt_with)

    def tally(self, keys: Keys = None) -> Tally:
        """Count images by how they stand, in one pass."""
        due = sa.case((_INFECTED | self._in_step, 0), else_=1)
        reason = sa.case((_INFECTED, INFECTED), (self._in_step, images.c.kept_reason))
        query = (sa.select(due, reason, sa.func.count())
                 .where(self._mine, _HERE, _among(keys)).group_by(due, reason))
        with reading(self._engine) as connection:
            found = {(bool(due), reason): int(count)
                     for due, reason, count in connection.execute(query)}
        kept = {str(reason): count for (_, reason), count in found.items() if reason is not None}
        return Tally(found.get((True, None), 0), found.get((False, None), 0), kept)

    def due(self, keys: Keys = None, again: int | None = None) -> Iterator[Candidate]:
        """Yield what is due, page by page, the largest first.

        After what is new or changed comes what only another recipe has dealt with: little
        is left to gain there. ``again``: at most so many of those; None: all.
        """
        yield from self._due(sa.not_(self._dealt_with), keys)
        yield from islice(self._due(self._dealt_with, keys), again)

    def _due(self, which: sa.ColumnElement[bool], keys: Keys) -> Iterator[Candidate]:
        order = (images.c.size, images.c.key)
        query = (sa.select(images).where(self._mine, _HERE, ~_INFECTED, ~self._in_step, which,
                                         _among(keys))
                 .order_by(*(column.desc() for column in order)).limit(PAGE))
        further: sa.ColumnElement[bool] = sa.true()
        while True:
            with reading(self._engine) as connection:
                page = [self._candidate(row) for row in connection.execute(query.where(further))]
            yield from page
            if len(page) < PAGE:
                return
            further = sa.tuple_(*order) < sa.tuple_(sa.literal(page[-1].stamp[1]),
                                                    sa.literal(page[-1].key))

    def settle(self, settled: Sequence[Settled]) -> None:
        """Record what became of images, where they are still the same."""
        self._update([(one.key, one.stamp, {
            **self._facts(one), "optimized_ctime_ns": one.stamp[3]}) for one in settled])

    def intend(self, settled: Settled, size: int) -> None:
        """Record what an image is about to be replaced with.

        A run that is killed before it comes to ``replaced`` leaves what the next one
        knows its work by; killed before the image was replaced, it leaves it due.
        """
        self._update([(settled.key, settled.stamp, {
            **self._facts(settled), "optimized_size": size, "optimized_ctime_ns": None})])

    def replaced(self, settled: Settled, now: Stamp, generation: int | None) -> None:
        """Record that it was replaced; ``generation``: the one its new form is clean at."""
        checked = {} if generation is None else {
            "verdict": "clean", "signature": None, "reason": None, "generation": generation,
            "checked": time.time(), "full_checked": time.time()}
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(images).where(self._mine, images.c.key == settled.key,
                                        images.c.sha256 == settled.sha256)
                .values(**dict(zip(STAMP, now, strict=True)), optimized_ctime_ns=now[3],
                        missing_since=None, **checked))
            if self._notes_purges:
                purges.note(connection, self._store, [settled.key])

    def _facts(self, settled: Settled) -> dict[str, object]:
        return {"recipe": self._recipe, "optimized_size": settled.stamp[1],
                "optimized_mtime_ns": settled.stamp[2], "sha256": settled.sha256,
                "kept_reason": settled.reason, "bytes_saved": settled.saved}

    def _update(self, changes: Sequence[tuple[bytes, Stamp, dict[str, object]]]) -> None:
        if not changes:
            return
        same = [images.c[name] == sa.bindparam(f"was_{name}") for name in STAMP]
        statement = sa.update(images).where(
            self._mine, images.c.key == sa.bindparam("was_key"), *same).values(
            {name: sa.bindparam(f"new_{name}") for name in changes[0][2]})
        with self._engine.begin() as connection:
            connection.execute(statement, [
                {"was_key": key, **{f"was_{name}": value
                                    for name, value in zip(STAMP, stamp, strict=True)},
                 **{f"new_{name}": value for name, value in values.items()}}
                for key, stamp, values in changes])

    def _candidate(self, row: sa.Row[Any]) -> Candidate:
        """Return a row as we wrote it; raises ValueError when we cannot have."""
        stamp = (row.inode, row.size, row.mtime_ns, row.ctime_ns)
        if not (isinstance(row.key, bytes) and isinstance(row.sha256, bytes | None)
                and all(isinstance(number, int) for number in (*stamp, row.bytes_saved))):
            raise ValueError
        ours = row.optimized_size == row.size
        expected = row.sha256 if ours and row.recipe == self._recipe else None
        return Candidate(row.key, stamp, expected, row.kept_reason,
                         row.bytes_saved if ours else 0)


def _among(keys: Keys) -> sa.ColumnElement[bool]:
    return sa.true() if keys is None else images.c.key.in_(keys)
