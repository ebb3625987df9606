"""Images before an engine: asked about, asked again when they change, believed when proven."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav.scanner import Question, Scanner
from maintenance.errors import EngineError
from maintenance.jobs.engines import Engine
from maintenance.jobs.slices import GenerationMoved, Judged, Slices
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import NotAnImage, Vanished
from maintenance.verdict import Answer, unknown

CHANGED = unknown("changed while it was scanned")
# So begins the reason of an answer that cost an engine; a next run asks about that image alone.
DEADLY = "clamd died or hung while it scanned this image"
AMONG_OTHERS = unknown(f"{DEADLY} and others")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened(Generic[T]):
    what: T
    info: os.stat_result
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Desk(Generic[T]):
    """Where images come from, and where what is known of them goes.

    ``open`` raises Vanished or NotAnImage; ``wait`` tells that an image is too
    young. ``believed`` gets the answers that a proof of the engine covers.
    """

    open: Callable[[T], int]
    believed: Callable[[Sequence[Judged[T]]], None]
    vanished: Callable[[T], None] = lambda _: None
    wait: Callable[[T, os.stat_result], bool] = lambda _, __: False


class Inspection(Generic[T]):
    """One engine's work on a stream of images.

    ``alone``: on one after the other, so that it is clear which one an engine was lost over.
    """

    def __init__(self, engine: Engine, settings: Clamav, desk: Desk[T], *, alone: bool = False
                 ) -> None:
        self.suspects: list[T] = []  # in flight when an engine of ours was lost
        self._engine, self._settings, self._desk, self._alone = engine, settings, desk, alone
        self._slices = Slices[T](engine, settings.timeout, desk.believed)
        self._again: deque[T] = deque()

    @property
    def unsettled(self) -> list[T]:
        """Return what was asked about to no avail: another engine may be asked."""
        return self._slices.unsettled

    def run(self, whats: Iterable[T], progress: Progress, label: str, total: int | None = None
            ) -> str | None:
        """Ask about ``whats``; return why the engine was lost, None when it was not.

        Whatever ends this, a signal included, what was answered and proven is believed.
        Raises GenerationMoved.
        """
        in_flight = 1 if self._alone else self._engine.in_flight
        try:
            scanner = Scanner[_Opened[T]](self._engine.clamd, in_flight, self._settings.timeout)
        except OSError as error:
            return f"clamd does not take a session ({error.strerror or error})"
        lost, moved = None, False
        try:
            with closing(scanner):
                self._ask(scanner, progress.over(
                    scanner.scan(self._questions(whats)), label, total))
        except EngineError as error:  # it could not be proven any more
            lost = str(error)
        finally:
            moved = self._slices.end()
        if moved:
            raise GenerationMoved
        return scanner.lost or lost

    def _ask(self, scanner: Scanner[_Opened[T]],
             answers: Iterable[tuple[Question[_Opened[T]], Answer]]) -> None:
        try:
            for question, answer in answers:
                self._hear(question, answer, last=scanner.lost is not None)
            for question, answer in scanner.scan(self._questions(self._retries())):
                self._hear(question, answer, last=True)
        finally:
            for question in scanner.unanswered():
                os.close(question.fd)
                self._miss(question.what, scanner.lost)
            self.unsettled.extend(self._again)

    def _retries(self) -> Iterator[T]:
        while self._again:
            yield self._again.popleft()

    def _questions(self, whats: Iterable[T]) -> Iterator[Question[_Opened[T]]]:
        for what in whats:
            try:
                fd = self._desk.open(what)
            except Vanished:
                self._desk.vanished(what)
            except NotAnImage as error:
                self._slices.add(Judged(what, unknown(str(error))))
            else:
                yield from self._question(what, fd)

    def _question(self, what: T, fd: int) -> Iterator[Question[_Opened[T]]]:
        info = os.fstat(fd)
        too_large = self._engine.too_large(info.st_size, self._settings.max_file_size)
        if too_large is None and not self._desk.wait(what, info):
            yield Question(_Opened(what, info, stamp(info)), fd)
            return
        os.close(fd)
        if too_large is not None:
            self._slices.add(Judged(what, unknown(too_large), info))

    def _hear(self, question: Question[_Opened[T]], answer: Answer, *, last: bool) -> None:
        """Take an answer; a file that changed meanwhile is asked about once again."""
        opened = question.what
        changed = stamp(os.fstat(question.fd)) != opened.stamp
        os.close(question.fd)
        if changed and not last:
            self._again.append(opened.what)
        else:
            self._slices.add(Judged(opened.what, CHANGED if changed else answer, opened.info,
                               asked=True))

    def _miss(self, opened: _Opened[T], lost: str | None) -> None:
        """Do without an answer, because we were stopped or because clamd was ``lost``."""
        if lost is None:
            self.unsettled.append(opened.what)
        elif self._engine.proof is None and not self._alone:
            self.suspects.append(opened.what)
        else:
            why = f"{DEADLY} ({lost})" if self._alone else lost
            self._slices.keep(Judged(opened.what, unknown(why), opened.info, asked=True))
