"""Images that are not met any more, and when that is to be believed."""

import time
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from maintenance.ledger.schema import images, missing
from maintenance.times import DAY

UNCONFIRMED = 0.0  # as missing_since: gone, but no walk has missed it yet


class Missing:
    """What is missing from one store. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine, store: str) -> None:
        self._engine = engine
        self._store = store
        self._mine = images.c.store == store

    def note(self, keys: Sequence[bytes]) -> None:
        """Remember what this walk did not meet, for ``settle``."""
        if keys:
            with self._engine.begin() as connection:
                connection.execute(insert(missing).on_conflict_do_nothing(),
                                   [{"store": self._store, "key": key} for key in keys])

    def forget(self) -> None:
        """Drop the notes of a walk that is not to be believed, or that died."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(missing).where(missing.c.store == self._store))

    def settle(self) -> None:
        """Mark what the walk did not meet; drop what another walk missed a day ago already."""
        now = time.time()
        noted = sa.select(missing.c.key).where(missing.c.store == self._store)
        here = self._mine & images.c.key.in_(noted)
        since = images.c.missing_since
        with self._engine.begin() as connection:
            connection.execute(sa.delete(images).where(
                here, since > UNCONFIRMED, since <= now - DAY))
            connection.execute(sa.update(images).where(
                here, since.is_(None) | (since <= UNCONFIRMED)).values(missing_since=now))
            connection.execute(sa.delete(missing).where(missing.c.store == self._store))

    def vanished(self, keys: Sequence[bytes]) -> None:
        """Count images as missing that went between the walk and their scan.

        The walk did meet them: the day until their rows go begins with the next one.
        """
        if keys:
            with self._engine.begin() as connection:
                connection.execute(
                    sa.update(images).where(self._mine, images.c.key == sa.bindparam("k"),
                                            images.c.missing_since.is_(None))
                    .values(missing_since=UNCONFIRMED), [{"k": key} for key in keys])
