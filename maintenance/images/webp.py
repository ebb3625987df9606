"""A WebP taken apart into its chunks, and which of them stay.

Its pictures are never coded anew: what is taken away is metadata, and the chunks of the
pictures stay byte for byte.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from maintenance.images import exif
from maintenance.images.outcomes import Broken, LeaveAlone

EXTENDED, LOSSY, LOSSLESS = b"VP8X", b"VP8 ", b"VP8L"
PROFILE, EXIF, XMP = b"ICCP", b"EXIF", b"XMP "
PICTURE = frozenset({LOSSY, LOSSLESS, b"ALPH", b"ANIM", b"ANMF"})
# In the flags of an extended file: which kinds of metadata there are.
_FLAGS = {PROFILE: 0x20, EXIF: 0x08, XMP: 0x04}
_RARE = "a WebP of a rare kind"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A named piece of the file."""

    name: bytes
    data: bytes

    def __bytes__(self) -> bytes:
        return self.name + struct.pack("<I", len(self.data)) + self.data + b"\0" * (
            len(self.data) % 2)


@dataclass(frozen=True, slots=True)
class Webp:
    """A whole file, without what may lie behind its end."""

    chunks: tuple[Chunk, ...]

    def __bytes__(self) -> bytes:
        body = b"WEBP" + b"".join(map(bytes, self.chunks))
        return b"RIFF" + struct.pack("<I", len(body)) + body

    @property
    def pixels(self) -> int:
        """Return how many a frame has."""
        first = self.chunks[0]
        if first.name == EXTENDED:
            width = int.from_bytes(first.data[4:7], "little") + 1
            height = int.from_bytes(first.data[7:10], "little") + 1
        elif first.name == LOSSY:
            width, height = (size & 0x3FFF for size in struct.unpack("<HH", first.data[6:10]))
        else:
            sizes = int.from_bytes(first.data[1:5], "little")
            width, height = (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1
        return width * height

    @property
    def picture(self) -> tuple[Chunk, ...]:
        """Return what is shown."""
        return tuple(chunk for chunk in self.chunks if chunk.name in PICTURE)

    @property
    def colours(self) -> bytes:
        """Return how the whole is shown: size, alpha, whether it moves."""
        first = self.chunks[0]
        return _flagged(first, ()).data if first.name == EXTENDED else b""

    def told(self, name: str) -> object:
        """Return what is there of the kind of metadata that the setting calls ``name``."""
        blocks = self._all(EXIF)
        if name == "orientation":
            return [exif.orientation(block) for block in blocks[:1]] or [1]
        if name == "copyright":
            return [*filter(None, map(exif.rights, blocks))]
        if name == "all":
            return [chunk for chunk in self.chunks if chunk.name not in PICTURE | {EXTENDED}]
        return self._all({"exif": EXIF, "icc": PROFILE, "xmp": XMP}[name])

    def heeds(self, name: bytes) -> bool:
        """Tell whether readers heed metadata of this kind: only what the header announces."""
        first = self.chunks[0]
        return first.name == EXTENDED and bool(first.data[0] & _FLAGS[name])

    def _all(self, name: bytes) -> list[bytes]:
        return [chunk.data for chunk in self.chunks if chunk.name == name and self.heeds(name)]


def parse(data: bytes) -> Webp:
    """Take a file apart; raises Broken, or LeaveAlone when it is not ours to touch."""
    end = 8 + int.from_bytes(data[4:8], "little")
    chunks, at = [], 12
    while at < end:
        head = data[at:at + 8]
        if len(head) < 8:
            raise Broken("it ends in the middle")
        name, length = struct.unpack("<4sI", head)
        if at + 8 + length > min(end, len(data)):
            raise Broken("it ends in the middle")
        chunks.append(Chunk(name, data[at + 8:at + 8 + length]))
        at += 8 + length + length % 2
    found = Webp(tuple(chunks))
    _admit(found)
    return found


def _admit(found: Webp) -> None:
    names = [chunk.name for chunk in found.chunks]
    if PICTURE.isdisjoint(names):
        raise Broken("there is no picture in it")
    least = {EXTENDED: 10, LOSSY: 10, LOSSLESS: 5}.get(names[0])
    once = (EXTENDED, LOSSY, LOSSLESS, b"ALPH", b"ANIM", PROFILE, EXIF, XMP)
    if least is None or any(names.count(name) > 1 for name in once):
        raise LeaveAlone(_RARE)
    if len(found.chunks[0].data) < least:
        raise Broken("its header is cut short")


def stripped(webp: Webp, keep: Collection[str]) -> Webp:
    """Return it without the metadata that ``keep`` does not name, its pictures untouched."""
    if "all" in keep:
        return webp
    first, chosen = webp.chunks[0], list(_chosen(webp, keep))
    if first.name == EXTENDED:
        first = _flagged(first, [chunk.name for chunk in chosen])
    return Webp((first, *chosen))


def _chosen(webp: Webp, keep: Collection[str]) -> Iterator[Chunk]:
    for chunk in webp.chunks[1:]:
        if chunk.name in _FLAGS and not webp.heeds(chunk.name):
            continue  # to keep it would be to announce it
        if chunk.name == EXIF and "exif" not in keep:
            block = exif.reduced(chunk.data, keep)
            if block:
                yield Chunk(EXIF, block)
        elif (chunk.name in PICTURE or chunk.name == EXIF
              or chunk.name == PROFILE and "icc" in keep or chunk.name == XMP and "xmp" in keep):
            yield chunk


def _flagged(extended: Chunk, names: Collection[bytes]) -> Chunk:
    """Return the header with its flags for metadata as ``names`` has it."""
    flags = extended.data[0]
    for name, flag in _FLAGS.items():
        flags = flags | flag if name in names else flags & ~flag
    return Chunk(EXTENDED, bytes([flags]) + extended.data[1:])
