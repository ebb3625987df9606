"""The second phase of a rescan over whole stores: engines are asked about what is due."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from maintenance.errors import EngineError, ToolError
from maintenance.jobs import full_scans
from maintenance.jobs.deltas import Deltas
from maintenance.jobs.engines import ENGINES, DefinitionsMoved, Engine, proven_engine
from maintenance.jobs.generation import Definitions
from maintenance.jobs.inspection import AMONG_OTHERS
from maintenance.jobs.open_store import OpenStore
from maintenance.jobs.rescan_report import RescanReport
from maintenance.jobs.slices import GenerationMoved
from maintenance.jobs.store_scan import StoreScan
from maintenance.ledger.rows import Asked, Extent, ImageRow, Need
from maintenance.shell.job import Context
from maintenance.shell.progress import Progress
from maintenance.text import show
from maintenance.times import Deadline
from maintenance.window import Window

_Ask = Callable[[StoreScan, Progress, str], str | None]


@dataclass(slots=True)
class Serving:
    """What is due in the stores for one generation, with as few engines as it takes."""

    context: Context
    opened: Sequence[OpenStore]
    definitions: Definitions
    need: Need
    deadline: Deadline
    report: RescanReport
    _suspects: dict[str, dict[bytes, ImageRow]] = field(default_factory=dict)  # by store

    def run(self) -> None:
        """Ask until nothing is due, or no engine can be had; raises EngineError.

        What was never checked comes first; then, with a small engine, what meets only what is
        new; then what has time. That no engine with all definitions can be had keeps nobody
        from asking the small one.
        """
        for one in self.opened:
            one.taking.meet_known(one.tree, self.need.generation)
            one.count_left(self.need)
        if self.context.options.dry_run:
            return
        if all(one.is_through for one in self.opened):
            return
        self._remember()
        none: EngineError | None = None
        try:
            if not self.need.full:
                self._ask_in_full(replace(self.need, extent=Extent.UNSURE, rolling=None))
        except EngineError as error:
            none = error
        if not self.need.full:
            Deltas(self.context, self.opened, self.definitions, self.need, self.deadline,
                   self.report).run()
        if none is not None:
            raise none
        self._ask_in_full(self.need)

    def _remember(self) -> None:
        """Remember what the definitions hold; without that the next ones mean full scans."""
        try:
            self.definitions.remember(self.context.config.state)
        except (ToolError, PermissionError) as error:
            self.context.log.warning("%s", error)

    def _ask_in_full(self, need: Need) -> None:
        for _ in range(ENGINES):
            for one in self.opened:
                one.count_left(need)
            if self.deadline.passed or not any(one.pressing for one in self.opened):
                return
            begun = time.monotonic()
            try:
                if self._had_engine(need):
                    return
            except DefinitionsMoved as moved:
                self.context.log.info("%s", moved)
                return  # to what is there now
            except EngineError as error:
                if not self.report.engine_had:  # there was none to begin with
                    raise
                self.context.log.warning("%s", error)
                break
            finally:
                self.report.seconds_full += time.monotonic() - begun
        self._give_up()

    def _had_engine(self, need: Need) -> bool:
        """Have a proven engine, and ask it; False: go on with another."""
        with proven_engine(self.context.config, self.definitions) as engine:
            self.report.canary = self.report.engine_had = True
            self.report.hidden_limits = engine.hides_limits
            return self._served_by(engine, need)

    def _served_by(self, engine: Engine, need: Need) -> bool:
        """Ask about all that is due, the suspects of earlier losses last; False: go on."""
        try:
            for ask in (StoreScan.run, StoreScan.run_alone):
                for one in self.opened:
                    lost = self._scan(one, engine, need, ask)
                    if lost is not None:
                        self.context.log.warning("%s", show(lost))  # words of the engine
                        return False
        except GenerationMoved:
            self.context.log.info("new definitions were loaded meanwhile; asking again")
            return not self.definitions.stand_still()  # then what is there now is served
        return True

    def _scan(self, one: OpenStore, engine: Engine, need: Need, ask: _Ask) -> str | None:
        scan = StoreScan(one.tree, one.images, one.need(need), engine,
                         self.context.config.clamav, self.deadline, one.meet,
                         partial(full_scans.reason, self.need, self.report.why),
                         Window(self.context.config.rescan.window),
                         self._suspects.setdefault(one.store.name, {}))
        try:
            return ask(scan, self.context.progress, one.store.name)
        finally:
            one.result.full += scan.scanned
            one.unasked += scan.unasked
            self.report.full_reasons += scan.reasons
            one.result.images -= scan.vanished
            self.report.bytes += scan.bytes
            one.count_left(need)

    def _give_up(self) -> None:
        """Leave the rest to the next run; what may have cost an engine is unknown."""
        self.report.engine_lost = True
        self.context.log.warning("the engine was lost; the rest waits for the next run")
        for one in self.opened:
            rows = self._suspects.pop(one.store.name, {}).values()
            one.images.record_answers(
                [Asked(row.key, row.stamp, AMONG_OTHERS) for row in rows], self.need.generation)
            one.result.full += len(rows)
            one.count_left(self.need)
