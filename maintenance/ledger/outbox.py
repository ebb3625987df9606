"""What Zabbix has not accepted yet, in the order in which it came about."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from maintenance.ledger.database import reading
from maintenance.ledger.schema import outbox

_WAITS = outbox.c.set_aside.is_(None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A value that waits; ``number`` grows, and is never used twice."""

    number: int
    key: str  # of the item
    clock: float  # epoch seconds
    value: str


class Outbox:
    """The queue. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, key: str, value: str, clock: float, keep: int) -> None:
        """Queue a value; of its item no more than the newest ``keep`` go on waiting."""
        older = sa.select(outbox.c.number).where(outbox.c.key == key, _WAITS).order_by(
            outbox.c.number.desc()).offset(keep)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(outbox).values(key=key, value=value, clock=clock))
            connection.execute(sa.delete(outbox).where(outbox.c.number.in_(older)))

    def waiting(self, after: int, limit: int, without: Collection[str] = ()) -> Sequence[Waiting]:
        """Return what came after number ``after``, oldest first, but for some items."""
        return self._rows(outbox.c.number > after, outbox.c.key.not_in(without),
                          order=outbox.c.number, limit=limit)

    def newest(self, key: str) -> Waiting | None:
        """Return what came last of one item."""
        return next(iter(self._rows(outbox.c.key == key, order=outbox.c.number.desc(), limit=1)),
                    None)

    def taken(self, numbers: Collection[int]) -> None:
        """Forget what Zabbix has accepted."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(outbox).where(outbox.c.number.in_(numbers)))

    def set_aside(self, number: int, reason: str) -> None:
        """Keep a value, but no longer offer it."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(outbox).where(outbox.c.number == number)
                               .values(set_aside=reason))

    def trim(self, before: float, most: int) -> int:
        """Drop what is older than ``before`` (epoch), and all but the newest ``most``.

        Returns how many values are lost by it.
        """
        first = sa.select(outbox.c.number).order_by(outbox.c.number.desc()).limit(1).offset(most)
        lost = (outbox.c.clock < before) | (outbox.c.number <= first.scalar_subquery())
        with reading(self._engine) as connection:  # mostly there are none: no need to write
            if not connection.execute(sa.select(sa.exists().where(lost))).scalar():
                return 0
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(outbox).where(lost)).rowcount

    def _rows(self, *where: sa.ColumnElement[bool], order: sa.ColumnElement[int],
              limit: int) -> Sequence[Waiting]:
        query = sa.select(outbox).where(_WAITS, *where).order_by(order).limit(limit)
        with reading(self._engine) as connection:
            return [_waiting(row) for row in connection.execute(query)]


def _waiting(row: sa.Row[tuple[object, ...]]) -> Waiting:
    """Return a row as we wrote it; raises ValueError when we cannot have."""
    if not (isinstance(row.key, str) and isinstance(row.value, str)
            and isinstance(row.clock, float)):
        raise ValueError
    return Waiting(row.number, row.key, row.clock, row.value)
