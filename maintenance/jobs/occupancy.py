"""A store is worked by one host: a lock in its quarantine says by which."""

import os
from contextlib import ExitStack

from maintenance.errors import Busy, ImagewardenError
from maintenance.jobs.quarantines import quarantine_of
from maintenance.jobs.taking import wanted
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.shell.lock import only_one
from maintenance.store.quarantine import Quarantine


class Occupancy:
    """The quarantines of one run over whole stores, for as long as ``stack`` lasts."""

    def __init__(self, context: Context, stack: ExitStack) -> None:
        self._context, self._stack = context, stack
        self._locked: set[int] = set()  # one quarantine may serve several stores

    def of(self, store: Store, now: float) -> Quarantine | None:
        """Take ``store``, and open its quarantine; None when that cannot be had.

        What a killed run left half taken is settled. Raises Busy.
        """
        if self._context.options.dry_run:
            return None
        with ExitStack() as opening:
            try:
                quarantine = opening.enter_context(
                    quarantine_of(self._context.config, store, make=True))
                self._lock(quarantine, now)
                with quarantine.locked():
                    pass
            except Busy:
                raise
            except ImagewardenError as error:
                if wanted(self._context):
                    self._context.trouble(f'store "{store.name}": {error}; infected images'
                                          " are only reported")
                return None
            self._stack.push(opening.pop_all())
            return quarantine

    def _lock(self, quarantine: Quarantine, now: float) -> None:
        inode = os.fstat(quarantine.fd).st_ino
        if inode not in self._locked:
            self._stack.enter_context(only_one(quarantine.path / "rescan.lock", now))
            self._locked.add(inode)
