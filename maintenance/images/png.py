"""The chunks of a PNG: which of them stay.

Nothing is decoded here, but every checksum is. What we do not completely
understand raises LeaveAlone, a broken file Broken.
"""

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from maintenance.images import exif
from maintenance.images.outcomes import Broken, LeaveAlone

MAGIC = b"\x89PNG\r\n\x1a\n"
CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
PICTURE = CRITICAL | {b"tRNS"}
ANIMATED = frozenset({b"acTL", b"fcTL", b"fdAT"})
# What the colours mean, and how large the picture is on paper: never removed.
COLOUR = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
ALWAYS = COLOUR | {b"pHYs"}
TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
WORDS = {b"XML:com.adobe.xmp": "xmp", b"Copyright": "copyright", b"Author": "copyright"}
_FIRST = COLOUR | {b"iCCP", b"sBIT"}  # have to come before the palette
# Say something about the samples as they are coded, so these must then stay as they are.
OF_SAMPLES = frozenset({b"sBIT", b"bKGD", b"hIST"})
_KNOWN = ALWAYS | OF_SAMPLES | {b"iCCP", b"tIME", b"sPLT", b"oFFs", b"pCAL", b"sCAL", b"sTER"}
PIECE = 2**20  # bytes inflated at a time
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: {1, 2, 4, 8, 16}, RGB: {8, 16}, PALETTE: {1, 2, 4, 8}, GREY_ALPHA: {8, 16},
          RGBA: {8, 16}}
# The passes of an interlaced picture: left, top, step to the right, step down.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A named piece of the file."""

    name: bytes
    data: bytes

    def __bytes__(self) -> bytes:
        check = zlib.crc32(self.data, zlib.crc32(self.name))
        return struct.pack(">I", len(self.data)) + self.name + self.data + struct.pack(">I", check)

    @property
    def keyword(self) -> bytes:
        """Return what a text chunk calls its text."""
        return self.data.partition(b"\0")[0]


