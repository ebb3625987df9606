"""Going over a store: every image, in the order of the ledger, by descriptors."""

import os
import stat
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from maintenance.ledger.rows import Known
from maintenance.store.identity import DIRECTORY, DRAFT, path_of
from maintenance.store.listing import sorted_names

DEEPEST = 200  # directories: each being visited holds a descriptor, and there are 1024
WORKED_ON = 86400.0  # seconds at most, that a job keeps an unfinished file
BLOCK = 1000  # images that are handed on together
_NO_DRAFT = DRAFT[:-1] + bytes([DRAFT[-1] + 1])  # sorts behind every name of a draft

Excluded = Callable[[bytes], bool]  # by path inside the store; a directory's also with "/"


@dataclass(frozen=True, slots=True)
class Passed:
    """What is no image: a symlink, FIFO, device or socket."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """What cannot be looked at, and why; images there or below are not missing."""

    key: bytes
    reason: str


Met = list[Known] | Passed | Unread  # images come as the ledger would know them


def nothing(path: bytes) -> bool:  # noqa: ARG001 - an Excluded
    """Exclude no path."""
    return False


def walk(root: int, excluded: Excluded = nothing,
         draft: Callable[[int, bytes], None] = lambda directory, name: None) -> Iterator[Met]:
    """Yield what lies below the directory ``root`` (a descriptor), sorted by key.

    Images come in blocks; what is ``Passed`` may come before the block that it lies in.
    Every level is opened without following links, so a directory swapped for a link in
    the middle of the walk leads nowhere. Other file systems mounted below are not
    entered. Memory is flat. ``draft`` is called with what has the name of an unfinished
    file of ours; it is met only when it is too old to be one, or no file.
    """
    yield from _Walk(os.fstat(root).st_dev, excluded, draft).below(os.dup(root))


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


@dataclass(slots=True)
class _Walk:
    device: int
    excluded: Excluded
    draft: Callable[[int, bytes], None]
    levels: list[_Level] = field(default_factory=list)
    block: list[Known] = field(default_factory=list)

    def below(self, root: int) -> Iterator[Met]:
        try:
            yield from self._enter(root, b"")
            while self.levels:
                yield from self._visit(self.levels[-1])
            yield from self._handed_on()
        finally:
            while self.levels:  # with each goes its listing, which may hold a file
                os.close(self.levels.pop().fd)

    def _visit(self, level: _Level) -> Iterator[Met]:
        """Meet what is in a directory, until another begins or it is over.

        This loop turns once for every image of the store, and most of a run's time is
        spent here. So nothing is called in it but the kernel and what fills the block:
        whatever can be done to a page of names at once is done in ``_wanted``.
        """
        fd, prefix, block = level.fd, level.prefix, self.block
        for name in level.names:
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                yield from self._unread(prefix + name, error)
                block = self.block
                continue
            if stat.S_ISREG(info.st_mode):
                block.append((prefix + name, info.st_ino, info.st_size, info.st_mtime_ns,
                              info.st_ctime_ns, None))
                if len(block) == BLOCK:
                    yield from self._handed_on()
                    block = self.block
            elif stat.S_ISDIR(info.st_mode):
                yield from self._descend(level, name, info.st_dev)
                return
            else:
                yield Passed(prefix + name)
        os.close(self.levels.pop().fd)

    def _descend(self, level: _Level, name: bytes, device: int) -> Iterator[Met]:
        key = level.prefix + name
        if self.excluded(path_of(key) + b"/"):
            return
        reason = None
        if device != self.device:
            reason = "another file system is mounted here: add it as a store of its own"
        elif len(self.levels) >= DEEPEST:
            reason = f"more than {DEEPEST} directories deep"
        if reason is not None:
            yield from self._handed_on()
            yield Unread(key, reason)
            return
        try:
            fd = os.open(name, DIRECTORY, dir_fd=level.fd)
        except OSError as error:
            yield from self._unread(key, error)
        else:
            yield from self._enter(fd, key)

    def _enter(self, fd: int, key: bytes) -> Iterator[Met]:
        pages = sorted_names(fd)
        try:
            first = next(pages, [])
        except OSError as error:
            os.close(fd)
            yield from self._unread(key, error)
        else:
            prefix = key + b"\0" if key else b""
            names = (self._wanted(fd, prefix, page) for page in chain([first], pages))
            self.levels.append(_Level(fd, prefix, chain.from_iterable(names)))

    def _wanted(self, fd: int, prefix: bytes, names: list[bytes]) -> list[bytes]:
        """Return a page of names without what is excluded, and without drafts at work on."""
        first, last = bisect_left(names, DRAFT), bisect_left(names, _NO_DRAFT)
        for name in names[first:last]:
            self.draft(fd, name)
        names[first:last] = [name for name in names[first:last] if not _unfinished(fd, name)]
        if self.excluded is not nothing:
            names = [name for name in names if not self.excluded(path_of(prefix + name))]
        return names

    def _unread(self, key: bytes, error: OSError) -> Iterator[Met]:
        if not isinstance(error, FileNotFoundError):  # else it is gone since it was listed
            yield from self._handed_on()
            yield Unread(key, error.strerror or str(error))

    def _handed_on(self) -> Iterator[Met]:
        block, self.block = self.block, []
        if block:
            yield block


def _unfinished(directory: int, name: bytes) -> bool:
    """Tell whether it may be a file that a job of ours is at work on.

    Anybody can choose such a name: nothing hides behind it for longer than a day.
    """
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False  # gone, or for the next look to tell
    return stat.S_ISREG(info.st_mode) and abs(time.time() - info.st_ctime) < WORKED_ON
