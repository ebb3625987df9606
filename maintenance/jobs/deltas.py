"""Delta scans: what was checked at older generations meets only what is new since then."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from maintenance.clamav import system
from maintenance.clamav.delta import Delta, prepared
from maintenance.clamav.difference import FullNeeded
from maintenance.clamav.scanner import MOST
from maintenance.errors import EngineError, ToolError
from maintenance.jobs.delta_scan import DeltaScan
from maintenance.jobs.engines import Engine, lacks_memory, proven_engine
from maintenance.jobs.generation import Definitions, facts_below, scan_options, uses_system_engine
from maintenance.jobs.open_store import OpenStore
from maintenance.jobs.rescan_report import RescanReport
from maintenance.ledger.rows import Need
from maintenance.settings import Config
from maintenance.shell.job import Context
from maintenance.times import Deadline

# What a clamd may be told to do with databases that our own engines do not do: then what
# is new says too little.
_SWITCHES = ("DetectPUA", "BytecodeUnsigned")


@dataclass(slots=True)
class Deltas:
    """Brings to a generation what needs no full scan, with a small engine for each older one."""

    context: Context
    opened: Sequence[OpenStore]
    definitions: Definitions
    need: Need
    deadline: Deadline
    report: RescanReport

    def run(self) -> None:
        """Ask; what is left due needs a full scan, for the reason in the report's ``why``."""
        older = self._older()
        if older and uses_system_engine(self.context.config):
            with proven_engine(self.context.config, self.definitions):
                pass  # what the host scans with has to have them, too, before anything is booked
        for number in sorted(older, reverse=True):
            if not self.deadline.passed:
                self._from(number)
        facts_below(self.context.config.state).prune(
            {*self.context.ledger.generations.in_use(), self.definitions.fingerprint})

    def _older(self) -> set[int]:
        return {number for one in self.opened
                 for number in one.images.older(one.need(self.need))}

    def _from(self, older: int) -> None:
        """Bring up to date what was checked at generation ``older``, or say why it cannot be."""
        begun = time.monotonic()
        try:
            why = _objection(self.context.config)
            if why is not None:
                raise FullNeeded(why)
            names = set[str]().union(*(one.images.signatures(older) for one in self.opened))
            with prepared(facts_below(self.context.config.state),
                          self.context.ledger.generations.fingerprint(older) or "",
                          self.definitions.directory, self.definitions.content,
                          self.definitions.fingerprint, names) as delta:
                self.context.log.info("since generation %d %d signatures are new", older,
                                      delta.lines)
                self._meet(delta, older)
        except FullNeeded as reason:
            self._full(older, str(reason))
        except (EngineError, ToolError) as error:
            self._full(older, "the new signatures alone could not be asked about")
            self.context.log.warning("no delta scan: %s", error)
        finally:
            self.report.seconds_delta += time.monotonic() - begun

    def _full(self, older: int, reason: str) -> None:
        self.report.why[older] = reason
        self.context.log.info("what was checked at generation %d is scanned in full: %s", older,
                              reason)

    def _meet(self, delta: Delta, older: int) -> None:
        scans = [(one, DeltaScan(one.tree, one.images, one.need(self.need), older, delta,
                                 self.context.config.clamav, self.deadline, one.meet))
                 for one in self.opened]
        if not delta.asks:
            for one, scan in scans:
                with closing(_Counted(one, scan, self.report)):
                    scan.take_over()
        if not any(scan.images.count_by_delta(scan.need, older) for _, scan in scans):
            return
        lacking = lacks_memory(delta.content)
        if lacking is not None:
            raise EngineError(lacking)
        with delta.engine(scan_options(self.context.config)) as clamd:
            self.report.canary = True
            in_flight = self.context.config.rescan.in_flight or MOST
            engine = Engine(clamd, in_flight, None, False, None)
            for one, scan in scans:
                with closing(_Counted(one, scan, self.report)):
                    lost = scan.run(engine, self.context.progress, one.store.name)
                if lost is not None:
                    raise EngineError(lost)


@dataclass(slots=True)
class _Counted:
    """A scan whose counts go into the result, however it ends."""

    one: OpenStore
    scan: DeltaScan
    report: RescanReport

    def close(self) -> None:
        self.one.result.delta += self.scan.brought
        self.one.result.images -= self.scan.vanished
        self.report.bytes += self.scan.bytes
        self.scan.brought = self.scan.vanished = self.scan.bytes = 0


def _objection(config: Config) -> str | None:
    """Return why another clamd than ours may see more than a delta does."""
    if not uses_system_engine(config):
        return None
    conf = system.conf_for(config.clamav.socket)
    if conf is None:
        return "the configuration of the system's clamd cannot be read"
    return next((f"the system's clamd has {switch} on" for switch in _SWITCHES
                 if conf.yes(switch)), None)
