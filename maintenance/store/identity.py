"""Which file it is: not its name, but what the kernel says about it."""

import os

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DRAFT = b".imagewarden-"  # how the names of our own unfinished files begin

Stamp = tuple[int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """Return inode, size, mtime and ctime (ns).

    The ctime catches writes, chmod and new links alike; a device number is left
    out because it does not survive a reboot.
    """
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def key_of(path: bytes) -> bytes:
    """Return a path inside a store as the ledger sorts it: ``/`` below every byte."""
    return path.replace(b"/", b"\0")


def path_of(key: bytes) -> bytes:
    """Return the path that ``key_of`` was given."""
    return key.replace(b"\0", b"/")
