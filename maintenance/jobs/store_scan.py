"""The second phase of a rescan: one store's due images are asked about and booked."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from maintenance.clamav.session import Question, Scanner
from maintenance.errors import EngineError
from maintenance.jobs.engines import Engine
from maintenance.ledger.images import Asked, ImageRow, Images, Need
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import NotAnImage, Tree, Vanished
from maintenance.times import Deadline
from maintenance.verdict import Answer, Verdict, unknown

BATCH = 64  # images of one commit
SLICE = 5.0  # seconds after which an unfinished batch is committed too


class GenerationMoved(Exception):
    """The engine has other definitions now: what is not booked must be asked again."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that an engine is looking at."""

    row: ImageRow
    stamp: Stamp


@dataclass(slots=True)
class StoreScan:
    """One store's due images against one engine."""

    tree: Tree
    images: Images
    need: Need
    engine: Engine
    limit: int  # bytes of the largest image that is scanned
    timeout: float  # seconds for one image
    min_age: float  # seconds; younger images wait for the next run
    deadline: Deadline
    scanned: int = 0
    bytes: int = 0
    _batch: list[Asked] = field(default_factory=list)
    _committed: float = field(default_factory=time.monotonic)

    def run(self, progress: Progress, label: str) -> str | None:
        """Go through what is due; return why the engine was lost, None when it was not.

        Whatever ends this, a signal included, what was answered and proven is booked.
        """
        total = self.images.count_due(self.need)
        try:
            scanner = Scanner[Opened](self.engine.clamd, self.engine.in_flight, self.timeout)
        except OSError as error:
            return f"clamd does not take a session ({error.strerror or error})"
        with closing(scanner):
            try:
                answers = scanner.scan(self._questions())
                for question, answer in progress.over(answers, label, total):
                    self._note(question, answer)
            finally:
                self._commit()
                for question in scanner.waiting():
                    os.close(question.fd)
        return scanner.lost

    def _questions(self) -> Iterator[Question[Opened]]:
        for row in self.images.due(self.need):
            if self.deadline.passed:
                return
            try:
                fd = self.tree.open(row.path)
            except Vanished:
                self.images.vanished([row.key])
                continue
            except NotAnImage as error:
                self._answer(Asked(row.key, row.stamp, unknown(str(error))))
                continue
            yield from self._question(row, fd)

    def _question(self, row: ImageRow, fd: int) -> Iterator[Question[Opened]]:
        info = os.fstat(fd)
        now = stamp(info)
        too_large = self._too_large(info.st_size)
        if too_large is not None:
            os.close(fd)
            self._answer(Asked(row.key, now, unknown(too_large)))
        elif 0 <= time.time() - info.st_ctime < self.min_age:
            os.close(fd)
        else:
            yield Question(Opened(row, now), fd)

    def _too_large(self, size: int) -> str | None:
        if size > self.limit:
            return f"larger than max_file_size ({self.limit} bytes)"
        if self.engine.largest is not None and size >= self.engine.largest:
            return f"clamd would not scan all of it (its MaxFileSize is {self.engine.largest})"
        return None

    def _note(self, question: Question[Opened], answer: Answer) -> None:
        after = os.fstat(question.fd)
        os.close(question.fd)
        self.scanned += 1
        self.bytes += after.st_size
        if stamp(after) != question.what.stamp:
            answer = unknown("changed while it was scanned")
        self._answer(Asked(question.what.row.key, question.what.stamp, answer))

    def _answer(self, asked: Asked) -> None:
        self._batch.append(asked)
        if len(self._batch) >= BATCH or time.monotonic() - self._committed > SLICE:
            self._commit()

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        self._committed = time.monotonic()
        if not batch:
            return
        try:
            if not self.engine.still_proven():
                raise GenerationMoved
        except EngineError:  # it is gone: nobody can say any more what it had loaded
            batch = [one for one in batch if one.answer.verdict is Verdict.UNKNOWN]
        self.images.record_answers(batch, self.need.generation)
