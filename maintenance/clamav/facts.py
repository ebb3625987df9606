"""What is remembered of a generation's databases, so that a later one can be told from it."""

import sys
from typing import Literal

import msgspec

from maintenance.clamav import kinds, lines
from maintenance.clamav.cvd import Part
from maintenance.clamav.lines import DIGEST, Mark


class Marked(msgspec.Struct, frozen=True):
    """A line whose effect depends on others, or theirs on it."""

    mark: Mark
    digest: int
    name: str


class Member(msgspec.Struct, frozen=True):
    """A database: a plain file, or one in a container."""

    file: str  # in the database directory
    name: str  # inside the container; of a plain file its own
    kind: str
    sha256: str
    lines: int  # those that the engine reads; 0 for a kind that is not compared by lines
    marked: tuple[Marked, ...] = ()

    @property
    def shown(self) -> str:
        """Return its name for a sentence."""
        return kinds.shown(self.file, self.name)

    @property
    def contained(self) -> bool:
        """Tell whether it is inside a container."""
        return kinds.is_container(self.file)

    @property
    def official(self) -> bool:
        """Tell whether it is signed, so that its names are reported as they are."""
        return kinds.is_signed(self.file)


class Facts(msgspec.Struct, frozen=True):
    """What is remembered of one generation; members in the order of the engine's reading."""

    engine: str
    options: str
    salt: bytes
    files: dict[str, str]  # file -> SHA-256, of those that an engine loads
    members: tuple[Member, ...]
    version: Literal[1] = 1

    def of_kind(self, kind: str) -> list[Member]:
        """Return the members of one kind."""
        return [one for one in self.members if one.kind == kind]


def read(part: Part, salt: bytes) -> tuple[Member, bytes]:
    """Read a database to its end; return what it is, and the digests of its lines.

    Raises ToolError when it is damaged.
    """
    kind = kinds.kind(part.suffix)
    if not kinds.by_lines(kind):
        return Member(part.file, part.name, kind, part.sha256(), 0), b""
    digests, marked = bytearray(), []
    for block in lines.lines(part.chunks(), part.name):
        digests += lines.digests(block, salt)
        marked += [_marked(kind, mark, line, salt) for mark, line in lines.marked(kind, block)]
    member = Member(part.file, part.name, kind, part.sha256(), len(digests) // DIGEST,
                    tuple(marked))
    return member, bytes(digests)


def _marked(kind: str, mark: Mark, line: bytes, salt: bytes) -> Marked:
    digest = int.from_bytes(lines.digests([line], salt), sys.byteorder)
    return Marked(mark, digest, kinds.name_of(kind, line).decode("utf-8", "backslashreplace"))
