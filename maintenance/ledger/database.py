"""Opening the ledger's file: its schema, its damage, its place."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from maintenance.errors import LedgerError
from maintenance.ledger.damage import believed, explained, found, set_aside
from maintenance.ledger.migrations import migrate
from maintenance.ledger.schema import STATISTICS, VERSION, metadata
from maintenance.text import show

NAME = "ledger.sqlite"
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "glusterfs", "lustre",
           "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "afs", "ocfs2", "gfs2", "beegfs"}


@dataclass(slots=True)
class Opened:
    """A ledger in use; ``rebuilt`` says so when a damaged one was moved aside."""

    engine: sa.Engine
    rebuilt: str | None
    _in_use: int

    def close(self) -> None:
        """Close every connection, and let a newer version migrate."""
        self.engine.dispose()
        if self._in_use >= 0:
            os.close(self._in_use)
            self._in_use = -1


def connect(state: Path) -> Opened:
    """Open or make the ledger under ``state``, or bring it to today's schema.

    Raises LedgerError for a newer schema (left untouched), an older one that is
    in use, a network file system and a file that cannot be opened.
    """
    _refuse_network(state)
    path = state / NAME
    with _alone(state):
        in_use = _lock(state / "ledger.users", fcntl.LOCK_SH)
        try:
            rebuilt = set_aside(path)
            _make_or_migrate(path, in_use)
        except BaseException:
            os.close(in_use)
            raise
    return Opened(_engine(path), rebuilt, in_use)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Lend a connection that will only read, and so waits for no writer."""
    with sound(engine), engine.connect().execution_options(reading=True) as connection:
        yield connection


def plain_rows(connection: sa.Connection, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    """Return the rows as sqlite3 has them: in a third of the time, and nothing checked."""
    cursor: Any = connection.execute(query).cursor
    try:
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    except sqlite3.Error as error:  # SQLAlchemy does not see this one
        raise explained(error, Path(connection.engine.url.database or "")) from None
    return rows


def sound(engine: sa.Engine) -> AbstractContextManager[None]:
    """Return a block in which a value that we cannot have written is damage."""
    return believed(Path(engine.url.database or ""))


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
    return explained(error, path) if isinstance(error, sqlite3.Error) else None


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    fd = _lock(state / "ledger.lock", fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def _lock(file: Path, kind: int) -> int:
    try:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"{show(file.parent)}: {error.strerror}") from None
    try:
        fcntl.flock(fd, kind)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_or_migrate(path: Path, in_use: int) -> None:
    engine = _engine(path)
    try:
        with engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version == VERSION:
                return
            if version == 0:  # a new, empty file
                metadata.create_all(connection)
                for statement in STATISTICS:
                    connection.exec_driver_sql(statement)
            else:
                _migrate(connection, version, path, in_use)
            connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")
            connection.commit()
    finally:
        engine.dispose()


def _migrate(connection: sa.Connection, version: int, path: Path, in_use: int) -> None:
    """Take an older ledger to today's schema, if no other job has it open.

    Version 1 took no lock while it had the ledger open: a job of it that is walking
    just then fails with one line, and the next run goes on.
    """
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LedgerError(f"{show(path)}: of an older imagewarden (schema {version}) and in use:"
                          " it is brought up to date when no other job runs") from None
    try:
        migrate(connection, version)
    except LedgerError as error:
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise found(path, str(error.__cause__)) from None  # not the tables of that version
        raise
    finally:
        fcntl.flock(in_use, fcntl.LOCK_SH)


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
