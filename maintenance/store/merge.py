"""The walk held against the ledger: what is new, changed, back, or gone."""

import marshal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, cast

from maintenance.ledger.images import Images
from maintenance.ledger.rows import ImageRow, Seen
from maintenance.store.walk import Image, Met, Passed, Unread

BATCH = 1000  # rows of one commit


@dataclass(slots=True)
class Census:
    """What one walk met."""

    images: int = 0
    changed: int = 0  # of them new or changed, when only counted
    passed: int = 0  # symlinks, FIFOs, devices, sockets
    known: int = 0  # rows the ledger had, but for those in unread directories
    unread: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def gone(self) -> bool:
        """Tell whether the store shows so little that it is not to be believed."""
        return self.known > 0 and self.images * 2 < self.known


def take_census(met: Iterable[Met], images: Images, *, believe: bool = False) -> Census:
    """Write into the ledger what the walk meets, in one pass over both.

    Until the walk has met half of what the ledger knows, its findings wait in an
    unnamed file: a census that comes out as ``gone`` has written nothing, unless
    it is to be believed all the same. Nothing is marked missing yet (see
    ``Missing.settle``). Memory is flat.
    """
    census = Census()
    images.missing.forget()
    half = 0 if believe else images.count_present() / 2
    changes = _changes(met, _Rows(images.in_order()), census)
    with tempfile.TemporaryFile() as waiting:
        while batch := list(islice(changes, BATCH)):
            marshal.dump([one if isinstance(one, bytes) else (one.key, one.stamp, one.changed)
                          for one in batch], waiting)
            if census.images >= half:
                _write(waiting, images)
        if believe or not census.gone:
            _write(waiting, images)
    return census


def _write(waiting: IO[bytes], images: Images) -> None:
    waiting.seek(0)
    with suppress(EOFError):
        while True:
            batch = marshal.load(waiting)  # noqa: S302 - our own, and without a name
            images.record_seen([Seen(*one) for one in batch if isinstance(one, tuple)])
            images.missing.note([one for one in batch if isinstance(one, bytes)])
    waiting.seek(0)
    waiting.truncate()


def count_changes(met: Iterable[Met], images: Images,
                  outdated: Callable[[Sequence[bytes]], None] = lambda keys: None) -> Census:
    """Go over both and write nothing; ``changed`` says how many images are new.

    ``outdated`` is called with the keys whose rows, if there are any, tell of what is
    there no longer, some at a time.
    """
    census = Census()
    changes = _changes(met, _Rows(images.in_order()), census)
    while batch := list(islice(changes, BATCH)):
        census.changed += sum(isinstance(one, Seen) and one.changed for one in batch)
        outdated([one if isinstance(one, bytes) else one.key for one in batch])
    return census


class _Rows:
    """The ledger's rows with one row of foresight."""

    def __init__(self, rows: Iterator[ImageRow]) -> None:
        self._rows = rows
        self.next = next(rows, None)

    def before(self, key: bytes) -> Iterator[ImageRow]:
        """Yield the rows that sort before ``key``."""
        while self.next is not None and self.next.key < key:
            yield self._pop()

    def below(self, key: bytes) -> Iterator[ImageRow]:
        """Yield the row at ``key`` and those of that directory; the store itself is ``b""``."""
        prefix = key + b"\0" if key else b""
        while self.next is not None and (self.next.key == key or self.next.key.startswith(prefix)):
            yield self._pop()

    def at(self, key: bytes) -> ImageRow | None:
        """Return the row of ``key``, if it is the next."""
        return self._pop() if self.next is not None and self.next.key == key else None

    def rest(self) -> Iterator[ImageRow]:
        """Yield what is left."""
        while self.next is not None:
            yield self._pop()

    def _pop(self) -> ImageRow:
        row, self.next = self.next, next(self._rows, None)
        return cast(ImageRow, row)  # callers have looked


def _changes(met: Iterable[Met], rows: _Rows, census: Census) -> Iterator[Seen | bytes]:
    for one in met:
        for row in rows.before(one.key):
            census.known += not row.missing
            yield row.key
        if isinstance(one, Unread):
            census.unread.append((one.key, one.reason))
            for _ in rows.below(one.key):
                pass
        elif isinstance(one, Passed):
            census.passed += 1
        else:
            yield from _image(one, rows.at(one.key), census)
    for row in rows.rest():
        census.known += not row.missing
        yield row.key


def _image(one: Image, row: ImageRow | None, census: Census) -> Iterator[Seen]:
    census.images += 1
    census.known += row is not None and not row.missing
    if row is None or row.stamp != one.stamp:
        yield Seen(one.key, one.stamp, changed=True)
    elif row.missing:
        yield Seen(one.key, one.stamp, changed=False)
