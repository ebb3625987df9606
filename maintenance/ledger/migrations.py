"""Bringing the ledger of an older version to today's schema, and nothing of it lost."""

import sqlalchemy as sa

from maintenance.ledger.schema import VERSION

# What leads from each version to the next. A step is never changed once released.
_STEPS = {
    1: ("ALTER TABLE images ADD COLUMN optimized_ctime_ns INTEGER",
        "ALTER TABLE images ADD COLUMN kept_reason TEXT",
        "CREATE INDEX images_size ON images (store, size)"),
}


def migrate(connection: sa.Connection, version: int) -> None:
    """Take every step from ``version`` on; the caller's transaction makes them one."""
    for step in range(version, VERSION):
        for statement in _STEPS[step]:
            connection.exec_driver_sql(statement)
