"""Many scans at once: IDSESSION connections, multiplexed in one thread."""

import selectors
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav import protocol
from maintenance.clamav.connection import LONGEST, Clamd, send_descriptor
from maintenance.verdict import Answer, unknown

MOST = 64  # requests in flight beyond which clamd was seen to lose replies
PER_LINK = 16  # as fast as one connection gets
KEEP_ALIVE = 10.0  # seconds; clamd closes a session that is silent for 30
GRACE = 5.0  # seconds: clamd's own limit on scan time has to be able to answer first

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A file to scan: ``fd`` stays the asker's, open until the answer is there."""

    what: T
    fd: int


class SessionLost(Exception):
    """The connection is gone, with everything in flight on it."""


class Session(Generic[T]):
    """One IDSESSION connection; replies come in any order, matched by number."""

    def __init__(self, clamd: Clamd, timeout: float) -> None:
        """Connect; raises OSError."""
        self.link = clamd.connect(timeout)
        try:
            self.link.sendall(b"zIDSESSION\0")
        except OSError:
            self.link.close()
            raise
        self.waiting: dict[int, Question[T]] = {}
        self._timeout = timeout
        self._number = 0
        self._buffer = b""
        self._sent = self.heard = time.monotonic()

    def send(self, question: Question[T]) -> None:
        """Ask; raises SessionLost, with ``question`` among those waiting."""
        self._number += 1
        self.waiting[self._number] = question
        try:
            send_descriptor(self.link, question.fd)
        except OSError as error:
            raise SessionLost(f"clamd hung up ({error.strerror or error})") from None
        self._sent = time.monotonic()
        if len(self.waiting) == 1:
            self.heard = self._sent

    def receive(self) -> Iterator[tuple[Question[T], Answer]]:
        """Yield the answers that have come in; raises SessionLost."""
        try:
            data = self.link.recv(65536)
        except OSError as error:
            raise SessionLost(f"clamd hung up ({error.strerror or error})") from None
        if not data:
            raise SessionLost("clamd ended before it answered")
        *replies, self._buffer = (self._buffer + data).split(b"\0")
        for reply in replies:
            yield from self._match(reply.decode("utf-8", "backslashreplace"))
        if len(self._buffer) > LONGEST:
            raise SessionLost("clamd sends what is no reply")

    def _match(self, reply: str) -> Iterator[tuple[Question[T], Answer]]:
        split = protocol.numbered(reply)
        if split is None:
            raise SessionLost(f"clamd: {reply}")
        question = self.waiting.pop(split[0], None)
        if question is not None:  # else the PONG that kept the session alive: no progress
            self.heard = time.monotonic()
            yield question, protocol.answer(split[1])

    def tend(self) -> None:
        """Keep a waiting session alive; raises SessionLost when it waited too long."""
        now = time.monotonic()
        if self.waiting and now - self.heard > self._timeout + GRACE:
            raise SessionLost(f"clamd gave no answer within {self._timeout:g} s")
        if now - self._sent > KEEP_ALIVE:
            self._number += 1
            self._sent = now
            try:
                self.link.sendall(b"zPING\0")
            except OSError as error:
                raise SessionLost(f"clamd hung up ({error.strerror or error})") from None

    def close(self) -> None:
        """End the session."""
        self.link.close()


class Scanner(Generic[T]):
    """Feeds questions to clamd, never more than ``in_flight`` at a time."""

    def __init__(self, clamd: Clamd, in_flight: int, timeout: float) -> None:
        """Open the sessions; raises OSError when clamd does not take one."""
        self.lost: str | None = None  # why clamd answers no more
        self._room = max(1, min(in_flight, MOST))
        self._selector = selectors.DefaultSelector()
        self._sessions: list[Session[T]] = []
        try:
            for _ in range(max(1, self._room // PER_LINK)):
                session = Session[T](clamd, timeout)
                self._sessions.append(session)
                self._selector.register(session.link, selectors.EVENT_READ, session)
        except OSError:
            self.close()
            raise

    def scan(self, questions: Iterable[Question[T]]) -> Iterator[tuple[Question[T], Answer]]:
        """Yield each question with its answer as they come.

        When a session breaks, what it held is answered ``unknown`` and no more
        is asked: ``lost`` says why; the rest of ``questions`` is not consumed.
        """
        source = iter(questions)
        drained = False
        while True:
            while not drained and not self.lost and self._free():
                question = next(source, None)
                drained = question is None
                if question is not None:
                    yield from self._guard(self._emptiest(), question)
            if not any(session.waiting for session in self._sessions):
                return
            yield from self._collect()

    def waiting(self) -> list[Question[T]]:
        """Return the questions without an answer, for an asker who stops early."""
        return [question for session in self._sessions for question in session.waiting.values()]

    def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions:
            session.close()
        self._selector.close()

    def _free(self) -> bool:
        return sum(len(session.waiting) for session in self._sessions) < self._room

    def _emptiest(self) -> Session[T]:
        return min(self._sessions, key=lambda session: len(session.waiting))

    def _guard(self, session: Session[T], question: Question[T]
               ) -> Iterator[tuple[Question[T], Answer]]:
        try:
            session.send(question)
        except SessionLost as error:
            yield from self._bury(session, str(error))

    def _collect(self) -> Iterator[tuple[Question[T], Answer]]:
        for key, _ in self._selector.select(timeout=1.0):
            session: Session[T] = key.data
            try:
                yield from session.receive()
            except SessionLost as error:
                yield from self._bury(session, str(error))
        for session in list(self._sessions):
            try:
                session.tend()
            except SessionLost as error:
                yield from self._bury(session, str(error))

    def _bury(self, session: Session[T], why: str) -> Iterator[tuple[Question[T], Answer]]:
        self.lost = self.lost or why
        self._selector.unregister(session.link)
        session.close()
        while session.waiting:  # one at a time: who stops here still finds the rest in `waiting`
            yield session.waiting.popitem()[1], unknown(why)
        self._sessions.remove(session)
