"""Files that are held, by a kernel lock, for as long as somebody may still write to them."""

import fcntl
import os
from pathlib import Path


def hold(fd: int) -> bool:
    """Hold a file, beside other writers; False: somebody is just taking it over."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_final(fd: int) -> bool:
    """Tell whether no writer holds it any more."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def stands(path: Path, fd: int) -> bool:
    """Tell whether ``path`` is still the file behind ``fd``; raises OSError."""
    try:
        there = os.lstat(path)  # noqa: PTH116 - beside fstat
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))
