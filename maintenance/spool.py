"""Things that wait for their turn in an unnamed file, so that memory stays flat."""

import marshal
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, Generic, Self, TypeVar

T = TypeVar("T")
_LENGTH = 8  # bytes


class Spool(Generic[T]):
    """Numbers, texts, bytes, None and tuples of them; they come out as they went in."""

    def __init__(self) -> None:
        """Begin with nothing; the file is made when there is something."""
        self._file: IO[bytes] | None = None
        self.waiting = 0

    def __enter__(self) -> Self:
        """Return the spool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what is still waiting."""
        self.clear()

    def put(self, things: Sequence[T]) -> None:
        """Add a batch, not more than may be in memory at once; raises OSError."""
        if not things:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
        batch = marshal.dumps(list(things))
        self._file.seek(0, os.SEEK_END)
        self._file.write(len(batch).to_bytes(_LENGTH) + batch)
        self.waiting += len(things)

    def __iter__(self) -> Iterator[T]:
        """Yield what waits; nothing may be added or dropped meanwhile."""
        if self._file is not None:
            self._file.seek(0)
            while length := self._file.read(_LENGTH):
                yield from marshal.loads(  # noqa: S302 - our own
                    self._file.read(int.from_bytes(length)))

    def batches(self, size: int) -> Iterator[list[T]]:
        """Yield what waits, ``size`` things at a time."""
        things = iter(self)
        while batch := list(islice(things, size)):
            yield batch

    def clear(self) -> None:
        """Drop what is waiting."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self.waiting = 0
