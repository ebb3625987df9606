"""One-off scans: files and trees that an admin names, inside a store or not."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain

from maintenance.errors import EngineError, QuarantineError
from maintenance.jobs.engines import ENGINES, Engine, proven_engine
from maintenance.jobs.generation import on_disk, shown
from maintenance.jobs.inspection import AMONG_OTHERS, Desk, Inspection
from maintenance.jobs.named_paths import Named, NamedPaths, Unreachable, apart
from maintenance.jobs.quarantines import quarantine_of
from maintenance.jobs.rescan_report import Infected, RescanReport, StoreResult, Undone
from maintenance.jobs.slices import GenerationMoved, Judged
from maintenance.jobs.taking import Taking, wanted
from maintenance.ledger.rows import Asked
from maintenance.shell.job import Context
from maintenance.store.identity import key_of, stamp
from maintenance.store.tree import NotAnImage
from maintenance.text import show
from maintenance.verdict import Verdict, unknown

LOST = unknown("the engine was lost before its answer could be proven")


def scan_paths(context: Context, report: RescanReport) -> None:
    """Scan what was named; the images of a store are booked, the rest only reported."""
    with ExitStack() as stack:
        paths = stack.enter_context(NamedPaths(context.config.store))
        scan = _PathScan(context, report, paths, stack)
        for _ in range(ENGINES):
            definitions = on_disk(context.config)
            report.generation = definitions.number(context.ledger, dry=context.options.dry_run)
            report.databases = shown(definitions.facts())
            try:
                with proven_engine(context.config, definitions) as engine:
                    report.canary, report.hidden_limits = True, engine.hides_limits
                    if scan.completed(engine):
                        scan.conclude()
                        return
            except EngineError as error:
                if report.canary is None:  # there was none to begin with
                    raise
                context.log.warning("%s", error)
                break
        scan.give_up()
        context.trouble("the engine was lost; not everything was scanned")


class _PathScan:
    def __init__(self, context: Context, report: RescanReport, paths: NamedPaths,
                 stack: ExitStack) -> None:
        self._context, self._report, self._paths, self._stack = context, report, paths, stack
        self._takings: dict[str, Taking] = {}
        self._results: dict[str | None, StoreResult] = {}
        self._again: deque[Named] = deque()
        self._suspects: deque[Named] = deque()  # in flight when an engine of ours was lost
        self._rest = self._reachable(context.options.paths)

    def completed(self, engine: Engine) -> bool:
        """Ask ``engine`` about what is still to be asked; tell whether that was all."""
        # chained, not "yield from": what is left of the rest is for the next engine
        return (self._asked(engine, chain(_drawn(self._again), self._rest), alone=False)
                and self._asked(engine, _drawn(self._suspects), alone=True))

    def give_up(self) -> None:
        """Report what no engine could be asked about any more."""
        self._note([Judged(one, LOST) for one in self._again])
        self._note([Judged(one, AMONG_OTHERS, asked=True) for one in self._suspects])
        self.conclude()

    def conclude(self) -> None:
        """Say what somebody has to do now."""
        for taking in self._takings.values():
            taking.conclude()

    def _asked(self, engine: Engine, named: Iterable[Named], *, alone: bool) -> bool:
        inspection = Inspection(engine, self._context.config.clamav, Desk(
            open=self._paths.open, believed=self._note), alone=alone)
        try:
            lost = inspection.run(named, self._context.progress, "given paths")
        except GenerationMoved:
            lost = "new definitions were loaded meanwhile"
        finally:
            self._again += inspection.unsettled
            self._suspects += inspection.suspects
        if lost is not None:
            self._context.log.warning("%s", show(lost))  # words of the engine
        return lost is None

    def _reachable(self, paths: Sequence[str]) -> Iterator[Named]:
        for one in self._paths.files(apart(paths)):
            if isinstance(one, Unreachable):
                self._result(one.store)
                self._report.left_undone(Undone(one.store, one.path, one.reason))
            else:
                yield one

    def _note(self, batch: Sequence[Judged[Named]]) -> None:
        """Report what is known now, and book what the stores hold."""
        answers: dict[str, list[Asked]] = defaultdict(list)
        for one in batch:
            if one.what.store is not None and one.what.booked and one.info is not None:
                answers[one.what.store].append(
                    Asked(key_of(one.what.path), stamp(one.info), one.answer))
        if not self._context.options.dry_run:
            for store, asked in answers.items():
                self._context.ledger.images(store).record_answers(
                    asked, self._report.generation or 0)
        for one in batch:
            self._count(one)

    def _count(self, judged: Judged[Named]) -> None:
        store, path, answer = judged.what.store, judged.what.shown, judged.answer
        result = self._result(store)
        result.images += 1
        result.full += judged.asked
        if judged.asked and judged.info is not None:
            self._report.bytes += judged.info.st_size
        if answer.verdict is Verdict.INFECTED:
            result.infected += 1
            self._report.found(self._meet(judged)
                               or Infected(store, path, answer.signature or ""))
        elif answer.verdict is Verdict.UNKNOWN:
            result.unknown += 1
            self._report.left_undone(Undone(store, path, answer.reason or ""))
        else:
            result.clean += 1

    def _meet(self, judged: Judged[Named]) -> Infected | None:
        """Take an infected image of a store, when that is wanted; what lies outside stays."""
        named, answer, info = judged.what, judged.answer, judged.info
        if named.store is None or info is None or not wanted(self._context):
            return None
        try:
            tree = self._paths.tree(named)
        except NotAnImage:  # the store itself is gone
            return None
        if named.store not in self._takings:
            self._takings[named.store] = self._taking(named.store)
        return self._takings[named.store].meet(tree, named.path, stamp(info),
                                               answer.signature or "")

    def _taking(self, name: str) -> Taking:
        context = self._context
        store = next(one for one in context.config.store if one.name == name)
        quarantine = None
        try:
            quarantine = self._stack.enter_context(
                quarantine_of(context.config, store, make=True))
        except QuarantineError as error:
            context.trouble(f'store "{name}": {error}; infected images are only reported')
        return Taking.into(quarantine, context, store, context.ledger.images(name), self._report)

    def _result(self, store: str | None) -> StoreResult:
        if store not in self._results:
            self._results[store] = StoreResult(store)
            self._report.stores.append(self._results[store])
        return self._results[store]


def _drawn(named: deque[Named]) -> Iterator[Named]:
    while named:
        yield named.popleft()
