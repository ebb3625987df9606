"""One store's due images go to the workers; what comes back is scanned and published."""

import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from maintenance.errors import FileChanged, ToolError
from maintenance.images import kinds
from maintenance.images.outcomes import Damaged, Smaller
from maintenance.images.workers import Result, Source, Workers
from maintenance.jobs.draft_scan import DraftScan, NotClean
from maintenance.jobs.optimize_tally import Tally
from maintenance.jobs.working_hours import WorkingHours
from maintenance.ledger.optimized import Candidate, Settled
from maintenance.shell.signals import held_back
from maintenance.store.identity import stamp
from maintenance.store.likeness import CannotKeep, refuse
from maintenance.store.moving import sha256
from maintenance.store.replace import Draft, Original, drafted, require_room
from maintenance.store.tree import NotAnImage, Vanished
from maintenance.text import show


@dataclass(frozen=True, slots=True)
class Taken:
    """An image that a worker is looking at."""

    candidate: Candidate
    info: os.stat_result
    kind: str  # by its first bytes


@dataclass(slots=True)
class StoreWork:
    """The way of one store's images, each from being due to being settled."""

    tally: Tally
    workers: Workers
    scan: DraftScan
    hours: WorkingHours

    def run(self, candidates: Iterable[Candidate]) -> Generator[None]:
        """Yield after every image that a worker has looked at.

        Whatever ends this, a signal included, what was found out is recorded.
        """
        try:
            with closing(self.workers.over(self._sources(candidates))) as results:
                for result in results:
                    try:
                        self._finish(result)
                    finally:
                        os.close(result.fd)
                        if isinstance(result.outcome, Smaller):
                            os.close(result.outcome.result)
                    yield
        finally:
            self.tally.commit()

    def _sources(self, candidates: Iterable[Candidate]) -> Iterator[Source[Taken]]:
        for candidate in candidates:
            if not self.hours.wait():
                return
            try:
                fd = self.tally.subject.tree.open(candidate.path)
            except Vanished:
                self.tally.vanished(candidate)
            except NotAnImage as error:
                self._unopened(candidate, str(error))
            else:
                yield from self._source(candidate, fd)

    def _unopened(self, candidate: Candidate, why: str) -> None:
        """Count an image that we may not even read; the walk has told of a closed directory."""
        name = candidate.path.rpartition(b"/")[2]
        try:
            directory = self.tally.subject.tree.parent_of(candidate.path)
            refuse(os.stat(name, dir_fd=directory, follow_symlinks=False))
            closed = not os.access(name, os.R_OK, dir_fd=directory, effective_ids=True,
                                   follow_symlinks=False)
        except CannotKeep as error:
            self.tally.passed_over(candidate, str(error))
        except (NotAnImage, OSError):
            return
        else:
            self.tally.undone(candidate, why, for_good=closed)  # until a chmod

    def _source(self, candidate: Candidate, fd: int) -> Iterator[Source[Taken]]:
        """Hand an image on, unless it can be told by itself what is to become of it."""
        handed_on = False
        try:
            info = os.fstat(fd)
            young = 0 <= time.time() - info.st_ctime < self.tally.subject.store.min_age
            if stamp(info) != candidate.stamp or young:
                return  # it is being worked on: the next run will see
            refuse(info)
            if candidate.expected is not None and candidate.expected == digest(fd):
                self.tally.recognised(candidate)
                return
            directory = self.tally.subject.tree.parent_of(candidate.path)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True):
                self.tally.passed_over(candidate, "its directory is not writable")
                return
            handed_on = True
            kind = kinds.kind_of(os.pread(fd, kinds.HEAD, 0))
            yield Source(Taken(candidate, info, kind), fd)
        except CannotKeep as error:
            self.tally.kept(candidate, str(error), None)
        except OSError as error:  # a disk that cannot read it
            self.tally.undone(candidate, show(str(error)))
        finally:
            if not handed_on:
                os.close(fd)

    def _finish(self, result: Result[Taken]) -> None:
        candidate, kind, outcome = result.what.candidate, result.what.kind, result.outcome
        if stamp(os.fstat(result.fd)) != candidate.stamp:
            return  # it changed meanwhile, and whatever was found out is of no use
        if isinstance(outcome, Smaller):
            self._replace(result.what, result.fd, outcome.result)
            return
        try:
            sha256 = digest(result.fd)
        except OSError as error:
            self.tally.undone(candidate, show(str(error)), kind=kind)
            return
        if isinstance(outcome, Damaged) or kinds.is_lie(candidate.path, kind):
            self.tally.undone(candidate, outcome.reason, sha256, kind=kind)
        else:
            self.tally.kept(candidate, outcome.reason, sha256, kind)

    def _replace(self, taken: Taken, fd: int, result: int) -> None:
        candidate, before, scratch = taken.candidate, taken.info, tempfile.gettempdir()
        try:
            directory = self.tally.subject.tree.parent_of(candidate.path)
            require_room(directory, before.st_size, f'store "{self.tally.subject.store.name}"')
            require_room(scratch, before.st_size, show(scratch))
            name = candidate.path.rpartition(b"/")[2]
            original = Original(self.tally.subject.store.name, directory, name, fd, before)
            with drafted(original, result) as draft:
                self._publish(taken, draft)
        except FileChanged:
            return  # the next run will see
        except CannotKeep as error:
            self.tally.kept(candidate, str(error), None, taken.kind)
        except NotClean as error:
            self.tally.undone(candidate, str(error), None if error.passing else digest(fd),
                              kind=taken.kind)
        except ToolError as error:
            self.tally.undone(candidate, str(error), digest(fd), kind=taken.kind)
        except (NotAnImage, OSError) as error:
            self.tally.undone(candidate, show(str(error)), kind=taken.kind)

    def _publish(self, taken: Taken, draft: Draft) -> None:
        """Replace an image by its draft, if that is clean; the ledger knows before and after."""
        candidate, before = taken.candidate, taken.info.st_size
        generation = self.scan.clean_at(draft.fd)
        after = os.fstat(draft.fd).st_size
        settled = Settled(candidate.key, candidate.stamp, digest(draft.fd), None,
                          candidate.saved + before - after)
        draft.original.check()
        with held_back():
            self.tally.subject.optimized.intend(settled, after)
            now = draft.publish()
            self.tally.subject.optimized.replaced(settled, now, generation)
            self.tally.shrunk(taken.kind, before, after)


def digest(fd: int) -> bytes:
    """Return the SHA-256 of the whole file behind ``fd``, as the ledger keeps it."""
    return bytes.fromhex(sha256(fd))
