"""Everything the jobs remember: images, generations, runs, outbox."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from maintenance.ledger.database import Opened, connect, reading
from maintenance.ledger.generations import Generations
from maintenance.ledger.images import Images
from maintenance.ledger.optimized import Optimized
from maintenance.ledger.outbox import Outbox
from maintenance.ledger.purges import Purges
from maintenance.ledger.schema import outbox, runs, undone
from maintenance.ledger.uploads import Uploads

BATCH = 1000  # rows of one statement
RECENT = 100  # runs that are looked at for a measure
GOOD = (0, 3, 4)  # statuses of a run that did its work


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, to be recorded; times are epoch seconds."""

    job: str
    started: float
    finished: float
    outcome: str
    status: int
    result: dict[str, object]
    generation: int | None  # the one a completed rescan brought the stores to


@dataclass(frozen=True, slots=True)
class RunRow:
    """The last run of a job; times are epoch seconds."""

    job: str
    outcome: str
    finished: float
    last_success: float | None


class Ledger:
    """One open ledger; ``rebuilt`` says so when a damaged one was moved aside."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._engine = opened.engine
        self.rebuilt = opened.rebuilt
        self.generations = Generations(opened.engine)
        self.outbox = Outbox(opened.engine)
        self.purges = Purges(opened.engine)
        self.uploads = Uploads(opened.engine)
        self.notes_purges = False  # of images that are replaced or taken out of their stores

    @classmethod
    def open(cls, state: Path) -> Self:
        """Open, or begin, the ledger under ``state``; see ``database.connect``."""
        return cls(connect(state))

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the ledger."""
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._opened.close()

    def images(self, store: str) -> Images:
        """Return the images of ``store``."""
        return Images(self._engine, store, self.notes_purges)

    def optimized(self, store: str, recipe: str) -> Optimized:
        """Return what is to be known of the images of ``store`` by the optimiser."""
        return Optimized(self._engine, store, recipe, self.notes_purges)

    def record_run(self, run: Run, *, send: bool) -> None:
        """Record a finished run and, when ``send``, queue its result for Zabbix.

        One transaction: a run is never known without being queued.
        """
        with self._engine.begin() as connection:
            connection.execute(sa.insert(runs).values(asdict(run)))
            if send:
                connection.execute(sa.insert(outbox).values(
                    key=f"imagewarden.run[{run.job}]", clock=run.finished,
                    value=json.dumps(run.result, ensure_ascii=False)))

    def last_rescan(self) -> int | None:
        """Return the generation of the last rescan that went over every store."""
        query = sa.select(runs.c.generation).where(
            runs.c.job == "rescan", runs.c.generation.is_not(None)).order_by(
            runs.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            found = connection.execute(query).scalar()
        return None if found is None else int(found)

    def previous_images(self) -> dict[str, int]:
        """Return how many images each store had at the last but one complete rescan."""
        query = sa.select(runs.c.result).where(
            runs.c.job == "rescan", runs.c.generation.is_not(None)).order_by(
            runs.c.number.desc()).limit(1).offset(1)
        with reading(self._engine) as connection:
            found = connection.execute(query).scalar() or {}
            return {str(one["name"]): int(one["images"]) for one in found.get("stores", ())}

    def last_runs(self) -> Sequence[RunRow]:
        """Return the last run of every job that ever ran, by name."""
        good = sa.case((runs.c.status.in_(GOOD), runs.c.finished))
        newest = sa.select(runs.c.job, sa.func.max(runs.c.number).label("number"),
                           sa.func.max(good).label("success")).group_by(runs.c.job).subquery()
        query = sa.select(runs.c.job, runs.c.outcome, runs.c.finished, newest.c.success).join(
            newest, runs.c.number == newest.c.number).order_by(runs.c.job)
        with reading(self._engine) as connection:
            return [RunRow(*row) for row in connection.execute(query)]

    def last_result(self, job: str) -> dict[str, object]:
        """Return the result of the last run of ``job``; empty when there was none."""
        query = sa.select(runs.c.result).where(runs.c.job == job).order_by(
            runs.c.number.desc()).limit(1)
        with reading(self._engine) as connection:
            found = connection.execute(query).scalar()
        return found if isinstance(found, dict) else {}

    def full_scan_rate(self, enough: int) -> float | None:
        """Return the seconds that an image took in the last rescan with ``enough`` full scans."""
        query = sa.select(runs.c.result).where(runs.c.job == "rescan").order_by(
            runs.c.number.desc()).limit(RECENT)
        with reading(self._engine) as connection:
            for result in connection.execute(query).scalars():
                full = sum(int(one["full"]) for one in result.get("stores", ()))
                seconds = result.get("seconds_full")
                if full >= enough and isinstance(seconds, float):
                    return seconds / full
        return None

    def forget_runs(self, before: float) -> None:
        """Drop runs that ended before ``before`` (epoch), but what others still ask about."""
        good = runs.c.status.in_(GOOD)
        kept = [sa.select(sa.func.max(runs.c.number)).where(which).group_by(runs.c.job)
                for which in (sa.true(), good, runs.c.generation.is_not(None))]
        with self._engine.begin() as connection:
            connection.execute(sa.delete(runs).where(
                runs.c.finished < before, *(runs.c.number.not_in(one) for one in kept)))

    def replace_undone(self, job: str, store: str, rows: Iterable[tuple[bytes, str]]) -> None:
        """Make ``rows`` (key, reason) the whole of what ``job`` left undone in ``store``."""
        now = time.time()
        values = ({"job": job, "store": store, "key": key, "reason": reason, "since": now}
                  for key, reason in rows)
        with self._engine.begin() as connection:
            connection.execute(
                sa.delete(undone).where(undone.c.job == job, undone.c.store == store))
            while batch := list(islice(values, BATCH)):
                connection.execute(sa.insert(undone).prefix_with("OR REPLACE"), batch)

    def outbox_state(self) -> tuple[int, int, float | None]:
        """Return how many results wait, how many are set aside, and the oldest's time."""
        waiting = outbox.c.set_aside.is_(None)
        query = sa.select(sa.func.count().filter(waiting), sa.func.count().filter(~waiting),
                          sa.func.min(outbox.c.clock).filter(waiting)).select_from(outbox)
        with reading(self._engine) as connection:
            row = connection.execute(query).one()
        return int(row[0]), int(row[1]), row[2]
