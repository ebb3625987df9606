"""No result is believed: each thing that may not change is changed here, alone."""

import os
import struct
import subprocess
import zlib
from io import BytesIO
from random import Random

import pytest
from PIL import Image

from maintenance.demo.pictures import srgb_profile
from maintenance.images import chunks as chunks_of
from maintenance.images import jpeg as jpeg_rules
from maintenance.images import pictures, tools
from maintenance.images import segments as segments_of
from maintenance.images.verify import Different, same_jpeg, same_png
from tests.images import (
    CHANNELS,
    KINDS,
    SIGNATURE,
    chunk,
    chunks,
    colours,
    exif,
    extras_for,
    icc_segments,
    jpeg,
    named,
    png,
    samples,
    segment,
    segments,
    shrunk,
    with_segments,
)

ICC = b"icc\0\0" + zlib.compress(srgb_profile())
KEEP = {"icc", "orientation"}
ALL = {"icc", "orientation", "exif", "xmp", "copyright"}


def checked_png(original, result, keep=KEEP):
    taken = chunks_of.parse(original)
    wide = taken.header.depth == 16
    same_png(taken, pictures.shown_by_png(taken, wide=wide), result, keep)


def checked_jpeg(original, result, keep=KEEP):
    taken = segments_of.parse(original)
    same_jpeg(taken, pictures.shown_by_jpeg(taken), result, keep)


def without(data, name):
    return SIGNATURE + b"".join(chunk(*one) for one in chunks(data) if one[0] != name)


def changed(data, name, new):
    return SIGNATURE + b"".join(chunk(one, new if one == name else body)
                                for one, body in chunks(data))


META = [(b"gAMA", b"\0\0\xb1\x8f"), (b"cHRM", bytes(32)), (b"sRGB", b"\0"), (b"cICP", b"\1\1\0\1"),
        (b"mDCV", bytes(24)), (b"cLLI", bytes(8)), (b"iCCP", ICC), (b"pHYs", bytes(8) + b"\1"),
        (b"eXIf", exif([(0x0112, 6)]))]
RICH = png(samples(2, 8), 2, 8, extras=META)


def test_what_is_the_same_passes():
    checked_png(RICH, RICH)
    checked_png(RICH, png(samples(2, 8), 2, 8, extras=META, level=9, interlaced=True))


@pytest.mark.parametrize("name", [name for name, _ in META], ids=lambda name: name.decode())
def test_a_png_may_not_lose_or_change_what_stays(name):
    with pytest.raises(Different):
        checked_png(RICH, without(RICH, name))
    data = named(RICH, name)[0]
    with pytest.raises(Different):
        checked_png(RICH, changed(RICH, name, data[:-1] + bytes([data[-1] ^ 1])
                                  if name != b"eXIf" else exif([(0x0112, 5)])))


@pytest.mark.parametrize("name", [b"tEXt", b"tIME", b"prVt"], ids=lambda name: name.decode())
def test_a_png_may_not_gain_or_keep_what_goes(name):
    with pytest.raises(Different, match="metadata that were to go"):
        checked_png(RICH, png(samples(2, 8), 2, 8, extras=[*META, (name, b"more\0")]))


@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 8), (2, 8), (3, 8), (4, 8), (6, 8),
                                               (0, 16), (2, 16), (4, 16), (6, 16)])
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_sample_is_seen(colour, depth, place):
    extras = [(b"PLTE", bytes(range(256)) * 3)] if colour == 3 else []
    rows = samples(colour, depth)
    original = png(rows, colour, depth, extras=extras)
    rows[place][place] ^= 1
    with pytest.raises(Different, match="pixels"):
        checked_png(original, png(rows, colour, depth, extras=extras))


def test_a_colour_under_full_transparency_is_seen():
    rows = [[200, 10, 10, 0] * 8] * 8
    with pytest.raises(Different, match="pixels"):
        checked_png(png(rows, 6, 8), png([[0, 0, 0, 0] * 8] * 8, 6, 8))


