"""The few fields of an EXIF block that can outlive the rest of it.

An EXIF block is a small TIFF file. What does not make sense in it is treated as
not being there: a picture with broken EXIF is shown all the same.
"""

import struct
from collections.abc import Collection

PREFIX = b"Exif\0\0"  # of a block in a JPEG, and by mistake in some PNGs
ORIENTATION, ARTIST, COPYRIGHT = 0x0112, 0x013B, 0x8298
_ASCII, _SHORT = 2, 3
_TOP = {ORIENTATION: "orientation", ARTIST: "copyright", COPYRIGHT: "copyright"}


def reduced(tiff: bytes, keep: Collection[str]) -> bytes:
    """Return a block with only those fields of ``tiff`` that ``keep`` names; empty: none is there.

    What was reduced once comes out the same again.
    """
    found = fields(tiff)
    block = _block({tag: value for tag, value in found.items() if _TOP[tag] in keep})
    return PREFIX + block if block and tiff.startswith(PREFIX) else block


def orientation(tiff: bytes) -> int:
    """Return how the picture lies: 1 to 8; 1 also when nothing is said."""
    value = fields(tiff).get(ORIENTATION)
    return value if isinstance(value, int) else 1


def rights(tiff: bytes) -> dict[int, int | bytes]:
    """Return who made it and whose it is."""
    return {tag: value for tag, value in fields(tiff).items() if _TOP[tag] == "copyright"}


def fields(tiff: bytes) -> dict[int, int | bytes]:
    """Return the fields we know of the first directory."""
    try:
        return dict(_read(tiff.removeprefix(PREFIX)))
    except (struct.error, KeyError, IndexError):
        return {}


def _read(tiff: bytes) -> list[tuple[int, int | bytes]]:
    order = {b"II*\0": "<", b"MM\0*": ">"}[tiff[:4]]
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    found: list[tuple[int, int | bytes]] = []
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if at + 12 > len(tiff):
            break  # what came before the cut still counts, as it does for browsers
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, at)
        if tag == ORIENTATION and kind == _SHORT and length == 1:
            (value,) = struct.unpack_from(order + "H", tiff, at + 8)
            if 1 <= value <= 8:
                found.append((tag, value))
        elif tag in _TOP and kind == _ASCII and length:
            place = at + 8 if length <= 4 else struct.unpack_from(order + "I", tiff, at + 8)[0]
            text = tiff[place:place + length]
            if len(text) == length:
                found.append((tag, text))
    return found


def _block(chosen: dict[int, int | bytes]) -> bytes:
    if not chosen:
        return b""
    entries, texts = b"", b""
    room = 8 + 2 + 12 * len(chosen) + 4
    for tag, value in sorted(chosen.items()):
        if isinstance(value, int):
            entries += struct.pack("<HHIHH", tag, _SHORT, 1, value, 0)
        elif len(value) <= 4:
            entries += struct.pack("<HHI4s", tag, _ASCII, len(value), value)
        else:
            entries += struct.pack("<HHII", tag, _ASCII, len(value), room + len(texts))
            texts += value + b"\0" * (len(value) % 2)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(chosen)) + entries + bytes(4) + texts
