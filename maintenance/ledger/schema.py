"""The tables of the ledger. Times are UTC epoch seconds; paths are bytes."""

import sqlalchemy as sa

VERSION = 4
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
# In the order of the work: never checked, then by generation and by time. It holds all
# that counting what is due asks for, so a count does not touch the table.
sa.Index("images_due", images.c.store, images.c.generation, images.c.checked, images.c.key,
         images.c.missing_since, images.c.ctime_ns)
# Two for the few rows of which more is to be said; a clean store has none in them.
UNSURE = (images.c.verdict == sa.literal_column("'unknown'")) | images.c.reason.is_not(None)
UNCLEAN = images.c.verdict != sa.literal_column("'clean'")
sa.Index("images_unsure", images.c.store, images.c.generation, images.c.checked, images.c.key,
         sqlite_where=UNSURE)
sa.Index("images_unclean", images.c.store, images.c.verdict, images.c.key, sqlite_where=UNCLEAN)

# What SQLite's planner goes by: a store has many rows, and the indexes choose few of them.
# Without statistics it likes best to read all of the table in the order of its keys;
# measured ones would make the plans depend on the day of measuring. The numbers make a
# range of images_due cheaper than the store's part of the table, and that cheaper than
# the store's part of images_due; the two small indexes are the cheapest.
STATISTICS = (
    "ANALYZE sqlite_master",  # makes the table
    "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
    " ('images', 'images', '1000000 200000 1'),"
    " ('images', 'images_due', '1000000 1000000 100000 1000 1 1 1'),"
    " ('images', 'images_unsure', '1000 1000 1000 10 1'),"
    " ('images', 'images_unclean', '1000 1000 500 1')")

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

purges = sa.Table(
    "purges", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("store", sa.Text, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("purges_image", purges.c.store, purges.c.key, unique=True)

outbox = sa.Table(
    "outbox", metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("clock", sa.Float, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("set_aside", sa.Text),  # why Zabbix will never take it
    sqlite_autoincrement=True,
)

# What uploads came to, by the hour since the epoch; 0: all that are long past.
uploads = sa.Table(
    "uploads", metadata,
    sa.Column("hour", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("latest", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)
# How much of each spool file is in `uploads`, written in the same transaction.
upload_spools = sa.Table(
    "upload_spools", metadata,
    sa.Column("spool", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, primary_key=True),
    sa.Column("counted", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
