"""Bringing to an end what a killed run began: the file is here or there, never nowhere."""

import os
import stat
import time
from contextlib import suppress

from maintenance.store.identity import DRAFT
from maintenance.store.moving import look, put_back, reopened
from maintenance.store.records import Entry, Record, State, discard, entries, made, turn
from maintenance.times import DAY


def aside(ticket: str) -> bytes:
    """Return the name in the store under which a file is on its way out, or in."""
    return DRAFT + ticket.encode()


def spare(ticket: str) -> bytes:
    """Return the name for a file that is to be put back when its own is taken."""
    return b"recovered-" + ticket.encode()


def settle(here: int) -> None:
    """Settle every ticket. The caller holds the lock: whoever left it half done is dead."""
    for entry in list(entries(here)):
        settle_one(here, entry)


def settle_one(here: int, entry: Entry) -> None:
    """Bring one ticket into a state that lasts, going by where its file is."""
    found = look(here, entry.image)
    if entry.state is State.TAKING:
        _taking(here, entry, found)
    elif entry.state is State.RESTORING:
        _restoring(here, entry, found)
    elif entry.state is State.HELD:
        if found is not None:
            lock_down(here, entry, found)
    else:
        if entry.state is State.DELETED:
            discard(here, entry.image)
        if time.time() - made(entry.ticket) > DAY:  # the brake counts it no more
            discard(here, entry.file)


def hold(here: int, entry: Entry) -> Entry:
    """Close the file that is here to everybody, and call it held."""
    found = look(here, entry.image)
    if found is not None:
        lock_down(here, entry, found)
    return turn(here, entry, State.HELD)


def lock_down(here: int, entry: Entry, found: os.stat_result) -> None:
    """Take every permission from the file; another owner's keeps his in our closed directory."""
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode):
        with suppress(PermissionError):
            os.chmod(entry.image, 0, dir_fd=here)  # noqa: PTH101 - by descriptor


def _taking(here: int, entry: Entry, found: os.stat_result | None) -> None:
    if found is None:  # it never left the store, or was put back
        discard(here, entry.draft, entry.file)
    elif entry.record is not None:
        record = entry.record
        directory = bytes.fromhex(record.directory)
        with reopened(directory, record.directory_inode) as parent:
            if record.copied:
                taken = parent is None or _left(parent, entry, record)
            else:
                taken = found.st_ino == record.inode or parent is None
                if not taken and parent is not None:
                    put_back(here, entry.image, parent, record.name, spare(entry.ticket))
        if taken:
            hold(here, entry)
        else:
            discard(here, entry.image, entry.draft, entry.file)


def _left(parent: int, entry: Entry, record: Record) -> bool:
    """Tell whether the file whose copy is here is no longer in the store; see to that.

    It was put aside to be removed: only now is it sure which file that name led to.
    """
    on_its_way = look(parent, aside(entry.ticket))
    if on_its_way is None:
        return not _is(record, look(parent, record.name))
    if _is(record, on_its_way):
        os.unlink(aside(entry.ticket), dir_fd=parent)
        return True
    put_back(parent, aside(entry.ticket), parent, record.name, spare(entry.ticket))
    return False


def _is(record: Record, info: os.stat_result | None) -> bool:
    return info is not None and (info.st_ino, info.st_size, info.st_mtime_ns) == (
        record.inode, record.size, record.mtime_ns)


def _restoring(here: int, entry: Entry, found: os.stat_result | None) -> None:
    if found is not None and found.st_nlink > 1:  # linked to its place: see rename_new
        os.unlink(entry.image, dir_fd=here)
        found = None
    if found is None:
        turn(here, entry, State.RESTORED)
        return
    if entry.record is not None:
        record = entry.record
        with reopened(bytes.fromhex(record.directory), record.directory_inode) as parent:
            if parent is not None:
                discard(parent, aside(entry.ticket))
    hold(here, entry)
