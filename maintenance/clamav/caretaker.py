"""A child that works in the database directory as the directory's owner.

It is started while we may still change users and does as it is told after we
have dropped our privileges. It knows two deeds and reads nothing it is not told
to, so the worst that a fooled parent can ask of it is a wrong canary.
"""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from maintenance.clamav.databases import CANARY, SUFFIXES
from maintenance.forks import settle
from maintenance.programs import Account

DRAFT = ".imagewarden-canary.new"


class Caretaker:
    """The parent's end. Every deed returns None, or why it failed."""

    def __init__(self, directory: Path, owner: Account | None) -> None:
        """Fork the child; ``owner`` None: it works as ourselves."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            _serve(theirs, directory, owner)
        theirs.close()

    def write_canary(self, line: str) -> str | None:
        """Put ``line`` in the canary's file, whole or not at all."""
        return self._ask(b"w" + line.encode("ascii"))

    def open_up(self) -> str | None:
        """Make databases readable for the engine: freshclam leaves custom ones 0600."""
        return self._ask(b"o")

    def _ask(self, order: bytes) -> str | None:
        try:
            self._link.send(order)
            reply = self._link.recv(4096).decode("utf-8", "replace")
        except OSError as error:
            return error.strerror or str(error)
        return None if reply == "done" else reply or "the child is gone"


def _serve(link: socket.socket, directory: Path, owner: Account | None) -> NoReturn:
    try:
        settle((link.fileno(),), owner)
        while order := link.recv(4096):
            link.send(_obey(order, directory).encode())
    finally:
        os._exit(0)


def _obey(order: bytes, directory: Path) -> str:
    try:
        fd = os.open(directory, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            if order[:1] == b"w":
                _publish(fd, order[1:])
            else:
                _open_up(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return "done"


def _publish(directory: int, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        os.unlink(DRAFT, dir_fd=directory)  # of a run that was killed here
    fd = os.open(DRAFT, flags, 0o644, dir_fd=directory)
    try:
        os.fchmod(fd, 0o644)
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(DRAFT, CANARY, src_dir_fd=directory, dst_dir_fd=directory)


def _open_up(directory: int) -> None:
    for name in os.listdir(directory):
        if Path(name).suffix.lower() not in SUFFIXES:
            continue
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o004:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                os.fchmod(fd, 0o644)
            finally:
                os.close(fd)
