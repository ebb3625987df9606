"""quarantine: what was taken, why, and the way back."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from maintenance.errors import UsageError
from maintenance.jobs.quarantine_report import Done, QuarantineReport, described, listed
from maintenance.jobs.quarantines import Place, find_ticket, quarantine_of
from maintenance.jobs.restore import restore
from maintenance.jobs.walking import chosen_stores
from maintenance.shell import account, logs
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.store import brake, restoring
from maintenance.store.quarantine import NotThere
from maintenance.text import show
from maintenance.times import iso

CHANGING = ("restore", "delete", "release")


def quarantine(context: Context) -> QuarantineReport:
    """Do what was asked for, ticket by ticket; one that fails does not stop the others."""
    options = context.options
    _check(options)
    report = QuarantineReport(options.action)
    context.report = report
    with ExitStack() as stack:
        places = _open(context, stack)
        work: dict[str, Callable[[Context, list[Place], QuarantineReport], None]] = {
            "list": _list, "show": _show, "restore": restore, "delete": _delete,
            "release": _release}
        work[options.action](context, places, report)
    return report


def _check(options: argparse.Namespace) -> None:
    action, tickets = options.action, options.tickets
    if action in {"list", "release"} and tickets:
        raise UsageError(f"{action} takes no tickets")
    if action in {"show", "restore"} and not tickets:
        raise UsageError(f"{action}: which tickets? See: quarantine list")
    if action == "delete" and bool(tickets) == (options.older_than is not None):
        raise UsageError("delete takes tickets or --older-than, one of both")
    if action != "delete" and options.older_than is not None:
        raise UsageError("--older-than is for delete")
    if action != "restore" and (options.to is not None or options.force):
        raise UsageError("--to and --force are for restore")


def _open(context: Context, stack: ExitStack) -> list[Place]:
    """Open the quarantines of the chosen stores; one that was never made holds nothing."""
    places: dict[tuple[int, int], Place] = {}
    for store in chosen_stores(context):
        with context.going_on():
            try:
                opened = stack.enter_context(quarantine_of(context.config, store, make=False))
            except NotThere:
                continue
            info = os.fstat(opened.fd)
            identity = (info.st_dev, info.st_ino)
            before = places.get(identity)
            others = () if before is None else before.stores
            places[identity] = Place(before.quarantine if before else opened, (*others, store))
    return list(places.values())


def _list(context: Context, places: list[Place], report: QuarantineReport) -> None:
    for place in places:
        report.rows += [listed(held) for held in place.quarantine.held()
                        if context.options.store in {None, held.record.store}]
        for line in place.quarantine.damaged():
            context.trouble(line)
        for store in place.stores:
            found = brake.brake_of(place.quarantine, store.name)
            if found.on:
                report.brakes.append({"store": store.name, "since": iso(found.since),
                                      "why": found.why})


def _show(context: Context, places: list[Place], report: QuarantineReport) -> None:
    for ticket in context.options.tickets:
        with context.going_on():
            where, entry = find_ticket(places, ticket, context.options.store)
            report.rows.append(described(
                entry, f"{show(where.path)}/{entry.image.decode()}"))


def _delete(context: Context, places: list[Place], report: QuarantineReport) -> None:
    for ticket in context.options.tickets or list(_older(context, places)):
        with context.going_on():
            where, entry = find_ticket(places, ticket, context.options.store)
            store = entry.record.store if entry.record else None
            path = show(entry.record.raw) if entry.record else None
            if not context.options.dry_run:
                freed = restoring.delete(where, ticket)
                context.log.info("deleted %s (%s: %s), %d bytes", ticket, store, path, freed)
            report.done(Done(ticket, store, path, _outcome(context, "deleted")))


def _older(context: Context, places: list[Place]) -> Iterator[str]:
    before = time.time() - context.options.older_than
    for place in places:
        for held in place.quarantine.held():
            if (held.record.taken < before
                    and context.options.store in {None, held.record.store}):
                yield held.ticket


def _release(context: Context, places: list[Place], report: QuarantineReport) -> None:
    for place in places:
        for store in place.stores:
            on = brake.brake_of(place.quarantine, store.name).on
            if on and not context.options.dry_run:
                brake.release(place.quarantine, store.name)
                context.log.info("released the brake of %s", store.name)
            outcome = _outcome(context, "released") if on else "was not on"
            report.rows.append({"store": store.name, "outcome": outcome})


def _outcome(context: Context, word: str) -> str:
    return f"would be {word}" if context.options.dry_run else word


def _prepare(context: Context) -> None:
    """Keep a log of what is done, though this is no job that records its runs."""
    if context.options.action in CHANGING and context.config.logs is not None:
        account.ensure_directory(context.config.logs, account.LOGS_MODE, context.account)
        with account.acting_as(context.account):
            logs.add_file(context.config.logs / "quarantine.log", context.options.log_format)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "show", *CHANGING),
                        help="list what is held and which brakes are on; show all that is known"
                             " of tickets; restore them to where they were; delete them for good;"
                             " release the brake of a store, or of all")
    parser.add_argument("tickets", nargs="*", metavar="TICKET", help="for show, restore, delete")
    parser.add_argument("--store", metavar="NAME", help="only this store's")
    parser.add_argument("--to", metavar="DIR", help="restore into this directory")
    parser.add_argument("--force", action="store_true",
                        help="restore without asking an engine, also what was changed")
    parser.add_argument("--older-than", type=duration, metavar="90d",
                        help="delete what was taken longer ago")


JOB = Job(script="quarantine", name="quarantine", run=quarantine, options=_options,
          sections=("store", "clamav", "rescan"), changes=True, records=False, remembers=False,
          shows=True, prepare=_prepare,
          purpose="Show what was taken out of the stores, give it back, or delete it.")
