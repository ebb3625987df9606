"""The table of hits, in whatever database it lies, and how it grows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from maintenance.errors import ConfigError, ImagewardenError, LedgerError
from maintenance.hits.line import LONGEST
from maintenance.text import show

AT_ONCE = 5000  # rows of one statement
PATIENCE = 10  # seconds for a connection
STUCK = 60  # seconds for a statement, where the database can be told
# What a URL without a driver means.
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg",
           "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
# MySQL keeps no index over a text without a length, and no capital letters apart by itself.
_NAME = sa.Text().with_variant(mysql.VARCHAR(LONGEST, collation="utf8mb4_bin"),
                               "mysql", "mariadb")
metadata = sa.MetaData()

hits = sa.Table(
    "hits", metadata,
    sa.Column("image", _NAME, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)

# How much of each spool file is in `hits`, written in the same transaction.
spools = sa.Table(
    "imagewarden_spools", metadata,
    sa.Column("spool", sa.String(32), primary_key=True),  # the directory, by a number of its own
    sa.Column("file", sa.String(32), primary_key=True),
    sa.Column("counted", sa.BigInteger, nullable=False),  # bytes from its beginning
)


class Database:
    """One connection's worth of it."""

    def __init__(self, url: str) -> None:
        """Know the database, and talk to nobody yet; raises ConfigError."""
        self._engine = _engine(url)
        self._shown = self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def forget(self) -> None:
        """Let go of a connection that is a parent's."""
        self._engine.dispose(close=False)

    def check(self) -> None:
        """See that it answers; raises LedgerError."""
        with self._explained(), self._engine.connect():
            pass

    def prepare(self) -> None:
        """Make the tables where they are missing; raises LedgerError when they are others."""
        with self._explained():
            metadata.create_all(self._engine)
            with self._engine.connect() as connection:
                for table in (hits, spools):
                    connection.execute(sa.select(table).limit(0))
                key = sa.inspect(connection).get_pk_constraint("hits")["constrained_columns"]
        if key != ["image", "day"]:
            raise LedgerError(f"{self._shown}: its table hits has another primary key than"
                              " (image, day)")

    def counted(self, spool: str) -> dict[str, int]:
        """Return how many bytes of each file of ``spool`` are counted."""
        query = sa.select(spools.c.file, spools.c.counted).where(spools.c.spool == spool)
        with self._explained(), self._engine.connect() as connection:
            return {file: int(counted) for file, counted in connection.execute(query)}

    def add(self, counts: Mapping[tuple[str, date], int], spool: str = "",
            upto: Mapping[str, int] | None = None) -> None:
        """Add hits, and note up to where the files they come from are counted: all or nothing."""
        # In order: two hosts that flush at once never wait for each other's rows in a circle.
        rows = [{"image": image, "day": day, "count": count}
                for (image, day), count in sorted(counts.items())]
        noted = [{"spool": spool, "file": file, "counted": bytes_}
                 for file, bytes_ in sorted((upto or {}).items())]
        with self._explained(), self._engine.begin() as connection:
            if noted:
                connection.execute(self._upsert(spools, "counted", add=False), noted)
            for at in range(0, len(rows), AT_ONCE):
                connection.execute(self._upsert(hits, "count", add=True), rows[at:at + AT_ONCE])

    def forget_files(self, spool: str, files: Iterable[str]) -> None:
        """Drop what was noted of files that are gone."""
        gone = [{"f": file} for file in files]
        if gone:
            with self._explained(), self._engine.begin() as connection:
                connection.execute(sa.delete(spools).where(
                    spools.c.spool == spool, spools.c.file == sa.bindparam("f")), gone)

    def top(self, most: int) -> list[tuple[str, int]]:
        """Return the images with the most hits of all days, and how many."""
        total = sa.func.sum(hits.c.count)
        query = sa.select(hits.c.image, total).group_by(hits.c.image).order_by(
            total.desc(), hits.c.image).limit(most)
        with self._explained(), self._engine.connect() as connection:
            return [(image, int(count)) for image, count in connection.execute(query)]

    def _upsert(self, table: sa.Table, column: str, *, add: bool) -> sa.Insert:
        """Return the statement that writes or, with ``add``, adds to ``column``."""
        dialect = self._engine.dialect.name
        if dialect in {"mysql", "mariadb"}:
            statement: mysql.Insert = mysql.insert(table)
            new = statement.inserted[column]
            return statement.on_duplicate_key_update(
                {column: table.c[column] + new if add else new})
        made: postgresql.Insert | sqlite.Insert
        made = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        new = made.excluded[column]
        return made.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={column: table.c[column] + new if add else new})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            first = str(error.orig).strip().partition("\n")[0]
            raise LedgerError(f"{show(self._shown)}: {show(first)}") from None
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"{show(self._shown)}: {show(str(error).partition(chr(10))[0])}"
                              ) from None


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        return sa.create_engine(parsed, pool_size=1, max_overflow=4, pool_pre_ping=True,
                                connect_args=_manners(parsed))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError):
        raise ConfigError("hits.database: not a database URL that SQLAlchemy knows") from None
    except ModuleNotFoundError as error:
        raise ImagewardenError(f"hits.database: its driver {show(error.name or '?')} is not"
                               " installed") from None


def _manners(url: sa.URL) -> dict[str, object]:
    """Return what keeps a database that does not answer from holding us for ever."""
    if url.get_backend_name() == "postgresql":
        return {"connect_timeout": PATIENCE, "options": f"-c statement_timeout={STUCK}s",
                "tcp_user_timeout": STUCK * 1000}
    if url.get_backend_name() in {"mysql", "mariadb"}:
        return {"connect_timeout": PATIENCE, "read_timeout": STUCK, "write_timeout": STUCK}
    return {"timeout": PATIENCE} if url.get_backend_name() == "sqlite" else {}
