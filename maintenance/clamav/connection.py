"""One connection to clamd at a time: the questions that need no session."""

import array
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from maintenance.clamav import protocol
from maintenance.errors import EngineError
from maintenance.text import show
from maintenance.verdict import Answer, unknown

PATIENCE = 5.0  # seconds in which a healthy clamd answers a PING
LONGEST = 64 * 2**10  # bytes of a reply; clamd's are far shorter


@dataclass(frozen=True, slots=True)
class Clamd:
    """Where a clamd listens: a Unix socket's path, or ``tcp://HOST:PORT``."""

    address: str

    @property
    def local(self) -> bool:
        """Tell whether descriptors can be passed to it."""
        return not self.address.startswith("tcp://")

    def connect(self, timeout: float) -> socket.socket:
        """Return a connected socket; raises OSError."""
        if not self.local:
            place = urlsplit(self.address)
            link = socket.create_connection((place.hostname or "", place.port or 3310), timeout)
            # The end of a stream is a small packet, which Nagle would hold back for 40 ms.
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return link
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(timeout)
            link.connect(self.address)
        except BaseException:
            link.close()
            raise
        return link

    def ask(self, command: str, timeout: float = PATIENCE) -> str:
        """Return the reply to a plain command; raises EngineError."""
        with self._talk(timeout) as (link, deadline):
            link.sendall(b"z" + command.encode("ascii") + b"\0")
            return _reply(link, deadline)

    def answers(self, timeout: float = PATIENCE) -> bool:
        """Tell whether it says PONG; a NULL engine does so too (see ``version``)."""
        try:
            return self.ask("PING", timeout) == "PONG"
        except EngineError:
            return False

    def version(self, timeout: float = PATIENCE) -> str:
        """Return ``ClamAV ENGINE[/DAILY/DATE]``; raises EngineError.

        A clamd that lost its engine to a failed reload still says PONG, but
        gives 4294967295 as the version of its definitions.
        """
        reply = self.ask("VERSION", timeout)
        if not reply.startswith("ClamAV ") or "/4294967295/" in reply:
            raise EngineError(f"clamd at {self.address} has no usable engine"
                              f" (VERSION: {show(reply)}); restart it and see its log")
        return reply

    def scan_descriptor(self, fd: int, timeout: float) -> Answer:
        """Have the file behind ``fd`` scanned: clamd reads what we opened, by no name."""
        try:
            with self._talk(timeout) as (link, deadline):
                send_descriptor(link, fd)
                return protocol.answer(_reply(link, deadline))
        except EngineError as error:
            return unknown(str(error))

    def scan_stream(self, chunks: Iterable[bytes], timeout: float) -> Answer:
        """Have bytes scanned, sent in chunks of at most ``protocol.CHUNK``.

        A send that breaks still has a reply: over StreamMaxLength clamd says so
        and closes while we are writing.
        """
        try:
            with self._talk(timeout) as (link, deadline):
                try:
                    for piece in protocol.streamed(chunks):
                        _hurry(link, deadline)
                        link.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    return protocol.answer(_reply(link, deadline))
                return protocol.answer(_reply(link, deadline))
        except EngineError as error:
            return unknown(str(error))

    @contextmanager
    def _talk(self, timeout: float) -> Iterator[tuple[socket.socket, float]]:
        deadline = time.monotonic() + timeout
        try:
            with closing(self.connect(timeout)) as link:
                yield link, deadline
        except TimeoutError:
            raise EngineError(f"clamd at {self.address} gave no answer"
                              f" within {timeout:g} s") from None
        except OSError as error:
            raise EngineError(f"clamd at {self.address}:"
                              f" {error.strerror or error}") from None


def send_descriptor(link: socket.socket, fd: int) -> None:
    """Send one FILDES request with ``fd``, which must be open for reading."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
    link.sendmsg([protocol.FILDES], [rights])


def pid_of(link: socket.socket) -> int:
    """Return the process that listens at the other end of a Unix socket."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[0])


def _hurry(link: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    link.settimeout(left)


def _reply(link: socket.socket, deadline: float) -> str:
    reply = b""
    while not reply.endswith(b"\0"):
        _hurry(link, deadline)
        chunk = link.recv(4096)
        if not chunk or len(reply) > LONGEST:
            raise EngineError("clamd hung up before it answered")
        reply += chunk
    return reply[:-1].decode("utf-8", "backslashreplace")
