"""The signature databases on disk, and what exactly is in them.

Source of the formats: ClamAV's signature manual. Changed means that content
changed; neither times nor freshclam's words count.
"""

import calendar
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.text import show

SYSTEM = Path("/var/lib/clamav")
CANARY = "imagewarden-canary.hdb"
# Every suffix that clamd loads from its database directory.
SUFFIXES = frozenset({
    ".cat", ".cbc", ".cdb", ".cfg", ".cld", ".crb", ".crl", ".cud", ".cvd", ".db", ".fp", ".ftm",
    ".gdb", ".hdb", ".hdu", ".hsb", ".hsu", ".idb", ".ign", ".ign2", ".imp", ".info", ".ioc",
    ".ldb", ".ldu", ".mdb", ".mdu", ".msb", ".msu", ".ndb", ".ndu", ".pdb", ".pwdb", ".rmd",
    ".sdb", ".sfp", ".wdb", ".yar", ".yara", ".zmd",
})
CONTAINERS = frozenset({".cvd", ".cld", ".cud"})
HEADER = 512  # bytes
_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_BUILT = re.compile(r"(\d+) (\w{3}) (\d{4}) (\d\d)-(\d\d)(?:-\d\d)? ([+-]\d{4})")


@dataclass(frozen=True, slots=True)
class Database:
    """One file of signatures; unsigned ones know neither version nor build time."""

    file: str
    name: str  # "daily" for daily.cvd and daily.cld; else the file's name
    version: int | None
    signatures: int | None
    built: float | None  # epoch seconds
    sha256: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the database directory held at one moment, in the order of names."""

    databases: tuple[Database, ...]
    stamps: tuple[tuple[str, int, int, int, int], ...]  # file, inode, size, mtime, ctime (ns)

    def fingerprint(self, engine: str, options: str) -> str:
        """Return what makes a generation: content, engine version and scan options."""
        parts = [[one.file, one.sha256] for one in self.databases]
        return hashlib.sha256(json.dumps([parts, engine, options]).encode()).hexdigest()

    def version_of(self, name: str) -> int | None:
        """Return the newest version of a signed database, None when there is none."""
        versions = [one.version for one in self.databases if one.name == name and one.version]
        return max(versions, default=None)

    @property
    def built(self) -> float | None:
        """Return when the newest definitions were made (epoch): daily's time, where it is there."""
        times = [(one.name == "daily", one.built) for one in self.databases
                 if one.built is not None]
        return max(times)[1] if times else None

    def doubles(self) -> Iterator[tuple[Database, Database]]:
        """Yield signed databases that lie there a second time, each with the newer one.

        clamd loads the newer one only; freshclam takes the .cvd for what is there, however
        old it is, and leaves the .cld to itself.
        """
        for one, other in combinations(self.databases, 2):
            if one.name == other.name:
                stale, newer = sorted((one, other), key=_age)
                yield stale, newer


def _age(one: Database) -> tuple[int, bool]:
    return one.version or 0, one.file.endswith(".cvd")


def directory(configured: Path | None, own: Path) -> Path:
    """Return the directory that counts: the configured, the system's, or our own.

    The system's counts when it holds databases; ``own`` lies under state.
    """
    if configured is not None:
        return configured
    return SYSTEM if _holds_databases(SYSTEM) else own


def snapshot(where: Path) -> Snapshot:
    """Read every database in ``where``; a directory that is not there holds none.

    Raises ToolError when a file cannot be read or does not stand still.
    """
    for _ in range(5):
        before = stamps(where)
        try:
            databases = tuple(_readable(where / file) for file, *_ in before)
        except FileNotFoundError:
            continue  # freshclam replaced it just now
        if stamps(where) == before:
            return Snapshot(databases, before)
    raise ToolError(f"{show(where)}: the definitions keep changing while they are read")


def stamps(where: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return the identity of every database file, without reading any."""
    try:
        with os.scandir(where) as entries:
            files = sorted(entry.name for entry in entries if _is_database(entry))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ToolError(f"{show(where)}: {error.strerror}") from None
    return tuple(one for name in files for one in _stamp(where / name))


def strays(where: Path) -> list[str]:
    """Return what is called like a database and is none: no file, nor a link to one.

    clamd 1.4 reads a directory for ever, and waits for a writer of a FIFO.
    """
    try:
        with os.scandir(where) as entries:
            return sorted(entry.name for entry in entries
                          if suffix(entry.name) in SUFFIXES and not entry.is_file())
    except OSError:
        return []


def _stamp(path: Path) -> Iterator[tuple[str, int, int, int, int]]:
    try:
        info = path.stat()
    except FileNotFoundError:  # gone since it was listed; its directory is not
        return
    except OSError as error:
        raise ToolError(f"{show(path)}: {error.strerror}") from None
    yield path.name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _is_database(entry: os.DirEntry[str]) -> bool:
    """Tell whether clamd would load it: it takes hidden files and any case, too."""
    return suffix(entry.name) in SUFFIXES and entry.name != CANARY and entry.is_file()


def suffix(name: str) -> str:
    """Return the part of a name by which the engine knows what a file is, in small letters."""
    # Not Path.suffix, for which the hidden file ".ndb" has none.
    return name[name.rfind("."):].lower() if "." in name else ""


def _holds_databases(where: Path) -> bool:
    try:
        return bool(stamps(where))
    except ToolError:
        return True  # it is there, and what keeps us out must be told


def _readable(path: Path) -> Database:
    try:
        return _database(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ToolError(f"{show(path)}: {error.strerror}; the definitions"
                        " must be readable (0644)") from None


def _database(path: Path) -> Database:
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ToolError(f"{show(path)}: not a regular file")
        head = stream.read(HEADER)
        chunk = head
        while chunk:
            digest.update(chunk)
            lines += chunk.count(b"\n")
            last = chunk
            chunk = stream.read(2**20)
    sha256 = digest.hexdigest()
    if suffix(path.name) in CONTAINERS:
        version, signatures, built = header(head, path)
        return Database(path.name, path.stem, version, signatures, built, sha256)
    return Database(path.name, path.name, None, lines + (not last.endswith(b"\n")), None, sha256)


def header(head: bytes, path: Path) -> tuple[int, int, float | None]:
    """Return version, number of signatures and build time from a CVD header.

    ``ClamAV-VDB:build time:version:signatures:functionality level:md5:...:stime``;
    raises ToolError when it is none.
    """
    fields = head.decode("ascii", "replace").rstrip().split(":")
    try:
        if fields[0] != "ClamAV-VDB":
            raise ValueError
        return _number(fields[2]), _number(fields[3]), _built(fields)
    except (ValueError, IndexError):
        raise ToolError(f"{show(path)}: damaged, it has no ClamAV header;"
                        " remove it and run update-definitions") from None


def _number(text: str) -> int:
    if re.fullmatch("[0-9]{1,10}", text) is None:
        raise ValueError
    return int(text)


def _built(fields: list[str]) -> float | None:
    if len(fields) > 8 and fields[8].strip():
        return float(_number(fields[8].strip()))
    match = _BUILT.match(fields[1])
    if match is None:
        return None
    day, month, year, hour, minute, zone = match.groups()
    offset = int(zone[:3]) * 3600 + int(zone[0] + zone[3:]) * 60
    return calendar.timegm((int(year), _MONTHS.get(month, 1), int(day), int(hour), int(minute),
                            0)) - offset
