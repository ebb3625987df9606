"""Replacing an image so that no reader, and no crash, ever sees half of it."""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from maintenance.errors import FileChanged, NoRoom, StoreError, ToolError
from maintenance.store.identity import DRAFT, READ, Stamp, stamp
from maintenance.store.likeness import CannotKeep, dress
from maintenance.store.moving import FULL, pour

SPARE = 16 * 2**20  # bytes that stay free besides twice the image
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = re.compile(re.escape(DRAFT) + rb"shrunk-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Original:
    """An image that is open, and as it was when it was opened."""

    store: str
    directory: int
    name: bytes
    fd: int
    info: os.stat_result

    def check(self) -> None:
        """Raise FileChanged unless it still stands at its name as it was opened."""
        try:
            there = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except OSError:
            raise FileChanged("gone while it was worked on") from None
        # While it is open nobody else gets its inode; the directory's device is the same.
        if not stamp(there) == stamp(os.fstat(self.fd)) == stamp(self.info):
            raise FileChanged("changed while it was worked on")


@dataclass(frozen=True, slots=True)
class Draft:
    """A finished successor that lies beside its original."""

    original: Original
    name: bytes
    fd: int  # for reading

    def publish(self) -> Stamp:
        """Put it in the original's place, for good when this returns; its new stamp.

        Raises FileChanged when the original is not the one it was made from.
        Between the last look and the rename somebody else's write can still get
        lost: Linux knows no rename that compares.
        """
        directory, name = self.original.directory, self.original.name
        self.original.check()
        with _explained(self.original.store):
            os.rename(self.name, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        return stamp(os.fstat(self.fd))


@contextmanager
def drafted(original: Original, content: int) -> Iterator[Draft]:
    """Lend a draft that holds what ``content`` holds, and all else as the original.

    It is on disk, and is gone after the block unless it was published. Raises
    CannotKeep, ToolError for a successor that is not smaller, NoRoom, StoreError,
    or OSError.
    """
    name = DRAFT + b"shrunk-" + secrets.token_hex(8).encode("ascii")
    try:
        with ExitStack() as stack:
            with _explained(original.store):
                fd = _opened(stack, original.directory, name, _CREATE)
                # Not by /proc/self/fd, which is closed to who has dropped privileges.
                reading = _opened(stack, original.directory, name, READ)
                _copy(content, fd, original.info.st_size)
                dress(fd, original.fd, original.info)
                os.fsync(fd)
            if os.fstat(fd).st_ino != os.fstat(reading).st_ino:
                raise FileChanged("its draft was exchanged")
            yield Draft(original, name, reading)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=original.directory)


def _opened(stack: ExitStack, directory: int, name: bytes, flags: int) -> int:
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    stack.callback(os.close, fd)
    if flags & os.O_CREAT:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)  # who clears up leaves alone what lives
    return fd


def remove_draft(directory: int, name: bytes) -> None:
    """Remove a draft whose run was killed; what is not ours, or in use, stays."""
    if not _NAME.fullmatch(name):
        return
    with suppress(OSError):
        fd = os.open(name, READ, dir_fd=directory)
        try:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and os.geteuid() in {0, info.st_uid}:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory)
        finally:
            os.close(fd)


def require_room(directory: int | str, size: int, where: str) -> None:
    """Raise NoRoom unless twice ``size`` and some more is free there."""
    place = os.statvfs(directory)
    free = place.f_bavail * place.f_frsize
    if place.f_blocks and free < 2 * size + SPARE:
        raise NoRoom(f"{where}: {free // 2**20} MB free, too little to replace an image"
                     f" of {size // 2**20} MB safely")
    if place.f_files and not place.f_favail:
        raise NoRoom(f"{where}: no inodes left on its file system")


def _copy(source: int, target: int, limit: int) -> None:
    size = pour(source, target)
    if not 0 < size < limit:
        raise ToolError(f"its successor would have {size} bytes")


@contextmanager
def _explained(store: str) -> Iterator[None]:
    """Tell what the whole store suffers from apart from what one image does."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoom(f'store "{store}": {error.strerror}') from None
        if error.errno == errno.EROFS:
            raise StoreError(f'store "{store}": {error.strerror}') from None
        if error.errno in {errno.EPERM, errno.EACCES}:
            raise CannotKeep("the system does not let it be replaced") from None
        raise
