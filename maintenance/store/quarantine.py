"""A directory of our own for what was found in a store: nothing in it is ever served."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from maintenance.errors import QuarantineError
from maintenance.store import intake, records
from maintenance.store.identity import DIRECTORY
from maintenance.store.intake import Finding, NotTaken
from maintenance.store.moving import FULL, look
from maintenance.store.records import GONE, Record, State
from maintenance.store.settling import settle
from maintenance.text import show


class NotThere(QuarantineError):
    """The directory was not made yet: nothing was ever taken."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file that is here."""

    ticket: str
    record: Record


class Quarantine:
    """An open quarantine. Whatever changes something holds its lock, for as short as it takes.

    The first change settles what a killed run left half done.
    """

    def __init__(self, fd: int, path: Path) -> None:
        """See ``open``."""
        self.fd = fd
        self.path = path
        self._depth = 0
        self._settled = False

    @classmethod
    def open(cls, directory: Path, *, make: bool) -> Self:
        """Open a directory that nobody but us can enter; raises QuarantineError.

        ``make`` makes it where its parent exists; else one that is not there is NotThere.
        """
        try:
            if make:
                _make(directory)
            fd = os.open(directory, DIRECTORY)
        except FileNotFoundError:
            raise NotThere(f"{show(directory)}: not there") from None
        except OSError as error:
            link = error.errno in {errno.ELOOP, errno.ENOTDIR} and directory.is_symlink()
            why = "a symlink" if link else error.strerror or str(error)
            raise QuarantineError(f"{show(directory)}: {why}") from None
        try:
            _refuse_open_to_others(fd, directory)
        except QuarantineError:
            os.close(fd)
            raise
        return cls(fd, directory)

    def __enter__(self) -> Self:
        """Return the quarantine itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close its descriptor."""
        os.close(self.fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for the block; what fails in it is a NoRoom or a QuarantineError."""
        try:
            with self._lock():
                if not self._settled:
                    settle(self.fd)
                    self._settled = True
                yield
        except OSError as error:
            raise records.trouble(os.fsencode(self.path), error) from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if self._depth:
            yield
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open("lock", flags, 0o600, dir_fd=self.fd)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._depth += 1
            yield
        finally:
            self._depth = 0
            os.close(lock)

    def take(self, parent: int, path: bytes, scanned: os.stat_result, finding: Finding) -> str:
        """Take the image at ``path`` of its store out of it; return its ticket.

        ``parent`` is a descriptor of the image's own directory, ``scanned`` what
        fstat said of the descriptor that was scanned. Raises FileChanged or
        NotTaken when the image stays; NoRoom when the disk is full, which ends a run.
        """
        with self.locked():
            try:
                return intake.take(self.fd, parent, path, scanned, finding)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise NotTaken(error.strerror or str(error)) from None

    def entries(self, since: float = 0.0) -> Iterator[records.Entry]:
        """Yield every ticket made since, those of files that are gone and damaged ones included."""
        return records.entries(self.fd, since)

    def held(self) -> Iterator[Held]:
        """Yield what is here, oldest first; also what a killed run had just taken."""
        for entry in self.entries():
            if (entry.record is not None and entry.state not in GONE
                    and look(self.fd, entry.image) is not None):
                yield Held(entry.ticket, entry.record)

    def damaged(self) -> Iterator[str]:
        """Yield a line for each ticket that something is wrong with."""
        for entry in self.entries():
            if entry.state in GONE:
                continue
            if entry.record is None:
                yield f"{entry.ticket}: its record is damaged ({entry.damaged})"
            elif entry.state is State.HELD and look(self.fd, entry.image) is None:
                yield f"{entry.ticket}: its file is missing"

    @property
    def bytes(self) -> int:
        """Return how much room the files here take."""
        sizes = (look(self.fd, entry.image) for entry in self.entries())
        return sum(info.st_size for info in sizes if info is not None)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(0o700)
        directory.chmod(0o700)  # whatever the umask says
    except FileExistsError:
        pass


def _refuse_open_to_others(fd: int, directory: Path) -> None:
    info = os.fstat(fd)
    if info.st_uid != os.geteuid():
        raise QuarantineError(f"{show(directory)}: belongs to user {info.st_uid}, not to the"
                              f" jobs' own; chown {os.geteuid()} {show(directory)}")
    if info.st_mode & 0o077:
        raise QuarantineError(f"{show(directory)}: others can enter it;"
                              f" chmod 0700 {show(directory)}")
