"""Pictures made on the spot, which compress the way photographs do.

Everything comes from one seeded `random.Random`: the same seed gives the same
bytes with the same Pillow. (Pillow's own `effect_noise` draws from the C
library's generator and cannot be seeded.)
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from random import Random
from typing import NamedTuple

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageFilter

Size = tuple[int, int]
PROFILE_DATE = struct.pack(">6H", 2026, 9, 1, 0, 0, 0)  # else it tells when it was made
PROFILE_DATE_AT = slice(24, 36)


class _Pass(NamedTuple):
    """One of the seven passes of an interlaced PNG: its first pixel and its steps."""

    left: int
    top: int
    right_by: int
    down_by: int


ADAM7 = (
    _Pass(0, 0, 8, 8),
    _Pass(4, 0, 8, 8),
    _Pass(0, 4, 4, 8),
    _Pass(2, 0, 4, 4),
    _Pass(0, 2, 2, 4),
    _Pass(1, 0, 2, 2),
    _Pass(0, 1, 1, 2),
)


def photo(chance: Random, size: Size) -> Image.Image:
    """Return an RGB picture with soft light, a few objects, texture and sensor noise."""
    scene = _noise(chance, (5, 4), "RGB").resize(size, Image.Resampling.BICUBIC)
    _objects(chance, scene)
    scene = scene.filter(ImageFilter.BoxBlur(2))
    coarse = _noise(chance, (size[0] // 8, size[1] // 8)).resize(size, Image.Resampling.BICUBIC)
    fine = _noise(chance, size).filter(ImageFilter.BoxBlur(1))
    texture = Image.blend(coarse, fine, 0.4)
    return ImageChops.soft_light(scene, Image.merge("RGB", (texture,) * 3))


def _noise(chance: Random, size: Size, mode: str = "L") -> Image.Image:
    pixels = chance.randbytes(size[0] * size[1] * len(mode))
    return Image.frombytes(mode, size, pixels)


def _objects(chance: Random, scene: Image.Image) -> None:
    pencil = ImageDraw.Draw(scene)
    width, height = scene.size
    for _ in range(6):
        left, top = chance.randrange(width), chance.randrange(height)
        reach = chance.randrange(width // 16, width // 4)
        pencil.ellipse((left, top, left + reach, top + reach), fill=tuple(chance.randbytes(3)))


def with_hidden_colours(chance: Random, size: Size) -> Image.Image:
    """Return an RGBA picture whose transparent part still has colours beneath it."""
    picture = photo(chance, size)
    ramp = Image.linear_gradient("L").resize(size)
    picture.putalpha(ramp.point([max(0, (level - 100) * 255 // 155) for level in range(256)]))
    return picture


def deep_grey(chance: Random, size: Size) -> Image.Image:
    """Return a grey picture of 16 bits whose low bytes are not copies of the high ones."""
    high, low = photo(chance, size).convert("L").tobytes(), chance.randbytes(size[0] * size[1])
    pixels = bytearray(2 * len(high))
    pixels[0::2], pixels[1::2] = low, high
    return Image.frombytes("I;16", size, bytes(pixels))


def frames(chance: Random, size: Size, count: int = 4) -> list[Image.Image]:
    """Return RGB pictures that differ only in where a small disc lies."""
    ground = photo(chance, size)
    moved = []
    for step in range(count):
        frame = ground.copy()
        left = size[0] * step // (count + 1)
        ImageDraw.Draw(frame).ellipse((left, 10, left + 40, 50), fill=(250, 220, 40))
        moved.append(frame)
    return moved


def srgb_profile() -> bytes:
    """Return an sRGB profile that is the same each time."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = bytearray(made.tobytes())
    profile[PROFILE_DATE_AT] = PROFILE_DATE
    return bytes(profile)


def camera_exif(chance: Random, orientation: int = 1) -> Image.Exif:
    """Return what a telephone writes into a picture: the camera, the time and the place."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Example"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = "2026:09:01 12:00:00"
    exif[ExifTags.IFD.GPSInfo] = {
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (52.0, 30.0, float(chance.randrange(60))),
        ExifTags.GPS.GPSLongitudeRef: "E",
        ExifTags.GPS.GPSLongitude: (13.0, 22.0, float(chance.randrange(60))),
    }
    return exif


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return ``picture`` as a file of ``kind``, with Pillow's options for that kind."""
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def interlaced_png(picture: Image.Image) -> bytes:
    """Return an RGB picture as a PNG in Adam7 order, which Pillow reads but cannot write."""
    header = struct.pack(">2I5B", *picture.size, 8, 2, 0, 0, 1)
    rows = b"".join(row for part in ADAM7 for row in _rows(picture, part))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _rows(picture: Image.Image, part: _Pass) -> Iterator[bytes]:
    """Give the scan lines of one pass, each with its filter byte (none)."""
    width, height = picture.size
    bands = [band.tobytes() for band in picture.split()]
    for start in range(part.top * width, height * width, part.down_by * width):
        chosen = slice(start + part.left, start + width, part.right_by)
        row = bytearray(len(bands) * len(bands[0][chosen]))
        for offset, band in enumerate(bands):
            row[offset :: len(bands)] = band[chosen]
        yield b"\0" + bytes(row)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)
