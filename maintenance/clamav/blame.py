"""Which file keeps a clamd from loading its databases: its protocol does not tell."""

import tempfile
from contextlib import suppress
from pathlib import Path

from maintenance.clamav.databases import Snapshot
from maintenance.errors import ToolError
from maintenance.programs import How, Limits, run
from maintenance.text import show, user_name

PATIENCE = 120.0  # seconds for loading one file
_REPAIR = {1: "a+x", 4: "a+r", 5: "a+rx"}  # of a directory on the way, a file, the directory
BROKEN = 2  # clamscan's status when it could not even begin


def unloadable(directory: Path, content: Snapshot) -> str | None:
    """Return which file ClamAV cannot load, and the repair; None: it loads each of them.

    Signed databases are not tried: who brought them has, and they take long.
    """
    with tempfile.NamedTemporaryFile() as nothing:
        for file in (one.file for one in content.databases if one.version is None):
            argv = ["clamscan", f"--database={directory / file}", "--no-summary", "--infected",
                    nothing.name]
            with suppress(ToolError):
                if run(argv, How(limits=Limits(seconds=PATIENCE))).status == BROKEN:
                    return f"it cannot load {show(file)}; repair or remove that file"
    return None


def unreadable(directory: Path, content: Snapshot, pid: int) -> str | None:
    """Return what the clamd with ``pid`` may not read, by its mode, and the repair."""
    files = [directory / one.file for one in content.databases]
    places = (*reversed(directory.resolve().parents), directory, *files)
    try:
        user, groups = _identity(pid)
        seen = [(path, path.stat()) for path in places]
    except OSError:  # gone meanwhile
        return None
    for path, info in seen:
        bits = info.st_mode >> (6 if info.st_uid == user else 3 if info.st_gid in groups else 0)
        needed = 5 if path == directory else 4 if path in files else 1
        if user and bits & needed != needed:
            return (f"{user_name(user)} cannot read {show(path)}:"
                    f" chmod {_REPAIR[needed]} {show(path)}")
    return None


def _identity(pid: int) -> tuple[int, set[int]]:
    """Return the effective user of a process and all its groups."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    known = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return int(known["Uid"][1]), {int(known["Gid"][1]), *map(int, known["Groups"])}
