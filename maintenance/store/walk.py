"""Going over a store: every image, in the order of the ledger, by descriptors."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maintenance.store.identity import DIRECTORY, DRAFT, Stamp, stamp

Excluded = Callable[[bytes], bool]  # by path inside the store


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
    """A directory whose images cannot be told, and why; they are not missing."""

    key: bytes
    reason: str


Met = Image | Passed | Unread


def walk(root: int, excluded: Excluded = lambda path: False) -> Iterator[Met]:
    """Yield what lies below the directory ``root`` (a descriptor), sorted by key.

    Every level is opened without following links, so a directory swapped for a
    link in the middle of the walk leads nowhere. Other file systems mounted
    below are not entered. Memory: the names of the directories being visited.
    """
    yield from _level(root, b"", os.fstat(root).st_dev, excluded)


def _level(fd: int, prefix: bytes, device: int, excluded: Excluded) -> Iterator[Met]:
    try:
        names = sorted(os.fsencode(name) for name in os.listdir(fd))
    except OSError as error:
        yield Unread(prefix[:-1], error.strerror or str(error))
        return
    for name in names:
        key = prefix + name
        if name.startswith(DRAFT) or excluded(key.replace(b"\0", b"/")):
            continue
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue  # gone since it was listed
        except OSError as error:
            yield Unread(key, error.strerror or str(error))
            continue
        yield from _entry(fd, name, key, info, device, excluded)


def _entry(fd: int, name: bytes, key: bytes, info: os.stat_result, device: int,
           excluded: Excluded) -> Iterator[Met]:
    if stat.S_ISREG(info.st_mode):
        yield Image(key, stamp(info))
    elif not stat.S_ISDIR(info.st_mode):
        yield Passed(key)
    elif info.st_dev != device:
        yield Unread(key, "another file system is mounted here: add it as a store of its own")
    else:
        yield from _below(fd, name, key, device, excluded)


def _below(parent: int, name: bytes, key: bytes, device: int, excluded: Excluded
           ) -> Iterator[Met]:
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Unread(key, error.strerror or str(error))
        return
    try:
        yield from _level(fd, key + b"\0", device, excluded)
    finally:
        os.close(fd)
