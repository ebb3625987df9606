"""What is done in the database directory besides freshclam's own work.

Every function gets the directory as a descriptor, and follows no link in it.
"""

import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from maintenance.clamav.databases import CANARY, SUFFIXES

DAT = "freshclam.dat"  # its own memory
LAST = 253402300799.0  # the end of the year 9999: a later date cannot be shown
DRAFT = ".imagewarden-canary.new"
MARK, MARKING = ".imagewarden-freshclam", ".imagewarden-freshclam.new"
_TEMPORARY = re.compile(r"tmp\.[0-9a-f]{10}")  # as libfreshclam names its directories
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 2**20  # bytes


def put_canary(directory: int, line: bytes) -> None:
    """Put a canary in place, whole or not at all, readable for every engine."""
    _put(directory, CANARY, DRAFT, line)


def open_up(directory: int) -> None:
    """Make databases of our own user readable for all."""
    for name in os.listdir(directory):
        if Path(name).suffix.lower() not in SUFFIXES:
            continue
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o004:
            with _open(name, directory) as file:
                os.fchmod(file.fileno(), 0o644)


def cool_down(directory: int) -> float | None:
    """Return when the mirror may be asked again (epoch), None when it may now.

    Source: libfreshclam's freshclam.dat, 90 bytes, retry_after at offset 61.
    """
    try:
        with _open(DAT, directory) as file:
            content = file.read(90)
    except OSError:
        return None
    if len(content) < 69:
        return None
    until = float(struct.unpack_from("<q", content, 61)[0])
    return min(until, LAST) if until > time.time() else None


def mark(directory: int) -> None:
    """Note which temporary directories are there before a freshclam of ours is started."""
    _put(directory, MARK, MARKING, "\n".join(_temporary(directory)).encode("ascii"))


def unmark(directory: int) -> None:
    """Take the note away: that freshclam has come to its end."""
    with suppress(FileNotFoundError):
        os.unlink(MARK, dir_fd=directory)


def clear_up(directory: int) -> None:
    """Remove what a freshclam of ours left when it was killed: what the note does not list.

    Without a note nothing is ours. The caller knows that no freshclam is at work.
    """
    try:
        with _open(MARK, directory) as file:
            others = file.read().decode("ascii", "replace").split()
    except FileNotFoundError:
        return
    for name in set(_temporary(directory)) - set(others):
        shutil.rmtree(name, ignore_errors=True, dir_fd=directory)


def outdate(directory: int, source: Path) -> None:
    """Make the copy of ``source`` look old when it holds something else.

    freshclam copies a file:// source only when that is younger than the copy,
    which one brought here by ``cp -p`` or rsync may well not be.
    """
    with suppress(OSError), _open(source.name, directory) as copy, source.open("rb") as file:
        if not _same(copy, file):
            os.utime(copy.fileno(), (0, 0))


def _temporary(directory: int) -> Iterator[str]:
    for name in filter(_TEMPORARY.fullmatch, os.listdir(directory)):
        with suppress(FileNotFoundError):
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                yield name


def _put(directory: int, name: str, draft: str, content: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=directory)  # of a run that was killed here
    fd = os.open(draft, _CREATE, 0o644, dir_fd=directory)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)


def _open(name: str, directory: int) -> IO[bytes]:
    return os.fdopen(os.open(name, _READ, dir_fd=directory), "rb")


def _same(one: IO[bytes], other: IO[bytes]) -> bool:
    if os.fstat(one.fileno()).st_size != os.fstat(other.fileno()).st_size:
        return False
    while piece := one.read(_PIECE):
        if piece != other.read(_PIECE):
            return False
    return True
