"""Opening the ledger's file: its schema, its damage, its place."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from maintenance.errors import LedgerError
from maintenance.ledger.damage import believed, explained, set_aside
from maintenance.ledger.schema import VERSION, metadata
from maintenance.text import show

NAME = "ledger.sqlite"
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "glusterfs", "lustre",
           "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "afs", "ocfs2", "gfs2", "beegfs"}


def connect(state: Path) -> tuple[sa.Engine, str | None]:
    """Open or make the ledger under ``state``.

    Returns the engine and, when a damaged ledger was moved aside and a new one
    begun, one line that says so. Raises LedgerError for a newer schema (left
    untouched), a network file system and a file that cannot be opened.
    """
    _refuse_network(state)
    path = state / NAME
    with _alone(state):
        rebuilt = set_aside(path)
        _make_or_migrate(path)
    return _engine(path), rebuilt


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Lend a connection that will only read, and so waits for no writer."""
    with sound(engine), engine.connect().execution_options(reading=True) as connection:
        yield connection


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
    try:
        fd = os.open(state / "ledger.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(f"{show(state)}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _make_or_migrate(path: Path) -> None:
    engine = _engine(path)
    try:
        with engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
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
