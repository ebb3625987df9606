"""One-off scans: files and trees that an admin names, inside a store or not."""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maintenance.clamav.session import Question, Scanner
from maintenance.jobs.engines import Engine, proven_engine
from maintenance.jobs.generation import on_disk, shown
from maintenance.jobs.rescan_report import Infected, RescanReport, StoreResult, Undone
from maintenance.ledger.images import Asked
from maintenance.settings import Store
from maintenance.shell.job import Context
from maintenance.store.identity import DIRECTORY, READ, Stamp, key_of, path_of, stamp
from maintenance.store.tree import NotAnImage, Tree, Vanished
from maintenance.store.walk import Image, Unread, walk
from maintenance.text import show
from maintenance.verdict import Answer, Verdict, unknown

BATCH = 64


@dataclass(frozen=True, slots=True)
class Named:
    """A file that was named, or met below a tree that was; ``key`` is inside its store."""

    path: bytes  # absolute
    store: Store | None
    key: bytes
    stamp: Stamp


def scan_paths(context: Context, report: RescanReport) -> None:
    """Scan what was named; what lies in a store is booked, the rest only reported."""
    definitions = on_disk(context.config)
    report.generation = definitions.number(context.ledger, dry=context.options.dry_run)
    report.databases = shown(definitions.facts())
    with proven_engine(context.config, definitions) as engine:
        report.canary, report.hidden_limits = True, engine.hides_limits
        scan = _PathScan(context, report, engine)
        scan.run(context.options.paths)


class _PathScan:
    def __init__(self, context: Context, report: RescanReport, engine: Engine) -> None:
        self._context, self._report, self._engine = context, report, engine
        self._results: dict[str | None, StoreResult] = {}
        self._batches: dict[str, list[Asked]] = {}

    def run(self, paths: Sequence[str]) -> None:
        settings = self._context.config.clamav
        scanner = Scanner[Named](self._engine.clamd, self._engine.in_flight, settings.timeout)
        try:
            for question, answer in self._context.progress.over(
                    scanner.scan(self._questions(paths)), "given paths"):
                after = stamp(os.fstat(question.fd))
                os.close(question.fd)
                self._report.bytes += after[1]
                same = after == question.what.stamp
                self._note(question.what, answer if same else unknown("changed while scanned"))
        finally:
            scanner.close()
            self._commit()
        if scanner.lost:
            self._context.trouble(show(scanner.lost))

    def _questions(self, paths: Sequence[str]) -> Iterator[Question[Named]]:
        for path in _spelled_out(paths):
            real = os.path.realpath(path)
            store = self._store_of(real)
            for one in _files(os.fsencode(real)):
                if isinstance(one, Unopened):
                    self._undone(one, store)
                else:
                    yield from self._question(one.path, one.fd, store)

    def _question(self, path: bytes, fd: int, store: Store | None) -> Iterator[Question[Named]]:
        now = stamp(os.fstat(fd))
        key = b"" if store is None else key_of(_inside(path, store))
        named = Named(path, store, key, now)
        limit = self._context.config.clamav.max_file_size
        largest = self._engine.largest
        if now[1] > limit or (largest is not None and now[1] >= largest):
            os.close(fd)
            self._note(named, unknown("larger than what is scanned"))
            return
        yield Question(named, fd)

    def _store_of(self, real: str) -> Store | None:
        for store in self._context.config.store:
            root = store.path.resolve()
            if Path(real) == root or root in Path(real).parents:
                return store
        return None

    def _note(self, named: Named, answer: Answer) -> None:
        store = named.store.name if named.store else None
        result = self._result(store)
        result.images += 1
        result.full += 1
        shown_path = show(path_of(named.key) if store else named.path)
        if answer.verdict is Verdict.INFECTED:
            result.infected += 1
            self._report.found(Infected(store, shown_path, answer.signature or ""))
        elif answer.verdict is Verdict.UNKNOWN:
            result.unknown += 1
            self._report.left_undone(Undone(store, shown_path, answer.reason or ""))
        else:
            result.clean += 1
        if store is not None:
            batch = self._batches.setdefault(store, [])
            batch.append(Asked(named.key, named.stamp, answer))
            if len(batch) >= BATCH:
                self._commit()

    def _commit(self) -> None:
        proven = self._engine.still_proven() if any(self._batches.values()) else True
        for store, batch in self._batches.items():
            if batch and proven and not self._context.options.dry_run:
                self._context.ledger.images(store).record_answers(
                    batch, self._report.generation or 0)
            batch.clear()

    def _undone(self, one: "Unopened", store: Store | None) -> None:
        name = store.name if store else None
        self._result(name)
        path = _inside(one.path, store) if store else one.path
        self._report.left_undone(Undone(name, show(path), one.reason))

    def _result(self, store: str | None) -> StoreResult:
        if store not in self._results:
            self._results[store] = StoreResult(store)
            self._report.stores.append(self._results[store])
        return self._results[store]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file ready to be scanned."""

    path: bytes
    fd: int


@dataclass(frozen=True, slots=True)
class Unopened:
    """What could not be opened, and why."""

    path: bytes
    reason: str


def _inside(path: bytes, store: Store) -> bytes:
    return os.path.relpath(path, os.path.realpath(os.fsencode(store.path)))


def _spelled_out(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            names = sys.stdin.buffer.read().split(b"\0")
            yield from (os.fsdecode(name) for name in names if name)
        else:
            yield path


def _files(real: bytes) -> Iterator[Opened | Unopened]:
    """Open the file at ``real``, or every image of the tree there."""
    try:
        info = os.lstat(real)  # noqa: PTH116 - bytes
        if stat.S_ISDIR(info.st_mode):
            yield from _tree(real)
        elif stat.S_ISREG(info.st_mode):
            yield Opened(real, os.open(real, READ))
        else:
            yield Unopened(real, "not a regular file")
    except OSError as error:
        yield Unopened(real, error.strerror or str(error))


def _tree(real: bytes) -> Iterator[Opened | Unopened]:
    os.close(os.open(real, DIRECTORY))  # or an OSError says why not
    with Tree(Path(os.fsdecode(real))) as tree:
        for met in walk(tree.fd):
            path = path_of(met.key)
            if isinstance(met, Unread):
                yield Unopened(real + b"/" + path, met.reason)
            elif isinstance(met, Image):
                try:
                    yield Opened(real + b"/" + path, tree.open(path))
                except Vanished:
                    continue
                except NotAnImage as error:
                    yield Unopened(real + b"/" + path, str(error))
