"""Who runs: processes that use a copy of the code, jobs that hold their lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.text import show


def users_of(place: Path) -> list[str]:
    """Return the processes, other than this one, whose code lies in ``place``.

    Not those of a container that has another directory at the same path.
    """
    start = os.fsencode(place) + b"/"
    return [f"process {process.name}" for process in _processes()
            if process.name != str(os.getpid()) and _runs_from(process, start)
            and _same_place(process, place)]


def named(name: str) -> list[Path]:
    """Return the processes of this host, as in /proc, that run a program of that name."""
    found = []
    for process in _processes():
        try:
            if ((process / "comm").read_bytes().strip() == name.encode()
                    and _same_place(process, Path("/"))):
                found.append(process)
        except OSError:
            continue
    return found


@contextmanager
def jobs_held_off(locks: Path) -> Iterator[None]:
    """Take the lock of every job, so that none starts; raises ToolError when one runs."""
    with ExitStack() as stack:
        for path in sorted(locks.glob("*.lock")):
            try:
                # Whoever owns the directory may have put anything there.
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            stack.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 80, 0).decode("utf-8", "replace").strip()
                raise ToolError(f"the job {show(path.stem)} runs ({show(holder)}): "
                                "stop it, or wait for its end") from None
        yield


def one_runs(locks: Path) -> bool:
    """Tell whether a job holds its lock right now."""
    try:
        with jobs_held_off(locks):
            return False
    except ToolError:
        return True


def _processes() -> list[Path]:
    return [Path("/proc", name) for name in sorted(os.listdir("/proc")) if name.isdigit()]


def _same_place(process: Path, place: Path) -> bool:
    try:
        return os.path.samefile(f"{process}/root{place}", place)
    except OSError:  # gone, or not ours to look at
        return False


def _runs_from(process: Path, start: bytes) -> bool:
    """Tell by the interpreter's path, or by a compiled module that is in memory."""
    try:
        if (process / "cmdline").read_bytes().startswith(start):
            return True
        return b" " + start in (process / "maps").read_bytes()
    except OSError:  # gone, or not ours to look at
        return False
