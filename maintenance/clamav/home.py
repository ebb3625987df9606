"""The directory of a private engine: held while it lives, swept up when nobody holds it."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "imagewarden-engine-"
_NAME = re.compile(re.escape(PREFIX) + r"\d+-[a-z0-9_]{8}")
_DIRECTORY = os.O_DIRECTORY | os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
ROOM = 55  # bytes that a temporary directory's path may have, for a socket's path ends at 107


@dataclass(frozen=True, slots=True)
class Home:
    """A directory of ours alone; whoever has ``lock`` open keeps it from being swept up."""

    path: Path
    lock: int


@contextmanager
def engine_home() -> Iterator[Home]:
    """Make a directory for the block, and first clear away what killed jobs left.

    In the temporary directory, because AppArmor confines clamd to that and to
    the system's own directories.
    """
    usual = tempfile.gettempdir()
    where = usual if len(os.fsencode(usual)) <= ROOM else "/tmp"  # noqa: S108 - mkdtemp goes into it
    _sweep(where)
    home = _make(where)
    try:
        yield home
    finally:
        shutil.rmtree(home.path, ignore_errors=True)
        os.close(home.lock)


def _make(where: str) -> Home:
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=where))
        # Until it is held somebody else may sweep it up: then another is made.
        with suppress(FileNotFoundError):
            lock = os.open(path, _DIRECTORY)
            if _hold(lock) and path.exists():
                return Home(path, lock)
            os.close(lock)


def _hold(fd: int) -> bool:
    """Lock it until every copy of ``fd`` is closed; the kernel does that for the dead."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(where: str) -> None:
    with suppress(OSError):
        parent = os.open(where, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            for name in filter(_NAME.fullmatch, os.listdir(parent)):  # noqa: PTH208 - by descriptor
                _sweep_one(parent, name)
        finally:
            os.close(parent)


def _sweep_one(parent: int, name: str) -> None:
    """Remove a directory of our own user that nobody holds, never by way of a link."""
    with suppress(OSError):
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            found = os.fstat(fd)
            if (found.st_uid == os.geteuid() and _hold(fd) and os.path.samestat(
                    found, os.stat(name, dir_fd=parent, follow_symlinks=False))):
                shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
        finally:
            os.close(fd)
