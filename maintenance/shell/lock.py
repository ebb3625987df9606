"""One run of a job at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maintenance.errors import Busy, ImagewardenError, NoRoom
from maintenance.text import show
from maintenance.times import iso

PATIENCE = 60.0  # seconds that a run may take from the announcement of its end to the end
_ENDING, _END = b"ending", 96  # what that is, and where it stands in the lock's file


@contextmanager
def only_one(path: Path, now: float) -> Iterator[None]:
    """Hold the kernel's lock on ``path`` for the block; raises Busy.

    The kernel lets go of it when the process dies, however it dies. The file
    stays: removing it would let two runs lock two files of one name. A run that
    has said that it is at its end is waited for.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    try:
        patience = time.monotonic() + PATIENCE
        while not _locked(fd):
            if not _ends(fd) or time.monotonic() > patience:
                holder = os.pread(fd, _END, 0).decode("ascii", "replace").strip("\0\n ")
                raise Busy(f"another run holds {show(path)} ({show(holder)})")
            time.sleep(0.05)
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
    with _opened(path) as fd:
        return fd is not None and not _locked(fd)


def announce_end(path: Path, *, ending: bool) -> None:
    """Say as its holder that what comes from now on is left to the next run; or go on."""
    with _opened(path) as fd:
        if fd is not None:
            os.pwrite(fd, _ENDING if ending else bytes(len(_ENDING)), _END)


def is_ending(path: Path) -> bool:
    """Tell whether the holder of the lock on ``path`` has announced its end."""
    with _opened(path) as fd:
        return fd is not None and _ends(fd)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ends(fd: int) -> bool:
    return os.pread(fd, len(_ENDING), _END) == _ENDING
