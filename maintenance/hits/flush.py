"""From the spool into the database, in bulk: each whole line exactly once."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from maintenance.errors import ImagewardenError
from maintenance.hits import line
from maintenance.hits.database import Database
from maintenance.taking import Directory, Piece, Taken

AT_ONCE = 100_000  # different lines of one transaction


@dataclass(slots=True)
class Flushed:
    """What one run brought into the database."""

    hits: int = 0
    files: int = 0  # that were read to their end and removed
    waiting: int = 0  # files that somebody still writes to
    set_aside: int = 0  # lines that are no hits
    lost: int = 0  # hits that could not even be written into the spool
    undone: list[str] = field(default_factory=list)  # files that cannot be read, and why


@dataclass(slots=True)
class Flush:
    """One run over one spool.

    How far each file is counted stands in the database, in the same transaction as
    its hits: a run that is killed anywhere leaves each line either counted and noted,
    or neither.
    """

    directory: Directory
    database: Database
    result: Flushed
    _counts: Counter[tuple[str, date]] = field(default_factory=Counter)
    _upto: dict[str, int] = field(default_factory=dict)
    _read: list[Taken] = field(default_factory=list)
    _spool: str = ""

    def run(self) -> None:
        """Count what is there; raises ImagewardenError, and then what is left waits."""
        self._spool = self.directory.identity()
        tokens = self.directory.tokens()
        known = self.database.counted(self._spool)
        self.database.forget_files(self._spool, known.keys() - set(tokens))
        try:
            for token in tokens:
                try:
                    taken = self.directory.take(token)
                except ImagewardenError as error:
                    self.result.undone.append(str(error))
                    continue
                self._read.append(taken)
                self._count(taken, known.get(token, 0))
            self._commit()
        finally:
            for taken in self._read:
                os.close(taken.fd)

    def _count(self, taken: Taken, counted: int) -> None:
        for piece in taken.pieces(counted):
            self._tally(piece)
            self._upto[taken.token] = piece.upto
            if len(self._counts) >= AT_ONCE:
                self._commit(unfinished=taken)

    def _tally(self, piece: Piece) -> None:
        for text, count in Counter(piece.lines.split(b"\n")).items():
            if not text:
                continue
            hits = line.read(text, count)
            if hits is None:
                self.result.set_aside += count
                self.directory.set_aside(text)
            elif hits.day is None:
                self.result.lost += hits.count
            else:
                self._counts[hits.image, hits.day] += count

    def _commit(self, unfinished: Taken | None = None) -> None:
        """Write what was read; files that are finished with that are removed."""
        if self._upto:
            self.database.add(self._counts, self._spool, self._upto)
            self.result.hits += self._counts.total()
            self._counts.clear()
            self._upto.clear()
        done = [taken for taken in self._read if taken is not unfinished]
        self._read = [] if unfinished is None else [unfinished]
        self._finish(done)

    def _finish(self, done: Iterable[Taken]) -> None:
        gone = []
        for taken in done:
            try:
                if taken.final:
                    self.directory.remove(taken)
                    self.result.files += 1
                    gone.append(taken.token)
                else:
                    self.result.waiting += 1
            finally:
                os.close(taken.fd)
        self.database.forget_files(self._spool, gone)
