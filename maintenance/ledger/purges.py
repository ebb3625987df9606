"""Images whose old form a cache may still have, until the cache was told."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from maintenance.ledger.database import reading
from maintenance.ledger.schema import purges


@dataclass(frozen=True, slots=True)
class Purge:
    """One image; ``number`` is never used twice."""

    number: int
    store: str
    key: bytes

    @property
    def path(self) -> bytes:
        """Return the path relative to the store."""
        return self.key.replace(b"\0", b"/")


def note(connection: sa.Connection, store: str, keys: Iterable[bytes]) -> None:
    """Note that images are others by now, or gone, in the transaction that says so."""
    now = time.time()
    connection.execute(sa.insert(purges).prefix_with("OR REPLACE"),
                       [{"store": store, "key": key, "since": now} for key in keys])


class Purges:
    """The queue. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def waiting(self, after: int, limit: int) -> Sequence[Purge]:
        """Return what came after number ``after``, oldest first."""
        query = sa.select(purges.c.number, purges.c.store, purges.c.key).where(
            purges.c.number > after).order_by(purges.c.number).limit(limit)
        with reading(self._engine) as connection:
            return [Purge(*row) for row in connection.execute(query)]

    def count(self) -> int:
        """Return how many wait."""
        with reading(self._engine) as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(purges))
                       .scalar_one())

    def done(self, numbers: Collection[int]) -> None:
        """Forget some; what was noted anew meanwhile has another number."""
        if numbers:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(purges).where(purges.c.number.in_(numbers)))

    def drop(self, before: float) -> int:
        """Drop what is older than ``before`` (epoch); return how many those were."""
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(purges).where(purges.c.since < before)).rowcount
