"""Going over a store: every image, in the order of the ledger, by descriptors."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maintenance.store.identity import DIRECTORY, DRAFT, Stamp, path_of, stamp

DEEPEST = 200  # directories: each being visited holds a descriptor, and there are 1024
WORKED_ON = 86400.0  # seconds at most, that a job keeps an unfinished file
Excluded = Callable[[bytes], bool]  # by path inside the store; a directory's also with "/"


@dataclass(frozen=True, slots=True)
class Image:
    """A regular file that was met."""

    key: bytes
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Passed:
    """What is no image: a symlink, FIFO, device or socket."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """What cannot be looked at, and why; images there or below are not missing."""

    key: bytes
    reason: str


Met = Image | Passed | Unread


def walk(root: int, excluded: Excluded = lambda path: False,
         draft: Callable[[int, bytes], None] = lambda directory, name: None) -> Iterator[Met]:
    """Yield what lies below the directory ``root`` (a descriptor), sorted by key.

    Every level is opened without following links, so a directory swapped for a
    link in the middle of the walk leads nowhere. Other file systems mounted
    below are not entered. Memory: the names of the directories being visited.
    ``draft`` is called with what has the name of an unfinished file of ours; it is
    met only when it is too old to be one, or no file.
    """
    device = os.fstat(root).st_dev
    levels: list[_Level] = []
    try:
        yield from _enter(levels, os.dup(root), b"")
        while levels:
            name = next(levels[-1].names, None)
            if name is None:
                os.close(levels.pop().fd)
            elif not name.startswith(DRAFT):
                yield from _entry(levels, name, device, excluded)
            else:
                draft(levels[-1].fd, name)
                if not _unfinished(levels[-1].fd, name):
                    yield from _entry(levels, name, device, excluded)
    finally:
        for level in levels:
            os.close(level.fd)


def meets(path: bytes, excluded: Excluded) -> bool:
    """Tell whether a walk would come to a file at ``path``."""
    names = path.split(b"/")
    above = [b"/".join(names[:depth]) for depth in range(1, len(names))]
    return (not names[-1].startswith(DRAFT)
            and not any(excluded(one) or excluded(one + b"/") for one in above)
            and not excluded(path))


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory being visited."""

    fd: int
    prefix: bytes  # of the keys in it
    names: Iterator[bytes]


def _unfinished(directory: int, name: bytes) -> bool:
    """Tell whether it may be a file that a job of ours is at work on.

    Anybody can choose such a name: nothing hides behind it for longer than a day.
    """
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False  # gone, or for the next look to tell
    return stat.S_ISREG(info.st_mode) and abs(time.time() - info.st_ctime) < WORKED_ON


def _enter(levels: list[_Level], fd: int, key: bytes) -> Iterator[Met]:
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
    except OSError as error:
        os.close(fd)
        yield Unread(key, error.strerror or str(error))
    else:
        levels.append(_Level(fd, key + b"\0" if key else b"", iter(names)))


def _entry(levels: list[_Level], name: bytes, device: int, excluded: Excluded) -> Iterator[Met]:
    key = levels[-1].prefix + name
    path = path_of(key)
    if excluded(path):
        return
    try:
        info = os.stat(name, dir_fd=levels[-1].fd, follow_symlinks=False)
    except FileNotFoundError:
        return  # gone since it was listed
    except OSError as error:
        yield Unread(key, error.strerror or str(error))
        return
    if stat.S_ISREG(info.st_mode):
        yield Image(key, stamp(info))
    elif not stat.S_ISDIR(info.st_mode):
        yield Passed(key)
    elif not excluded(path + b"/"):
        yield from _below(levels, name, key, info.st_dev == device)


def _below(levels: list[_Level], name: bytes, key: bytes, same_device: bool) -> Iterator[Met]:
    if not same_device:
        yield Unread(key, "another file system is mounted here: add it as a store of its own")
        return
    if len(levels) >= DEEPEST:
        yield Unread(key, f"more than {DEEPEST} directories deep")
        return
    try:
        fd = os.open(name, DIRECTORY, dir_fd=levels[-1].fd)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Unread(key, error.strerror or str(error))
        return
    yield from _enter(levels, fd, key)
