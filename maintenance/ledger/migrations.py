"""Bringing the ledger of an older version to today's schema, and nothing of it lost."""

import sqlalchemy as sa

from maintenance.ledger.schema import VERSION

# What leads from each version to the next. A step is never changed once released.
_STEPS = {
    1: ("ALTER TABLE images ADD COLUMN optimized_ctime_ns INTEGER",
        "ALTER TABLE images ADD COLUMN kept_reason TEXT",
        "CREATE INDEX images_size ON images (store, size)"),
    # The table that goes held notes that did not outlive a walk.
    2: ("DROP INDEX images_checked",
        "DROP INDEX images_infected",
        "DROP INDEX images_size",
        "DROP TABLE missing",
        "CREATE TABLE purges (number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        ' store TEXT NOT NULL, "key" BLOB NOT NULL, since FLOAT NOT NULL)',
        'CREATE UNIQUE INDEX purges_image ON purges (store, "key")',
        'CREATE INDEX images_due ON images (store, generation, checked, "key",'
        " missing_since, ctime_ns)",
        'CREATE INDEX images_unsure ON images (store, generation, checked, "key")'
        " WHERE verdict = 'unknown' OR reason IS NOT NULL",
        'CREATE INDEX images_unclean ON images (store, verdict, "key")'
        " WHERE verdict != 'clean'",
        "ANALYZE sqlite_master",
        "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES"
        " ('images', 'images', '1000000 200000 1'),"
        " ('images', 'images_due', '1000000 1000000 100000 1000 1 1 1'),"
        " ('images', 'images_unsure', '1000 1000 1000 10 1'),"
        " ('images', 'images_unclean', '1000 1000 500 1')"),
    3: ("CREATE TABLE uploads (hour INTEGER NOT NULL, kind TEXT NOT NULL,"
        " count INTEGER NOT NULL, latest FLOAT NOT NULL, PRIMARY KEY (hour, kind)) WITHOUT ROWID",
        "CREATE TABLE upload_spools (spool TEXT NOT NULL, file TEXT NOT NULL,"
        " counted INTEGER NOT NULL, PRIMARY KEY (spool, file)) WITHOUT ROWID"),
}


def migrate(connection: sa.Connection, version: int) -> None:
    """Take every step from ``version`` on; the caller's transaction makes them one."""
    for step in range(version, VERSION):
        for statement in _STEPS[step]:
            connection.exec_driver_sql(statement)
