"""flush-hits: the hits that wait in the spool, into the database."""

import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from maintenance.errors import Exit, ImagewardenError
from maintenance.hits.database import Database
from maintenance.hits.flush import Flush, Flushed
from maintenance.hits.spool import FRESH
from maintenance.shell.job import Context, Job
from maintenance.taking import Directory
from maintenance.text import show


@dataclass(slots=True)
class HitsReport:
    """The result of flush-hits; ``total``: all hits that runs here brought in."""

    flushed: Flushed = field(default_factory=Flushed)
    before: int = 0

    def status(self) -> Exit:
        """Return 3 when something in the spool was not to be read as hits."""
        aside = self.flushed.set_aside or self.flushed.undone
        return Exit.INCOMPLETE if aside else Exit.DONE

    def members(self) -> Mapping[str, object]:
        """Return the flush's part of the JSON result."""
        flushed = self.flushed
        return {"hits": flushed.hits, "files": flushed.files, "waiting": flushed.waiting,
                "set_aside": flushed.set_aside, "lost": flushed.lost,
                "undone": [{"store": None, "path": None, "reason": one} for one in flushed.undone],
                "total": self.before + flushed.hits}

    def summary(self) -> Iterator[str]:
        """Yield what was counted."""
        yield f"{self.flushed.hits} hits counted, from {self.flushed.files} finished files"

    def alerts(self) -> Iterator[str]:
        """Yield what somebody should look at."""
        for reason in self.flushed.undone:
            yield f"undone: {reason}"
        if self.flushed.set_aside:
            yield (f"{self.flushed.set_aside} lines of the spool are no hits:"
                   " see set-aside.txt there")
        if self.flushed.lost:
            yield f"{self.flushed.lost} hits are lost: the spool could not be written"


def flush_hits(context: Context) -> HitsReport:
    """Bring every hit that is completely written into the database, once."""
    report = HitsReport()
    context.report = report
    total = context.ledger.last_result("hits").get("total")
    report.before = total if isinstance(total, int) else 0
    path = context.config.hits_spool
    _made(context)
    with closing(Directory(path, FRESH)) as directory, closing(
            Database(context.config.hits_database)) as database:
        if context.options.dry_run:
            context.log.warning("would count what is in %d files of %s",
                                len(directory.tokens()), show(path))
            return report
        database.prepare()
        Flush(directory, database, report.flushed).run()
    return report


def _made(context: Context) -> None:
    """Make the spool where it is missing; refuse one that everybody may write to."""
    path = context.config.hits_spool
    try:
        if path == context.config.state / "spool" / "hits":
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        open_to_all = stat.S_IMODE(path.stat().st_mode) & 0o002
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    if open_to_all:
        raise ImagewardenError(f"{show(path)}: everybody can write to it; chmod o-w {show(path)}")


JOB = Job(script="flush-hits", name="hits", run=flush_hits, changes=True,
          sections=("store", "hits"),
          purpose="Bring the hits that wait in the spool into the database.")
