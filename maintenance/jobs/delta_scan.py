"""One store's images against what is new since an older generation."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from maintenance.clamav.delta import Delta
from maintenance.jobs.engines import Engine
from maintenance.jobs.inspection import Desk, Inspection
from maintenance.jobs.slices import Judged
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Asked, ImageRow, Need
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import Tree
from maintenance.times import Deadline
from maintenance.verdict import CLEAN, Answer, Verdict, infected

BATCH = 1000  # images that are booked at a time when none has to be asked about


@dataclass(slots=True)
class DeltaScan:
    """The images of one store that were checked at generation ``older`` and are as they were.

    One that was clean then is clean now when none of the new signatures matches, and infected
    when one does; one that was infected is so still when its signature, which the delta holds
    for that, or a new one matches. About all others a full scan has to tell.
    """

    tree: Tree
    images: Images
    need: Need
    older: int
    delta: Delta
    settings: Clamav
    deadline: Deadline
    infected: Callable[[ImageRow, Stamp, str], None]  # told after it is booked
    brought: int = 0  # to the generation that is needed
    vanished: int = 0
    bytes: int = 0

    def run(self, engine: Engine, progress: Progress, label: str) -> str | None:
        """Ask about all; return why the engine was lost, None when it was not."""
        desk = Desk(self._open, self._book, self._vanished, self._changed)
        total = self.images.count_by_delta(self.need, self.older)
        return Inspection(engine, self.settings, desk).run(self._due(), progress, label, total)

    def take_over(self) -> None:
        """Book as clean what was clean: nothing is new that could find more."""
        batch: list[Asked] = []
        for row in self._due():
            if row.verdict is Verdict.CLEAN:
                batch.append(Asked(row.key, row.stamp, CLEAN, full=False))
            if len(batch) == BATCH:
                self._record(batch)
                batch = []
        self._record(batch)

    def _due(self) -> Iterator[ImageRow]:
        for row in self.images.due_by_delta(self.need, self.older):
            if self.deadline.passed:
                return
            yield row

    def _open(self, row: ImageRow) -> int:
        return self.tree.open(row.path)

    def _vanished(self, row: ImageRow) -> None:
        self.vanished += 1
        self.images.missing.vanished([row.key])

    def _changed(self, row: ImageRow, info: os.stat_result) -> bool:
        """Tell whether it is another image than the one whose verdict is known, and note it."""
        changed = stamp(info) != row.stamp
        if changed:
            self.images.record_seen([(row.key, *stamp(info), None)])
        return changed

    def _book(self, batch: Sequence[Judged[ImageRow]]) -> None:
        settled = [(one.what, answer, one.info) for one in batch
                   if one.info is not None and one.asked
                   for answer in [self._settles(one.what, one.answer)] if answer is not None]
        self.bytes += sum(one.info.st_size for one in batch if one.info and one.asked)
        self._record([Asked(row.key, row.stamp, answer, full=False)
                      for row, answer, _ in settled])
        for row, answer, info in settled:
            if answer.verdict is Verdict.INFECTED:
                self.infected(row, stamp(info), answer.signature or "")

    def _settles(self, row: ImageRow, answer: Answer) -> Answer | None:
        """Return what the engine's answer says of the image; None: a full scan has to."""
        if answer.verdict is Verdict.INFECTED:
            return infected(self.delta.reported(answer.signature or ""))
        return answer if answer.verdict is row.verdict is Verdict.CLEAN else None

    def _record(self, batch: Sequence[Asked]) -> None:
        self.images.record_answers(batch, self.need.generation)
        self.brought += len(batch)
