"""Asking an engine about single files, with one started at the first question."""

import os
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from maintenance.jobs.engines import Engine, proven_engine
from maintenance.jobs.generation import on_disk
from maintenance.settings import Config
from maintenance.store.identity import stamp
from maintenance.verdict import Answer, unknown

GRACE = 5.0  # seconds: clamd's own limit on scan time has to be able to answer first


class SecondLook:
    """An engine proven to have loaded what is on disk; raises EngineError or ToolError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = ExitStack()
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        """Return the look itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Let go of the engine."""
        self._stack.close()

    def ask(self, fd: int) -> Answer:
        """Return what the engine says of an open file."""
        if self._engine is None:
            self._engine = self._stack.enter_context(
                proven_engine(self._config, on_disk(self._config)))
        engine, settings = self._engine, self._config.clamav
        before = os.fstat(fd)
        if engine.too_large(before.st_size, settings.max_file_size) is not None:
            return unknown("larger than what is scanned")
        answer = engine.clamd.scan_descriptor(fd, settings.timeout + GRACE)
        if not engine.still_proven():
            return unknown("new definitions were loaded meanwhile; try again")
        after = os.fstat(fd)
        same = stamp(before)[:3] == stamp(after)[:3]  # a chmod of ours moves the ctime
        return answer if same else unknown("changed while it was scanned")
