"""The tables of the ledger. Times are UTC epoch seconds; paths are bytes."""

import sqlalchemy as sa

VERSION = 2
metadata = sa.MetaData()

generations = sa.Table(
    "generations", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("checked", sa.Float, nullable=False),  # when freshclam last confirmed it
    sa.Column("databases", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

# `key` is the path with "/" as the zero byte, which no name can hold: its order
# is the order of the walk, so tree and table can be merged without sorting.
images = sa.Table(
    "images", metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("inode", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("ctime_ns", sa.Integer, nullable=False),
    sa.Column("verdict", sa.Text),  # null: never checked
    sa.Column("signature", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("generation", sa.Integer),
    sa.Column("checked", sa.Float),  # null: never, in this form
    sa.Column("full_checked", sa.Float),  # last scan against all definitions
    sa.Column("missing_since", sa.Float),
    sa.Column("recipe", sa.Text),  # the optimiser's columns: see Optimized
    sa.Column("optimized_size", sa.Integer),
    sa.Column("optimized_mtime_ns", sa.Integer),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("bytes_saved", sa.Integer, nullable=False, server_default="0"),
    sa.Column("optimized_ctime_ns", sa.Integer),  # since version 2
    sa.Column("kept_reason", sa.Text),  # since version 2
    sqlite_with_rowid=False,
)
sa.Index("images_checked", images.c.store, images.c.checked)  # never checked come first
sa.Index("images_infected", images.c.store, images.c.key,
         sqlite_where=images.c.verdict == "infected")
sa.Index("images_size", images.c.store, images.c.size)  # the largest are made smaller first

missing = sa.Table(  # what one walk did not meet; emptied when the walk has ended
    "missing", metadata,
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)

undone = sa.Table(
    "undone", metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("store", sa.Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)

runs = sa.Table(
    "runs", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer),  # the one a completed rescan brought the stores to
    sa.Column("result", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("runs_job", runs.c.job, runs.c.number)

outbox = sa.Table(
    "outbox", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("clock", sa.Float, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("set_aside", sa.Text),  # why Zabbix will never take it
    sqlite_autoincrement=True,
)
