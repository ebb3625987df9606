"""A corpus of odd images: every kind that a store of uploads may hold, and what is broken in it."""

import struct
import subprocess
import zlib
from collections.abc import Iterator
from io import BytesIO
from random import Random

from PIL import ExifTags, Image

from maintenance.demo.pictures import encoded, frames, interlaced_png, photo, srgb_profile
from tests.images import (
    CHANNELS,
    KINDS,
    SIGNATURE,
    chunk,
    exif,
    extras_for,
    icc_segments,
    jpeg,
    png,
    samples,
    segment,
    with_segments,
)

GAMMA = (b"gAMA", struct.pack(">I", 45455))
PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
COLOURS = {"gAMA": [GAMMA], "cHRM": [GAMMA, PRIMARIES], "sRGB": [(b"sRGB", b"\0")],
           "iCCP": [(b"iCCP", b"icc\0\0" + zlib.compress(srgb_profile()))],
           "pHYs": [(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))]}
XMP = b"http://ns.adobe.com/xap/1.0/\0"
SIDE = 20_000  # of a bomb: four hundred million pixels


def camera(orientation: int = 1) -> bytes:
    """What a telephone writes: who made it and with what, where it was, how it was held."""
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Example"
    made[ExifTags.Base.Copyright] = "(c) Somebody"
    made[ExifTags.Base.Orientation] = orientation
    made[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N",
                                  ExifTags.GPS.GPSLatitude: (52.0, 30.0, 7.0)}
    return made.tobytes().removeprefix(b"Exif\0\0")


def pngs() -> Iterator[tuple[str, bytes]]:
    """Give every colour type and depth, plain and interlaced, and every chunk that matters."""
    for colour, depth in KINDS:
        size = (61, 21000 // (CHANNELS[colour] * depth * 61) + 1)
        for laced in (False, True):
            for clear in (False, True):
                data = png(samples(colour, depth, size), colour, depth, laced,
                           extras_for(colour, depth, clear), filters=(0, 1, 2, 3, 4))
                yield f"colour {colour} depth {depth} {laced:d}{clear:d}.png", data
    for name, extras in COLOURS.items():
        for colour in (0, 2, 6):
            yield f"{name} colour {colour}.png", png(
                samples(colour, 8, (61, 45)), colour, 8, extras=extras)
    grey = [[v for x in range(64) for v in (x * 3,) * 3] for _ in range(48)]
    yield "grey under a profile for colours.png", png(grey, 2, 8, extras=COLOURS["iCCP"])
    yield "portrait.png", png(samples(2, 8, (61, 45)), 2, 8, extras=[(b"eXIf", camera(6))])
    hidden = [[v for x in range(64) for v in (x * 4, y * 5, 255 - x, 0 if x > 20 else 255)]
              for y in range(48)]
    yield "colours under transparency.png", png(hidden, 6, 8)
    first, *rest = frames(Random(2), (80, 60))
    yield "moving.png", encoded(first, "PNG", save_all=True, append_images=rest, duration=[40] * 4)


def jpegs() -> Iterator[tuple[str, bytes]]:
    """Give every coding, every orientation, and all that may hang on a JPEG."""
    for name, mode, options in (
            ("4-4-4", "RGB", {"subsampling": 0}), ("4-2-2", "RGB", {"subsampling": 1}),
            ("4-2-0", "RGB", {"subsampling": 2}), ("grey", "L", {}), ("cmyk", "CMYK", {}),
            ("rgb", "RGB", {"keep_rgb": True}), ("progressive", "RGB", {"progressive": True}),
            ("optimised", "RGB", {"optimize": True}),
            ("restarts", "RGB", {"restart_marker_blocks": 2})):
        yield f"{name}.jpg", jpeg(mode, **options)
    yield "ycck.jpg", ycck()
    for turn in range(1, 9):
        yield f"orientation {turn}.jpg", with_segments(jpeg(), (0xE1, b"Exif\0\0" + camera(turn)))
    plain = jpeg(dpi=(72, 144))
    yield "density.jpg", plain
    yield "profile.jpg", with_segments(jpeg(), *icc_segments())
    yield "thumbnail.jpg", thumbnail()
    yield "small picture in the header.jpg", plain[:2] + segment(
        0xE0, plain[6:18] + b"\4\4" + bytes(48)) + plain[20:]
    yield "trailing.jpg", jpeg() + b"<?php echo 'what lies behind the end'; ?>" * 9
    yield "arithmetic.jpg", arithmetic()
    yield "two in one.jpg", mpo()
    yield "ultra hdr.jpg", with_segments(
        jpeg(), (0xE1, XMP + b"<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/'/>"))
    yield "comments.jpg", with_segments(jpeg(), (0xFE, b"w" * 500), (0xED, b"Photoshop 3.0\0"))


def ycck() -> bytes:
    """A CMYK picture whose Adobe marker says that it is coded as YCCK."""
    data = bytearray(jpeg("CMYK"))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def thumbnail() -> bytes:
    """A picture whose EXIF holds a smaller one."""
    small = jpeg(size=(32, 24))
    first = exif([(0x0112, 6)])
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, len(first) + 30, 0x0202, 4, 1, len(small),
                         0)
    block = first[:-4] + struct.pack("<I", len(first)) + second + small
    return with_segments(jpeg(), (0xE1, b"Exif\0\0" + block))


