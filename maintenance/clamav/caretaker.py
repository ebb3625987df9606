"""A child that works in the database directory as the directory's owner.

It is started while we may still change users and does as it is told after we
have dropped our privileges. It knows a handful of deeds and reads nothing it is
not told to, so the worst that a fooled parent can ask of it is a wrong canary.
"""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from maintenance.accounts import Account
from maintenance.clamav import housekeeping
from maintenance.forks import settle
from maintenance.text import show

_ORDER = 64 * 2**10  # bytes
_FOR_GOOD, _FOR_NOW = "!", "?"  # before a reason
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something could not be done."""

    reason: str
    for_good: bool  # the directory is not ours to write to: no repair would be in place


class Caretaker:
    """The parent's end. A deed returns None, or why it failed."""

    def __init__(self, directory: Path, owner: Account | None) -> None:
        """Fork the child; ``owner`` None: it works as ourselves."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs, directory, owner)
        theirs.close()

    def close(self) -> None:
        """Let the child go: there is nothing left to do for it."""
        self._link.close()
        os.waitpid(self._pid, 0)

    def write_canary(self, line: str) -> Refusal | None:
        """Put ``line`` in the canary's file, whole or not at all."""
        return self._ask(b"w" + line.encode("ascii"))

    def open_up(self) -> Refusal | None:
        """Make databases readable for the engine: freshclam leaves custom ones 0600."""
        return self._ask(b"o")

    def cooling(self) -> bool:
        """Tell whether freshclam has been told to wait."""
        return self._send(b"c") == "yes"

    def prepare(self, sources: Sequence[str]) -> Refusal | None:
        """Make ready for a freshclam, of which no other may be at work there.

        What one of ours left when it was killed is removed. Of ``sources``, files
        that it is to copy, it would pass over those that are older than the copy it
        made, whatever they hold: a copy that differs is made older.
        """
        return self._ask(b"p" + b"\0".join(map(os.fsencode, sources)))

    def conclude(self, killed: bool) -> Refusal | None:
        """Say that freshclam has ended, or was ``killed``: then clear up after it."""
        return self._ask(b"k" if killed else b"e")

    def _ask(self, order: bytes) -> Refusal | None:
        reply = self._send(order)
        if reply == "done":
            return None
        return Refusal(reply[1:] or "the child is gone", reply.startswith(_FOR_GOOD))

    def _send(self, order: bytes) -> str:
        try:
            self._link.send(order)
            return self._link.recv(4096).decode("utf-8", "replace")
        except OSError as error:
            return f"{_FOR_NOW}{error.strerror or error}"


def _serve(link: socket.socket, directory: Path, owner: Account | None) -> NoReturn:
    try:
        settle((link.fileno(),), owner)
        while order := link.recv(_ORDER):
            link.send(_obey(order, directory).encode())
    finally:
        os._exit(0)


def _obey(order: bytes, directory: Path) -> str:
    try:
        fd = os.open(directory, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _do(order[:1], order[1:], fd)
        finally:
            os.close(fd)
    except OSError as error:
        kind = _FOR_GOOD if error.errno in _NOT_OURS else _FOR_NOW
        return f"{kind}{show(directory)}: {error.strerror}"


def _do(deed: bytes, told: bytes, directory: int) -> str:
    if deed == b"w":
        housekeeping.put_canary(directory, told)
    elif deed == b"o":
        housekeeping.open_up(directory)
    elif deed == b"c":
        return "yes" if housekeeping.cool_down(directory) else "no"
    elif deed == b"p":
        housekeeping.clear_up(directory)
        housekeeping.mark(directory)
        for source in filter(None, told.split(b"\0")):
            housekeeping.outdate(directory, Path(os.fsdecode(source)))
    elif deed == b"k":
        housekeeping.clear_up(directory)
        housekeeping.unmark(directory)
    else:
        housekeeping.unmark(directory)
    return "done"
