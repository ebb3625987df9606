"""What of the stores an admin named to the optimiser."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby, islice

from maintenance.errors import StoreError, UsageError
from maintenance.jobs.named_paths import Named, NamedPaths, Unreachable, apart
from maintenance.jobs.optimize_report import OptimizeReport, StoreResult
from maintenance.jobs.optimize_tally import Subject, Tally, Work
from maintenance.jobs.walking import chosen_stores, opened_tree
from maintenance.shell.job import Context
from maintenance.store.identity import key_of, stamp
from maintenance.store.tree import NotAnImage

BATCH = 500  # images of one query
EXCLUDED = "excluded"


class NamedWork:
    """The paths are gone over twice, now and for the work, so that memory stays flat."""

    def __init__(self, context: Context, report: OptimizeReport, recipe: str,
                 stack: ExitStack) -> None:
        self._context, self._report, self._recipe, self._stack = context, report, recipe, stack
        self._stores = {store.name: store for store in chosen_stores(context)}
        self._named = stack.enter_context(NamedPaths(list(self._stores.values())))
        self._paths = apart(context.options.paths)
        self._tallies: dict[str, Tally] = {}

    def works(self) -> Sequence[Work]:
        """Bring the ledger up to date about what was named; UsageError: it is in no store."""
        images = groupby(self._met(), key=lambda one: one.store)
        for store, group in images:
            tally = self._tally(store)
            while batch := list(islice(group, BATCH)):
                tally.begin(tally.subject.optimized.tally(self._recorded(tally, batch)))
        return [Work(tally, partial(self._keys, store)) for store, tally in self._tallies.items()]

    def _met(self) -> Iterator[Named]:
        """Yield the images, and count all else; every one is of a store."""
        for one in self._named.files(self._paths):
            if one.store is None:
                name = one.path if isinstance(one, Unreachable) else one.shown
                raise UsageError(f"{name}: not inside a store; only what is can be made smaller")
            if isinstance(one, Unreachable):
                self._tally(one.store).unread(one.path, one.reason)
            elif one.booked:
                yield one
            else:
                self._tally(one.store).excluded(EXCLUDED)

    def _recorded(self, tally: Tally, batch: Sequence[Named]) -> Sequence[bytes]:
        """Write into the ledger what is new or changed; a dry run only counts that."""
        seen = {key_of(one.path): stamp(info)
                for one in batch if (info := self._look(tally, one)) is not None}
        known = {row.key: row.stamp for row in tally.subject.images.among(list(seen))
                 if not row.missing}
        fresh = [(key, *now, None) for key, now in seen.items() if known.get(key) != now]
        if self._context.options.dry_run:
            tally.result.left += len(fresh)
            return [key for key, now in seen.items() if known.get(key) == now]
        tally.subject.images.record_seen(fresh)
        return list(seen)

    def _look(self, tally: Tally, one: Named) -> os.stat_result | None:
        try:
            directory = tally.subject.tree.parent_of(one.path)
            return os.stat(one.path.rpartition(b"/")[2], dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None  # gone since it was met
        except (NotAnImage, OSError) as error:
            tally.unread(one.shown, str(error))
            return None

    def _keys(self, store: str) -> Iterator[Sequence[bytes]]:
        keys = (key_of(one.path) for one in self._named.files(self._paths)
                if isinstance(one, Named) and one.store == store and one.booked)
        while batch := list(islice(keys, BATCH)):
            yield batch

    def _tally(self, name: str | None) -> Tally:
        store = self._stores[name or ""]
        if store.name not in self._tallies:
            try:
                tree = self._stack.enter_context(opened_tree(store))
            except StoreError as error:
                raise StoreError(f'store "{store.name}": {error}') from None
            subject = Subject(store, tree, self._context.ledger.images(store.name),
                              self._context.ledger.optimized(store.name, self._recipe))
            tally = Tally(subject, self._report, StoreResult(store.name))
            self._report.stores.append(tally.result)
            self._tallies[store.name] = tally
        return self._tallies[store.name]
