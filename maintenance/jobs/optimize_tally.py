"""What becomes of the images of one store: counted for the result, kept in the ledger."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from maintenance.images.kinds import NO_GAIN
from maintenance.jobs.optimize_report import OptimizeReport, StoreResult
from maintenance.jobs.rescan_report import Undone
from maintenance.ledger import optimized
from maintenance.ledger.images import Images
from maintenance.ledger.optimized import Candidate, Keys, Optimized, Settled
from maintenance.settings import Store
from maintenance.store.tree import Tree
from maintenance.text import show

BATCH = 64  # images of one commit, but for those that were replaced
SLICE = 5.0  # seconds after which an unfinished batch is committed too


@dataclass(frozen=True, slots=True)
class Subject:
    """A store that is open for work."""

    store: Store
    tree: Tree
    images: Images
    optimized: Optimized


@dataclass(slots=True)
class Tally:
    """One store's part of the result. Every image that was due leaves ``left`` by one way."""

    subject: Subject
    report: OptimizeReport
    result: StoreResult
    _batch: list[Settled] = field(default_factory=list)
    _committed: float = field(default_factory=time.monotonic)

    def begin(self, known: optimized.Tally, times: int = 1) -> None:
        """Add images as the ledger knows them before the work; ``times`` -1: take them off."""
        self.result.left += times * known.due
        self.result.current += times * known.current
        for reason, count in known.kept.items():
            self._keep(reason, times * count)

    def shrunk(self, kind: str, before: int, after: int) -> None:
        """Count an image that was replaced; it stands in the ledger already."""
        self._left_by_one()
        self.result.shrunk += 1
        of_format = self.report.of_format(kind)
        of_format.shrunk += 1
        for sizes in (self.report, of_format):
            sizes.bytes_before += before
            sizes.bytes_after += after

    def recognised(self, candidate: Candidate) -> None:
        """Count an image of which only the outside has changed since we dealt with it."""
        self._left_by_one()
        if candidate.kept_reason is None:
            self.result.current += 1
        else:
            self._keep(candidate.kept_reason, 1)
        self._settle(Settled(candidate.key, candidate.stamp, candidate.expected,
                             candidate.kept_reason, candidate.saved))

    def kept(self, candidate: Candidate, reason: str, sha256: bytes | None,
             kind: str | None = None) -> None:
        """Count an image that stays as it is; ``sha256`` None: not because of its content.

        One that is small enough already counts as current from the next run on.
        """
        self._left_by_one()
        self._keep(reason, 1)
        if kind is not None:
            self.report.of_format(kind).kept += 1
        if reason != NO_GAIN:
            self.report.left_as_it_is(self._named(candidate, reason))
        self._settle(Settled(candidate.key, candidate.stamp, sha256,
                             None if reason == NO_GAIN else reason, candidate.saved))

    def passed_over(self, candidate: Candidate, reason: str) -> None:
        """Count an image that stays as it is in this run."""
        self._left_by_one()
        self._keep(reason, 1)
        self.report.left_as_it_is(self._named(candidate, reason))

    def undone(self, candidate: Candidate, reason: str, sha256: bytes | None = None, *,
               for_good: bool = False, kind: str | None = None) -> None:
        """Count what could not be done; with its SHA-256, or for good, it is not tried again."""
        self._left_by_one()
        self.result.undone += 1
        if kind is not None:
            self.report.of_format(kind).undone += 1
        self.report.left_undone(self._named(candidate, reason))
        if for_good or sha256 is not None:
            self._settle(Settled(candidate.key, candidate.stamp, sha256, reason,
                                 candidate.saved))

    def excluded(self, reason: str) -> None:
        """Count what was named and is no image of the store."""
        self._keep(reason, 1)

    def unread(self, shown_path: str, reason: str) -> None:
        """Count what a walk could not look at."""
        self.result.undone += 1
        self.report.left_undone(Undone(self.subject.store.name, shown_path, reason))

    def vanished(self, candidate: Candidate) -> None:
        """Forget an image that is gone."""
        self._left_by_one()
        self.subject.images.missing.vanished([candidate.key])

    def commit(self) -> None:
        """Write what was settled."""
        batch, self._batch = self._batch, []
        self._committed = time.monotonic()
        self.subject.optimized.settle(batch)

    def _settle(self, settled: Settled) -> None:
        self._batch.append(settled)
        if len(self._batch) >= BATCH or time.monotonic() - self._committed > SLICE:
            self.commit()

    def _named(self, candidate: Candidate, reason: str) -> Undone:
        return Undone(self.subject.store.name, show(candidate.path), reason)

    def _keep(self, reason: str, count: int) -> None:
        self.result.kept += count
        self.report.kept_reasons[reason] += count
        if not self.report.kept_reasons[reason]:
            del self.report.kept_reasons[reason]

    def _left_by_one(self) -> None:
        self.result.left = max(0, self.result.left - 1)


@dataclass(frozen=True, slots=True)
class Work:
    """A store, or what was named in it; ``batches`` gives the keys that are meant.

    ``again``: how many images at most that another recipe has dealt with; None: all.
    """

    tally: Tally
    batches: Callable[[], Iterator[Keys]]
    again: int | None = None

    def due(self) -> Iterator[Candidate]:
        """Yield what is due."""
        for keys in self.batches():
            yield from self.tally.subject.optimized.due(keys, self.again)
