"""What tests look at in a ledger: all of its rows, and how SQLite finds them."""

from contextlib import contextmanager

import sqlalchemy as sa


def all_rows(images):
    """Every row of a store, in the order of the walk."""
    found = []
    for page in images.pages():
        keys = [key for key, *_ in page]
        assert keys == sorted(keys)
        found += sorted(images.among(keys), key=lambda row: row.key)
    return found


@contextmanager
def explained(images):
    """What SQLite says of how it answers the questions that are asked inside the block."""
    plans = []

    def explain(connection, _, statement, parameters, __, ___):
        if statement.startswith("SELECT"):
            cursor = connection.connection.cursor()
            plans.extend(row[3] for row in cursor.execute(
                "EXPLAIN QUERY PLAN " + statement, parameters) if "images" in row[3]
                or "TEMP" in row[3])

    sa.event.listen(images._engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        sa.event.remove(images._engine, "before_cursor_execute", explain)
