"""The second phase of a rescan: one store's due images are asked about and booked."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from maintenance.jobs.engines import Engine
from maintenance.jobs.inspection import DEADLY, Desk, Inspection
from maintenance.jobs.slices import Judged
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Asked, ImageRow, Need
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import Stamp, stamp
from maintenance.store.tree import Tree
from maintenance.times import Deadline
from maintenance.verdict import Verdict
from maintenance.window import Window

ALWAYS = Window("")


@dataclass(slots=True)
class StoreScan:
    """One store's due images against one engine.

    ``suspects`` are those over which an engine of ours may have been lost, by key. They
    are kept from one engine to the next, and asked about last.
    """

    tree: Tree
    images: Images
    need: Need
    engine: Engine
    settings: Clamav
    deadline: Deadline
    infected: Callable[[ImageRow, Stamp, str], None]  # told after it is booked
    reason: Callable[[ImageRow], str] = lambda _: "asked for"  # why it is scanned in full
    window: Window = ALWAYS  # of full scans of what is clean
    suspects: dict[bytes, ImageRow] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    scanned: int = 0
    unasked: int = 0  # too large, or not to be opened
    vanished: int = 0
    bytes: int = 0

    def run(self, progress: Progress, label: str) -> str | None:
        """Go through what is due; return why the engine was lost, None when it was not.

        Raises GenerationMoved.
        """
        inspection = self._inspection(alone=False)
        total = self.images.count_due(self.need)
        try:
            return inspection.run(self._due(), progress, label, total)
        finally:
            self.suspects.update((row.key, row) for row in inspection.suspects)

    def run_alone(self, progress: Progress, label: str) -> str | None:
        """Go through the suspects, one at a time: as ``run``."""
        if not self.suspects:
            return None
        return self._inspection(alone=True).run(
            self._drawn(), progress, label, len(self.suspects))

    def _inspection(self, *, alone: bool) -> Inspection[ImageRow]:
        desk = Desk(self._open, self._book, self._vanished, self._wait)
        return Inspection(self.engine, self.settings, desk, alone=alone)

    def _due(self) -> Iterator[ImageRow]:
        for row in self.images.due(self.need):
            if self.deadline.passed:
                return
            if row.verdict is Verdict.CLEAN and not (self.need.full or self.window.is_open()):
                continue
            if (row.reason or "").startswith(DEADLY):  # an earlier run knows it
                self.suspects.setdefault(row.key, row)
            if row.key not in self.suspects:
                yield row

    def _drawn(self) -> Iterator[ImageRow]:
        while self.suspects and not self.deadline.passed:
            yield self.suspects.popitem()[1]

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
        self.reasons.update(self.reason(one.what) for one in batch if one.asked)
        self.scanned += asked
        self.unasked += len(batch) - asked
        self.bytes += sum(one.info.st_size for one in batch if one.info and one.asked)
        self.images.record_answers(
            [Asked(one.what.key, stamp(one.info) if one.info else one.what.stamp, one.answer)
             for one in batch], self.need.generation)
        for one in batch:
            if one.info is not None and one.answer.verdict is Verdict.INFECTED:
                self.infected(one.what, stamp(one.info), one.answer.signature or "")
