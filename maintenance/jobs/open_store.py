"""A store that is being rescanned: what was met in it, and what it comes to."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from maintenance.jobs.rescan_report import Infected, RescanReport, StoreResult, Undone
from maintenance.jobs.walking import walked
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Need
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.identity import path_of
from maintenance.store.merge import Census
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
    young: int = 0  # of those left: they wait for a later run, whatever this one does
    unasked: int = 0  # images no engine was asked about: too large, or not to be opened

    @property
    def waits_for_engine(self) -> bool:
        """Tell whether something is due that is old enough."""
        return self.result.left > self.young

    def need(self, need: Need) -> Need:
        """Return what makes an image of this store due."""
        return replace(need, min_age=self.store.min_age)

    def count_left(self, need: Need) -> None:
        """Count what is still due."""
        need = self.need(need)
        self.young = self.images.count_young(need)
        self.result.left = self.images.count_due(need) + self.census.changed

    def conclude(self, report: RescanReport) -> None:
        """Say what the ledger knows of the store now."""
        coverage = self.images.coverage(report.generation)
        result = self.result
        result.clean, result.missing = coverage.clean_current, coverage.missing
        result.infected, result.unknown = coverage.infected, coverage.unknown
        result.current = max(0, result.images - result.full - result.left - self.unasked)
        name = self.store.name
        for row in self.images.with_verdict(Verdict.INFECTED, -1):
            report.found(Infected(name, show(row.path), row.signature or ""))
        for row in self.images.with_verdict(Verdict.UNKNOWN, -1):
            report.left_undone(Undone(name, show(row.path), row.reason or ""))


def open_store(context: Context, store: Store, report: RescanReport, stack: ExitStack
               ) -> Iterator[OpenStore]:
    """Yield the store as it was just walked; what stands against that is a trouble."""
    with context.going_on(f'store "{store.name}": '):
        found = stack.enter_context(walked(context, store, believe=context.options.accept_missing))
        census = found.census
        one = OpenStore(store, found.tree, found.images, census,
                        StoreResult(store.name, census.images))
        report.stores.append(one.result)
        for key, reason in census.unread:
            report.left_undone(Undone(store.name, show(path_of(key)), reason))
        if not context.options.dry_run:
            context.ledger.replace_undone("rescan", store.name, census.unread)
        yield one
