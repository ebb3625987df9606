"""Files and trees that an admin names: where they are, and what they are to the stores."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from maintenance.errors import StoreError
from maintenance.jobs.path_list import PathList
from maintenance.jobs.walking import opened_tree
from maintenance.settings import Store
from maintenance.store.identity import DIRECTORY, path_of
from maintenance.store.tree import NotAnImage, Tree, excluding
from maintenance.store.walk import Excluded, Unread, meets, walk
from maintenance.text import show


@dataclass(frozen=True, slots=True)
class Named:
    """A file that was named, or met below a tree that was."""

    root: bytes  # what it is opened from: its store, the tree that was named, or its directory
    path: bytes  # from there
    store: str | None
    booked: bool  # it is an image of its store: a walk meets it

    @property
    def shown(self) -> str:
        """Return its path as results show it: inside its store, or absolute."""
        return show(self.path if self.store is not None else _joined(self.root, self.path))


@dataclass(frozen=True, slots=True)
class Unreachable:
    """What cannot be opened, and why."""

    store: str | None
    path: str  # as results show it
    reason: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A store as the kernel knows it."""

    name: str
    root: bytes
    device: int | None  # None: the store is not there
    fault: str  # why its images cannot be there; empty: they can
    excluded: Excluded

    def inside(self, real: bytes) -> bytes | None:
        """Return ``real`` as a path inside the store; None when it lies outside."""
        if real == self.root:
            return b""
        root = self.root.rstrip(b"/") + b"/"
        return real.removeprefix(root) if real.startswith(root) else None


class NamedPaths:
    """Finds the files, and opens them through their chains of directories."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._places = [_place(store) for store in stores]
        self._quarantines = {os.path.realpath(os.fsencode(store.quarantine))
                             for store in stores if store.quarantine is not None}
        self._tree: Tree | None = None  # of the last file: work comes in runs
        self._root = b""

    def __enter__(self) -> Self:
        """Return the paths themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close what is open."""
        self._close()

    def files(self, paths: Iterable[str]) -> Iterator[Named | Unreachable]:
        """Yield every file at and below ``paths``, which are as ``apart`` returns them."""
        for real in map(os.fsencode, paths):
            try:
                info = os.lstat(real)  # noqa: PTH116 - bytes
                if stat.S_ISDIR(info.st_mode):
                    yield from self._below(real)
                elif stat.S_ISREG(info.st_mode):
                    yield self._named(real, info.st_dev, os.path.dirname(real))  # noqa: PTH120
                else:
                    yield self._unreachable(real, "not a regular file")
            except OSError as error:
                yield self._unreachable(real, error.strerror or str(error))

    def open(self, named: Named) -> int:
        """Return a descriptor of the file, for reading; raises Vanished or NotAnImage."""
        return self.tree(named).open(named.path)

    def tree(self, named: Named) -> Tree:
        """Return the open tree from which a file is reached; raises NotAnImage."""
        if self._tree is None or self._root != named.root:
            self._close()
            try:
                self._tree, self._root = Tree(Path(os.fsdecode(named.root))), named.root
            except StoreError as error:
                raise NotAnImage(str(error)) from None
        return self._tree

    def _below(self, real: bytes) -> Iterator[Named | Unreachable]:
        """Yield what a tree holds, but for the quarantines in it: that is out of reach already."""
        for place in self._places:
            if place.fault and (place.root + b"/").startswith(real.rstrip(b"/") + b"/"):
                yield Unreachable(place.name, ".", place.fault)
        fd = os.open(real, DIRECTORY)
        try:
            device = os.fstat(fd).st_dev
            for met in walk(fd, lambda path: _joined(real, path) in self._quarantines):
                if isinstance(met, Unread):
                    yield self._unreachable(_joined(real, path_of(met.key)), met.reason)
                elif isinstance(met, list):
                    for key, *_ in met:
                        yield self._named(_joined(real, path_of(key)), device, real)
        finally:
            os.close(fd)

    def _named(self, real: bytes, device: int, otherwise: bytes) -> Named:
        """Return what ``real`` is; outside every store it is opened from ``otherwise``."""
        for place in self._places:
            inside = place.inside(real)
            if inside and place.device == device:
                return Named(place.root, inside, place.name, meets(inside, place.excluded))
        return Named(otherwise, os.path.relpath(real, otherwise), None, booked=False)

    def _unreachable(self, real: bytes, reason: str) -> Unreachable:
        for place in self._places:
            inside = place.inside(real)
            if inside is not None:
                return Unreachable(place.name, show(inside or b"."), reason)
        return Unreachable(None, show(real), reason)

    def _close(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None


def _joined(root: bytes, path: bytes) -> bytes:
    return root.rstrip(b"/") + b"/" + path if path else root


def _place(store: Store) -> _Place:
    root = os.path.realpath(os.fsencode(store.path))
    device, fault = None, ""
    with suppress(OSError):
        device = os.stat(root).st_dev  # noqa: PTH116 - bytes
    try:
        with opened_tree(store):
            pass
    except StoreError as error:
        fault = str(error)
    return _Place(store.name, root, device, fault, excluding(store.exclude))


def apart(paths: Sequence[str]) -> PathList:
    """Return the paths without those that are met at or below another: nothing counts twice."""
    return PathList(paths)
