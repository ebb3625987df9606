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
    """Return the processes, other than this one, whose code lies in ``place``."""
    start = os.fsencode(place) + b"/"
    return [f"process {pid}" for pid in sorted(map(int, _pids()))
            if pid != os.getpid() and _runs_from(Path("/proc", str(pid)), start)]


def named(*names: str) -> list[int]:
    """Return the processes that run a program of one of these names."""
    found = []
    for pid in _pids():
        try:
            if Path("/proc", pid, "comm").read_text(encoding="utf-8").strip() in names:
                found.append(int(pid))
        except (OSError, UnicodeError):
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


def _pids() -> Iterator[str]:
    return (name for name in os.listdir("/proc") if name.isdigit())


def _runs_from(process: Path, start: bytes) -> bool:
    """Tell by the interpreter's path, or by a compiled module that is in memory."""
    try:
        if (process / "cmdline").read_bytes().startswith(start):
            return True
        return b" " + start in (process / "maps").read_bytes()
    except OSError:  # gone, or not ours to look at
        return False
