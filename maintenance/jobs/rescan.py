"""rescan-store: bring every image's verdict to the current generation."""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack

from maintenance.jobs import full_scans, path_scan
from maintenance.jobs.generation import Definitions, on_disk, shown
from maintenance.jobs.occupancy import Occupancy
from maintenance.jobs.open_store import OpenStore, open_store
from maintenance.jobs.quarantines import make_ready
from maintenance.jobs.rescan_report import RescanReport
from maintenance.jobs.serving import Serving
from maintenance.jobs.walking import chosen_stores
from maintenance.shell.job import Context, Job
from maintenance.shell.lock import announce_end
from maintenance.shell.main import lock_of
from maintenance.shell.options import duration
from maintenance.times import Deadline

ROUNDS = 5  # generations that may arrive during one run


def rescan(context: Context) -> RescanReport:
    """Bring every image's verdict to the current generation."""
    report = RescanReport()
    context.report = report
    stores = chosen_stores(context)
    if context.options.paths:
        try:
            path_scan.scan_paths(context, report)
        finally:
            for named in report.stores:
                if named.name is not None:
                    known = context.ledger.images(named.name)
                    named.known = known.coverage(_generation(context, report))
        return report
    deadline = Deadline.after(_time_limit(context))
    with ExitStack() as stack:
        occupancy = Occupancy(context, stack)
        quarantines = [occupancy.of(store, time.time()) for store in stores]
        opened: list[OpenStore] = []
        try:
            for store, quarantine in zip(stores, quarantines, strict=True):
                opened += open_store(context, store, quarantine, report, stack)
            for definitions in _generations(context, report):
                need = full_scans.needed(context, opened, report.generation or 0)
                with context.going_on():
                    Serving(context, opened, definitions, need, deadline, report).run()
        finally:
            for one in opened:
                one.conclude(report, _generation(context, report))
            full_scans.estimate(context, report)
    complete = not context.troubles and all(one.is_through for one in opened)
    if complete and len(opened) == len(context.config.store) and not context.options.dry_run:
        context.run_generation = report.generation
    return report


def _generations(context: Context, report: RescanReport) -> Iterator[Definitions]:
    """Yield what is on disk, and again while something newer has come meanwhile.

    The end is announced before the last look: who brings definitions after that knows
    that they are not ours to serve (see ``NextRescan``).
    """
    lock, served = lock_of(context, "rescan"), set[str]()
    definitions = on_disk(context.config)
    for _ in range(ROUNDS):
        served.add(definitions.fingerprint)
        report.generation = definitions.number(context.ledger, dry=context.options.dry_run)
        report.databases = shown(definitions.facts())
        yield definitions
        announce_end(lock, ending=True)
        if definitions.stand_still():
            return
        definitions = on_disk(context.config)
        if definitions.fingerprint in served:
            return
        announce_end(lock, ending=False)


def _generation(context: Context, report: RescanReport) -> int | None:
    """Return what coverage is told against, also when the run ended before it looked."""
    if report.databases:
        return report.generation
    known = context.ledger.generations.current()
    return None if known is None else known.number


def _time_limit(context: Context) -> float:
    given = context.options.time_limit
    return context.config.rescan.time_limit if given is None else float(given)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="only these files and trees, inside a store or not; - reads names"
                             " that end with NUL from stdin (find -print0)")
    parser.add_argument("--store", metavar="NAME", help="only this store")
    parser.add_argument("--full", action="store_true", help="also what is already current")
    parser.add_argument("--time-limit", type=duration, metavar="4h",
                        help="stop in good order after this time; the next run goes on")
    parser.add_argument("--action", choices=("report", "quarantine"),
                        help="leave infected images where they are, or take them out of the"
                             " store; default: rescan.action")
    parser.add_argument("--accept-missing", action="store_true",
                        help="believe it when a store lost most of its images; with --store,"
                             " only of that one")


def _prepare(context: Context) -> None:
    if not context.options.dry_run:
        make_ready(context)


JOB = Job(script="rescan-store", name="rescan", run=rescan, options=_options, changes=True,
          prepare=_prepare,
          sections=("store", "clamav", "rescan"), locked=lambda options: not options.paths,
          purpose="Bring every image's verdict to the definitions on disk.")
