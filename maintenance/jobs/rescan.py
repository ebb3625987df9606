"""rescan-store: bring every image's verdict to the current generation."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from maintenance.errors import EngineError
from maintenance.jobs import path_scan
from maintenance.jobs.engines import Engine, proven_engine
from maintenance.jobs.generation import Definitions, on_disk, shown
from maintenance.jobs.rescan_report import Infected, RescanReport, StoreResult, Undone
from maintenance.jobs.store_scan import GenerationMoved, StoreScan
from maintenance.jobs.walking import chosen_stores, walked
from maintenance.ledger.images import Images, Need
from maintenance.settings import Store
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.store.identity import path_of
from maintenance.store.merge import Census
from maintenance.store.tree import Tree
from maintenance.text import show
from maintenance.times import Deadline
from maintenance.verdict import Verdict

REVIVALS = 3  # engines lost in one run after which it gives up
ROUNDS = 5  # generations that may arrive during one run


@dataclass(slots=True)
class OpenStore:
    """A store that was walked in this run."""

    store: Store
    tree: Tree
    images: Images
    census: Census
    result: StoreResult


def rescan(context: Context) -> RescanReport:
    """Bring every image's verdict to the current generation."""
    report = RescanReport()
    context.report = report
    if context.options.paths:
        path_scan.scan_paths(context, report)
        return report
    stores = chosen_stores(context)
    deadline = Deadline.after(_time_limit(context))
    with ExitStack() as stack:
        opened = [one for store in stores for one in _opened(context, store, report, stack)]
        try:
            for definitions in _generations(context, report):
                need = Need(report.generation or 0, time.time(), context.options.full)
                with context.going_on():
                    _serve(context, opened, definitions, need, deadline, report)
        finally:
            for one in opened:
                _conclude(one, report)
    complete = not context.troubles and not any(one.result.left for one in opened)
    if complete and len(opened) == len(context.config.store) and not context.options.dry_run:
        context.run_generation = report.generation
    return report


def _generations(context: Context, report: RescanReport) -> Iterator[Definitions]:
    """Yield what is on disk, and again while something newer has come meanwhile."""
    served: set[str] = set()
    for _ in range(ROUNDS):
        definitions = on_disk(context.config)
        if definitions.fingerprint in served:
            return
        served.add(definitions.fingerprint)
        report.generation = definitions.number(context.ledger, dry=context.options.dry_run)
        report.databases = shown(definitions.facts())
        yield definitions
        if definitions.stand_still():
            return


def _opened(context: Context, store: Store, report: RescanReport, stack: ExitStack
            ) -> Iterator[OpenStore]:
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


def _serve(context: Context, opened: Sequence[OpenStore], definitions: Definitions, need: Need,
           deadline: Deadline, report: RescanReport) -> None:
    """Ask about what is due, with as few engines as it takes: the second phase."""
    for _ in range(REVIVALS):
        for one in opened:
            one.result.left = one.images.count_due(need) + one.census.changed
        if not any(one.result.left for one in opened) or context.options.dry_run:
            return
        try:
            with proven_engine(context.config, definitions) as engine:
                report.canary = True
                report.hidden_limits = engine.hides_limits
                if _ask(context, opened, engine, need, deadline, report) is None:
                    return
        except EngineError as error:
            if report.canary is None:  # there was none to begin with
                raise
            context.log.warning("%s", error)
            break
    report.engine_lost = True
    context.log.warning("the engine was lost; the rest waits for the next run")


def _ask(context: Context, opened: Sequence[OpenStore], engine: Engine, need: Need,
         deadline: Deadline, report: RescanReport) -> str | None:
    settings = context.config.clamav
    for one in opened:
        scan = StoreScan(one.tree, one.images, need, engine, settings.max_file_size,
                         settings.timeout, one.store.min_age, deadline)
        try:
            lost = scan.run(context.progress, one.store.name)
        except GenerationMoved:
            context.log.info("new definitions were loaded meanwhile; asking again")
            return None
        finally:
            one.result.full += scan.scanned
            report.bytes += scan.bytes
            one.result.left = one.images.count_due(need)
        if lost is not None:
            context.log.warning("%s", show(lost))  # words of the engine
            return lost
    return None


def _conclude(one: OpenStore, report: RescanReport) -> None:
    """Say what the ledger knows of the store now."""
    coverage = one.images.coverage(report.generation)
    result = one.result
    result.clean, result.missing = coverage.clean_current, coverage.missing
    result.infected, result.unknown = coverage.infected, coverage.unknown
    result.current = max(0, result.images - result.full - result.left)
    for row in one.images.with_verdict(Verdict.INFECTED, -1):
        report.found(Infected(one.store.name, show(row.path), row.signature or ""))
    for row in one.images.with_verdict(Verdict.UNKNOWN, -1):
        report.left_undone(Undone(one.store.name, show(row.path), row.reason or ""))


def _time_limit(context: Context) -> float:
    given = context.options.time_limit
    return context.config.rescan.time_limit if given is None else float(given)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="only these files and trees, inside a store or not")
    parser.add_argument("--store", metavar="NAME", help="only this store")
    parser.add_argument("--full", action="store_true", help="also what is already current")
    parser.add_argument("--time-limit", type=duration, metavar="4h",
                        help="stop in good order after this time; the next run goes on")
    parser.add_argument("--action", choices=("report",), help="what to do with an infected image")
    parser.add_argument("--accept-missing", action="store_true",
                        help="believe it when a store lost most of its images")


JOB = Job(script="rescan-store", name="rescan", run=rescan, options=_options, changes=True,
          sections=("store", "clamav", "rescan"), locked=lambda options: not options.paths,
          purpose="Bring every image's verdict to the definitions on disk.")
