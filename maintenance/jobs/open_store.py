"""A store that is being rescanned: what was met in it, and what it comes to."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from maintenance.jobs.refuted import Refuted
from maintenance.jobs.rescan_report import RescanReport, StoreResult, Undone
from maintenance.jobs.taking import Taking, settle
from maintenance.jobs.walking import walked
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Extent, ImageRow, Need
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.identity import Stamp, path_of
from maintenance.store.merge import Census
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import Tree
from maintenance.text import show
from maintenance.verdict import Verdict


@dataclass(slots=True)
class OpenStore:
    """A store that was walked in this run."""

    store: Store
    tree: Tree
    images: Images
    census: Census
    result: StoreResult
    taking: Taking
    refuted: Refuted  # by a dry run's walk
    pressing: int = 0  # of those left: due in this run
    young: int = 0  # of those left: they wait for a later run, whatever this one does
    unasked: int = 0  # images no engine was asked about: too large, or not to be opened

    @property
    def is_through(self) -> bool:
        """Tell whether nothing is due but what is too young."""
        return self.result.left <= self.young

    def need(self, need: Need) -> Need:
        """Return what makes an image of this store due."""
        return replace(need, min_age=self.store.min_age)

    def count_left(self, need: Need) -> None:
        """Count what is still due, what waits for the window included."""
        need = self.need(need)
        whole = replace(need, extent=Extent.ALL)
        self.young = self.images.count_young(whole)
        self.result.left = self.images.count_due(whole) + self.refuted.correction(
            self.images, whole)
        self.pressing = self.result.left - self.young
        if need != whole:
            self.pressing = self.images.count_due(need) - self.images.count_young(need)

    def meet(self, row: ImageRow, scanned: Stamp, signature: str) -> None:
        """Take an image that was just found infected, when that is wanted."""
        met = self.taking.meet(self.tree, row.path, scanned, signature)
        if met is not None and met.ticket is not None:  # else `conclude` tells of it
            self.taking.report.found(met)

    def conclude(self, report: RescanReport, generation: int | None) -> None:
        """Say what the ledger knows of the store now, and what was taken out of it."""
        result, taking = self.result, self.taking
        result.known = coverage = self.images.coverage(generation)
        taking.conclude()
        result.images -= taking.vanished
        result.clean, result.missing = coverage.clean_current, coverage.missing
        result.infected = coverage.infected + taking.taken
        result.unknown = coverage.unknown
        result.current = max(0, result.images - result.full - result.delta - result.left
                             - self.unasked)
        name = self.store.name
        for row in self.images.with_verdict(Verdict.INFECTED):
            report.found(taking.told(row))
            if row.reason is not None:  # that it is infected is what was known before
                report.left_undone(Undone(name, show(row.path), row.reason))
        for row in self.images.with_verdict(Verdict.UNKNOWN):
            report.left_undone(Undone(name, show(row.path), row.reason or ""))


def open_store(context: Context, store: Store, quarantine: Quarantine | None,
               report: RescanReport, stack: ExitStack) -> Iterator[OpenStore]:
    """Yield the store as it was just walked; what stands against that is a trouble."""
    with context.going_on(f'store "{store.name}": '):
        if quarantine is not None:
            settle(quarantine, context.ledger.images(store.name), store.name)
        refuted = stack.enter_context(Refuted())
        found = stack.enter_context(walked(context, store, believe=context.options.accept_missing,
                                           refuted=refuted.note))
        census = found.census
        result = StoreResult(store.name, census.images, passed=census.passed)
        report.stores.append(result)
        for key, reason in census.unread:
            report.left_undone(Undone(store.name, show(path_of(key)), reason))
        if not context.options.dry_run:
            context.ledger.replace_undone("rescan", store.name, census.unread)
        taking = Taking.into(quarantine, context, store, found.images, report)
        yield OpenStore(store, found.tree, found.images, census, result, taking, refuted)
