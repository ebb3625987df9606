"""Where the counting of hits stands: for the state, and for who asks for the most seen images."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from maintenance import config as configuration
from maintenance.hits.database import Database
from maintenance.hits.spool import FRESH
from maintenance.ledger.ledger import Ledger
from maintenance.settings import HitsSettings
from maintenance.shell.job import Context
from maintenance.taking import TAKEN
from maintenance.times import iso


def counting(ledger: Ledger, spool: Path) -> dict[str, object]:
    """Return how many hits were counted, and since when some have been waiting.

    A flush that works comes by every minute: what was written since the last one is all
    that waits. ``total``: None before the first.
    """
    flushed = next((run.last_success for run in ledger.last_runs() if run.job == "hits"), None)
    total = ledger.last_result("hits").get("total")
    size, written = 0, list[float]()
    try:
        for path in spool.iterdir():
            if path.suffix in {FRESH, TAKEN}:
                info = path.lstat()
                size += info.st_size
                if info.st_size and info.st_mtime > (flushed or 0.0):
                    written.append(info.st_mtime)
    except OSError:  # nobody counts here, or it is not ours to look into
        pass
    since = None if not written else flushed or min(written)
    return {"total": total, "spool_bytes": size, "waiting_since": iso(since)}


def most_seen(context: Context, most: int) -> Sequence[Mapping[str, object]]:
    """Return the images with the most hits of all days; raises ImagewardenError."""
    # Its password is read by who asks, and not for every look at the state.
    settings = configuration.load_part(context.config_path, ("hits",), HitsSettings)
    with closing(Database(settings.database)) as database:
        return [{"image": image, "hits": count} for image, count in database.top(most)]
