"""A damaged ledger: how it shows, and what becomes of it."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from maintenance.errors import LedgerError, NoRoom
from maintenance.ledger.schema import VERSION, metadata
from maintenance.text import show

QUICK_CHECK_MAX = 64 * 2**20  # checking more would delay every start by seconds
LEAST_ROOM = 64 * 2**10  # bytes that SQLite wants for its files beside the ledger
# What is wrong with the host and not with the file.
_HOST = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
         sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
         sqlite3.SQLITE_CANTOPEN}
_FILE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
NEXT_RUN = "the next run moves it aside and begins a new one"


def set_aside(path: Path) -> str | None:
    """Move a damaged ledger out of the way and say so; None when it is a good one.

    Raises LedgerError for one of a newer schema, which is left untouched.
    """
    if not path.exists():
        _mark(path).unlink(missing_ok=True)  # somebody removed what it was about
        return None
    if not (_is_damaged(path) or _mark(path).exists()):
        return None
    aside = path.with_name(
        f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    _mark(path).unlink(missing_ok=True)
    return f"the ledger was damaged: moved to {show(aside)}, a new one is begun"


def explained(error: sqlite3.Error, path: Path) -> LedgerError | NoRoom:
    """Return an error of SQLite in our words; damage is remembered for the next run."""
    code = _code(error)
    text = str(error)
    cramped = code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN} and _is_full(path.parent)
    if code == sqlite3.SQLITE_FULL or cramped:
        return NoRoom(f"{show(path)}: no space left on its file system")
    if code in _FILE or "decode" in text:
        return found(path, text)
    return LedgerError(f"{show(path)}: {text}")


def found(path: Path, what: str) -> LedgerError:
    """Remember damage for the next run, and return the error that says so."""
    with suppress(OSError):
        _mark(path).touch()
    return LedgerError(f"{show(path)}: {what}; {NEXT_RUN}")


@contextmanager
def believed(path: Path) -> Iterator[None]:
    """Take a value that we cannot have written, read inside the block, for damage."""
    try:
        yield
    except (TypeError, ValueError):
        raise found(path, "it holds what was never written to it") from None


def _is_damaged(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            return not _is_sound(connection, path)
    except sqlite3.Error as error:
        if _code(error) in _HOST:
            raise explained(error, path) from None
        return True
    except UnicodeDecodeError:  # SQLite's own message quotes what is damaged
        return True


def _is_sound(connection: sqlite3.Connection, path: Path) -> bool:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise LedgerError(f"{show(path)}: written by a newer imagewarden (schema {version},"
                          f" this one knows {VERSION}); left untouched")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    with path.open("rb") as stream:
        head = stream.read(20)
    if head and not {head[18], head[19]} <= {1, 2}:  # SQLite would only read it, without a word
        return False
    if version == VERSION:
        for table in metadata.tables.values():
            # Qualified: a bare quoted name that is no column SQLite takes for a text.
            columns = ", ".join(f'{table.name}."{column.name}"' for column in table.columns)
            connection.execute(f"SELECT {columns} FROM {table.name} LIMIT 0")  # noqa: S608 - ours
    small = path.stat().st_size <= QUICK_CHECK_MAX
    if version != 0 and small:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    return True


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # those that Python raises have none


def _is_full(directory: Path) -> bool:
    with suppress(OSError):
        place = os.statvfs(directory)
        return place.f_bavail * place.f_frsize < LEAST_ROOM or (
            place.f_files > 0 and place.f_favail == 0)
    return False


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")
