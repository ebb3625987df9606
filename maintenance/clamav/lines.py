"""The lines of a database as the engine reads them, and what is special about some."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from hashlib import blake2b

from maintenance.clamav.kinds import name_of
from maintenance.errors import ToolError
from maintenance.text import show

DIGEST = 8  # bytes
# The engine reads at most 8191 bytes as one line: what follows in a longer one is a signature,
# also where it begins as a comment.
_COMMENT = 8000
_LONGEST = 2**20  # bytes of a line; the engine's own limit is far lower
# Wide and full word at once, as a modifier of a subsignature.
_WIDE_WORD = re.compile(rb":(?:[iaw]*f[iaf]*w|[iaf]*w[iaw]*f)[iawf]*(?:;|$)")
_KINDS = {".ldb", ".ndb", ".db"}


class Mark(StrEnum):
    """Why a line's effect depends on other lines, or theirs on it: for a sentence."""

    HANDLER = "handler types"  # an image it matches is scanned again as another type
    MACRO = "macros"  # lines that other lines refer to, and those that do
    ANCHOR = "bytes at a distance"  # [n-m]: the engine takes one distance for lines alike otherwise


def lines(chunks: Iterable[bytes], what: str) -> Iterator[list[bytes]]:
    """Yield the lines in many lists: without comments, and without their ends.

    Raises ToolError, naming ``what``, for a line that no database has.
    """
    rest = b""
    for chunk in chunks:
        *block, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise ToolError(f"{show(what)}: damaged, a line has more than {_LONGEST} bytes")
        yield _effective(block, chunk)
    if rest:
        yield _effective([rest], rest)


def _effective(block: list[bytes], chunk: bytes) -> list[bytes]:
    if b"\r" in chunk or (block and block[0].endswith(b"\r")):
        block = [line.rstrip(b"\r") for line in block]
    if b"#" in chunk or (block and block[0].startswith(b"#")):
        block = [line for line in block if not line.startswith(b"#") or len(line) > _COMMENT]
    return block


def digests(block: list[bytes], salt: bytes) -> bytes:
    """Return 8 bytes for each line, one after the other.

    Salted with a secret, so that nobody can craft a signature that has the digest of one to come
    and would hide it: among millions of known lines that takes minutes otherwise.
    """
    return b"".join([blake2b(line, digest_size=DIGEST, salt=salt).digest() for line in block])


def marked(kind: str, block: list[bytes]) -> list[tuple[Mark, bytes]]:
    """Return the lines of a block that other lines depend on, or that depend on others."""
    if kind not in _KINDS:
        return []
    return [(mark, line) for line in block
            if b"[" in line or b"$" in line or b"HandlerType" in line or _WIDE_WORD.search(line)
            for mark in _marks(kind, line)]


def _marks(kind: str, line: bytes) -> Iterator[Mark]:
    if kind == ".ldb":
        attributes, subsignatures = _split(line)
        if b"HandlerType" in attributes:
            yield Mark.HANDLER
        if any(one.startswith(b"$") for one in subsignatures):
            yield Mark.MACRO
        if _WIDE_WORD.search(line) or any(b"[" in one for one in subsignatures if b"/" not in one):
            yield Mark.ANCHOR
        return
    if line.split(b":", 3)[2:3] and line.split(b":", 3)[2].startswith(b"$"):
        yield Mark.MACRO
    if b"[" in line[len(name_of(kind, line)):]:
        yield Mark.ANCHOR


def objection(kind: str, line: bytes) -> str | None:
    """Return why a new line can be asked about only together with all others; None: it can.

    ``N(>>4#ib2#>100)`` compares bytes of every 128 kB of an image at an offset counted from
    the image's start, and where those pieces end depends on the longest signature loaded.
    """
    if kind != ".ldb":
        return None
    attributes, subsignatures = _split(line)
    if b"IconGroup" in attributes:
        return "icon groups"
    if any(b"(" in one and one.count(b"#") > 1 for one in subsignatures if b"/" not in one):
        return "byte comparisons"
    return None


def _split(line: bytes) -> tuple[bytes, list[bytes]]:
    """Return attributes and subsignatures of a logical signature."""
    _, _, rest = line.partition(b";")
    attributes, _, rest = rest.partition(b";")
    return attributes, rest.split(b";")[1:]
