"""Plain body signatures: those whose text says what they match, and which are new.

Sources of the formats: ClamAV's signature manual (.ndb), libclamav's cvd.c (a container is
a header of 512 bytes and a tar, packed in a .cvd).
"""

import re
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Self

from maintenance.clamav.databases import CONTAINERS, HEADER, Snapshot
from maintenance.errors import ToolError
from maintenance.text import show

NOTE = "bodies"
LEAST, MOST = 8, 4096  # bytes of a body: a shorter one may sit in other texts
# Any file, anywhere or at its start, no wildcards, for every version of the engine; not
# of unwanted programs, which are not loaded everywhere.
_LINE = re.compile(rb"(?!PUA\.)([!-9;-~]+):0:[*0]:((?:[0-9a-fA-F]{2})+)\s*")


@dataclass(frozen=True, slots=True)
class Body:
    """A signature, and a text that it matches."""

    file: str  # of the database directory
    signature: str
    text: bytes

    @classmethod
    def of(cls, file: str, line: bytes) -> Self | None:
        """Return what a line of an .ndb says, None when it is not that simple."""
        match = _LINE.fullmatch(line)
        if match is None or not LEAST <= len(match[2]) // 2 <= MOST:
            return None
        return cls(file, match[1].decode("ascii"), bytes.fromhex(match[2].decode("ascii")))

    @property
    def mark(self) -> int:
        """Return 64 bits that stand for it."""
        own = f"{self.file.partition('.')[0]}:{self.signature}:".encode() + self.text
        return int.from_bytes(blake2b(own, digest_size=8).digest())


def bodies(directory: Path, content: Snapshot) -> Iterator[Body]:
    """Yield every plain body signature of ``content``; raises ToolError."""
    for one in content.databases:
        try:
            for line in _lines(directory / one.file):
                body = Body.of(one.file, line)
                if body is not None:
                    yield body
        except (OSError, tarfile.TarError, EOFError) as error:
            raise ToolError(f"{show(directory / one.file)}: {error}") from None


def _lines(path: Path) -> Iterator[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".ndb":
        with path.open("rb") as stream:
            yield from stream
    elif suffix in CONTAINERS:
        with path.open("rb") as stream:
            stream.seek(HEADER)
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member in archive:
                    if member.name.endswith(".ndb") and member.isfile():
                        yield from archive.extractfile(member) or ()


def remember(state: Path, found: Iterable[Body]) -> None:
    """Note what is not new any more, whole or not at all; raises OSError."""
    draft = state / f".{NOTE}.new"
    draft.write_bytes(array("Q", (body.mark for body in found)).tobytes())
    draft.replace(state / NOTE)


def remembered(state: Path) -> frozenset[int] | None:
    """Return the marks that were noted; None: nothing was."""
    marks = array("Q")
    with suppress(OSError, ValueError):
        marks.frombytes((state / NOTE).read_bytes())
        return frozenset(marks)
    return None
