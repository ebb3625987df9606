"""What became of uploads: counted by the hour, each line of a spool exactly once."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from maintenance.ledger.database import reading
from maintenance.ledger.schema import upload_spools, uploads

FOREVER = 0  # the hour that stands for all that are long past
_ADDED = insert(uploads)
_ADD = _ADDED.on_conflict_do_update(index_elements=["hour", "kind"], set_={
    "count": uploads.c.count + _ADDED.excluded["count"],
    "latest": sa.func.max(uploads.c.latest, _ADDED.excluded["latest"])})
_NOTED = insert(upload_spools)
_NOTE = _NOTED.on_conflict_do_update(index_elements=["spool", "file"],
                                     set_={"counted": _NOTED.excluded["counted"]})

Counts = Mapping[tuple[int, str], tuple[int, float]]  # hour since the epoch, kind: count, latest


class Uploads:
    """The counts. Every method is its own short transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def counted(self, spool: str) -> dict[str, int]:
        """Return how many bytes of each file of ``spool`` are counted."""
        query = sa.select(upload_spools.c.file, upload_spools.c.counted).where(
            upload_spools.c.spool == spool)
        with reading(self._engine) as connection:
            return {file: int(counted) for file, counted in connection.execute(query)}

    def add(self, counts: Counts, spool: str, file: str, upto: int) -> None:
        """Add what is in ``file`` up to the byte ``upto``, and note that: both or neither."""
        rows = [{"hour": hour, "kind": kind, "count": count, "latest": latest}
                for (hour, kind), (count, latest) in counts.items()]
        with self._engine.begin() as connection:
            if rows:
                connection.execute(_ADD, rows)
            connection.execute(_NOTE, [{"spool": spool, "file": file, "counted": upto}])

    def forget_files(self, spool: str, files: Iterable[str]) -> None:
        """Drop what was noted of files that are gone."""
        gone = [*files]
        if gone:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(upload_spools).where(
                    upload_spools.c.spool == spool, upload_spools.c.file.in_(gone)))

    def condense(self, before: int) -> None:
        """Make one hour of all before the hour ``before``, without losing a count."""
        old = (uploads.c.hour != FOREVER) & (uploads.c.hour < before)
        query = sa.select(uploads.c.kind, sa.func.sum(uploads.c.count).label("count"),
                          sa.func.max(uploads.c.latest).label("latest")).where(old).group_by(
            uploads.c.kind)
        with self._engine.begin() as connection:
            rows = [{"hour": FOREVER, **row._mapping} for row in connection.execute(query)]
            if rows:
                connection.execute(_ADD, rows)
                connection.execute(sa.delete(uploads).where(old))

    def totals(self, since: int = FOREVER) -> dict[str, tuple[int, float]]:
        """Return the count of each kind from the hour ``since`` on, and the latest's time."""
        query = sa.select(uploads.c.kind, sa.func.sum(uploads.c.count),
                          sa.func.max(uploads.c.latest)).where(
            uploads.c.hour >= since).group_by(uploads.c.kind)
        with reading(self._engine) as connection:
            return {kind: (int(count), latest) for kind, count, latest in
                    connection.execute(query)}
