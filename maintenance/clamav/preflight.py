"""What freshclam needs before it is started: rights, disk and memory.

It fails without them as well, but late, after a download, and in words that do
not say what is missing.
"""

import os
import shutil
from pathlib import Path

from maintenance import memory
from maintenance.clamav import databases
from maintenance.clamav.housekeeping import DAT
from maintenance.clamav.private import EMPTY, PACKED, PLAIN
from maintenance.text import show, user_name

UNPACKED = 4  # times a .cvd: what it is when an incremental update unpacks it
# For the first official databases, of which nobody knows yet how large they are: main.cvd
# has some 170 MB, and lies there beside the others while it is tested.
FIRST_ROOM, FIRST_MEMORY = 512 * 2**20, 768 * 2**20
LEAST_ROOM = 16 * 2**20


def hindrance(directory: Path, official: bool) -> str | None:
    """Return why freshclam, as our effective user, should not be started; None: nothing.

    Nothing is read but sizes and permissions.
    """
    return _closed(directory) or _crowded(directory, official) or _starved(directory, official)


def _closed(directory: Path) -> str | None:
    user, owner = user_name(os.geteuid()), directory.stat().st_uid
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        if os.getuid() not in {0, owner}:
            return (f"{show(directory)} is {user_name(owner)}'s: start update-definitions as"
                    " root, or as that user")
        return f"freshclam runs as {user}, who cannot write to {show(directory)}"
    dat = directory / DAT
    if os.path.lexists(dat) and not os.access(dat, os.R_OK | os.W_OK, effective_ids=True):
        # As root's freshclam leaves it; with it another user's does not start (status 2).
        return (f"freshclam runs as {user}, who cannot write to {show(dat)}:"
                f" chown {user} {show(dat)}")
    return None


def _crowded(directory: Path, official: bool) -> str | None:
    """Tell whether a download and its test have no room: a copy, unpacked and built anew."""
    sizes = [size * (UNPACKED if name.lower().endswith(".cvd") else 1)
             for name, size in _sizes(directory).items()]
    needed = max(LEAST_ROOM, 2 * max(sizes, default=0),
                 FIRST_ROOM if _first(directory, official) else 0)
    free = shutil.disk_usage(directory).free
    return None if free >= needed else (
        f"no room for new definitions: {show(directory)} has {_mb(free)} free, a download and its"
        f" test may take {_mb(needed + 2**20 - 1)}")


def _starved(directory: Path, official: bool) -> str | None:
    """Tell whether a test has no memory: one database at a time is loaded, swap will do."""
    loads = [size * (PACKED if name.lower().endswith(".cvd") else PLAIN)
             for name, size in _sizes(directory).items()]
    needed = EMPTY + max(0, *loads, FIRST_MEMORY if _first(directory, official) else 0)
    free = memory.available() + memory.swap()
    return None if free >= needed else (
        f"not enough memory to test new definitions: they want {_mb(needed + 2**20 - 1)},"
        f" {_mb(free)} are available")


def _first(directory: Path, official: bool) -> bool:
    return official and not any(name.startswith("main.") for name in _sizes(directory))


def _sizes(directory: Path) -> dict[str, int]:
    return {file: size for file, _, size, *_ in databases.stamps(directory)}


def _mb(size: float) -> str:
    return f"{int(size) // 2**20} MB"
