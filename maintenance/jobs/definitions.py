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
from maintenance.jobs.fetching import Fetch, fetch, owner_of, why_none
from maintenance.jobs.generation import Definitions, directory_of, on_disk, verify
from maintenance.jobs.next_rescan import NextRescan
from maintenance.ledger.generations import Generation
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.text import show
from maintenance.times import DAY, iso


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
    caretaker = Caretaker(directory, owner)
    context.prepared = Prepared(NextRescan(context), caretaker,
                                fetch(context.config, directory, owner, caretaker))


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
        context.log.warning("%s", refused.reason)
    known = context.ledger.generations.current()
    definitions = _read(context, prepared.fetch, known, report)
    if definitions is not None:
        _book(context, prepared.fetch, definitions, known, report)
        _remember(context, definitions)
        report.engine = prove(context, definitions, prepared.caretaker, report)
        prepared.caretaker.close()  # a rescan that is waited for may take hours
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


def _remember(context: Context, definitions: Definitions) -> None:
    """Remember what they hold, whoever scans with them first."""
    try:
        definitions.remember(context.config.state)
    except (ImagewardenError, OSError) as error:  # then the next ones mean a full scan
        context.log.warning("%s", error)


def _book(context: Context, fetched: Fetch, definitions: Definitions, known: Generation | None,
          report: DefinitionsReport) -> None:
    """Enter the generation, and say what became of the old one."""
    told = report.freshclam
    tried = not fetched.daemon and not fetched.failures
    if tried:
        told.judge(differs=definitions.differ_from(known))
    confirmed = told.until is None and not told.stopped and (fetched.daemon or told.status == 0)
    generation = definitions.met(context.ledger, confirmed=confirmed)
    report.generation = generation.number
    report.changed = known is None or known.fingerprint != definitions.fingerprint
    report.databases = definitions.changes_since(known)
    if tried and told.outcome == "failed":
        context.trouble(told.explained())
    elif tried and told.outcome == "changed" and told.status:
        report.notices.append(told.explained())
    _mind_age(context, definitions, generation, report)
    _mind_versions(definitions, report)


def _mind_age(context: Context, definitions: Definitions, generation: Generation,
              report: DefinitionsReport) -> None:
    """Say that the definitions are old; in a cool-down, of which nobody else tells, it fails."""
    built = definitions.content.built
    age = time.time() - (generation.checked if built is None else built)
    if age <= context.config.definitions.fail_age:
        return
    old = (f"the definitions are {age / DAY:.1f} days old"
           f" ({'checked' if built is None else 'built'} {iso(time.time() - age)})")
    if report.freshclam.outcome == "cool-down":
        context.trouble(f"the mirror refuses us and {old}")
    elif built is not None:
        report.notices.append(old)


def _mind_versions(definitions: Definitions, report: DefinitionsReport) -> None:
    """Say what lies there twice, and what a source of older versions has put back."""
    for stale, newer in definitions.content.doubles():
        report.notices.append(
            f"{show(definitions.directory / stale.file)} (version {stale.version}) lies beside"
            f" {show(newer.file)} (version {newer.version}): remove it")
    for one in report.databases:
        before, now = one["from"], one["to"]
        if isinstance(before, int) and isinstance(now, int) and now < before:
            report.notices.append(f"{one['name']} went back from version {before} to {now}")


def _foretell(context: Context, report: DefinitionsReport) -> DefinitionsReport:
    directory = directory_of(context.config)
    context.log.warning("would run freshclam for %s", show(directory))
    report.freshclam.outcome = "daemon" if freshclam.running(directory) else "unchanged"
    return report


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-rescan", action="store_true",
                        help="do not start a rescan, whatever changed")
    parser.add_argument("--wait", action="store_true",
                        help="rescan in any case, and wait for it: its status becomes ours")
    parser.add_argument("--jitter", type=duration, default=0.0, metavar="30m",
                        help="sleep a random part of this time first, so that a fleet does"
                             " not ask the mirror in the same minute")


JOB = Job(script="update-definitions", name="definitions", run=update, prepare=prepare,
          options=_options, sections=("store", "clamav", "definitions"), changes=True,
          purpose="Run freshclam, find out by content what changed, have clamd reload it and"
                  " prove that it did, and start a rescan when the stores have not met it.")
