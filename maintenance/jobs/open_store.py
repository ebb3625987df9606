"""The first phase of a rescan: a store is walked, and held against the ledger."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from maintenance.errors import StoreError
from maintenance.jobs.rescan_report import Infected, RescanReport, StoreResult, Undone
from maintenance.ledger.images import Images
from maintenance.ledger.rows import Need
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.identity import path_of
from maintenance.store.merge import Census, count_changes, take_census
from maintenance.store.tree import Tree, excluding
from maintenance.store.walk import walk
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
        tree, census, images = stack.enter_context(_walked(context, store))
        one = OpenStore(store, tree, images, census, StoreResult(store.name, census.images))
        report.stores.append(one.result)
        for key, reason in census.unread:
            report.left_undone(Undone(store.name, show(path_of(key)), reason))
        if not context.options.dry_run:
            context.ledger.replace_undone("rescan", store.name, census.unread)
        yield one


@contextmanager
def _walked(context: Context, store: Store) -> Iterator[tuple[Tree, Census, Images]]:
    """Hold the tree against the ledger."""
    images = context.ledger.images(store.name)
    with Tree(store.path) as tree:
        if store.marker and not tree.holds(store.marker):
            raise StoreError(f"its marker {show(store.marker)} is missing; is it mounted?")
        met = context.progress.over(walk(tree.fd, excluding(store.exclude)), f"{store.name}: walk")
        dry = context.options.dry_run
        believe = context.options.accept_missing
        census = (count_changes(met, images) if dry
                  else take_census(met, images, believe=believe))
        if census.gone and not believe:
            images.missing.forget()
            raise StoreError(f"shows {census.images} images where the ledger knows {census.known};"
                             " is it mounted? If they are really gone: --accept-missing")
        if not dry:
            images.missing.settle()
        yield tree, census, images
