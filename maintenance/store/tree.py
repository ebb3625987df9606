"""A store's directory, held by descriptor, and the images below it."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pathspec import GitIgnoreSpec

from maintenance.errors import StoreError
from maintenance.store.identity import DIRECTORY, READ
from maintenance.store.walk import Excluded, nothing
from maintenance.text import show


class NotAnImage(Exception):
    """What stands at a path cannot be opened as an image: the reason is the text."""


class Vanished(Exception):
    """Nothing stands at the path any more."""


class Tree:
    """An open store. Every image is opened through its chain of directories.

    No symlink is followed on the way and no border of the file system crossed.
    The directory of the last image stays open: work comes in runs.
    """

    def __init__(self, root: Path) -> None:
        """Open ``root``, resolved once; raises StoreError."""
        try:
            self.fd = os.open(os.path.realpath(root), DIRECTORY)
        except FileNotFoundError:
            raise StoreError(f"{show(root)}: not there") from None
        except NotADirectoryError:
            raise StoreError(f"{show(root)}: not a directory") from None
        except OSError as error:
            raise StoreError(f"{show(root)}: {error.strerror}") from None
        self._device = os.fstat(self.fd).st_dev
        self._parent: bytes | None = None
        self._parent_fd = -1

    def __enter__(self) -> Self:
        """Return the tree itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close its descriptors."""
        self.close()

    def close(self) -> None:
        """Close its descriptors."""
        self._forget_parent()
        os.close(self.fd)

    def open(self, path: bytes) -> int:
        """Return a descriptor of the image at ``path``, for reading.

        Raises Vanished, or NotAnImage for what is not a regular file or cannot
        be reached.
        """
        try:
            fd = os.open(path.rpartition(b"/")[2], READ, dir_fd=self.parent_of(path))
        except FileNotFoundError:
            raise Vanished from None
        except OSError as error:
            raise NotAnImage(error.strerror or str(error)) from None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise NotAnImage("no longer a regular file")

    def parent_of(self, path: bytes) -> int:
        """Return a descriptor of the directory that ``path`` is in, until the next is asked for.

        Raises NotAnImage, or the OSError of a directory that cannot be entered.
        """
        if not {b"", b".", b".."}.isdisjoint(path.split(b"/")):
            raise NotAnImage("not a path inside the store")
        return self._open_parent(path.rpartition(b"/")[0])

    @property
    def read_only(self) -> bool:
        """Tell whether its file system lets nobody write to it."""
        return bool(os.fstatvfs(self.fd).f_flag & os.ST_RDONLY)

    def holds(self, name: str) -> bool:
        """Tell whether something stands at ``name``, a path inside the store."""
        try:
            os.stat(name, dir_fd=self.fd)
        except OSError:
            return False
        return True

    def _open_parent(self, parent: bytes) -> int:
        if not parent:
            return self.fd
        if parent != self._parent:
            self._forget_parent()
            self._parent_fd = self._descend(parent)
            self._parent = parent
        return self._parent_fd

    def _descend(self, parent: bytes) -> int:
        fd = os.dup(self.fd)
        for name in parent.split(b"/"):
            try:
                below = os.open(name, DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
            if os.fstat(fd).st_dev != self._device:
                os.close(fd)
                raise NotAnImage("another file system is mounted on its way")
        return fd

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent_fd)
            self._parent = None


def excluding(patterns: Sequence[str]) -> Excluded:
    """Return the test for a store's ``exclude``, patterns as in a .gitignore."""
    if not patterns:
        return nothing
    spec = GitIgnoreSpec.from_lines(patterns)
    return lambda path: spec.match_file(os.fsdecode(path))
