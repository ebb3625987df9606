"""One IDSESSION connection to clamd: many questions at once, and nothing waits for anything."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav import protocol
from maintenance.clamav.connection import LONGEST, PATIENCE, Clamd
from maintenance.clamav.outgoing import Outgoing, Piece, Unreadable
from maintenance.text import show

KEEP_ALIVE = 10.0  # seconds; clamd closes a session that is silent for long

T = TypeVar("T")


class SessionLost(Exception):
    """The connection is gone, with everything in flight on it."""


class SessionSpent(SessionLost):
    """One request has cost the session. clamd is well: the others can be asked again."""


@dataclass(slots=True)
class Pending(Generic[T]):
    """A request without a reply; ``begun``: clamd is at work on it since then at least."""

    what: T
    begun: float | None = None  # on the monotonic clock


class Session(Generic[T]):
    """Replies come in any order, and are matched by number; ``T``: what an asker calls his."""

    def __init__(self, clamd: Clamd, patience: float = PATIENCE) -> None:
        """Connect, within ``patience`` seconds; raises OSError."""
        self.link = clamd.connect(patience)
        self.link.setblocking(False)
        self.waiting: dict[int, Pending[T]] = {}
        self._passes = clamd.local
        self._outgoing = Outgoing(self.link)
        self._number = 0  # of the last request
        self._reached = 0  # the highest number that was answered: all before it have begun
        self._buffer = b""
        self._broken: str | None = None
        self._spoken = time.monotonic()
        self._say([(protocol.SESSION, None)])

    @property
    def unsent(self) -> bool:
        """Tell whether something waits for clamd to take it."""
        return bool(self._outgoing)

    def scan(self, what: T, fd: int) -> None:
        """Ask about the file behind ``fd``: stays open until the answer is there."""
        if self._passes:
            self._ask(what, [(protocol.FILDES, fd)])
        else:
            self.stream(what, protocol.chunks_of(fd))

    def stream(self, what: T, chunks: Iterable[bytes]) -> None:
        """Ask about bytes; they are drawn when there is room for them."""
        self._ask(what, ((piece, None) for piece in protocol.streamed(chunks)))

    def version(self, what: T) -> None:
        """Ask for clamd's version: it comes in two parts, so no scan may be in flight here."""
        self._ask(what, [(protocol.VERSION, None)])

    def ping(self) -> None:
        """Keep the session alive, when it has said nothing for a while."""
        if not self.unsent and time.monotonic() - self._spoken > KEEP_ALIVE:
            self._number += 1
            self._say([(protocol.PING, None)])

    def exchange(self) -> Iterator[tuple[T, str]]:
        """Send and receive what goes at once, and yield the replies; raises SessionLost."""
        try:
            self._flush()
        except Unreadable as error:
            yield self.waiting.pop(error.number).what, f"not readable: {error}"
            raise SessionSpent("a stream broke off") from None
        yield from self._receive()

    def overdue(self, since: float) -> list[T]:
        """Give up what clamd has begun with before ``since``, and return it."""
        late = [number for number, one in self.waiting.items() if (one.begun or since) < since]
        return [self.waiting.pop(number).what for number in late]

    def close(self) -> None:
        """End the session."""
        self._outgoing.clear()
        self.link.close()

    def _ask(self, what: T, request: Iterable[Piece]) -> None:
        self._number += 1
        self.waiting[self._number] = Pending(what)
        self._say(request)

    def _say(self, request: Iterable[Piece]) -> None:
        self._spoken = time.monotonic()
        if self._broken is None:
            self._outgoing.put(self._number, iter(request))

    def _flush(self) -> None:
        try:
            self._outgoing.flush()
        except (BrokenPipeError, ConnectionResetError) as error:
            self._broken = error.strerror  # what clamd has said before can still be read
            self._outgoing.clear()
        except OSError as error:
            raise SessionLost(error.strerror or str(error)) from None

    def _receive(self) -> Iterator[tuple[T, str]]:
        try:
            data = self.link.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken = error.strerror or str(error)
            data = b""
        if not data:
            raise self._ended()
        *replies, self._buffer = (self._buffer + data).split(b"\0")
        for reply in replies:
            yield from self._match(reply.decode("utf-8", "backslashreplace"))
        if len(self._buffer) > LONGEST:
            raise SessionLost("clamd sends what is no reply")

    def _match(self, text: str) -> Iterator[tuple[T, str]]:
        split = protocol.numbered(text)
        if split is None:
            raise SessionLost(f"clamd: {text}")
        number, reply = split
        pending = self.waiting.pop(number, None)
        if pending is None:
            return  # a PONG, or what was given up
        now = time.monotonic()
        for before in range(self._reached + 1, number):
            if before in self.waiting and self.waiting[before].begun is None:
                self.waiting[before].begun = now
        self._reached = max(self._reached, number)
        yield pending.what, reply
        if reply == protocol.STREAM_LIMIT:
            raise SessionSpent("a stream was larger than clamd's StreamMaxLength")

    def _ended(self) -> SessionLost:
        last_words = show(self._buffer.strip()) or self._broken
        if last_words == protocol.IMPATIENT:  # and so it has not read what we asked
            return SessionSpent(last_words)
        return SessionLost("clamd hung up before it answered"
                           + (f" ({last_words})" if last_words else ""))
