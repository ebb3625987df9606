"""A proven engine for one generation, of whichever kind the host has."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from maintenance import memory
from maintenance.clamav import system
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import Snapshot
from maintenance.clamav.private import memory_of, private_engine
from maintenance.clamav.proof import Proof
from maintenance.clamav.scanner import MOST
from maintenance.errors import EngineError
from maintenance.jobs.engine_proof import evidence
from maintenance.jobs.generation import (
    Definitions,
    on_disk,
    scan_options,
    uses_system_engine,
)
from maintenance.settings import Config

ENGINES = 8  # that one run may cost: an image that kills them costs two
LOADS = 3  # of definitions that are written anew meanwhile
SPARE = 1.5  # times what an engine takes has to be available


class DefinitionsMoved(EngineError):
    """The definitions became others while an engine loaded them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What scans, and how far it may be believed."""

    clamd: Clamd
    in_flight: int
    largest: int | None  # from this size on its "clean" counts for nothing; None: no such size
    hides_limits: bool
    proof: Proof | None  # that it has what it began with; None: it is ours, and keeps that

    def still_proven(self) -> bool:
        """Tell whether it has what it began with; raises EngineError."""
        return self.proof is None or self.proof.holds()

    def too_large(self, size: int, limit: int) -> str | None:
        """Return why a file of ``size`` bytes is not to be asked about; ``limit`` is ours."""
        if size > limit:
            return f"larger than max_file_size ({limit} bytes)"
        if self.largest is not None and size >= self.largest:
            return f"clamd would not scan all of it (its MaxFileSize is {self.largest})"
        return None


@contextmanager
def proven_engine(config: Config, definitions: Definitions) -> Iterator[Engine]:
    """Yield an engine that has loaded exactly ``definitions``; raises EngineError.

    DefinitionsMoved: what is on disk is something else by now.
    """
    if uses_system_engine(config):
        yield _system(config, definitions)
        return
    lacking = lacks_memory(definitions.content)
    if lacking is not None:
        raise EngineError(lacking)
    for _ in range(LOADS):
        with private_engine(definitions.directory, definitions.content,
                            scan_options(config)) as clamd:
            if definitions.stand_still():
                yield Engine(clamd, config.rescan.in_flight or MOST, None, False, None)
                return
        found = on_disk(config)
        if found.fingerprint != definitions.fingerprint:
            break
        definitions = found  # freshclam wrote the same once more, maybe while clamd read it
    raise DefinitionsMoved("the definitions changed while our clamd loaded them; run it again")


def lacks_memory(content: Snapshot) -> str | None:
    """Return why a private engine should not be started; None: there is room for it."""
    needed, free = SPARE * memory_of(content), memory.available()
    if needed <= free:
        return None
    return (f"not enough memory to start clamd: its definitions want {needed / 2**20:.0f} MB,"
            f" {free / 2**20:.0f} MB are available")


def _system(config: Config, definitions: Definitions) -> Engine:
    engine = system.connect(config.clamav.socket)
    if not engine.clamd.local:
        raise EngineError("a rescan needs a local clamd (a Unix socket); tcp:// is for uploads")
    proof = engine.proof(evidence(config, definitions), definitions.content)
    if proof is None or not proof.holds():
        raise EngineError(f"clamd at {config.clamav.socket} is not proven to have loaded the"
                          " definitions on disk; run update-definitions")
    return Engine(engine.clamd, config.rescan.in_flight or os.cpu_count() or 1, engine.largest,
                  engine.hides_limits, proof)
