"""Which PNGs we touch, and which of their chunks stay."""

import struct
from collections.abc import Collection, Iterable

from maintenance.images import exif
from maintenance.images.chunks import (
    ALWAYS,
    CHANNELS,
    COLOUR,
    CRITICAL,
    GREY,
    GREY_ALPHA,
    PALETTE,
    PICTURE,
    RGB,
    RGBA,
    TEXTS,
    WORDS,
    Chunk,
    Png,
)
from maintenance.images.outcomes import Broken, LeaveAlone

ANIMATED = frozenset({b"acTL", b"fcTL", b"fdAT"})
DEPTHS = {GREY: {1, 2, 4, 8, 16}, RGB: {8, 16}, PALETTE: {1, 2, 4, 8}, GREY_ALPHA: {8, 16},
          RGBA: {8, 16}}
_FIRST = COLOUR | {b"iCCP", b"sBIT"}  # have to come before the palette


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


