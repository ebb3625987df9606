"""store-status: coverage, definitions and last runs at a glance."""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from maintenance.errors import Exit, ImagewardenError, LedgerError
from maintenance.jobs import upload_counts, upload_engine
from maintenance.jobs.coverage import HEADS, table
from maintenance.jobs.hits_state import counting, most_seen
from maintenance.jobs.quarantines import holdings, totals
from maintenance.jobs.walking import chosen_stores
from maintenance.ledger.generations import Generation
from maintenance.ledger.rows import Coverage
from maintenance.settings import Store
from maintenance.shell.job import Context, Job
from maintenance.shell.options import natural
from maintenance.text import show
from maintenance.times import iso
from maintenance.verdict import Verdict

NAMED = 10  # images of a store that are named, of each kind
ROOM = {"name": "store", "bytes": "size", "bytes_saved": "saved by optimising",
        "quarantined": "in quarantine"}
DATABASES = {"name": "database", "version": "version", "signatures": "signatures",
             "built": "built", "checked": "checked"}
TOP = {"image": "most seen images", "hits": "hits"}
JOBS = {"job": "job", "outcome": "outcome", "finished": "finished",
        "last_success": "last success"}


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What the ledger knows; for people also which images, and why a run failed."""

    stores: Sequence[Mapping[str, object]]
    definitions: Mapping[str, object]
    jobs: Sequence[Mapping[str, object]]
    outbox: Mapping[str, object]
    quarantine: Mapping[str, object]
    upload: Mapping[str, object]
    hits: Mapping[str, object]
    top: Sequence[Mapping[str, object]] | None = None  # None: nobody asked
    named: Sequence[str] = ()
    errors: Sequence[str] = ()

    def status(self) -> Exit:
        """Return 0: what is shown is no failure of showing it."""
        return Exit.DONE

    def members(self) -> dict[str, object]:
        """Return the whole state."""
        return {"stores": self.stores, "definitions": self.definitions, "jobs": self.jobs,
                "outbox": self.outbox, "quarantine": self.quarantine, "upload": self.upload,
                "hits": self.hits, **({} if self.top is None else {"top": self.top})}

    def summary(self) -> Iterator[str]:
        """Yield tables, what is wrong with each right below it; all times are UTC."""
        yield table(self.stores, HEADS)
        yield from self.named
        yield f"\n{table(self.stores, ROOM)}"
        braked = self.quarantine["brake"]
        if isinstance(braked, list) and braked:
            yield f"quarantine brake on: {', '.join(braked)}; see: quarantine list"
        databases = self.definitions["databases"]
        yield f"\ndefinitions: generation {self.definitions['generation'] or 'none yet'}"
        if isinstance(databases, list) and databases:
            yield table(databases, DATABASES)
        yield from self._uploads()
        if self.jobs:
            yield f"\nlast runs (times are UTC):\n{table(self.jobs, JOBS)}"
            yield from self.errors
        if self.top:
            yield f"\n{table(self.top, TOP)}"

    def _uploads(self) -> Iterator[str]:
        counts = self.upload["counts"]
        if isinstance(counts, dict) and any(counts.values()):
            told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            yield f"\nuploads: {told}; last scanned: {self.upload['last_ok'] or 'never'}"
        if self.upload["engine_old"]:
            yield f"uploads: {upload_engine.OLD}"

    def alerts(self) -> Iterator[str]:
        """Yield nothing: what is shown says it all."""
        yield from ()


def store_status(context: Context) -> StatusReport:
    """Read the ledger, and look into the quarantines."""
    stores = chosen_stores(context)
    if not context.config.state.is_dir():
        raise LedgerError(f"{show(context.config.state)}: not there yet;"
                          " the first update-definitions makes it")
    state = state_of(context, stores)
    top = None
    if context.options.top:
        try:
            top = most_seen(context, context.options.top)
        except ImagewardenError as error:  # the rest can be told all the same
            context.trouble(str(error))
    return replace(state, top=top,
                   named=[line for store in stores for line in _named(context, store)],
                   errors=[line for run in state.jobs for line in _error(context, run)])


def state_of(context: Context, stores: Sequence[Store]) -> StatusReport:
    """Return what the ledger knows; Zabbix gets the same."""
    ledger = context.ledger
    generation = ledger.generations.current()
    waiting, set_aside, oldest = ledger.outbox_state()
    number = generation.number if generation else None
    held = {store.name: holdings(context.config, store) for store in stores}
    before = ledger.previous_images()
    return StatusReport(
        [{**_store(store.name, ledger.images(store.name).coverage(number), held[store.name].held),
          "never_since": iso(ledger.images(store.name).never_since()),
          "previous_images": before.get(store.name)} for store in stores],
        _definitions(generation),
        [{"job": run.job, "outcome": run.outcome, "finished": iso(run.finished),
          "last_success": iso(run.last_success)} for run in ledger.last_runs()],
        {"waiting": waiting, "set_aside": set_aside, "oldest": iso(oldest)},
        totals(held),
        {**upload_engine.told(context.config, generation),
         **upload_counts.told(ledger.uploads, time.time())},
        counting(ledger, context.config.hits_spool))


def _store(name: str, known: Coverage, quarantined: int | None) -> dict[str, object]:
    return {"name": name, "images": known.images, "clean_current": known.clean_current,
            "clean_older": known.clean_older, "oldest_check": iso(known.oldest_check),
            "unknown": known.unknown, "infected": known.infected, "quarantined": quarantined,
            "never": known.never, "missing": known.missing, "bytes": known.bytes,
            "bytes_saved": known.bytes_saved}


def _named(context: Context, store: Store) -> Iterator[str]:
    """Yield the first images that are infected, or without a verdict, and why."""
    images = context.ledger.images(store.name)
    for verdict in (Verdict.INFECTED, Verdict.UNKNOWN):
        rows = list(islice(images.with_verdict(verdict), NAMED + 1))
        for row in rows[:NAMED]:
            why = row.signature if verdict is Verdict.INFECTED else row.reason
            yield f"{verdict}: {store.name}: {show(row.path)} ({show(why or '')})"
        if len(rows) > NAMED:
            yield f"{verdict}: {store.name}: and more, in the log of rescan-store"


def _error(context: Context, run: Mapping[str, object]) -> Iterator[str]:
    if run["outcome"] == "failed":
        error = context.ledger.last_result(str(run["job"])).get("error")
        yield f"{run['job']}: {error or 'failed'}"


def _definitions(generation: Generation | None) -> dict[str, object]:
    if generation is None:
        return {"generation": None, "databases": []}
    checked = iso(generation.checked)
    return {"generation": generation.number, "databases": [
        {"name": one["name"], "version": one["version"], "signatures": one["signatures"],
         "built": one["built"], "checked": checked} for one in generation.databases]}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", metavar="NAME", help="only this store")
    parser.add_argument("--top", type=natural, metavar="N", help="also the N most seen images")


JOB = Job(script="store-status", name="store-status", run=store_status, options=_options,
          sections=("store", "clamav", "upload"), records=False, shows=True,
          purpose="Show how many images are checked against which definitions.")
