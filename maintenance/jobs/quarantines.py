"""Each store's quarantine, as the jobs open it."""

import os
from contextlib import suppress
from pathlib import Path

from maintenance.errors import ImagewardenError, QuarantineError
from maintenance.settings import Config, Store
from maintenance.shell import account
from maintenance.shell.job import Context
from maintenance.store.quarantine import Quarantine
from maintenance.text import show


def make_ready(context: Context) -> None:
    """Make the quarantines for the jobs' user where he could not: a job's ``prepare``.

    What fails here fails again, and is told, when that store's quarantine is opened.
    """
    for store in context.config.store:
        with suppress(ImagewardenError):
            if store.quarantine is None:
                account.ensure_directory(context.config.state, account.STATE_MODE, context.account)
                account.ensure_directory(context.config.state / "quarantine", account.STATE_MODE,
                                         context.account)
            account.ensure_directory(context.config.quarantine_of(store), account.STATE_MODE,
                                     context.account)


def quarantine_of(config: Config, store: Store, *, make: bool) -> Quarantine:
    """Open the quarantine of ``store``; raises QuarantineError, NotThere when it was never made.

    One that lies in a store by way of a symlink would be served to visitors.
    """
    directory = config.quarantine_of(store)
    real = Path(os.path.realpath(directory))
    for other in config.store:
        if real.is_relative_to(os.path.realpath(other.path)):
            raise QuarantineError(f"{show(directory)}: lies inside the store {show(other.name)}")
    if make and store.quarantine is None:
        with suppress(OSError):  # then the next line says why
            directory.parent.mkdir(0o700, exist_ok=True)
    return Quarantine.open(directory, make=make)
