"""Sessions with clamd that are kept for the next upload, whichever thread it comes from."""

import select
import threading
import time
from dataclasses import dataclass

from maintenance.clamav import protocol
from maintenance.clamav.connection import PATIENCE, Clamd
from maintenance.clamav.session import Session, SessionLost
from maintenance.upload.judging import Said
from maintenance.upload.source import Source, Stalled
from maintenance.verdict import unknown

MOST = 32  # scans of this process at a time: clamd's own queue holds 100 of all processes
KEPT = 60.0  # seconds that a session is kept without an upload
TIDY = 1.0  # seconds between two looks at those that are kept


@dataclass(slots=True)
class _Kept:
    session: Session[None]
    used: float


class Pool:
    """Threads may ask at once; each has a session of its own for as long as it asks."""

    def __init__(self) -> None:
        """Begin without sessions: the first upload opens one."""
        self._clamd = Clamd("")
        self._begin()

    def _begin(self) -> None:
        self._idle: list[_Kept] = []
        self._lent: set[Session[None]] = set()
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST)
        self._tidied = 0.0

    def forget(self) -> None:
        """Begin anew in a forked child: what is here are its parent's sessions."""
        sessions = [*(one.session for one in self._idle), *self._lent]
        self._begin()
        for session in sessions:
            session.close()

    def ask(self, clamd: Clamd, source: Source, timeout: float) -> Said:
        """Return clamd's word on an upload, within ``timeout`` seconds.

        What reading the upload raises is the caller's.
        """
        deadline = time.monotonic() + timeout
        late = Said(unknown(f"clamd at {clamd.address} gave no answer within {timeout:g} s"),
                    "timeout")
        if not self._room.acquire(timeout=timeout):
            return late
        try:
            return self._ask(clamd, source, deadline)
        except TimeoutError:
            return late
        except Stalled:
            return Said(unknown(f"the upload did not come within {timeout:g} s"), "stalled")
        except (SessionLost, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else None
            return Said(unknown(f"clamd at {clamd.address}: {text or error}"), "away")
        finally:
            self._room.release()

    def _ask(self, clamd: Clamd, source: Source, deadline: float) -> Said:
        kept = self._take(clamd) if source.again else None
        if kept is not None:
            try:
                return self._exchange(kept, clamd, source, deadline)
            except SessionLost:
                pass  # clamd ended it, or was restarted: a new one tells
        session = Session[None](clamd, _left(deadline))
        with self._turn:
            self._lent.add(session)
        return self._exchange(session, clamd, source, deadline)

    def _exchange(self, session: Session[None], clamd: Clamd, source: Source,
                  deadline: float) -> Said:
        reusable = False
        try:
            if source.fd is not None and clamd.local:
                session.scan(None, source.fd)
            else:
                session.stream(None, source.chunks())
            reply = _reply(session, deadline)
            # After these clamd ends the session.
            reusable = not session.unsent and reply != protocol.STREAM_LIMIT
            return _said(reply)
        finally:
            self._give_back(session, clamd, reusable=reusable)

    def _take(self, clamd: Clamd) -> Session[None] | None:
        with self._turn:
            now = time.monotonic()
            if clamd != self._clamd or now - self._tidied > TIDY:
                self._tidy(clamd, now)
            if not self._idle:
                return None
            session = self._idle.pop().session
            self._lent.add(session)
            return session

    def _give_back(self, session: Session[None], clamd: Clamd, *, reusable: bool) -> None:
        with self._turn:
            self._lent.discard(session)
            if reusable and clamd == self._clamd:
                self._idle.append(_Kept(session, time.monotonic()))
                return
        session.close()

    def _tidy(self, clamd: Clamd, now: float) -> None:
        """Close what is another clamd's, long unused or dead; keep the rest alive."""
        old = clamd != self._clamd
        self._clamd, self._tidied = clamd, now
        kept = []
        for one in self._idle:
            if not old and now - one.used < KEPT and _alive(one.session):
                kept.append(one)
            else:
                one.session.close()
        self._idle = kept


def _alive(session: Session[None]) -> bool:
    session.ping()
    try:
        return not [*session.exchange()]
    except SessionLost:
        return False


def _reply(session: Session[None], deadline: float) -> str:
    """Return the reply to the one request; raises TimeoutError and SessionLost."""
    poll = select.poll()
    while True:
        for _, reply in session.exchange():
            return reply
        wanted = select.POLLIN | (select.POLLOUT if session.unsent else 0)
        poll.register(session.link, wanted)
        poll.poll(_left(deadline) * 1000)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, PATIENCE)


def _said(reply: str) -> Said:
    answer = protocol.answer(reply)
    if answer.reason is None:
        return Said(answer)
    limit = reply == protocol.STREAM_LIMIT or answer.reason.startswith(protocol.LIMIT_REACHED)
    return Said(answer, "limit" if limit else "error")
