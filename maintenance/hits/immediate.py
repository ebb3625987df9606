"""One upsert for every hit: for sites with little traffic."""

import os
import time
import weakref
from datetime import date

from maintenance.errors import ImagewardenError
from maintenance.hits.database import Database
from maintenance.hits.line import kept
from maintenance.hits.spool import Spool

AGAIN = 30.0  # seconds for which a database that failed is left alone


class Immediate:
    """Hits go to the database at once; while it is away they wait in the spool."""

    def __init__(self, url: str, spool: Spool) -> None:
        self._database = Database(url)
        self._spool = spool
        self._ready = False
        self._not_before = 0.0
        mine = weakref.ref(self._database)
        os.register_at_fork(after_in_child=lambda: _forget(mine()))

    def write(self, image: str) -> None:
        """Count one hit."""
        if time.monotonic() < self._not_before:
            self._spool.write(image)
            return
        try:
            if not self._ready:
                self._database.prepare()
                self._ready = True
            today = date.fromtimestamp(time.time())  # noqa: DTZ012 - the day that people have here
            self._database.add({(kept(image), today): 1})
        except ImagewardenError:
            self._not_before = time.monotonic() + AGAIN
            self._spool.write(image)


def _forget(database: Database | None) -> None:
    if database is not None:
        database.forget()
