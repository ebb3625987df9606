"""Opening the ledger's file: its schema, its damage, its place."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from maintenance.errors import LedgerError, NoRoom
from maintenance.ledger.schema import VERSION, metadata
from maintenance.text import show

NAME = "ledger.sqlite"
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "glusterfs", "lustre",
           "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "afs", "ocfs2", "gfs2", "beegfs"}
QUICK_CHECK_MAX = 64 * 2**20  # checking more would delay every start by seconds


def connect(state: Path) -> tuple[sa.Engine, str | None]:
    """Open or make the ledger under ``state``.

    Returns the engine and, when a damaged ledger was moved aside and a new one
    begun, one line that says so. Raises LedgerError for a newer schema (left
    untouched), a network file system and a file that cannot be opened.
    """
    _refuse_network(state)
    path = state / NAME
    with _alone(state):
        rebuilt = _set_aside_when_damaged(path)
        _make_or_migrate(path)
    return _engine(path), rebuilt


def reading(engine: sa.Engine) -> sa.Connection:
    """Return a connection that will only read, and so waits for no writer."""
    return engine.connect().execution_options(reading=True)


def _engine(path: Path) -> sa.Engine:
    url = sa.URL.create("sqlite+pysqlite", database=str(path))
    engine = sa.create_engine(url, connect_args={"timeout": 30, "isolation_level": None})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine, "handle_error", lambda context: _explain(context, path))
    return engine


def _begin(connection: sa.Connection) -> None:
    # sqlite3 would take the write lock at the first write: two jobs that both
    # read first would then wait for each other.
    mine = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if mine else "BEGIN IMMEDIATE")


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _explain(context: sa.engine.ExceptionContext, path: Path) -> BaseException | None:
    """Return what SQLAlchemy shall raise instead; None: its own."""
    error = context.original_exception
    if not isinstance(error, sqlite3.Error):
        return None
    text = str(error)
    if "full" in text:
        return NoRoom(f"{show(path)}: no space left on its file system")
    if "malformed" in text or "not a database" in text:
        _mark(path).touch()
        text += "; the next run moves it aside and begins a new one"
    return LedgerError(f"{show(path)}: {text}")


def _mark(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    try:
        fd = os.open(state / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(f"{show(state)}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _set_aside_when_damaged(path: Path) -> str | None:
    if not path.exists() or not (_mark(path).exists() or _is_damaged(path)):
        return None
    aside = path.with_name(f"{NAME}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    _mark(path).unlink(missing_ok=True)
    return f"the ledger was damaged: moved to {show(aside)}, a new one is begun"


def _is_damaged(path: Path) -> bool:
    try:
        connection = sqlite3.connect(path, timeout=30)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if 0 < version <= VERSION and path.stat().st_size <= QUICK_CHECK_MAX:
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        raise LedgerError(f"{show(path)}: {error}") from None
    except sqlite3.DatabaseError:
        return True
    return False


def _make_or_migrate(path: Path) -> None:
    engine = _engine(path)
    try:
        with engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > VERSION:
                raise LedgerError(f"{show(path)}: written by a newer imagewarden (schema {version},"
                                  f" this one knows {VERSION}); left untouched")
            if version < VERSION:  # version 0 is a new, empty file: nothing older exists yet
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
                connection.commit()
    finally:
        engine.dispose()


def _refuse_network(state: Path) -> None:
    kind, longest = "", -1
    real = os.path.realpath(state)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        point = os.fsdecode(before.split()[4].decode("unicode_escape").encode("latin-1"))
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            kind, longest = os.fsdecode(after.split()[0]), len(point)
    if kind in NETWORK:
        raise LedgerError(f"{show(state)} is on a network file system ({kind});"
                          " `state` needs a local one")
