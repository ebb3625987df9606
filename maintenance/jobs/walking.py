"""The first phase of a job over whole stores: the tree is held against the ledger."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from maintenance.errors import StoreError, UsageError
from maintenance.ledger.images import Images
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.merge import Census, Difference, differences, take_census
from maintenance.store.tree import Tree, excluding
from maintenance.store.walk import Met, walk
from maintenance.text import show


@dataclass(frozen=True, slots=True)
class Walked:
    """A store that was walked in this run."""

    store: Store
    tree: Tree
    images: Images
    census: Census


def chosen_stores(context: Context) -> Sequence[Store]:
    """Return the stores that ``--store`` means; raises UsageError."""
    name = context.options.store
    chosen = [store for store in context.config.store if name in {None, store.name}]
    if not chosen:
        known = ", ".join(store.name for store in context.config.store)
        raise UsageError(f"--store {show(name)}: no such store; there are: {known}")
    return chosen


@contextmanager
def opened_tree(store: Store) -> Iterator[Tree]:
    """Open a store; raises StoreError when it is not there, or not mounted."""
    with Tree(store.path) as tree:
        if store.marker and not tree.holds(store.marker):
            raise StoreError(f"its marker {show(store.marker)} is missing; is it mounted?")
        yield tree


@contextmanager
def walked(context: Context, store: Store, *, believe: bool = False,
           draft: Callable[[int, bytes], None] = lambda directory, name: None,
           refuted: Callable[[Difference], None] = lambda difference: None
           ) -> Iterator[Walked]:
    """Walk a store and write into the ledger what is new, changed or gone.

    Raises StoreError for a store that shows too little, unless ``believe``. See ``walk``
    for ``draft``. A dry run only counts, and tells ``refuted`` where the ledger is wrong.
    """
    images = context.ledger.images(store.name)
    with opened_tree(store) as tree, Census() as census:
        met = context.progress.over(walk(tree.fd, excluding(store.exclude), draft),
                                    f"{store.name}: walk", images=_images_in)
        if context.options.dry_run:
            for difference in differences(met, images, census):
                refuted(difference)
        else:
            take_census(met, images, census, believe=believe)
        if census.gone and not believe:
            raise StoreError(f"shows {census.images} images where the ledger knows {census.known};"
                             " is it mounted? If they are really gone: rescan-store"
                             " --accept-missing")
        yield Walked(store, tree, images, census)


def _images_in(met: Met) -> int:
    return len(met) if isinstance(met, list) else 0
