"""Giving a file back, or up."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from maintenance.errors import FileChanged, QuarantineError
from maintenance.store.identity import READ
from maintenance.store.moving import copy, look, path_of, rename_new, same_file, sha256
from maintenance.store.quarantine import Held, Quarantine
from maintenance.store.records import (
    CREATE,
    GONE,
    Entry,
    Record,
    State,
    discard,
    find,
    trouble,
    turn,
)
from maintenance.store.settling import aside, settle_one
from maintenance.text import show


@contextmanager
def opened(quarantine: Quarantine, ticket: str) -> Iterator[int]:
    """Open a file that nobody may read, to look at it; it stays closed to all others."""
    with quarantine.locked():
        entry = _held(quarantine, ticket)
        try:
            fd = os.open(entry.image, READ, dir_fd=quarantine.fd)
        except PermissionError:
            os.chmod(entry.image, 0o400, dir_fd=quarantine.fd)  # noqa: PTH101 - by descriptor
            fd = os.open(entry.image, READ, dir_fd=quarantine.fd)
            os.fchmod(fd, 0)
    try:
        yield fd
    finally:
        os.close(fd)


def unchanged(held: Held, fd: int) -> bool:
    """Tell whether the open file holds what was taken."""
    return sha256(fd) == held.record.sha256


def restore(quarantine: Quarantine, ticket: str, fd: int, target: int, name: bytes) -> list[str]:
    """Put the file of ``ticket``, open as ``fd``, into the directory ``target``.

    It never replaces what stands there. Its owner, mode and time are given back
    before it can be seen; what could not be is returned. Killed at any moment,
    the file is here or there, at worst both.
    """
    with quarantine.locked():
        entry = _held(quarantine, ticket)
        image = look(quarantine.fd, entry.image)
        if image is None or not same_file(image, os.fstat(fd)):
            raise QuarantineError(f"{ticket}: it was taken away meanwhile")
        entry = turn(quarantine.fd, entry, State.RESTORING)
        try:
            notes = _move(quarantine.fd, entry, fd, target, name)
        except FileExistsError:
            settle_one(quarantine.fd, entry)
            raise QuarantineError(f"{show(name)} stands there already") from None
        except OSError as error:
            settle_one(quarantine.fd, entry)
            raise trouble(path_of(target), error) from None
        except FileChanged:
            settle_one(quarantine.fd, entry)
            raise
        turn(quarantine.fd, entry, State.RESTORED)
        return notes


def delete(quarantine: Quarantine, ticket: str) -> int:
    """Remove a file for good; return the bytes that became free.

    Needs no room, so that it works on a full disk. For a day its record stays,
    without the file: the brake counts it.
    """
    with quarantine.locked():
        entry = find(quarantine.fd, ticket)
        if entry is None or entry.state in GONE:
            raise QuarantineError(f"{show(ticket)}: no such ticket")
        image = look(quarantine.fd, entry.image)
        entry = turn(quarantine.fd, entry, State.DELETED)
        settle_one(quarantine.fd, entry)
        os.fsync(quarantine.fd)
        return 0 if image is None else image.st_size


def _held(quarantine: Quarantine, ticket: str) -> Entry:
    """Find a ticket whose file is here; the caller holds the lock."""
    entry = find(quarantine.fd, ticket)
    if entry is None or entry.state in GONE:
        raise QuarantineError(f"{show(ticket)}: no such ticket")
    if entry.record is None:
        raise QuarantineError(f"{ticket}: its record is damaged ({entry.damaged})")
    if look(quarantine.fd, entry.image) is None:
        raise QuarantineError(f"{ticket}: its file is missing")
    return entry


def _move(here: int, entry: Entry, fd: int, target: int, name: bytes) -> list[str]:
    if entry.record is None:  # _held has seen to that
        raise QuarantineError(f"{entry.ticket}: its record is damaged")
    try:
        notes = _dress(fd, entry.record)
        os.fsync(fd)
        rename_new(here, entry.image, target, name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        notes = _copy(here, entry, fd, target, name)
    os.fsync(target)
    return notes + [f"{one} was not kept" for one in entry.record.not_kept]


def _copy(here: int, entry: Entry, fd: int, target: int, name: bytes) -> list[str]:
    draft = aside(entry.ticket)
    discard(target, draft)  # what a killed run left
    out = os.open(draft, CREATE, 0o600, dir_fd=target)
    try:
        try:
            copy(fd, out, sha256(fd))
            notes = [] if entry.record is None else _dress(out, entry.record)
            os.fsync(out)
        finally:
            os.close(out)
        rename_new(target, draft, target, name)
    except (OSError, FileChanged):
        discard(target, draft)
        raise
    os.fsync(target)
    os.unlink(entry.image, dir_fd=here)
    return notes


def _dress(fd: int, record: Record) -> list[str]:
    """Give owner, mode and times back; return what could not be."""
    notes, mode = [], record.mode
    info = os.fstat(fd)
    if (info.st_uid, info.st_gid) != (record.uid, record.gid):
        try:
            os.fchown(fd, record.uid, record.gid)
        except PermissionError:
            notes.append(f"its owner ({record.uid}:{record.gid}) cannot be given back")
            mode &= 0o777  # a set-id bit is for that owner only
    if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
        os.fchmod(fd, mode)
    if info.st_mtime_ns != record.mtime_ns:
        os.utime(fd, ns=(record.atime_ns, record.mtime_ns))
    return notes
