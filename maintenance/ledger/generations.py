"""Content snapshots of the definitions, numbered in the order they were met."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from maintenance.ledger.database import reading, sound
from maintenance.ledger.schema import generations, images

DatabaseFacts = Mapping[str, object]  # name, version, signatures, built, sha256

_NEWEST = sa.select(generations).order_by(generations.c.number.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class Generation:
    """One content snapshot; ``checked``: when it was last known to be the newest (epoch)."""

    number: int
    fingerprint: str
    checked: float
    databases: Sequence[DatabaseFacts]


class Generations:
    """The generations that this ledger has met."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def current(self) -> Generation | None:
        """Return the one last seen on disk; None before the first."""
        with reading(self._engine) as connection:
            row = connection.execute(_NEWEST).first()
            return None if row is None else _generation(row)

    def fingerprint(self, number: int) -> str | None:
        """Return what ``number`` stands for; None: this ledger has not met it."""
        query = sa.select(generations.c.fingerprint).where(generations.c.number == number)
        with reading(self._engine) as connection:
            return connection.execute(query).scalar()

    def in_use(self) -> Collection[str]:
        """Return the fingerprints of the generations that images were checked at."""
        used = sa.select(images.c.generation).distinct()
        query = sa.select(generations.c.fingerprint).where(generations.c.number.in_(used))
        with reading(self._engine) as connection:
            return set(connection.execute(query).scalars())

    def met(self, fingerprint: str, engine: str, databases: Sequence[DatabaseFacts],
            confirmed: bool) -> Generation:
        """Return the generation of what is on disk now, numbering it when it is new.

        Databases that went back to an earlier content are a new generation: what
        was checked in between met other signatures. ``confirmed``: freshclam just
        said that nothing newer exists.
        """
        now = time.time()
        with sound(self._engine), self._engine.begin() as connection:
            last = connection.execute(_NEWEST).first()
            if last is not None and last.fingerprint == fingerprint:
                if confirmed:
                    connection.execute(sa.update(generations).values(checked=now)
                                       .where(generations.c.number == last.number))
                return replace(_generation(last), checked=now if confirmed else last.checked)
            made = connection.execute(sa.insert(generations).values(
                fingerprint=fingerprint, engine=engine, created=now, checked=now,
                databases=[dict(one) for one in databases]).returning(generations)).one()
            return _generation(made)


def _generation(row: sa.Row[tuple[object, ...]]) -> Generation:
    return Generation(row.number, row.fingerprint, row.checked, row.databases)
