"""One image of each kind that a store of uploads sees, and many photographs."""

from collections.abc import Iterator
from random import Random

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from maintenance.demo import pictures

PHOTOS = 36
SIZES = ((640, 480), (800, 600), (600, 800), (1024, 768), (1280, 960), (1600, 1200))
GREY = frozenset({4, 13, 22})  # which of the photographs
CMYK = frozenset({10, 27})
TURNED = 7

SMALL = (360, 270)
DELAYS = (80, 90, 100, 110)  # milliseconds
GAMMA = (45455).to_bytes(4, "big")
PRIMARIES = b"".join(
    value.to_bytes(4, "big") for value in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
)

Entry = tuple[bytes, bytes]  # a path below the store, and the file's content


def photographs(chance: Random) -> Iterator[Entry]:
    """Give photographs of every size and kind that cameras and telephones make."""
    for number in range(PHOTOS):
        picture = pictures.photo(chance, SIZES[number % len(SIZES)])
        yield b"2026/09/01/IMG_%04d.jpg" % number, _jpeg(chance, picture, number)


def _jpeg(chance: Random, picture: Image.Image, number: int) -> bytes:
    quality, progressive = chance.randrange(78, 95), number % 3 == 0
    if number in GREY:
        return pictures.encoded(picture.convert("L"), "JPEG", quality=quality)
    exif = pictures.camera_exif(chance, orientation=6 if number == TURNED else 1)
    if number in CMYK:  # no profile: sRGB says nothing about inks
        return pictures.encoded(picture.convert("CMYK"), "JPEG", quality=quality, exif=exif)
    profile = pictures.srgb_profile()
    return pictures.encoded(
        picture, "JPEG", quality=quality, progressive=progressive, exif=exif, icc_profile=profile
    )


def pngs(chance: Random) -> Iterator[Entry]:
    """Give PNGs of every pixel format, and with the chunks that matter."""
    picture = pictures.photo(chance, SMALL)
    palette = picture.quantize(64)
    kinds = {
        b"rgb": picture,
        b"hidden-colours": pictures.with_hidden_colours(chance, SMALL),
        b"palette": palette,
        b"grey": picture.convert("L"),
        b"grey-16-bit": pictures.deep_grey(chance, SMALL),
        b"1-bit": picture.convert("1"),
    }
    for name, image in kinds.items():
        yield b"2026/09/02/%s.png" % name, pictures.encoded(image, "PNG")
    clear = pictures.encoded(palette, "PNG", transparency=bytes([0, 128, 255]))
    yield b"2026/09/02/palette-trns.png", clear
    yield b"2026/09/02/described.png", pictures.encoded(picture, "PNG", pnginfo=_described())
    yield b"2026/09/02/interlaced.png", pictures.interlaced_png(picture)
    yield b"2026/09/02/moving.png", _animation(chance, "PNG")


def _described() -> PngInfo:
    info = PngInfo()
    info.add(b"gAMA", GAMMA)
    info.add(b"cHRM", PRIMARIES)
    info.add_text("Author", "A. Photographer")
    info.add_itxt("Title", "Straßenszene", "de", "Titel")
    return info


def gifs(chance: Random) -> Iterator[Entry]:
    """Give a still GIF and an animated one."""
    yield b"2026/09/02/still.gif", pictures.encoded(pictures.photo(chance, SMALL), "GIF")
    yield b"2026/09/02/moving.gif", _animation(chance, "GIF")


def _animation(chance: Random, kind: str) -> bytes:
    """Return an endless animation, each of its frames shown for another time."""
    first, *rest = pictures.frames(chance, (240, 180))
    return pictures.encoded(
        first, kind, save_all=True, append_images=rest, duration=list(DELAYS), loop=0
    )


def webps(chance: Random) -> Iterator[Entry]:
    """Give a WebP that lost something and one that did not."""
    picture, exif = pictures.photo(chance, SMALL), pictures.camera_exif(chance)
    yield b"2026/09/02/lossy.webp", pictures.encoded(picture, "WEBP", quality=80, exif=exif)
    yield b"2026/09/02/lossless.webp", pictures.encoded(picture, "WEBP", lossless=True, exif=exif)
