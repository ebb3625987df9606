"""The statements that write what is seen and said of an image, known before or not."""

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert, pysqlite

from maintenance.ledger.rows import STAMP
from maintenance.ledger.schema import images

_KEY = ["store", "key"]
_INSERT = insert(images)
_NEW = _INSERT.excluded  # the values a row came with
_STAMP = {name: _NEW[name] for name in STAMP}
_FORGOTTEN = {name: sa.null() for name in (
    "verdict", "signature", "reason", "generation", "checked", "full_checked", "missing_since")}
_STILL_INFECTED = sa.and_(images.c.verdict == "infected", _NEW["verdict"] == "unknown",
                          *(images.c[name] == _NEW[name] for name in STAMP))
_KEPT = {name: sa.case((_STILL_INFECTED, images.c[name]), else_=_NEW[name])
         for name in ("verdict", "signature", "generation")}
# A scan against what is new leaves the time of the last full one.
_KEPT["full_checked"] = sa.case((_STILL_INFECTED, images.c.full_checked), else_=sa.func.coalesce(
    _NEW["full_checked"], images.c.full_checked))

# Values come as tuples: store, key, and STAMP. What a first walk meets are as many rows as
# the store has images; SQLAlchemy's naming of their values takes longer than the writing.
SEEN = str(_INSERT.values({name: sa.bindparam(name) for name in (*_KEY, *STAMP)})
           .on_conflict_do_update(index_elements=_KEY, set_={**_STAMP, **_FORGOTTEN})
           .compile(dialect=pysqlite.dialect()))

ANSWERED = _INSERT.on_conflict_do_update(index_elements=_KEY, set_={
    **_KEPT, **_STAMP, **{name: _NEW[name] for name in ("reason", "checked", "missing_since")}})
