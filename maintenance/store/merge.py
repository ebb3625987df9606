"""The walk held against the ledger: what is new, changed, back, or gone."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Self

from maintenance.ledger.images import Images
from maintenance.ledger.rows import Known
from maintenance.spool import Spool
from maintenance.store.walk import Met, Passed, Unread

BATCH = 1000  # rows of one commit
_KEY = itemgetter(0)
_STAMP = itemgetter(1, 2, 3, 4)
Gone = tuple[bytes, float | None]  # a key, and since when it is missing


@dataclass(slots=True)
class Census:
    """What one walk met."""

    images: int = 0
    changed: int = 0  # of them new or changed
    passed: int = 0  # symlinks, FIFOs, devices, sockets
    known: int = 0  # rows the ledger had, but for those in unread directories
    unread: Spool[tuple[bytes, str]] = field(default_factory=Spool)  # key and reason

    def __enter__(self) -> Self:
        """Return the census itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the list of what was unread."""
        self.unread.clear()

    @property
    def gone(self) -> bool:
        """Tell whether the store shows so little that it is not to be believed."""
        return self.known > 0 and self.images * 2 < self.known


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a stretch of the walk is not what the ledger says."""

    changed: Sequence[Known]  # new or changed, as it was met
    back: Sequence[bytes]  # was missing, and is here as it was
    gone: Sequence[Gone]  # was not met; it may have been missing before

    @property
    def keys(self) -> Sequence[bytes]:
        """Return the keys of all of it."""
        return [*map(_KEY, self.changed), *self.back, *map(_KEY, self.gone)]


def take_census(met: Iterable[Met], images: Images, census: Census, *, believe: bool = False
                ) -> None:
    """Write into the ledger what the walk meets, and count it, in one pass over both.

    Until the walk has met half of what the ledger knows, its findings wait in an
    unnamed file: a census that comes out as ``gone`` has written nothing, unless
    it is to be believed all the same. What was not met waits until the walk is over:
    one that dies marks nothing missing. Memory is flat.
    """
    half = 0 if believe else images.count_present() / 2
    with Spool[Known]() as changed, Spool[bytes]() as back, Spool[Gone]() as gone:
        for one in differences(met, images, census):
            changed.put(one.changed)
            back.put(one.back)
            gone.put(one.gone)
            if census.images >= half and changed.waiting + back.waiting >= BATCH:
                _write(changed, back, images)
        if believe or not census.gone:
            _write(changed, back, images)
            for batch in gone.batches(BATCH):
                images.missing.settle(batch)


def _write(changed: Spool[Known], back: Spool[bytes], images: Images) -> None:
    for batch in changed.batches(BATCH):
        images.record_seen(batch)
    for keys in back.batches(BATCH):
        images.record_back(keys)
    changed.clear()
    back.clear()


def differences(met: Iterable[Met], images: Images, census: Census) -> Iterator[Difference]:
    """Yield where the walk is not what the ledger says, and count all of it.

    Both come in the same order, in blocks and pages of their own. They are cut where one
    of them ends, and the two stretches compared as a whole: those of an unchanged store
    are equal, which the interpreter finds out without a step of ours for each image.
    """
    rows = _Rows(images.pages())
    for one in met:
        if isinstance(one, Passed):
            census.passed += 1
        elif isinstance(one, Unread):
            census.unread.put([(one.key, one.reason)])
            for known in rows.before(one.key):
                yield from _compared([], known, census)
            # The row at the key and those of that directory, and none behind it.
            for _ in rows.before(one.key + b"\1" if one.key else None):
                pass
        else:
            yield from _block(one, rows, census)
    for known in rows.before(None):
        yield from _compared([], known, census)


class _Rows:
    """The ledger's rows, cut where somebody wants them cut."""

    def __init__(self, pages: Iterator[list[Known]]) -> None:
        self._pages = pages
        self._page = next(pages, [])

    def before(self, key: bytes | None) -> Iterator[list[Known]]:
        """Yield the rows that sort before ``key``, in pieces; None: all that are left."""
        while self._page and (key is None or self._page[-1][0] < key):
            piece, self._page = self._page, next(self._pages, [])
            yield piece
        if self._page and key is not None:
            cut = bisect_left(self._page, key, key=_KEY)
            piece, self._page = self._page[:cut], self._page[cut:]
            if piece:
                yield piece


def _block(met: list[Known], rows: _Rows, census: Census) -> Iterator[Difference]:
    for known in rows.before(met[-1][0] + b"\0"):  # what sorts next to the last one
        cut = bisect_right(met, known[-1][0], key=_KEY)
        yield from _compared(met[:cut], known, census)
        met = met[cut:]
    yield from _compared(met, [], census)


def _compared(met: list[Known], known: list[Known], census: Census) -> Iterator[Difference]:
    """Yield the difference between two stretches that cover the same keys, if there is one."""
    census.images += len(met)
    census.known += len(known)
    if met == known:
        return
    same = set(met).intersection(known)
    others = {row[0]: row for row in known if row not in same}
    census.known -= sum(map(_is_missing, others.values()))  # they are like nothing that is met
    changed, back = [], []
    for image in met:
        if image not in same:
            row = others.pop(image[0], None)
            if row is not None and _STAMP(row) == _STAMP(image):
                back.append(image[0])
            else:
                changed.append(image)
    census.changed += len(changed)
    yield Difference(changed, back, [(row[0], row[5]) for row in others.values()])


def _is_missing(row: Known) -> bool:
    return row[5] is not None
