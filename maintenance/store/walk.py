"""Going over a store: every image, in the order of the ledger, by descriptors."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maintenance.store.identity import DIRECTORY, DRAFT, Stamp, path_of, stamp

DEEPEST = 200  # directories: each being visited holds a descriptor, and there are 1024
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
    ``draft`` is called with what has the name of an unfinished file of ours.
    """
    device = os.fstat(root).st_dev
    levels: list[_Level] = []
    try:
        yield from _enter(levels, os.dup(root), b"")
        while levels:
            name = next(levels[-1].names, None)
            if name is None:
                os.close(levels.pop().fd)
            elif name.startswith(DRAFT):
                draft(levels[-1].fd, name)
            else:
                yield from _entry(levels, name, device, excluded)
    finally:
        for level in levels:
            os.close(level.fd)


def meets(path: bytes, excluded: Excluded) -> bool:
    """Tell whether a walk would come to a file at ``path``."""
    names = path.split(b"/")
    above = [b"/".join(names[:depth]) for depth in range(1, len(names))]
    return (not any(name.startswith(DRAFT) for name in names)
            and not any(excluded(one) or excluded(one + b"/") for one in above)
            and not excluded(path))


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory being visited."""

    fd: int
    prefix: bytes  # of the keys in it
    names: Iterator[bytes]


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
