"""What uploads left in their spool, into the ledger; and what the ledger knows of them."""

import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from maintenance.errors import ImagewardenError
from maintenance.ledger.uploads import Uploads
from maintenance.settings import Config
from maintenance.taking import TAKEN, Directory, Piece
from maintenance.text import show
from maintenance.times import DAY, iso
from maintenance.upload import tallying
from maintenance.upload.tallying import ACCEPTED, CAUSES, OBSERVED, WORDS, Tallied

HOUR = 3600
KEPT = 30 * DAY  # by the hour; before, only the sum of all is known
LOOKED_AT = DAY  # what the distribution of the scan times is about
FINENESS = 1.05  # one step of that distribution: its times are right to 2.5 %
MOST_FILES, MOST_PIECES = 1000, 16  # of one run: whoever may write there cannot hold it up
SHARES = (50, 95, 99)


@dataclass(slots=True)
class Folded:
    """What a run brought into the ledger."""

    uploads: int = 0
    set_aside: int = 0  # lines that are no counts
    undone: list[str] = field(default_factory=list)  # what lies there and is no file of ours


def fold(config: Config, ledger: Uploads, now: float) -> Folded:
    """Count every whole line of the spool, exactly once whatever is killed when.

    Raises ImagewardenError when the spool is not to be used.
    """
    path = _made(config)
    _take_over(path)
    with closing(Directory(path, TAKEN)) as directory:
        folding = _Folding(directory, directory.identity(), ledger, now)
        folding.run()
    ledger.condense(int((now - KEPT) // HOUR))
    return folding.folded


def _made(config: Config) -> Path:
    path = config.upload_spool
    try:
        tallying.make(config.uploads)
        open_to_all = path.stat().st_mode & 0o002
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    if open_to_all:
        raise ImagewardenError(f"{show(path)}: everybody can write to it; chmod o-w {show(path)}")
    return path


def _take_over(path: Path) -> None:
    """Give each user's file a name of its own; the next upload begins another."""
    try:
        for name in os.listdir(path):  # noqa: PTH208 - names only
            uid = tallying.file_of(name)
            if uid is not None:
                (path / name).rename(path / f"{uid:08x}{secrets.token_hex(12)}{TAKEN}")
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None


@dataclass(slots=True)
class _Folding:
    """One run over one spool."""

    directory: Directory
    spool: str
    ledger: Uploads
    now: float
    folded: Folded = field(default_factory=Folded)

    def run(self) -> None:
        tokens = self.directory.tokens()
        known = self.ledger.counted(self.spool)
        self.ledger.forget_files(self.spool, known.keys() - set(tokens))
        for token in tokens[:MOST_FILES]:
            try:
                self._fold(token, known.get(token, 0))
            except ImagewardenError as error:
                self.folded.undone.append(str(error))

    def _fold(self, token: str, counted: int) -> None:
        try:
            taken = self.directory.take(token)
        except ImagewardenError:
            with suppress(OSError):  # a link, a FIFO: it was somebody's try
                (self.directory.path / f"{token}{TAKEN}").unlink()
            raise
        try:
            if os.fstat(taken.fd).st_uid != int(token[:8], 16):
                self.directory.remove(taken)
                raise ImagewardenError(f"{token}{TAKEN}: not the file of the user it names")
            for number, piece in enumerate(taken.pieces(counted)):
                if number == MOST_PIECES:
                    return  # the next run goes on
                self.ledger.add(self._counts(piece), self.spool, token, piece.upto)
            if taken.final:
                self.directory.remove(taken)
        finally:
            os.close(taken.fd)

    def _counts(self, piece: Piece) -> dict[tuple[int, str], tuple[int, float]]:
        counts: dict[tuple[int, str], tuple[int, float]] = {}
        for text in filter(None, piece.lines.split(b"\n")):
            line = tallying.read(text)
            if line is None:
                self.folded.set_aside += 1
                self.directory.set_aside(text)
                continue
            self.folded.uploads += 1
            at = max(self.now - KEPT, min(line.at, self.now))  # clocks, and liars
            for kind in _kinds(line):
                count, latest = counts.get((int(at // HOUR), kind), (0, 0.0))
                counts[int(at // HOUR), kind] = count + 1, max(latest, at)
        return counts


def _kinds(line: Tallied) -> Iterator[str]:
    yield line.word
    if line.cause:
        yield f"cause.{line.cause}"
    if line.mark:
        yield line.mark
    if line.word in {"clean", "infected"}:
        yield f"seconds.{math.ceil(math.log(max(line.microseconds, 1), FINENESS))}"


def told(ledger: Uploads, now: float) -> Mapping[str, object]:
    """Return the counts of all time, and how long the scans of the last day took."""
    totals = ledger.totals()
    counts = {kind: totals.get(kind, (0, 0.0))[0] for kind in (*WORDS, ACCEPTED, OBSERVED)}
    reasons = {cause: totals[f"cause.{cause}"][0] for cause in CAUSES if f"cause.{cause}" in totals}
    looked = [totals[word][1] for word in ("clean", "infected") if word in totals]
    return {"last_ok": iso(max(looked, default=None)), "counts": counts, "reasons": reasons,
            "seconds": _seconds(ledger.totals(int((now - LOOKED_AT) // HOUR)))}


def _seconds(totals: Mapping[str, tuple[int, float]]) -> dict[str, float | None]:
    steps = sorted((int(kind.removeprefix("seconds.")), count)
                   for kind, (count, _) in totals.items() if kind.startswith("seconds."))
    total = sum(count for _, count in steps)
    return {f"p{share}": _at(steps, total * share / 100) for share in SHARES}


def _at(steps: list[tuple[int, int]], rank: float) -> float | None:
    below = 0
    for step, count in steps:
        below += count
        if below >= rank:
            return float(f"{FINENESS ** (step - 0.5) / 10**6:.3g}")
    return None
