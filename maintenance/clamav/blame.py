"""Which file keeps a clamd from loading its databases: its protocol does not tell."""

import stat
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from maintenance.clamav.databases import Snapshot
from maintenance.errors import ToolError
from maintenance.programs import How, Limits, run
from maintenance.text import show, user_name

PATIENCE = 120.0  # seconds for loading one file


def culprit(directory: Path, content: Snapshot, pid: int | None) -> str | None:
    """Return what is wrong with which file, and the repair; None: nothing is found.

    ``pid``: the clamd in question, if it runs. Signed databases are not tried: who
    brought them has, and they take long.
    """
    files = [one.file for one in content.databases]
    unsigned = [one.file for one in content.databases if one.version is None]
    return next(chain(_unreadable(directory, files, pid) if pid else (),
                      _unloadable(directory, unsigned)), None)


def _unreadable(directory: Path, files: Sequence[str], pid: int) -> Iterator[str]:
    try:
        user, groups = _identity(pid)
    except OSError:
        return
    above = reversed(directory.resolve().parents)
    for path in (*above, directory, *(directory / file for file in files)):
        info = path.stat()
        bits = stat.S_IMODE(info.st_mode)
        bits = bits >> 6 if info.st_uid == user else bits >> 3 if info.st_gid in groups else bits
        needed = 5 if path == directory else 1 if stat.S_ISDIR(info.st_mode) else 4
        if user and bits & needed != needed:
            repair = "a+rX" if path == directory else "a+x" if needed == 1 else "a+r"
            yield f"{user_name(user)} cannot read {show(path)}: chmod {repair} {show(path)}"


def _identity(pid: int) -> tuple[int, set[int]]:
    """Return the effective user of a process and all its groups."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    known = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return int(known["Uid"][1]), {int(known["Gid"][1]), *map(int, known["Groups"])}


def _unloadable(directory: Path, files: Sequence[str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as nothing:
        for file in files:
            argv = ["clamscan", f"--database={directory / file}", "--no-summary", "--infected",
                    nothing.name]
            try:
                status = run(argv, How(limits=Limits(seconds=PATIENCE))).status
            except ToolError:
                continue
            if status == 2:
                yield f"it cannot load {show(file)}; repair or remove that file"
