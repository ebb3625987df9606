"""Drafts before an engine: nothing is published that was not found clean."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from maintenance.clamav import databases
from maintenance.clamav.protocol import LIMIT_REACHED
from maintenance.clamav.scanner import Question, Scanner
from maintenance.errors import EngineError, ToolError
from maintenance.jobs.engines import Engine, proven_engine
from maintenance.jobs.generation import Definitions, directory_of, on_disk
from maintenance.shell.job import Context
from maintenance.text import show
from maintenance.verdict import Answer, Verdict, unknown

ENGINES = 5  # that are started in one run
ATTEMPTS = 2  # engines that one draft may cost
TOO_LARGE = "larger than what is scanned"


class NotClean(Exception):
    """A draft must not be published: the text says why.

    ``passing``: it does not lie in the draft, and tomorrow's engine may know better.
    """

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class _Ready:
    """An engine, what it has loaded, and a session that is kept open from draft to draft."""

    engine: Engine
    definitions: Definitions
    generation: int
    scanner: Scanner[None]


class DraftScan:
    """Scans one draft after the other, with an engine that the first one starts.

    ``began`` tells whether there was ever an engine: an EngineError before that is
    the host's trouble, and after it the loss of what we had.
    """

    def __init__(self, context: Context) -> None:
        self.began = False
        self._context = context
        self._stack = ExitStack()
        self._current: _Ready | None = None
        self._started = 0

    def __enter__(self) -> Self:
        """Return the scan itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End the engine."""
        self._end()

    def clean_at(self, fd: int) -> int | None:
        """Return the generation at which the file behind ``fd`` is clean.

        None: this site has never had definitions. Raises NotClean, and EngineError
        when no engine can be had.
        """
        for _ in range(ATTEMPTS):
            try:
                ready = self._ready()
            except ToolError as error:  # no draft is to blame for it
                raise EngineError(str(error)) from None
            except OSError as error:
                raise EngineError(f"no engine can be started: {show(str(error))}") from None
            if ready is None:
                return None
            answer = self._answer(ready, fd)
            if answer is None:
                self._context.log.warning("the engine was lost while it scanned a draft")
                self._end()
            elif answer.verdict is Verdict.CLEAN:
                return ready.generation
            elif answer.verdict is Verdict.INFECTED:
                raise NotClean(f"its smaller form is infected ({show(answer.signature or '')})")
            else:
                why = answer.reason or ""
                raise NotClean(f"its smaller form was not scanned: {show(why)}",
                               passing=not why.startswith((TOO_LARGE, LIMIT_REACHED)))
        raise NotClean("its smaller form cost more than one engine its life")

    def _answer(self, ready: _Ready, fd: int) -> Answer | None:
        """Ask; None when the engine did not live, or stay what it was, to stand by its word."""
        largest = self._context.config.clamav.max_file_size
        if ready.engine.too_large(os.fstat(fd).st_size, largest) is not None:
            return unknown(TOO_LARGE)
        answers = [answer for _, answer in ready.scanner.scan([Question(None, fd)])]
        if ready.scanner.lost is not None or not answers:
            return None
        if answers[0].verdict is Verdict.UNKNOWN:
            return answers[0] if ready.engine.clamd.answers() else None
        try:
            return answers[0] if ready.engine.still_proven() else None
        except EngineError:
            return None

    def _ready(self) -> _Ready | None:
        """Return an engine with the definitions on disk; None when there never were any."""
        if self._current is not None and not self._current.definitions.stand_still():
            self._end()  # an older engine would make the image less checked than it may be
        if self._current is None and not self._never_had_any():
            self._current = self._start()
        return self._current

    def _never_had_any(self) -> bool:
        return (self._context.ledger.generations.current() is None
                and not databases.stamps(directory_of(self._context.config)))

    def _start(self) -> _Ready:
        while self._started < ENGINES:
            self._started += 1
            definitions = on_disk(self._context.config)
            generation = definitions.met(self._context.ledger).number
            engine = self._stack.enter_context(proven_engine(self._context.config, definitions))
            self.began = True
            try:
                scanner = Scanner[None](engine.clamd, 1, self._context.config.clamav.timeout)
            except OSError:
                self._context.log.warning("the engine was lost before it had a draft")
                self._end()
            else:
                self._stack.callback(scanner.close)
                return _Ready(engine, definitions, generation, scanner)
        raise EngineError(f"{ENGINES} engines were lost")

    def _end(self) -> None:
        self._current = None
        self._stack.close()
