"""Each store's quarantine, as the jobs open it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ImagewardenError, QuarantineError
from maintenance.settings import Config, Store
from maintenance.shell import account
from maintenance.shell.job import Context
from maintenance.store.brake import brake_of
from maintenance.store.quarantine import NotThere, Quarantine
from maintenance.store.records import GONE, Entry, find
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


@dataclass(frozen=True, slots=True)
class Place:
    """A quarantine and the stores it is for."""

    quarantine: Quarantine
    stores: tuple[Store, ...]


def find_ticket(places: list[Place], ticket: str, store: str | None) -> tuple[Quarantine, Entry]:
    """Return a ticket whose file is here, and where; raises QuarantineError.

    With ``store`` no other store's is found, though both may lie in one quarantine.
    """
    for place in places:
        entry = find(place.quarantine.fd, ticket)
        if entry is not None and entry.state not in GONE and (
                store is None or entry.record is None or entry.record.store == store):
            return place.quarantine, entry
    raise QuarantineError(f"{show(ticket)}: no such ticket")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What one store's quarantine holds; None: it cannot be opened (doctor says why)."""

    held: int | None = 0
    bytes: int = 0
    brake: bool = False


def holdings(config: Config, store: Store) -> Holdings:
    """Look into a quarantine and change nothing."""
    try:
        with quarantine_of(config, store, make=False) as opened:
            sizes = [one.record.size for one in opened.held() if one.record.store == store.name]
            return Holdings(len(sizes), sum(sizes), brake_of(opened, store.name).on)
    except NotThere:
        return Holdings()
    except (ImagewardenError, OSError):
        return Holdings(held=None)


def totals(each: Mapping[str, Holdings]) -> dict[str, object]:
    """Return what all of them hold; ``brake`` lists the stores whose brake is on."""
    return {"held": sum(one.held or 0 for one in each.values()),
            "bytes": sum(one.bytes for one in each.values()),
            "brake": [name for name, one in each.items() if one.brake]}
