"""Feeding many files to clamd: a few sessions, multiplexed in one thread."""

import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav import protocol
from maintenance.clamav.connection import Clamd
from maintenance.clamav.session import Session, SessionLost, SessionSpent
from maintenance.verdict import Answer, unknown

MOST = 64  # requests in flight beyond which clamd was seen to lose replies
PER_SESSION = 16  # as fast as one connection gets
GRACE = 5.0  # seconds: clamd's own limit on scan time has to be able to answer first
TIMES = 3  # that a file is asked about whose session others have cost
TICK = 1.0  # seconds between two looks at the clock

SPENT = "clamd ended its session over other streams, again and again"
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A file to scan: ``fd`` stays the asker's, open until the answer is there."""

    what: T
    fd: int


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T]):
    question: Question[T]
    times: int


class Scanner(Generic[T]):
    """Never more than ``in_flight`` questions at a time, and always that many while there are."""

    def __init__(self, clamd: Clamd, in_flight: int, timeout: float) -> None:
        """Open the sessions; raises OSError when clamd does not take one."""
        self.lost: str | None = None  # why clamd answers no more
        self._clamd, self._timeout = clamd, timeout
        self._room = max(1, min(in_flight, MOST))
        self._selector = selectors.DefaultSelector()
        self._sessions: list[Session[_Asked[T]]] = []
        self._again: deque[_Asked[T]] = deque()
        self._answers: deque[tuple[Question[T], Answer]] = deque()
        self._unanswered: list[Question[T]] = []
        self._heard = self._ticked = time.monotonic()
        try:
            for _ in range(max(1, self._room // PER_SESSION)):
                self._open()
        except OSError:
            self.close()
            raise

    def scan(self, questions: Iterable[Question[T]]) -> Iterator[tuple[Question[T], Answer]]:
        """Yield each question with its answer as they come.

        When clamd is lost, which ``lost`` then tells, no more is asked: the rest of
        ``questions`` is not consumed, and what was in flight is ``unanswered``.
        """
        source = iter(questions)
        while True:
            while self.has_room and (question := next(source, None)) is not None:
                self.ask(question)
            if self._answers:
                yield self._answers.popleft()
            elif self.in_flight:
                self._collect(TICK)
            else:
                return

    def ask(self, question: Question[T]) -> None:
        """Ask one more question; ``answers`` gives its answer, unless clamd is lost."""
        if not self.in_flight:
            self._collect(0)  # to notice what was closed while nobody asked
            self._heard = time.monotonic()
        if self.lost is None:
            self._again.append(_Asked(question, 1))
            self._post()
        else:
            self._unanswered.append(question)

    def answers(self, wait: float) -> Iterator[tuple[Question[T], Answer]]:
        """Yield what was answered, after at most ``wait`` seconds when that is nothing yet."""
        if not self._answers:
            self._collect(wait)
        while self._answers:
            yield self._answers.popleft()

    @property
    def in_flight(self) -> int:
        """Return how many questions clamd still has."""
        return len(self._again) + sum(len(session.waiting) for session in self._sessions)

    @property
    def has_room(self) -> bool:
        """Tell whether one more question may be asked."""
        return self.lost is None and self.in_flight < self._room

    def unanswered(self) -> list[Question[T]]:
        """Return the questions whose answer was not given: clamd was lost, or the asker stopped."""
        asked = [pending.what for session in self._sessions for pending in session.waiting.values()]
        return [*self._unanswered, *(one.question for one in (*asked, *self._again)),
                *(question for question, _ in self._answers)]

    def close(self) -> None:
        """Close all sessions."""
        for session in self._sessions:
            session.close()
        self._selector.close()

    def _open(self) -> None:
        session = Session[_Asked[T]](self._clamd)
        self._sessions.append(session)
        self._selector.register(session.link, READ | WRITE, session)

    def _post(self) -> None:
        while self._again and self._sessions:
            asked = self._again.popleft()
            session = min(self._sessions, key=lambda one: len(one.waiting))
            session.scan(asked, asked.question.fd)
            self._exchange(session)

    def _collect(self, wait: float) -> None:
        self._post()
        for key, _ in self._selector.select(wait):
            self._exchange(key.data)
        if time.monotonic() - self._ticked > TICK:
            self._tick()

    def _exchange(self, session: Session[_Asked[T]]) -> None:
        try:
            for asked, reply in session.exchange():
                self._heard = time.monotonic()
                self._answers.append((asked.question, protocol.answer(reply)))
        except SessionSpent:
            self._bury(session, None)
        except SessionLost as error:
            self._bury(session, str(error) if session.waiting else None)
        else:
            wanted = READ | WRITE if session.unsent else READ
            if self._selector.get_key(session.link).events != wanted:
                self._selector.modify(session.link, wanted, session)

    def _bury(self, session: Session[_Asked[T]], lost: str | None) -> None:
        """Close a session; unless clamd was ``lost`` with it, open another and ask again."""
        self._selector.unregister(session.link)
        session.close()
        self._sessions.remove(session)
        if lost is None and self.lost is None:
            try:
                self._open()
            except OSError as error:
                lost = f"clamd takes no session any more ({error.strerror or error})"
        self.lost = self.lost or lost
        held = [pending.what for pending in session.waiting.values()]
        if self.lost is not None:
            self._unanswered += (asked.question for asked in (*held, *self._again))
            self._again.clear()
            return
        for asked in held:
            if asked.times < TIMES:
                self._again.append(_Asked(asked.question, asked.times + 1))
            else:
                self._answers.append((asked.question, unknown(SPENT)))

    def _tick(self) -> None:
        """Give up what takes too long, and keep alive what is silent."""
        self._ticked = time.monotonic()
        since = self._ticked - self._timeout - GRACE
        late = f"clamd gave no answer within {self._timeout:g} s"
        for session in self._sessions:
            self._answers += ((asked.question, unknown(late)) for asked in session.overdue(since))
            session.ping()
        for session in list(self._sessions):
            if self.in_flight and self._heard < since:
                self._bury(session, late)
            else:
                self._exchange(session)
