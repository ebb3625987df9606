"""Images before an engine: asked about, asked again when they change, believed when proven."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav.session import Question, Scanner
from maintenance.errors import EngineError
from maintenance.jobs.engines import Engine
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import NotAnImage, Vanished
from maintenance.verdict import Answer, Verdict, unknown

BATCH = 64  # answers of one proof and one commit
SLICE = 5.0  # seconds after which an unfinished batch is settled too
CHANGED = unknown("changed while it was scanned")
CLAIMS = {Verdict.CLEAN, Verdict.INFECTED}  # worth nothing from an engine that is not proven

T = TypeVar("T")


class GenerationMoved(Exception):
    """The engine has other definitions now: what is not settled must be asked again."""


@dataclass(frozen=True, slots=True)
class Judged(Generic[T]):
    """What is known of one image; ``info`` is of the file that was asked about, if any was."""

    what: T
    answer: Answer
    info: os.stat_result | None = None
    asked: bool = False  # the engine has seen it


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
    """One engine's work on a stream of images."""

    def __init__(self, engine: Engine, settings: Clamav, desk: Desk[T]) -> None:
        self.unsettled: list[T] = []  # asked about to no avail: another engine may be asked
        self._engine, self._settings, self._desk = engine, settings, desk
        self._batch: list[Judged[T]] = []
        self._again: deque[T] = deque()
        self._settled = time.monotonic()

    def run(self, whats: Iterable[T], progress: Progress, label: str, total: int | None = None
            ) -> str | None:
        """Ask about ``whats``; return why the engine was lost, None when it was not.

        Whatever ends this, a signal included, what was answered and proven is believed.
        Raises GenerationMoved.
        """
        try:
            scanner = Scanner[_Opened[T]](self._engine.clamd, self._engine.in_flight,
                                          self._settings.timeout)
        except OSError as error:
            return f"clamd does not take a session ({error.strerror or error})"
        with closing(scanner):
            try:
                for question, answer in progress.over(
                        scanner.scan(self._questions(whats)), label, total):
                    self._hear(question, answer, last=scanner.lost is not None)
                for question, answer in scanner.scan(self._questions(self._retries())):
                    self._hear(question, answer, last=True)
            finally:
                for question in scanner.waiting():
                    os.close(question.fd)
                    self.unsettled.append(question.what.what)
                self.unsettled += self._again
                self._settle()
        return scanner.lost

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
                self._judge(Judged(what, unknown(str(error))))
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
            self._judge(Judged(what, unknown(too_large), info))

    def _hear(self, question: Question[_Opened[T]], answer: Answer, *, last: bool) -> None:
        """Take an answer; a file that changed meanwhile is asked about once again."""
        opened = question.what
        changed = stamp(os.fstat(question.fd)) != opened.stamp
        os.close(question.fd)
        if changed and not last:
            self._again.append(opened.what)
        else:
            self._judge(Judged(opened.what, CHANGED if changed else answer, opened.info,
                               asked=True))

    def _judge(self, judged: Judged[T]) -> None:
        self._batch.append(judged)
        if len(self._batch) >= BATCH or time.monotonic() - self._settled > SLICE:
            self._settle()

    def _settle(self) -> None:
        batch, self._batch = self._batch, []
        self._settled = time.monotonic()
        if not batch:
            return
        try:
            if not self._engine.still_proven():
                self.unsettled += [one.what for one in batch]
                raise GenerationMoved
        except EngineError:  # it is gone: nobody can say any more what it had loaded
            self.unsettled += [one.what for one in batch if one.answer.verdict in CLAIMS]
            batch = [one for one in batch if one.answer.verdict not in CLAIMS]
        self._desk.believed(batch)
