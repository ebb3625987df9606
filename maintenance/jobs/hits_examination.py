"""What doctor looks at of the hits that an application counts."""

from collections.abc import Iterator
from contextlib import closing

from maintenance.errors import ImagewardenError
from maintenance.hits.database import Database
from maintenance.hits.spool import FRESH
from maintenance.jobs.examinations import Finding
from maintenance.shell.job import Context
from maintenance.taking import Directory
from maintenance.text import show


def hits(context: Context) -> Iterator[Finding]:
    """Look at the spool and at the database behind it; most sites count nothing."""
    spool = context.config.hits_spool
    if not spool.exists():
        yield Finding("hits", "ok", "off: nothing has counted a hit yet")
        return
    try:
        with closing(Directory(spool, FRESH)) as directory:
            waiting = len(directory.tokens())
        with closing(Database(context.config.hits_database)) as database:
            database.check()
    except ImagewardenError as error:
        yield Finding("hits", "failed", str(error), "see docs/hits.md")
    else:
        yield Finding("hits", "ok", f"{waiting} files wait in {show(spool)}; the database answers")
