"""The ledger of an upgraded host: brought to the new schema, as the jobs' user."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from maintenance.errors import ToolError
from maintenance.provision.children import Account, run
from maintenance.provision.environment import Environment
from maintenance.provision.known import Known
from maintenance.provision.processes import jobs_held_off, one_runs
from maintenance.provision.steps import Step

# Opening it is all there is to do; one that was damaged is a matter for the jobs.
OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maintenance.errors import ImagewardenError
from maintenance.ledger.ledger import Ledger
try:
    Ledger.open(Path(sys.argv[2])).close()
except ImagewardenError as error:
    sys.exit(str(error))
"""


def migrate(copy: Path, source: Path, known: Known, leave: Callable[[str], None]
            ) -> Iterator[Step]:
    """Bring the ledger to the schema of ``source``; the first job makes one that is missing.

    What keeps us from it is told by ``leave`` and keeps nothing else: a later job
    that finds no other running does it as well.
    """
    ledger = Path(known.state) / "ledger.sqlite"
    found = _version(ledger)
    if found is None:
        return
    wanted = _wanted(source)
    if found >= wanted:
        yield Step("unchanged", str(ledger), f"schema {found}")
    elif one_runs(Path(known.state) / "locks"):
        yield Step("kept", str(ledger), f"a job runs: a later one brings it to schema {wanted}")
    else:
        yield Step("updated", str(ledger), f"schema {found} to {wanted}",
                   do=lambda: _open(copy, known, leave))


def _version(ledger: Path) -> int | None:
    """Return the schema's number from the file's header, without opening the database.

    Opening it as root would leave files of root's beside it.
    """
    try:
        fd = os.open(ledger, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        header = os.pread(fd, 64, 0)  # SQLite's file format: user_version at 60
    finally:
        os.close(fd)
    return int.from_bytes(header[60:64], "big") if header.startswith(b"SQLite format 3\0") else None


def _wanted(source: Path) -> int:
    text = (source / "maintenance/ledger/schema.py").read_text(encoding="utf-8")
    match = re.search(r"^VERSION\b.*?= (\d+)", text, re.MULTILINE)
    if match is None:
        raise ToolError(f"{source}: no VERSION in the ledger's schema")
    return int(match[1])


def _open(copy: Path, known: Known, leave: Callable[[str], None]) -> None:
    who = known.entry
    account = Account(who.pw_uid, who.pw_gid) if os.geteuid() == 0 else None
    with jobs_held_off(Path(known.state) / "locks"), TemporaryFile("w+") as output:
        status = run([Environment(copy).python, "-I", "-c", OPEN, copy, known.state], output,
                     account=account)
        output.seek(0)
        if status:
            leave(f"the ledger is not migrated yet: {output.read().strip()}")