def arithmetic() -> bytes:
    """A picture coded in a way that no browser shows."""
    stream = BytesIO()
    photo(Random(1), (160, 120)).save(stream, "PPM")
    return subprocess.run(["cjpeg", "-arithmetic"], input=stream.getvalue(), check=True,
                          stdout=subprocess.PIPE).stdout


def mpo() -> bytes:
    """Two pictures in one file, as cameras with two lenses make them."""
    stream = BytesIO()
    photo(Random(1), (160, 120)).save(stream, "MPO", save_all=True,
                                      append_images=[photo(Random(2), (160, 120))])
    return stream.getvalue()


def others() -> Iterator[tuple[str, bytes]]:
    """Give GIFs and WebPs, still and moving."""
    still, *rest = frames(Random(3), (80, 60))
    moving = {"save_all": True, "append_images": rest, "duration": [40, 50, 60, 70], "loop": 0}
    told = {"exif": camera(6), "icc_profile": srgb_profile(), "xmp": b"<x/>"}
    yield "still.gif", encoded(still, "GIF")
    yield "moving.gif", encoded(still, "GIF", disposal=[1, 2, 3, 1], **moving)
    for name, options in (("lossy", {}), ("lossless", {"lossless": True})):
        yield f"{name}.webp", encoded(still, "WEBP", **options, **told)
        yield f"plain {name}.webp", encoded(still, "WEBP", **options)
        yield f"moving {name}.webp", encoded(still, "WEBP", **options, **told, **moving)


def good() -> dict[str, bytes]:
    """All that is whole, by a name that says what it is."""
    return dict([*pngs(), *jpegs(), *others()])


def bad() -> dict[str, bytes]:
    """What is broken, lies, or is made to break whoever reads it."""
    whole = {"png": png(samples(6, 8, (61, 45)), 6, 8), "interlaced.png": interlaced_png(
        photo(Random(4), (61, 45))), "jpg": jpeg(), "progressive.jpg": jpeg(progressive=True),
        "webp": encoded(photo(Random(5), (61, 45)), "WEBP", exif=camera())}
    found = {f"cut.{name}": data[:len(data) * 2 // 3] for name, data in whole.items()}
    found |= {f"no end.{name}": data[:-3] for name, data in whole.items()}
    found |= {f"empty.{end}": b"" for end in ("png", "jpg", "webp", "gif")}
    found |= {"text.jpg": b"<html><script>" * 99, "text.png": b"no picture" * 300,
              "header only.png": SIGNATURE, "header only.jpg": b"\xff\xd8\xff\xe0",
              "page.webp": b"RIFF\xff\xff\xff\xffWEBP" + bytes(50),
              "bomb.png": png_bomb(), "bomb.jpg": jpeg_bomb(), "bomb.webp": webp_bomb()}
    flipped = bytearray(whole["png"])
    flipped[1000] ^= 1
    return {**found, "flipped.png": bytes(flipped)}


def png_bomb() -> bytes:
    rows = zlib.compressobj(9)
    coded = b"".join(rows.compress(bytes(SIDE + 1)) for _ in range(SIDE)) + rows.flush()
    return SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", SIDE, SIDE, 8, 0, 0, 0, 0)) + \
        chunk(b"IDAT", coded) + chunk(b"IEND")


def jpeg_bomb() -> bytes:
    """A header that promises far more than what follows."""
    data = bytearray(jpeg("L"))
    at = data.index(b"\xff\xc0") + 5
    data[at:at + 4] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def webp_bomb() -> bytes:
    data = bytearray(encoded(photo(Random(5), (61, 45)), "WEBP", exif=camera()))
    at = data.index(b"VP8X") + 12
    data[at:at + 6] = (SIDE - 1).to_bytes(3, "little") * 2
    return bytes(data)


def mutated(data: bytes, chance: Random) -> bytes:
    """Flip some bits of it, or cut it, or both."""
    changed = bytearray(data)
    if chance.random() < 0.8:
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            # Half of them at the beginning, where more than pixels stands.
            end = len(changed) if chance.random() < 0.5 else min(len(changed), 700)
            changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
    if chance.random() < 0.3:
        del changed[chance.randrange(len(changed)):]
    return bytes(changed)
