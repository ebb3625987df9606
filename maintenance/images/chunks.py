"""A PNG taken apart into its chunks, every checksum of which is checked."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from maintenance.images import exif
from maintenance.images.outcomes import Broken, LeaveAlone

MAGIC = b"\x89PNG\r\n\x1a\n"
CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
PICTURE = CRITICAL | {b"tRNS"}
# What the colours mean, and how large the picture is on paper: never removed.
COLOUR = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"})
ALWAYS = COLOUR | {b"pHYs"}
TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
WORDS = {b"XML:com.adobe.xmp": "xmp", b"Copyright": "copyright", b"Author": "copyright"}
# Say something about the samples as they are coded, so these must then stay as they are.
OF_SAMPLES = frozenset({b"sBIT", b"bKGD", b"hIST"})
_KNOWN = ALWAYS | OF_SAMPLES | {b"iCCP", b"tIME", b"sPLT", b"oFFs", b"pCAL", b"sCAL", b"sTER"}
PIECE = 2**20  # bytes inflated at a time
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
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
            return [exif.orientation(block) for block in blocks[:1]] or [1]
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
