"""optimize-images: make the images of the stores smaller, and change no pixel."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress

from maintenance.errors import EngineError, StoreError, ToolError
from maintenance.images.cage import cage
from maintenance.images.recipe import Recipe
from maintenance.images.workers import Workers
from maintenance.jobs.draft_scan import DraftScan
from maintenance.jobs.named_work import NamedWork
from maintenance.jobs.optimize_report import OptimizeReport, StoreResult
from maintenance.jobs.optimize_tally import Subject, Tally, Work
from maintenance.jobs.store_optimizing import StoreWork
from maintenance.jobs.walking import chosen_stores, walked
from maintenance.jobs.working_hours import WorkingHours
from maintenance.ledger.optimized import Tally as Known
from maintenance.programs import run
from maintenance.settings import Store
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.store.identity import path_of
from maintenance.store.replace import remove_draft
from maintenance.text import show
from maintenance.times import Deadline
from maintenance.window import Window

NICE = 10  # the web server comes first
LAST_IN_LINE = ("ionice", "-c", "2", "-n", "7", "-p")  # the same for the disk
NIGHTS = 10  # that a changed recipe is spread over
FEW = 1000  # images that are no burden for one night


def optimize(context: Context) -> OptimizeReport:
    """Make smaller what is due, inside the window, the largest images first."""
    report = OptimizeReport()
    context.report = report
    stores, hours = chosen_stores(context), _hours(context)
    settings = context.config.optimize
    if not hours.window.is_open():
        report.closed = True
        report.sandbox = "bubblewrap" if cage(settings.sandbox) else "off"  # an alarm hangs on it
        return report
    recipe = Recipe.of(settings)
    workers = Workers(recipe, settings, settings.workers)
    report.sandbox = workers.sandbox
    if (workers.sandbox, settings.sandbox) == ("off", "auto"):
        context.log.info("bubblewrap does not work here: images are parsed under limits only")
    for line in recipe.stand_ins:
        context.log.info("%s", line)
    with ExitStack() as stack:
        if context.options.paths:
            works = NamedWork(context, report, recipe.fingerprint, stack).works()
        else:
            works = [one for store in stores
                     for one in _whole(context, store, report, recipe.fingerprint, stack)]
        if not context.options.dry_run and report.left:
            _stand_back()
            _serve(context, works, stack.enter_context(workers), hours, report)
    return report


def _whole(context: Context, store: Store, report: OptimizeReport, recipe: str,
           stack: ExitStack) -> Iterator[Work]:
    """Yield a whole store as it was just walked; what stands against that is a trouble."""
    dry = context.options.dry_run
    known, outdated = context.ledger.optimized(store.name, recipe), list[Known]()
    with context.going_on(f'store "{store.name}": '):
        found = stack.enter_context(
            walked(context, store, refuted=lambda one: outdated.append(known.tally(one.keys)))
            if dry else walked(context, store, draft=remove_draft))
        tally = Tally(Subject(store, found.tree, found.images, known), report,
                      StoreResult(store.name))
        report.stores.append(tally.result)
        tally.begin(known.tally())
        if dry:  # the ledger still has what the walk has refuted
            for one in outdated:
                tally.begin(one, times=-1)
            tally.result.left += found.census.changed
        for key, reason in found.census.unread:
            tally.unread(show(path_of(key)), reason)
        again = None if context.options.now else max(FEW, tally.result.considered // NIGHTS)
        yield Work(tally, lambda: iter([None]), again)


def _serve(context: Context, works: Sequence[Work], workers: Workers, hours: WorkingHours,
           report: OptimizeReport) -> None:
    """Let the workers at one store after the other."""
    with DraftScan(context) as scan:
        for work in works:
            try:
                _refuse_read_only(work)
                label, total = work.tally.subject.store.name, work.tally.result.left
                shop = StoreWork(work.tally, workers, scan, hours)
                with closing(shop.run(work.due())) as finished:
                    for _ in context.progress.over(finished, label, total,
                                                   beside=report.saved_so_far):
                        pass
            except StoreError as error:
                context.trouble(str(error))
            except EngineError as error:
                if not scan.began:  # there was none to begin with
                    raise
                context.log.warning("%s; the rest waits for the next run", error)
                report.engine_lost = True
                return


def _stand_back() -> None:
    """Let everybody else on this host come first; what we start inherits it."""
    os.nice(NICE)
    with suppress(ToolError):  # not installed: then only the processor knows
        run([*LAST_IN_LINE, str(os.getpid())])


def _refuse_read_only(work: Work) -> None:
    subject = work.tally.subject
    if work.tally.result.left and subject.tree.read_only:
        raise StoreError(f'store "{subject.store.name}": its file system is mounted read-only')


def _hours(context: Context) -> WorkingHours:
    settings, options = context.config.optimize, context.options
    deadline = Deadline.after(options.time_limit or 0)
    if options.now:
        return WorkingHours(Window(""), 0, deadline)
    return WorkingHours(Window(settings.window), settings.max_load, deadline, context.log.info)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH",
                        help="only these files and trees, inside a store")
    parser.add_argument("--store", metavar="NAME", help="only this store")
    parser.add_argument("--now", action="store_true",
                        help="whatever the hour and the load of this host")
    parser.add_argument("--time-limit", type=duration, metavar="2h",
                        help="stop in good order after this time; the next run goes on")


JOB = Job(script="optimize-images", name="optimize", run=optimize, options=_options, changes=True,
          sections=("store", "clamav", "optimize"), locked=lambda options: not options.paths,
          purpose="Make the images of the stores smaller without changing a pixel.")
