"""The second phase of a rescan: one store's due images are asked about and booked."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from maintenance.jobs.engines import Engine
from maintenance.jobs.inspection import Desk, Inspection, Judged
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Asked, ImageRow, Need
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import Tree
from maintenance.times import Deadline
from maintenance.verdict import Verdict


@dataclass(slots=True)
class StoreScan:
    """One store's due images against one engine."""

    tree: Tree
    images: Images
    need: Need
    engine: Engine
    settings: Clamav
    deadline: Deadline
    infected: Callable[[ImageRow, Stamp, str], None]  # told after it is booked
    scanned: int = 0
    unasked: int = 0  # too large, or not to be opened
    vanished: int = 0
    bytes: int = 0

    def run(self, progress: Progress, label: str) -> str | None:
        """Go through what is due; return why the engine was lost, None when it was not.

        Raises GenerationMoved.
        """
        desk = Desk(self._open, self._book, self._vanished, self._wait)
        total = self.images.count_due(self.need)
        return Inspection(self.engine, self.settings, desk).run(
            self._due(), progress, label, total)

    def _due(self) -> Iterator[ImageRow]:
        for row in self.images.due(self.need):
            if self.deadline.passed:
                return
            yield row

    def _open(self, row: ImageRow) -> int:
        return self.tree.open(row.path)

    def _vanished(self, row: ImageRow) -> None:
        self.vanished += 1
        self.images.missing.vanished([row.key])

    def _wait(self, row: ImageRow, info: os.stat_result) -> bool:
        """Tell whether an image that changed since the walk is young again, and note it."""
        young = 0 <= time.time() - info.st_ctime < self.need.min_age
        if young and stamp(info) != row.stamp:
            self.images.record_seen([(row.key, *stamp(info), None)])
        return young

    def _book(self, batch: Sequence[Judged[ImageRow]]) -> None:
        asked = sum(one.asked for one in batch)
        self.scanned += asked
        self.unasked += len(batch) - asked
        self.bytes += sum(one.info.st_size for one in batch if one.info and one.asked)
        self.images.record_answers(
            [Asked(one.what.key, stamp(one.info) if one.info else one.what.stamp, one.answer)
             for one in batch], self.need.generation)
        for one in batch:
            if one.info is not None and one.answer.verdict is Verdict.INFECTED:
                self.infected(one.what, stamp(one.info), one.answer.signature or "")
