"""How many images of a store are known to be what, counted in one pass over its rows."""

import sqlalchemy as sa

from maintenance.ledger.rows import Coverage
from maintenance.ledger.schema import images


def covered(connection: sa.Connection, mine: sa.ColumnElement[bool], generation: int | None
            ) -> Coverage:
    """Count the images that ``mine`` chooses; ValueError: a verdict that we never write."""
    here = images.c.missing_since.is_(None)
    clean = here & (images.c.verdict == "clean")
    counts = [sa.func.count().filter(one) for one in (
        here, clean & (images.c.generation == generation),
        clean & (images.c.generation.is_distinct_from(generation)),
        here & (images.c.verdict == "unknown"), here & (images.c.verdict == "infected"),
        here & images.c.verdict.is_(None), ~here)]
    query = sa.select(*counts, sa.func.min(images.c.checked).filter(here),
                      sa.func.coalesce(sa.func.sum(images.c.size).filter(here), 0),
                      sa.func.coalesce(sa.func.sum(images.c.bytes_saved).filter(here), 0)
                      ).select_from(images).where(mine)
    found = connection.execute(query).one()
    if found[0] != sum(found[1:6]):
        raise ValueError
    return Coverage(*found[:7], oldest_check=found[7], bytes=found[8], bytes_saved=found[9])
