"""update-definitions: run freshclam, know what changed, prove that the engine has it."""

import argparse
import random
import time
from dataclasses import dataclass

from maintenance.clamav import freshclam
from maintenance.clamav.caretaker import Caretaker
from maintenance.errors import ImagewardenError
from maintenance.jobs.definitions_report import DefinitionsReport
from maintenance.jobs.engine_proof import prove
from maintenance.jobs.fetching import Fetch, explain, fetch, judge, owner_of, why_none
from maintenance.jobs.generation import Definitions, directory_of, on_disk, verify
from maintenance.jobs.next_rescan import NextRescan
from maintenance.ledger.generations import Generation
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.text import show


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was started before privileges were dropped."""

    rescan: NextRescan
    caretaker: Caretaker
    fetch: Fetch


def prepare(context: Context) -> None:
    """Run freshclam as the owner of the database directory; read nothing it wrote."""
    if context.options.dry_run:
        return
    time.sleep(random.uniform(0, context.options.jitter))  # noqa: S311 - spreads a fleet
    directory = directory_of(context.config)
    owner = owner_of(context, directory)
    context.prepared = Prepared(NextRescan(context), Caretaker(directory, owner),
                                fetch(context.config, directory, owner))


def update(context: Context) -> DefinitionsReport:
    """Find out what freshclam's run came to, and act on a change."""
    report = DefinitionsReport()
    context.report = report
    if context.options.dry_run:
        return _foretell(context, report)
    prepared: Prepared = context.prepared
    report.freshclam = prepared.fetch.read(context)
    refused = prepared.caretaker.open_up()
    if refused is not None:
        context.log.warning("%s", refused)
    known = context.ledger.generations.current()
    definitions = _read(context, prepared.fetch, known, report)
    if definitions is not None:
        _book(context, prepared.fetch, definitions, known, report)
        report.engine = prove(context, definitions, prepared.caretaker)
        prepared.rescan.follow(context, report)
    return report


def _read(context: Context, fetched: Fetch, known: Generation | None,
          report: DefinitionsReport) -> Definitions | None:
    """Read what is on disk; that there is nothing, or a damaged database, is a trouble."""
    try:
        definitions = on_disk(context.config)
        verify(definitions, known)
    except ImagewardenError as error:
        why = why_none(fetched, report.freshclam, str(error))
        if why is not None:
            context.trouble(why)
        return None
    return definitions


def _book(context: Context, fetched: Fetch, definitions: Definitions, known: Generation | None,
          report: DefinitionsReport) -> None:
    """Enter the generation, and say what became of the old one."""
    told = report.freshclam
    tried = not fetched.daemon and fetched.failure is None
    if tried:
        judge(told, differs=definitions.differ_from(known))
    confirmed = fetched.daemon or (told.status == 0 and told.until is None)
    generation = definitions.met(context.ledger, confirmed=confirmed)
    report.generation = generation.number
    report.changed = known is None or known.fingerprint != definitions.fingerprint
    report.databases = definitions.changes_since(known)
    if tried and told.outcome == "failed":
        context.trouble(explain(told))
    elif told.outcome == "cool-down":
        _mind_age(context, definitions, generation)


def _mind_age(context: Context, definitions: Definitions, generation: Generation) -> None:
    """During a cool-down all is well until the definitions are too old."""
    built = [one.built for one in definitions.content.databases if one.built is not None]
    age = time.time() - max(built, default=generation.checked)
    if age > context.config.definitions.fail_age:
        context.trouble(f"the mirror refuses us and the definitions are {age / 86400:.1f} days old")


def _foretell(context: Context, report: DefinitionsReport) -> DefinitionsReport:
    directory = directory_of(context.config)
    context.log.warning("would run freshclam for %s", show(directory))
    report.freshclam.outcome = "daemon" if freshclam.running(directory) else "unchanged"
    return report


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-rescan", action="store_true", help="do not start a rescan")
    parser.add_argument("--wait", action="store_true",
                        help="run the rescan in the foreground; its status becomes ours")
    parser.add_argument("--jitter", type=duration, default=0.0, metavar="30m",
                        help="sleep a random part of this time first")


JOB = Job(script="update-definitions", name="definitions", run=update, prepare=prepare,
          options=_options, sections=("store", "clamav", "definitions"), changes=True,
          purpose="Fetch new definitions, know what changed, and rescan when something did.")
