"""Taking one file out of the store, in a way that can be undone."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from maintenance.errors import FileChanged, QuarantineError
from maintenance.store.identity import READ, stamp
from maintenance.store.moving import FULL, copy, look, path_of, put_back, same_file, sha256
from maintenance.store.records import CREATE, Entry, Record, create, rewrite
from maintenance.store.settling import aside, hold, settle_one, spare
from maintenance.text import show


class NotTaken(QuarantineError):
    """A file stays where it is: the text says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in an image, and by what."""

    store: str
    signature: str
    generation: int | None = None
    run: str = ""  # anything that tells which run it was


def take(here: int, parent: int, path: bytes, scanned: os.stat_result, finding: Finding) -> str:
    """Move the file at ``path`` (its directory: ``parent``) into the quarantine ``here``.

    Returns its ticket. The record is on disk before the file moves. Raises
    FileChanged, NotTaken or OSError with the file where it was.
    """
    name = path.rpartition(b"/")[2]
    with _unchanged(parent, name, scanned) as fd:
        entry = create(here, _record(here, parent, path, fd, finding))
        try:
            _bring(here, entry, parent, name, fd)
        except (OSError, FileChanged, NotTaken):
            settle_one(here, entry)
            raise
    try:
        hold(here, entry)
    except OSError as error:  # it is here, and the next opening says so
        if error.errno not in FULL:
            raise
    return entry.ticket


@contextmanager
def _unchanged(parent: int, name: bytes, scanned: os.stat_result) -> Iterator[int]:
    """Open the very file that was scanned; its inode cannot be another's while it is open."""
    try:
        fd = os.open(name, READ, dir_fd=parent)
    except FileNotFoundError:
        raise FileChanged("gone since it was scanned") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileChanged("a link since it was scanned") from None
        raise NotTaken(error.strerror or str(error)) from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or stamp(info) != stamp(scanned):
            raise FileChanged("changed since it was scanned")
        if info.st_nlink != 1:
            raise NotTaken(f"has {info.st_nlink} hard links: its other names would still serve it")
        yield fd
    finally:
        os.close(fd)


def _record(here: int, parent: int, path: bytes, fd: int, finding: Finding) -> Record:
    info = os.fstat(fd)
    directory = os.fstat(parent)
    digest = sha256(fd)
    if stamp(os.fstat(fd)) != stamp(info):
        raise FileChanged("changed since it was scanned")
    record = Record(
        store=finding.store, path=path.hex(), shown=show(path),
        directory=path_of(parent).hex(), directory_inode=directory.st_ino,
        signature=finding.signature, generation=finding.generation, run=finding.run,
        taken=time.time(), mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid,
        atime_ns=info.st_atime_ns, mtime_ns=info.st_mtime_ns, size=info.st_size,
        links=info.st_nlink, inode=info.st_ino, sha256=digest)
    apart = directory.st_dev != os.fstat(here).st_dev
    return _of_a_copy(record, fd) if apart else record


def _of_a_copy(record: Record, fd: int) -> Record:
    lost: list[str] = []
    with suppress(OSError):  # a file system without them
        lost = os.listxattr(fd)
    return msgspec.structs.replace(record, copied=True, not_kept=tuple(lost))


def _bring(here: int, entry: Entry, parent: int, name: bytes, fd: int) -> None:
    record = entry.record
    if record is not None and not record.copied:
        try:
            _move(here, entry, parent, name, fd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # One device mounted twice: to the kernel these are two file systems.
            record = _of_a_copy(record, fd)
            entry = rewrite(here, entry, record)
    if record is not None and record.copied:
        _copy(here, entry, parent, name, fd, record)


def _move(here: int, entry: Entry, parent: int, name: bytes, fd: int) -> None:
    os.rename(name, entry.image, src_dir_fd=parent, dst_dir_fd=here)
    _verify(here, entry.image, fd, (parent, name, spare(entry.ticket)))
    with suppress(PermissionError):  # another owner's: our closed directory has to do
        os.fchmod(fd, 0)
    os.fsync(here)
    os.fsync(parent)


def _copy(here: int, entry: Entry, parent: int, name: bytes, fd: int, record: Record) -> None:
    """Copy, prove the copy, then take the original away: at worst both are there."""
    draft = os.open(entry.draft, CREATE, 0o600, dir_fd=here)
    try:
        copy(fd, draft, record.sha256)
        os.fchmod(draft, 0)
    finally:
        os.close(draft)
    os.rename(entry.draft, entry.image, src_dir_fd=here, dst_dir_fd=here)
    os.fsync(here)
    away = aside(entry.ticket)
    try:
        # A name may lead to another file by now, so it is not removed by that name.
        os.rename(name, away, src_dir_fd=parent, dst_dir_fd=parent)
        _verify(parent, away, fd, (parent, name, spare(entry.ticket)))
    except (OSError, FileChanged, NotTaken):
        if look(parent, away) is None:
            os.unlink(entry.image, dir_fd=here)
        raise
    os.unlink(away, dir_fd=parent)
    os.fsync(parent)


def _verify(directory: int, name: bytes, fd: int, home: tuple[int, bytes, bytes]) -> None:
    """Make sure that what was moved is what was scanned, and put it back if it is not."""
    moved = os.stat(name, dir_fd=directory, follow_symlinks=False)
    same = same_file(moved, os.fstat(fd))
    if same and moved.st_nlink == 1:
        return
    back = put_back(directory, name, *home)
    os.fsync(home[0])
    where = "put back" if back == home[1] else f"put back as {show(back)}"
    if same:
        raise NotTaken(f"got another hard link meanwhile; {where}")
    raise FileChanged(f"swapped between scan and quarantine; {where}")
