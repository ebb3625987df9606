"""Giving back what was taken: looked at once more, and never over another file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from maintenance.errors import (
    Exit,
    FileChanged,
    ImagewardenError,
    QuarantineError,
    StoreError,
)
from maintenance.jobs.quarantine_report import Done, QuarantineReport
from maintenance.jobs.quarantines import Place, find_ticket
from maintenance.jobs.second_look import SecondLook
from maintenance.jobs.walking import opened_tree
from maintenance.shell.job import Context
from maintenance.store import restoring
from maintenance.store.identity import DIRECTORY
from maintenance.store.moving import look
from maintenance.store.quarantine import Held, Quarantine
from maintenance.store.tree import NotAnImage
from maintenance.text import show
from maintenance.verdict import Verdict


def restore(context: Context, places: list[Place], report: QuarantineReport) -> None:
    """Give tickets back; without an engine to ask, none."""
    with SecondLook(context.config) as engine:
        for ticket in context.options.tickets:
            try:
                where, entry = find_ticket(places, ticket, context.options.store)
                if entry.record is None:
                    raise QuarantineError(f"{ticket}: its record is damaged ({entry.damaged})")
                held = Held(ticket, entry.record)
                done = _restore_one(context, where, held, engine, report)
            except StoreError as error:
                context.trouble(f"{ticket}: {error}")
                continue
            except (QuarantineError, FileChanged) as error:
                context.trouble(str(error))
                continue
            report.done(done)
            context.log.info("%s %s (%s: %s)%s", done.outcome, ticket, done.store, done.path,
                             f": {show(done.reason)}" if done.reason else "")


def _restore_one(context: Context, where: Quarantine, held: Held, engine: SecondLook,
                 report: QuarantineReport) -> Done:
    """Look at the file once more and give it back, unless it is still infected."""
    record, ticket = held.record, held.ticket
    path = show(record.raw)
    with _target(context, held) as (directory, to):
        if look(directory, record.name) is not None:
            raise QuarantineError(f"{ticket}: {to} stands there already; restore it elsewhere"
                                  " by --to DIR")
        if context.options.dry_run:
            return Done(ticket, record.store, path, "would be restored", None, to)
        with restoring.opened(where, ticket) as fd:
            if not context.options.force:
                if not restoring.unchanged(held, fd):
                    raise QuarantineError(f"{ticket}: its bytes are not those that were taken;"
                                          " --force restores it all the same")
                answer = engine.ask(fd)
                if answer.verdict is not Verdict.CLEAN:
                    return _refused(held, answer.verdict, answer.signature or answer.reason or "",
                                    report)
            notes = restoring.restore(where, ticket, fd, directory, record.name)
    for note in notes:
        context.log.warning("%s: %s", ticket, show(note))
    return Done(ticket, record.store, path, "restored", "; ".join(notes) or None, to)


def _refused(held: Held, verdict: Verdict, why: str, report: QuarantineReport) -> Done:
    infected = verdict is Verdict.INFECTED
    word = "still infected" if infected else "no verdict"
    report.refuse(f"{held.ticket}: {word} ({show(why)}); --force restores it all the same",
                  Exit.INFECTED if infected else Exit.INCOMPLETE)
    return Done(held.ticket, held.record.store, show(held.record.raw), "refused",
                f"{word}: {why}")


@contextmanager
def _target(context: Context, held: Held) -> Iterator[tuple[int, str]]:
    """Yield the directory that the file goes to, open, and its path there for people."""
    record, elsewhere = held.record, context.options.to
    if elsewhere is not None:
        fd = _open_directory(elsewhere)
        try:
            yield fd, show(os.fsencode(elsewhere).rstrip(b"/") + b"/" + record.name)
        finally:
            os.close(fd)
        return
    store = next((one for one in context.config.store if one.name == record.store), None)
    if store is None:
        raise QuarantineError(f"{held.ticket}: there is no store {show(record.store)} any more;"
                              " restore it elsewhere by --to DIR")
    with opened_tree(store) as tree:
        try:
            directory = tree.parent_of(record.raw)
        except (NotAnImage, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise QuarantineError(f"{held.ticket}: the directory of {show(record.raw)} is not"
                                  f" what it was ({why}); restore it elsewhere by --to DIR"
                                  ) from None
        yield directory, show(os.fsencode(store.path) + b"/" + record.raw)


def _open_directory(path: str) -> int:
    try:
        # realpath would take no name at all for the directory we are in.
        return os.open(os.path.realpath(path) if path else path, DIRECTORY)
    except OSError as error:
        raise ImagewardenError(f"--to {show(path)}: {error.strerror}") from None
