"""One run of a job at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maintenance.errors import Busy, ImagewardenError, NoRoom
from maintenance.text import show
from maintenance.times import iso


@contextmanager
def only_one(path: Path, now: float) -> Iterator[None]:
    """Hold the kernel's lock on ``path`` for the block; raises Busy.

    The kernel lets go of it when the process dies, however it dies. The file
    stays: removing it would let two runs lock two files of one name.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 80, 0).decode("ascii", "replace").strip()
            raise Busy(f"another run holds {show(path)} ({show(holder)})") from None
        _sign(fd, path, f"pid {os.getpid()}, since {iso(now)}\n")
        yield
    finally:
        os.close(fd)


def _sign(fd: int, path: Path, holder: str) -> None:
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode("ascii"), 0)
    except OSError as error:
        raise NoRoom(f"{show(path)}: {error.strerror}") from None


def is_held(path: Path) -> bool:
    """Tell whether a run holds the lock on ``path`` right now."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
