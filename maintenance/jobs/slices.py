"""What an engine says, believed slice by slice: each when the engine is proven behind it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from maintenance.clamav.proof import Trial
from maintenance.clamav.scanner import GRACE
from maintenance.errors import EngineError
from maintenance.jobs.engines import Engine
from maintenance.verdict import Answer, Verdict

BATCH = 64  # answers that are a slice
SLICE = 5.0  # seconds after which fewer are one, too
CLAIMS = {Verdict.CLEAN, Verdict.INFECTED}  # worth nothing from an engine that is not proven

T = TypeVar("T")


class GenerationMoved(Exception):
    """The engine has other definitions now: what is not settled must be asked again."""


@dataclass(frozen=True, slots=True)
class Judged(Generic[T]):
    """What is known of one image; ``info`` is of the file that was asked about, if any was."""

    what: T
    answer: Answer
    info: os.stat_result | None = None
    asked: bool = False  # the engine has seen it


class Slices(Generic[T]):
    """Answers of one engine, on their way to ``believed``.

    A system engine may load other definitions at any moment. Before the first answer
    it was proven; a slice is believed when it is proven again, by a question that was
    asked after the last answer of the slice had come. Scanning goes on meanwhile.
    """

    def __init__(self, engine: Engine, timeout: float,
                 believed: Callable[[Sequence[Judged[T]]], None]) -> None:
        self.unsettled: list[T] = []  # asked about to no avail
        self._engine, self._believed = engine, believed
        self._patience = timeout + GRACE
        self._fresh: list[Judged[T]] = []
        self._sealed: list[Judged[T]] = []  # what the trial is about
        self._trial: Trial | None = None
        self._begun = time.monotonic()

    def keep(self, judged: Judged[T]) -> None:
        """Take one more answer, and do nothing about it yet."""
        self._fresh.append(judged)

    def add(self, judged: Judged[T]) -> None:
        """Take one more answer; raises GenerationMoved, and EngineError for one that is gone."""
        self.keep(judged)
        if self._trial is not None:
            self._look(self._trial)
        elif len(self._fresh) >= BATCH or time.monotonic() - self._begun > SLICE:
            self._sealed, self._fresh = self._fresh, []
            self._begun = time.monotonic()
            if self._engine.proof is None:
                self._believe()
            else:
                self._trial = Trial(self._engine.proof, self._patience)

    def end(self) -> bool:
        """Settle what is left, and wait for the proof; tell whether the generation moved."""
        self._drop_trial()
        self._sealed += self._fresh
        self._fresh = []
        try:
            proven = not self._sealed or self._engine.still_proven()
        except EngineError:  # it is gone: nobody can say any more what it had loaded
            self.unsettled += [one.what for one in self._sealed if one.answer.verdict in CLAIMS]
            self._sealed = [one for one in self._sealed if one.answer.verdict not in CLAIMS]
            proven = True
        if proven:
            self._believe()
        else:
            self._give_up()
        return not proven

    def _look(self, trial: Trial) -> None:
        proven = trial.verdict()
        if proven is None:
            return
        self._drop_trial()
        if not proven:
            self._give_up()
            raise GenerationMoved
        self._believe()

    def _believe(self) -> None:
        sealed, self._sealed = self._sealed, []
        if sealed:
            self._believed(sealed)

    def _give_up(self) -> None:
        self.unsettled += [one.what for one in (*self._sealed, *self._fresh)]
        self._sealed, self._fresh = [], []

    def _drop_trial(self) -> None:
        if self._trial is not None:
            self._trial.close()
            self._trial = None