def test_another_transparent_colour_is_seen():
    rows = samples(2, 8)
    key = struct.pack(">3H", *rows[3][:3])
    one, other = (png(rows, 2, 8, extras=[(b"tRNS", data)]) for data in (key, b"\0\xff" * 3))
    for first, second in ((one, other), (one, without(one, b"tRNS")), (without(one, b"tRNS"), one)):
        with pytest.raises(Different, match="pixels"):
            checked_png(first, second)


def test_low_bytes_of_16_bits_are_seen():
    rows = samples(2, 16)
    cut = [[value // 257 for value in row] for row in rows]
    with pytest.raises(Different, match="pixels"):
        checked_png(png(rows, 2, 16), png(cut, 2, 8))
    exact = [[value // 257 * 257 for value in row] for row in rows]
    checked_png(png(exact, 2, 16), png(cut, 2, 8))


def test_another_size_with_the_same_bytes_is_seen():
    rows = [[7] * 16] * 8
    for depth in (8, 16):
        with pytest.raises(Different, match="pixels"):
            checked_png(png(rows, 0, depth), png([[7] * 8] * 16, 0, depth))


@pytest.mark.parametrize("colour", [0, 4])
def test_grey_under_a_profile_for_colours_is_refused_though_it_looks_the_same(colour):
    level = [[v for x in range(8) for v in (x, x, x, 255)] for _ in range(8)]
    grey = [[v for x in range(8) for v in ((x, 255) if colour == 4 else (x,))]
            for _ in range(8)]
    original, result = png(level, 6, 8), png(grey, colour, 8)
    checked_png(original, result)
    with pytest.raises(Different, match="profile"):
        checked_png(png(level, 6, 8, extras=[(b"iCCP", ICC)]),
                    png(grey, colour, 8, extras=[(b"iCCP", ICC)]))
    with pytest.raises(Different, match="profile"):
        checked_png(png(grey, colour, 8, extras=[(b"iCCP", ICC)]),
                    png(level, 6, 8, extras=[(b"iCCP", ICC)]))


@pytest.mark.parametrize("result", [
    b"", b"\x89PNG\r\n\x1a\n", RICH[:-1], RICH[:-12], RICH[:60] + b"\7" + RICH[61:],
    changed(RICH, b"IDAT", zlib.compress(bytes(100))),
    changed(RICH, b"IDAT", named(RICH, b"IDAT")[0][:-4]),
    without(RICH, b"IDAT"), changed(RICH, b"IHDR", bytes(12)),
    RICH[:33] + chunk(b"acTL", bytes(8)) + RICH[33:],
])
def test_a_broken_png_is_no_result(result):
    with pytest.raises(Different):
        checked_png(RICH, result)


SPOKEN = [*icc_segments(), (0xE1, b"Exif\0\0" + exif([(0x0112, 6), (0x8298, b"me, myself\0")])),
          (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")]
PHOTO = with_segments(jpeg(dpi=(72, 72)), *SPOKEN)


def test_a_jpeg_that_is_the_same_passes():
    checked_jpeg(PHOTO, PHOTO, ALL)
    checked_jpeg(PHOTO, PHOTO, {"all"})
    checked_jpeg(PHOTO, with_segments(jpeg(dpi=(72, 72)), *icc_segments(),
                                      (0xE1, b"Exif\0\0" + exif([(0x0112, 6)]))))


@pytest.mark.parametrize("gone", SPOKEN[-3:], ids=["icc", "exif", "xmp"])
def test_a_jpeg_may_not_lose_or_change_what_stays(gone):
    rest = [part for part in SPOKEN if part != gone]
    with pytest.raises(Different):
        checked_jpeg(PHOTO, with_segments(jpeg(dpi=(72, 72)), *rest), ALL)
    with pytest.raises(Different):
        checked_jpeg(PHOTO, with_segments(jpeg(dpi=(72, 72)), *rest, (gone[0], gone[1] + b"+")),
                     ALL)
    with pytest.raises(Different):
        checked_jpeg(PHOTO, with_segments(jpeg(dpi=(72, 72)), *rest), {"all"})


@pytest.mark.parametrize(("name", "block"), [
    ("orientation", exif([(0x0112, 5), (0x8298, b"me, myself\0")])),
    ("copyright", exif([(0x0112, 6), (0x8298, b"not myself\0")])),
])
def test_a_field_may_not_change(name, block):
    keep = {"orientation", "copyright"}
    first = jpeg_rules.stripped(segments_of.parse(PHOTO), keep)
    checked_jpeg(PHOTO, bytes(first), keep)
    other = with_segments(jpeg(dpi=(72, 72)), (0xE1, b"Exif\0\0" + block))
    with pytest.raises(Different, match=name):
        checked_jpeg(PHOTO, other, keep)


@pytest.mark.parametrize("part", [(0xFE, b"a comment"), (0xED, b"Photoshop 3.0\0"),
                                  (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")])
def test_a_jpeg_may_not_gain_or_keep_what_goes(part):
    with pytest.raises(Different, match="metadata that were to go"):
        checked_jpeg(jpeg(), with_segments(jpeg(), part))


def test_a_changed_density_is_seen():
    for other in (jpeg(dpi=(72, 73)), jpeg(dpi=(144, 144)), jpeg()):
        with pytest.raises(Different, match="density"):
            checked_jpeg(jpeg(dpi=(72, 72)), other)


def test_what_the_colours_mean_may_not_change():
    cmyk = jpeg("CMYK")
    adobe = next(data for marker, data in segments(cmyk) if marker == 0xEE)
    with pytest.raises(Different, match="meaning of its colours"):
        checked_jpeg(cmyk, cmyk.replace(segment(0xEE, adobe), b""))
    with pytest.raises(Different, match="meaning of its colours"):
        checked_jpeg(jpeg(), with_segments(jpeg(), (0xEE, adobe[:-1] + b"\1")))


def test_other_pixels_of_a_jpeg_are_seen():
    with Image.open(BytesIO(jpeg())) as image:
        again = BytesIO()
        image.save(again, "JPEG", quality=85)  # what others call lossless
    for other in (again.getvalue(), jpeg("L"), jpeg(size=(120, 160)), jpeg(subsampling=0)):
        with pytest.raises(Different, match="pixels"):
            checked_jpeg(jpeg(), other)


def flat(size):
    stream = BytesIO()
    Image.new("L", size, 128).save(stream, "JPEG")
    return stream.getvalue()


def test_another_size_of_a_jpeg_with_the_same_bytes_is_seen():
    with pytest.raises(Different, match="pixels"):
        checked_jpeg(flat((16, 8)), flat((8, 16)))


@pytest.mark.parametrize("result", [b"", b"\xff\xd8\xff\xd9", jpeg()[:-2], jpeg()[:400],
                                    with_segments(jpeg(), (0xE2, b"MPF\0")),
                                    jpeg().replace(b"\xff\xc4", b"\xff\xef")])
def test_a_broken_jpeg_is_no_result(result):
    with pytest.raises(Different):
        checked_jpeg(jpeg(), result)


LIES = {
    "nothing": lambda bare: b"",
    "half": lambda bare: bare[:len(bare) // 2],
    "junk": lambda bare: bare[:40],
    "the wrong end": lambda bare: bare[:-4] + b"IEND",
}


def instead_of_tools(monkeypatch, png_tool, jpeg_tool, *names):
    for table, tool in ((tools.PNG, png_tool), (tools.JPEG, jpeg_tool)):
        for name in names or table:
            if name in table:
                monkeypatch.setitem(table, name, tool)


@pytest.mark.parametrize("lie", LIES)
def test_a_tool_that_lies_costs_only_its_gain(monkeypatch, lie):
    instead_of_tools(monkeypatch, *[lambda bare, *_: LIES[lie](bare)] * 2)
    assert shrunk(png(samples(2, 8), 2, 8, extras=[(b"tEXt", b"a\0b")])) == png(samples(2, 8), 2, 8)
    assert shrunk(with_segments(jpeg(), (0xFE, b"here"))) == jpeg()


def test_a_tool_that_changes_pixels_is_found_out(monkeypatch):
    black = png([[0] * 111] * 29, 2, 8, level=9)
    instead_of_tools(monkeypatch, lambda *_: black, lambda *_: jpeg("L"))
    assert shrunk(png(samples(2, 8), 2, 8)) == "LeaveAlone: no result that shows the same"
    assert shrunk(jpeg()) == "LeaveAlone: no result that shows the same"


@pytest.mark.parametrize("lie", LIES)
def test_where_a_tool_gives_nothing_of_use_the_second_one_steps_in(monkeypatch, lie):
    picture, photo = png(samples(6, 8), 6, 8), jpeg()
    second = [shrunk(picture, png="optipng"), shrunk(photo, jpeg="jpegtran")]
    instead_of_tools(monkeypatch, *[lambda bare, *_: LIES[lie](bare)] * 2, "oxipng", "mozjpeg")
    assert [shrunk(picture), shrunk(photo)] == second
    assert len(second[0]) < len(picture) - 1000
    assert len(second[1]) < 0.97 * len(photo)


def test_a_tool_that_fails_or_says_so_gives_no_result(monkeypatch):
    cut = jpeg()[:3000]
    assert tools.by_jpegtran(cut) == b"", "jpegtran writes a picture and ends with 2"
    assert tools.by_jpegtran(b"junk") == tools.by_optipng(b"junk", tools.Freedom(), 10**6) == b""
    assert tools.by_oxipng(b"junk", tools.Freedom(), 10**6) == b""
    bomb = BytesIO()
    Image.new("L", (2000, 2000)).save(bomb, "PNG")
    assert tools.by_oxipng(bomb.getvalue(), tools.Freedom(), 10**6) == b""


@pytest.mark.may_skip("only root can mount")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_no_success(tmp_path, monkeypatch):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(OSError, match="No space left"):
            shrunk(png(samples(2, 8), 2, 8), png="optipng")
        monkeypatch.setattr(tools, "ROOM", 0)  # as if it had filled up only now
        picture = png(samples(6, 8, (85, 62)), 6, 8)
        result = shrunk(picture, png="optipng")
        assert isinstance(result, str) or colours(result) == colours(picture)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("clear", [False, True], ids=["", "clear"])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_what_is_compared_is_what_the_specification_says(colour, depth, clear, interlaced):
    chance = Random(depth)
    for _ in range(5):
        # Bytes of few values, so that the filters' ties come up.
        rows = [[chance.choice((0, 2, 3, 256, 257, 2**depth - 1)) % 2**depth
                 for _ in range(CHANNELS[colour] * 19)] for _ in range(11)]
        extras = extras_for(colour, depth)
        if clear and colour in {0, 2, 3}:
            key = b"\0\x80" if colour == 3 else struct.pack(f">{CHANNELS[colour]}H",
                                                            *rows[0][:CHANNELS[colour]])
            extras.append((b"tRNS", key))
        original = png(rows, colour, depth, interlaced, extras, filters=(4, 3, 4, 2, 1, 0))
        (width, _), flat = colours(original)
        rgba = [value for pixel in flat for value in pixel]
        plain = png([rgba[at:at + 4 * width] for at in range(0, len(rgba), 4 * width)], 6, 16)
        assert shown(original) == shown(plain)


def shown(data):
    return pictures.shown_by_png(chunks_of.parse(data), wide=True)
