"""What a file shows, all of it, in a form in which two files can be compared.

Memory holds one picture at a time: what is kept of it is a digest.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO

from PIL import Image, ImageChops, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from maintenance.images import deep, jpeg, webp
from maintenance.images.chunks import CRITICAL, PALETTE, Png, inflated
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.segments import Jpeg
from maintenance.images.webp import Webp

BAND = 2**18  # pixels handled at a time
ImageFile.LOAD_TRUNCATED_IMAGES = False
READERS: dict[str, Callable[[BytesIO], Image.Image]] = {  # not Image.open, which looks for more
    "JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile}
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError)
Shown = tuple[object, ...]  # two files with equal ones show the same


def shown_by_jpeg(picture: Jpeg) -> Shown:
    """Decode a JPEG to its end; raises Broken."""
    image = _decoded("JPEG", bytes(jpeg.stripped(picture, ())))
    return (image.size, _digest(band.tobytes() for band in _bands(image)))


def shown_by_png(picture: Png, *, wide: bool) -> Shown:
    """Decode a PNG to its end, as RGBA of 16 bits when ``wide``, else of 8; raises Broken."""
    header = picture.header
    size = (header.width, header.height)
    if header.depth == 16:
        return (wide, size, _digest(deep.rows(picture)))
    for _ in inflated(picture):
        pass  # what Pillow forgives: pixels that are cut short, a wrong checksum
    rows = _rgba(picture)
    return (wide, size, _digest(map(_widened, rows) if wide else rows))


def shown_by_webp(picture: Webp) -> Shown:
    """Decode every frame of a WebP, as it comes to stand on the screen; raises Broken."""
    image = _decoded("WEBP", bytes(webp.stripped(picture, ())))
    frames: list[object] = [(image.size, image.info.get("loop"), image.info.get("background"))]
    try:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            frames.append((image.mode, image.info.get("timestamp"), image.info.get("duration"),
                           _digest(band.tobytes() for band in _bands(image))))
    except _FAULTS as error:
        raise Broken("it cannot be decoded") from error
    return tuple(frames)


def _decoded(kind: str, data: bytes) -> Image.Image:
    """Decode it; metadata are not given to Pillow, which has no business with them."""
    try:
        image = READERS[kind](BytesIO(data))
        image.load()
    except _FAULTS as error:
        raise Broken("it cannot be decoded") from error
    return image


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    width, height = image.size
    step = max(1, BAND // width)
    for top in range(0, height, step):
        yield image.crop((0, top, width, min(top + step, height)))


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _rgba(picture: Png) -> Iterator[bytes]:
    """Give the pixels of at most 8 bits as RGBA; what tRNS means is worked out here.

    Pillow would take the key colour of a picture of 2 or 4 bits for one of 8.
    """
    colour, depth = picture.header.colour, picture.header.depth
    plain = Png(tuple(chunk for chunk in picture.chunks if chunk.name in CRITICAL))
    image = _decoded("PNG", bytes(plain))
    table = _table(picture)
    if colour == PALETTE and _highest(image) >= len(table[0]):
        raise LeaveAlone("a PNG of a rare kind")  # decoders differ in what they show there
    key = b"".join(picture.all(b"tRNS"))
    for band in _bands(image):
        if colour == PALETTE:
            index = Image.frombytes("L", band.size, band.tobytes())
            yield Image.merge("RGBA", [
                index.point(list(column.ljust(256, b"\0"))) for column in table]).tobytes()
        elif key:
            yield _keyed(band, key, depth).tobytes()
        else:
            yield band.convert("RGBA").tobytes()


def _highest(image: Image.Image) -> int:
    return max(max(band.tobytes()) for band in _bands(image))


def _table(picture: Png) -> list[bytes]:
    """Return the palette as four columns: red, green, blue, alpha."""
    palette = b"".join(picture.all(b"PLTE"))
    alpha = b"".join(picture.all(b"tRNS"))
    return [palette[0::3], palette[1::3], palette[2::3], alpha.ljust(len(palette) // 3, b"\xff")]


def _keyed(band: Image.Image, key: bytes, depth: int) -> Image.Image:
    """Return a grey or RGB band with its one transparent colour made transparent."""
    scale = 255 // (2**depth - 1)
    wanted = [value * scale for value in struct.unpack(f">{len(key) // 2}H", key)]
    coloured = band.convert("RGBA")
    alpha = Image.new("L", band.size, 0)
    for channel, value in zip(coloured.split()[:3], wanted * 3 if len(wanted) == 1 else wanted,
                              strict=True):
        other = channel.point([0 if level == value else 255 for level in range(256)])
        alpha = ImageChops.lighter(alpha, other)
    coloured.putalpha(alpha)
    return coloured


def _widened(row: bytes) -> bytes:
    wide = bytearray(2 * len(row))
    wide[0::2], wide[1::2] = row, row
    return bytes(wide)