@dataclass(frozen=True, slots=True)
class Header:
    """What IHDR says."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def bits(self) -> int:
        """Return how many one pixel takes."""
        return self.depth * CHANNELS[self.colour]

    @property
    def grey(self) -> bool:
        """Tell whether it is a grey picture to a colour profile."""
        return self.colour in {GREY, GREY_ALPHA}

    def passes(self) -> Iterator[tuple[tuple[int, int, int, int], int, int]]:
        """Give each pass that has pixels, with its width and height."""
        for steps in ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            left, top, right, down = steps
            width, height = -(-(self.width - left) // right), -(-(self.height - top) // down)
            if width > 0 and height > 0:
                yield steps, width, height

    def row(self, width: int) -> int:
        """Return the bytes in a row of so many pixels, without its filter byte."""
        return (width * self.bits + 7) // 8

    @property
    def raw(self) -> int:
        """Return the bytes of the whole picture when it is inflated."""
        return sum(height * (1 + self.row(width)) for _, width, height in self.passes())


@dataclass(frozen=True, slots=True)
class Png:
    """A whole file, without what may lie behind its end."""

    chunks: tuple[Chunk, ...]

    def __bytes__(self) -> bytes:
        return MAGIC + b"".join(map(bytes, self.chunks))

    @property
    def header(self) -> Header:
        """Return its first chunk, read."""
        width, height, depth, colour, _, _, interlaced = struct.unpack(
            ">IIBBBBB", self.chunks[0].data)
        return Header(width, height, depth, colour, bool(interlaced))

    def all(self, *names: bytes) -> tuple[bytes, ...]:
        """Return what the chunks of these names hold."""
        return tuple(chunk.data for chunk in self.chunks if chunk.name in names)

    @property
    def strange(self) -> bool:
        """Tell whether it has chunks, unknown to us, that belong to its exact coding."""
        return any(not chunk.name[3] & 0x20 and chunk.name not in _KNOWN
                   for chunk in self.metadata)

    @property
    def metadata(self) -> tuple[Chunk, ...]:
        """Return all that is not the picture itself."""
        return tuple(chunk for chunk in self.chunks if chunk.name not in PICTURE)

    @property
    def colours(self) -> list[Chunk]:
        """Return what says how the colours and the size are meant."""
        return sorted((chunk for chunk in self.chunks if chunk.name in ALWAYS), key=bytes)

    def told(self, name: str) -> object:
        """Return what is there of the kind of metadata that the setting calls ``name``."""
        blocks = self.all(b"eXIf")
        if name == "orientation":
            return [exif.orientation(block) for block in blocks] or [1]
        if name == "copyright":
            return [*filter(None, map(exif.rights, blocks)), *self._texts(name)]
        if name == "exif":
            return blocks
        if name == "icc":
            return self.all(b"iCCP")
        if name == "xmp":
            return self._texts(name)
        return sorted(map(bytes, self.metadata))

    def _texts(self, name: str) -> list[Chunk]:
        return [chunk for chunk in self.chunks
                if chunk.name in TEXTS and WORDS.get(chunk.keyword) == name]


def parse(data: bytes) -> Png:
    """Take a file apart; raises Broken, or LeaveAlone when it is not ours to touch."""
    chunks: list[Chunk] = []
    at = len(MAGIC)
    while not chunks or chunks[-1].name != b"IEND":
        head = data[at:at + 8]
        if len(head) < 8:
            raise Broken("it ends in the middle")
        length, name = struct.unpack(">I4s", head)
        if at + 12 + length > len(data):
            raise Broken("it ends in the middle")
        body = data[at + 8:at + 8 + length]
        if data[at + 8 + length:at + 12 + length] != bytes(Chunk(name, body))[-4:]:
            raise Broken("a checksum in it is wrong")
        chunks.append(Chunk(name, body))
        at += 12 + length
    return Png(tuple(chunks))


def admit(png: Png) -> None:
    """Raise LeaveAlone for what we cannot rewrite without losing something, Broken for nonsense."""
    names = [chunk.name for chunk in png.chunks]
    if names[0] != b"IHDR" or len(png.chunks[0].data) != 13:
        raise LeaveAlone("a PNG of a rare kind")
    if b"IDAT" not in names:
        raise Broken("there is no picture in it")
    *_, depth, colour, deflate, filters, interlaced = struct.unpack(">IIBBBBB", png.chunks[0].data)
    if depth not in DEPTHS.get(colour, ()) or deflate or filters or interlaced > 1:
        raise Broken("its header makes no sense")
    if not png.header.width or not png.header.height:
        raise Broken("its header makes no sense")
    if not ANIMATED.isdisjoint(names):
        raise LeaveAlone("an animated PNG")
    first, last = names.index(b"IDAT"), len(names) - names[::-1].index(b"IDAT")
    usual = (set(names[first:last]) == {b"IDAT"}
             and all(names.count(name) <= 1 for name in PICTURE - {b"IDAT"} | ALWAYS | {b"iCCP"})
             and all(name in CRITICAL or name[0] & 0x20 for name in names)
             and not PICTURE.intersection(names[last:-1])
             and _right_extras(png, names))
    if not usual:
        raise LeaveAlone("a PNG of a rare kind")


def _right_extras(png: Png, names: list[bytes]) -> bool:
    """Tell whether palette and transparency are what all decoders agree on."""
    header, palette = png.header, b"".join(png.all(b"PLTE"))
    transparent = b"".join(png.all(b"tRNS"))
    if b"PLTE" in names and (header.grey or not palette or len(palette) % 3 or len(palette) > 768):
        return False
    if b"tRNS" not in names:
        return header.colour != PALETTE or bool(palette)
    if header.colour == PALETTE:
        return names.index(b"PLTE") < names.index(b"tRNS") if palette and (
            0 < len(transparent) <= len(palette) // 3) else False
    if header.colour not in {GREY, RGB} or len(transparent) != 2 * CHANNELS[header.colour]:
        return False
    return all(key < 1 << header.depth
               for key in struct.unpack(f">{CHANNELS[header.colour]}H", transparent))


def stripped(png: Png, keep: Collection[str]) -> Png:
    """Return it without the metadata that ``keep`` does not name."""
    return assembled(png, [_reduced(chunk, keep) for chunk in png.metadata])


def assembled(picture: Png, metadata: Iterable[Chunk | None]) -> Png:
    """Return the picture in ``picture`` with other metadata, all of it before the pixels."""
    extras = [chunk for chunk in metadata if chunk is not None]
    named = {name: [chunk for chunk in picture.chunks if chunk.name == name] for name in PICTURE}
    # A palette beside whole colours is a hint for screens that show 256 of them.
    palette = named[b"PLTE"] if picture.header.colour == PALETTE else []
    first = [chunk for chunk in extras if chunk.name in _FIRST]
    rest = [chunk for chunk in extras if chunk.name not in _FIRST]
    return Png((*named[b"IHDR"], *first, *palette, *named[b"tRNS"], *rest,
                *named[b"IDAT"], *named[b"IEND"]))


def _reduced(chunk: Chunk, keep: Collection[str]) -> Chunk | None:
    if "all" in keep or chunk.name in ALWAYS:
        return chunk
    if chunk.name == b"iCCP":
        return chunk if "icc" in keep else None
    if chunk.name == b"eXIf":
        if "exif" in keep:
            return chunk
        block = exif.reduced(chunk.data, keep)
        return Chunk(b"eXIf", block) if block else None
    if chunk.name in TEXTS:
        return chunk if WORDS.get(chunk.keyword) in keep else None
    return None


def inflated(png: Png) -> Iterator[bytes]:
    """Give the filtered rows of the picture, piece by piece; raises Broken unless complete."""
    machine, left = zlib.decompressobj(), png.header.raw
    try:
        for data in png.all(b"IDAT"):
            while data and not machine.eof:
                piece = machine.decompress(data, PIECE)
                data = machine.unconsumed_tail
                left -= len(piece)
                if left < 0:
                    raise LeaveAlone("a PNG of a rare kind")
                yield piece
    except zlib.error:
        raise Broken("its pixels cannot be read") from None
    if left or not machine.eof:
        raise Broken("its pixels end in the middle")
