"""Images that are as hard on memory as they get, within and beyond what we take on.

Argument: the directory that they are written to.
"""

import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

Image.MAX_IMAGE_PIXELS = None


def all_of_them() -> Iterator[tuple[str, bytes]]:
    """Give each with a name that says what it is."""
    for side, colour, depth, laced in ((20000, 0, 8, 0), (9900, 0, 8, 0), (8000, 6, 8, 0),
                                       (8000, 6, 8, 1), (2000, 6, 16, 0), (9900, 3, 1, 1)):
        yield f"{side}x{side} colour {colour} depth {depth} interlaced {laced}.png", png(
            side, colour, depth, laced)
    yield "8000x8000 colour 6 noise.png", png(8000, 6, 8, 0, os.urandom)
    for side, mode, progressive in ((9900, "L", False), (9900, "RGB", False), (9900, "RGB", True),
                                    (9900, "CMYK", True), (16000, "L", False)):
        stream = BytesIO()
        Image.effect_noise((side // 4, side // 4), 60).resize((side, side)).convert(mode).save(
            stream, "JPEG", quality=60, progressive=progressive, subsampling=0)
        yield f"{side}x{side} {mode} progressive {progressive}.jpg", stream.getvalue()
    stream = BytesIO()
    Image.new("RGB", (9000, 9000)).save(stream, "WEBP", lossless=True, exif=b"II*\0" + bytes(9))
    yield "9000x9000 lossless.webp", stream.getvalue()


def png(side: int, colour: int, depth: int, laced: int,
        content: Callable[[int], bytes] = bytes) -> bytes:
    """An empty picture, small as a file, unless its rows have ``content``."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
             (0, 1, 1, 2)) if laced else ((0, 0, 1, 1),)
    machine = zlib.compressobj(1)
    coded = bytearray()
    for left, top, right, down in steps:
        length = -(-len(range(left, side, right)) * bits // 8)
        for _ in range(top, side, down):
            coded += machine.compress(b"\0" + content(length))
    coded += machine.flush()
    header = struct.pack(">II5B", side, side, depth, colour, 0, 0, laced)
    parts = [(b"IHDR", header), *([(b"PLTE", bytes(6))] if colour == 3 else []),
             (b"IDAT", bytes(coded)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts)


if __name__ == "__main__":
    for name, content in all_of_them():
        Path(sys.argv[1], name).write_bytes(content)
