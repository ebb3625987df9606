"""How much memory a program started now could have."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def available(pid: int | None = None) -> int:
    """Return the bytes that are free for us, or for another process.

    That is the least of the host's rest, of that below the limits of the cgroups it is
    in, and of that below its own limit.
    """
    process = _PROC / ("self" if pid is None else str(pid))
    host = _number("MemAvailable", _PROC / "meminfo", 1024)
    return min([host or sys.maxsize, *_rests(process), *_own(process)])


def swap() -> int:
    """Return the bytes that the host could swap out besides."""
    return _number("SwapFree", _PROC / "meminfo", 1024)


def _own(process: Path) -> Iterator[int]:
    limit = _number("Max address space", process / "limits", 1)
    if limit:
        yield max(0, limit - _number("VmSize", process / "status", 1024))


def _rests(process: Path) -> Iterator[int]:
    for line in _text(process / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, most, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif not controllers:
            root, most, used = "", "memory.max", "memory.current"
        else:
            continue
        for one in (PurePosixPath(path), *PurePosixPath(path).parents):
            group = _CGROUPS / root / one.relative_to("/")
            limit, taken = _text(group / most).strip(), _text(group / used).strip()
            if limit.isdigit() and taken.isdigit():
                # The kernel gives up cached files before it refuses memory.
                cached = _number("(?:total_)?inactive_file", group / "memory.stat", 1)
                yield max(0, int(limit) - int(taken) + cached)


def _number(name: str, path: Path, unit: int) -> int:
    found = re.findall(rf"^{name}:?\s+(\d+)", _text(path), re.MULTILINE)
    return int(found[-1]) * unit if found else 0  # the last: with what lies below


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
