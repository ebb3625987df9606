"""The reading end of a spool: files are taken over, read line by line, and removed.

Applications may write here, so nothing in it is believed: only regular files are
opened, without following links, and lines that are not ours are set aside.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ImagewardenError
from maintenance.held import is_final
from maintenance.text import show

TAKEN = ".taken"  # how the names of files end after the take-over
PIECE = 4 * 2**20  # bytes read at once; a longer line is none of ours
IDENTITY = "identity"
SET_ASIDE = "set-aside.txt"
KEPT = 2**20  # bytes of lines set aside that are kept to be looked at
_NAME = re.compile(r"([0-9a-f]{32})(\.[a-z]+)")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of a file that follow each other; ``upto`` is where they end."""

    lines: bytes
    upto: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that was taken over; ``final``: nobody will write to it any more."""

    token: str
    fd: int
    final: bool

    def pieces(self, counted: int) -> Iterator[Piece]:
        """Yield what follows the first ``counted`` bytes, as far as it is whole lines."""
        at = counted
        while data := os.pread(self.fd, PIECE, at):
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) < PIECE:
                return  # still being written, or cut short for good
            at += end or len(data)
            yield Piece(data[:end or None], at)


class Directory:
    """A spool, for one run; ``fresh``: how the names of files end that writers begin."""

    def __init__(self, path: Path, fresh: str) -> None:
        """Open it; raises ImagewardenError."""
        self.path, self._fresh = path, fresh
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ImagewardenError(f"{show(path)}: {error.strerror}") from None

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def identity(self) -> str:
        """Return the number that tells this spool from others in the same database."""
        with suppress(OSError):
            fd = os.open(IDENTITY, _READ, dir_fd=self._fd)
            try:
                text = os.read(fd, 64).decode("ascii", "replace")
            finally:
                os.close(fd)
            if re.fullmatch(r"[0-9a-f]{32}", text):
                return text
        text = secrets.token_hex(16)
        draft = f".{IDENTITY}.{text}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600,
                     dir_fd=self._fd)
        try:
            os.write(fd, text.encode("ascii"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, IDENTITY, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        return text

    def tokens(self) -> list[str]:
        """Return the files that are there, fresh or taken, each by its number."""
        found = map(_NAME.fullmatch, os.listdir(self._fd))  # noqa: PTH208 - by descriptor
        return sorted({one[1] for one in found if one and one[2] in {self._fresh, TAKEN}})

    def take(self, token: str) -> Taken:
        """Take a file over; the caller closes its descriptor. Raises ImagewardenError."""
        try:
            with suppress(FileNotFoundError):  # taken by a run before
                os.rename(token + self._fresh, token + TAKEN,
                          src_dir_fd=self._fd, dst_dir_fd=self._fd)
            fd = os.open(token + TAKEN, _READ, dir_fd=self._fd)
        except OSError as error:
            raise ImagewardenError(f"{show(token + TAKEN)}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImagewardenError(f"{show(token + TAKEN)}: not a regular file")
        return Taken(token, fd, is_final(fd))

    def remove(self, taken: Taken) -> None:
        """Remove a final file whose every line is counted."""
        with suppress(FileNotFoundError):
            os.unlink(taken.token + TAKEN, dir_fd=self._fd)

    def set_aside(self, line: bytes) -> None:
        """Keep a line that is not ours for somebody to look at, as long as there is room."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError):
            fd = os.open(SET_ASIDE, flags | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
            try:
                if os.fstat(fd).st_size < KEPT:
                    os.write(fd, show(line[:1024]).encode() + b"\n")
            finally:
                os.close(fd)
