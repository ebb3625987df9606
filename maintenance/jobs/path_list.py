"""The paths that an admin gives, however many: each once, in the order of a walk."""

import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence

from maintenance.errors import ImagewardenError, UsageError
from maintenance.store.identity import key_of, path_of
from maintenance.text import show

LONGEST = 2**16  # bytes without a NUL on stdin: no path is longer than 4096
CHUNK = 2**16


class PathList:
    """Paths with every link resolved, without those that are met at or below another.

    They lie sorted in an unnamed file, so that a million names from stdin take no
    memory. It can be gone over more than once; the first time reads stdin. Raises
    UsageError then, or ImagewardenError when there is no room for that file.
    """

    def __init__(self, given: Sequence[str]) -> None:
        """Take the words of the command line; ``-`` stands for what comes on stdin."""
        self._given = given
        self._sorted: sqlite3.Connection | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield the paths; a mount below another path counts, for a walk does not go there."""
        above: list[tuple[bytes, int | None]] = []  # the last path, those above it before it
        for path in self._in_order():
            while above and not path.startswith(above[-1][0].rstrip(b"/") + b"/"):
                above.pop()
            device = _device(path)
            if not above or device != above[-1][1]:
                above.append((path, device))
                yield os.fsdecode(path)

    def _in_order(self) -> Iterator[bytes]:
        if self._sorted is None:
            self._sorted = _sorted(self._given)
        for key, in self._sorted.execute("SELECT key FROM paths ORDER BY key"):
            yield path_of(key)


def _sorted(given: Sequence[str]) -> sqlite3.Connection:
    table = sqlite3.connect("", isolation_level=None)  # SQLite's word for an unnamed file
    try:
        table.execute("PRAGMA journal_mode = OFF")
        table.execute("CREATE TABLE paths (key BLOB PRIMARY KEY) WITHOUT ROWID")
        table.execute("BEGIN")
        table.executemany("INSERT OR IGNORE INTO paths VALUES (?)", (
            (key_of(os.path.realpath(path)),) for path in _spelled_out(given)))
        table.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise ImagewardenError(f"the list of paths: {show(str(error))}") from None
    return table


def _spelled_out(given: Sequence[str]) -> Iterator[bytes]:
    for path in given:
        if path == "-":
            yield from _from_stdin()
        elif path:
            yield os.fsencode(path)
        else:  # an unset variable in somebody's script, which must not mean "here"
            raise UsageError('a PATH is empty; "." is the directory one is in')


def _from_stdin() -> Iterator[bytes]:
    if sys.stdin is None:
        raise UsageError("stdin is closed, and a PATH is -")
    rest, ended = b"", False
    while chunk := os.read(sys.stdin.fileno(), CHUNK):
        *names, rest = (rest + chunk).split(b"\0")
        ended = ended or bool(names)
        yield from filter(None, names)
        if len(rest) > LONGEST:
            raise _not_ended()
    if not ended and b"\n" in rest and not os.path.lexists(rest):
        raise _not_ended()
    if rest:
        yield rest


def _not_ended() -> UsageError:
    return UsageError("stdin: names have to end with NUL, as those of find -print0 do")


def _device(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_dev  # noqa: PTH116 - as it stands there
    except OSError:
        return None
