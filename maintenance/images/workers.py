"""Worker processes that make images smaller, several at a time."""

import os
import selectors
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from maintenance.errors import ToolError
from maintenance.images.cage import cage
from maintenance.images.outcomes import Damaged, Outcome
from maintenance.images.probe import require_works
from maintenance.images.process import TOO_LONG, Lost, Process
from maintenance.images.recipe import Recipe
from maintenance.settings import Optimize

T = TypeVar("T")
TRIES = 3  # failed starts in a row after which there is no point
DEATHS = 20  # in a row, after which it is asked whether it is the images at all


@dataclass(frozen=True, slots=True)
class Source(Generic[T]):
    """An image to work on: what the caller calls it, and its file, open for reading."""

    what: T
    fd: int


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What came of a source; the caller closes ``fd``, and the descriptor in the outcome."""

    what: T
    fd: int
    outcome: Outcome


class _Again(Exception):
    """The worker died, and the image is to be tried with other tools."""


class Workers:
    """``count`` processes (0: one for each core), caged where that is possible."""

    def __init__(self, recipe: Recipe, settings: Optimize, count: int = 0) -> None:
        """Find out about the cage; raises ConfigError when it is required and cannot be."""
        self._plan = recipe.plan
        self._cage = cage(settings.sandbox)
        self._count = count or os.cpu_count() or 1
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._deaths = 0

    @property
    def sandbox(self) -> str:
        """Return "bubblewrap" or "off"."""
        return "bubblewrap" if self._cage else "off"

    def __enter__(self) -> Self:
        """Start nothing yet: the first image does."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them, also those of an ``over`` that nobody finished."""
        self._idle.clear()
        for process in list(self._all):
            self._end(process)

    def over(self, sources: Iterator[Source[T]]) -> Generator[Result[T]]:
        """Give the results in the order in which they come; sources are taken when one is free.

        A worker that dies costs its image a second try, without the tools that may have
        killed it, and then one Damaged. Raises ToolError when workers cannot be started,
        or die of every image. Descriptors of images that were taken and not given back, because the
        caller stopped early, are closed here.
        """
        busy: dict[Process, Source[T]] = {}
        sources = iter(sources)
        more = True
        try:
            while True:
                while more and len(busy) < self._count:
                    source = next(sources, None)
                    if source is None:
                        more = False
                        break
                    busy[self._ready_for(source)] = source
                if not busy:
                    return
                process = self._first(busy)
                try:
                    outcome = self._outcome(process)
                except _Again:
                    source = busy.pop(process)
                    busy[self._ready_for(source, careful=True)] = source
                    continue
                source = busy.pop(process)
                yield Result(source.what, source.fd, outcome)
        finally:
            for process, source in busy.items():
                self._end(process)
                os.close(source.fd)

    def _ready_for(self, source: Source[T], *, careful: bool = False) -> Process:
        try:
            process = self._idle.pop() if self._idle else self._started()
        except BaseException:
            os.close(source.fd)
            raise
        process.order(source.fd, careful=careful)
        return process

    def _started(self) -> Process:
        for left in reversed(range(TRIES)):
            process = Process(self._plan, self._cage)
            self._all.add(process)
            try:
                process.ready()
            except ToolError:
                self._end(process)
                if not left:
                    raise
            else:
                return process
        raise AssertionError("unreachable")

    def _end(self, process: Process) -> None:
        process.end()
        self._all.discard(process)

    def _first(self, busy: dict[Process, Source[T]]) -> Process:
        """Wait for an answer, an end, or the first that is out of time."""
        with selectors.DefaultSelector() as selector:
            for process in busy:
                selector.register(process.link, selectors.EVENT_READ, process)
            wait = min(process.deadline for process in busy) - time.monotonic()
            ready = selector.select(max(0.0, wait))
        if ready:
            return ready[0][0].data  # type: ignore[no-any-return]
        late = min(busy, key=lambda process: process.deadline)
        late.late = True
        return late

    def _outcome(self, process: Process) -> Outcome:
        if process.late:
            self._end(process)
            return Damaged(TOO_LONG)
        try:
            outcome = process.answer()
        except Lost as lost:
            self._end(process)
            self._deaths += 1
            if self._deaths >= DEATHS:
                self._require_works()
            if lost.by_itself and not process.careful and self._plan.careful != self._plan:
                raise _Again from None
            return Damaged(str(lost))
        self._deaths = 0
        self._idle.append(process)
        return outcome

    def _require_works(self) -> None:
        """Raise ToolError when it is not the images that workers die of."""
        process = self._started()
        require_works(process, f"{DEATHS} images in a row ended the worker that read them")
        self._deaths = 0
        self._idle.append(process)
