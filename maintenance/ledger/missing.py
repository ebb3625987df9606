"""Images that are not met any more, and when that is to be believed."""

import time
from collections.abc import Sequence

import sqlalchemy as sa

from maintenance.ledger.database import sound
from maintenance.ledger.schema import images
from maintenance.times import DAY

UNCONFIRMED = 0.0  # as missing_since: gone, but no walk has missed it yet

_SINCE = images.c.missing_since
_ONE = (images.c.store == sa.bindparam("in_store")) & (images.c.key == sa.bindparam("at"))
_DROP = sa.delete(images).where(_ONE, _SINCE > UNCONFIRMED, sa.bindparam("yesterday") >= _SINCE)
_MARK = sa.update(images).where(_ONE, _SINCE.is_(None) | (_SINCE <= UNCONFIRMED)).values(
    missing_since=sa.bindparam("now"))
_VANISH = sa.update(images).where(_ONE, _SINCE.is_(None)).values(missing_since=UNCONFIRMED)


class Missing:
    """What is missing from one store. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine, store: str) -> None:
        self._engine = engine
        self._store = store

    def settle(self, gone: Sequence[tuple[bytes, float | None]]) -> None:
        """Mark what a whole walk did not meet; drop what another missed a day ago already.

        With each key goes since when the row is missing, as the walk found it: what has
        been so for less than a day needs no look. What is done is decided by the row as it
        is now, as somebody may have met the image meanwhile.
        """
        now = time.time()
        with sound(self._engine):
            keys = [key for key, since in gone if since is None or since <= now - DAY]
        if keys:
            with self._engine.begin() as connection:
                for statement, values in ((_DROP, {"yesterday": now - DAY}), (_MARK, {"now": now})):
                    connection.execute(statement, [
                        {"in_store": self._store, "at": key, **values} for key in keys])

    def vanished(self, keys: Sequence[bytes]) -> None:
        """Count images as missing that went between the walk and their scan.

        The walk did meet them: the day until their rows go begins with the next one.
        """
        if keys:
            with self._engine.begin() as connection:
                connection.execute(_VANISH, [
                    {"in_store": self._store, "at": key} for key in keys])
