"""PNGs made smaller: what they show stays, what they say goes as the configuration has it."""

import struct
import zlib
from io import BytesIO
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maintenance.demo.pictures import srgb_profile
from maintenance.images import chunks as chunks_of
from maintenance.images import png as rules
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.plan import Allowance
from tests.images import (
    CHANNELS,
    KINDS,
    SIGNATURE,
    chunk,
    chunks,
    colours,
    exif,
    extras_for,
    named,
    png,
    samples,
    shrunk,
)

pytestmark = pytest.mark.once

TOOLS = ["oxipng", "optipng"]
MEANING = [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", bytes(range(32))), (b"sRGB", b"\0"),
           (b"pHYs", struct.pack(">IIB", 2835, 2835, 1))]
ICC = (b"iCCP", b"icc\0\0" + zlib.compress(srgb_profile()))
# An RGB profile that no tool knows by heart.
ODD_ICC = (b"iCCP", b"odd\0\0" + zlib.compress(srgb_profile().replace(b"sRGB", b"ours")))
XMP = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
CAMERA = exif([(0x010F, b"Example\0"), (0x0112, 6), (0x8298, b"(c) Somebody\0")])


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("clear", [False, True], ids=["", "clear"])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_every_kind_shows_the_same_afterwards(colour, depth, clear, interlaced, tool):
    size = (61, 18500 // (CHANNELS[colour] * depth * 61) + 1)
    original = png(samples(colour, depth, size), colour, depth, interlaced,
                   extras_for(colour, depth, clear), filters=(0, 1, 2, 3, 4))
    result = shrunk(original, png=tool)
    assert len(result) < len(original)
    assert colours(result) == colours(original)


@pytest.mark.parametrize("tool", TOOLS)
def test_colours_under_full_transparency_stay(tool):
    rows = [[v for x in range(64) for v in (x * 4, y * 4, 255 - x, 0 if x > 20 else 255)]
            for y in range(48)]
    original = png(rows, 6, 8)
    result = shrunk(original, png=tool)
    assert len(result) < len(original)
    assert colours(result) == colours(original)
    assert len({pixel[:3] for pixel in colours(result)[1] if pixel[3] == 0}) > 100


@pytest.mark.parametrize("tool", TOOLS)
def test_what_colours_and_size_mean_stays(tool):
    original = png(samples(2, 8), 2, 8, extras=MEANING)
    result = shrunk(original, png=tool)
    assert [(name, data) for name, data in chunks(result) if name in dict(MEANING)] == MEANING


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("profile", [ICC, ODD_ICC], ids=["sRGB", "unknown"])
def test_a_profile_stays_byte_for_byte_and_over_colours(tool, profile):
    grey = [[v for x in range(64) for v in (x * 3,) * 3] for _ in range(48)]
    original = png(grey, 2, 8, extras=[profile])
    result = shrunk(original, png=tool)
    assert named(result, b"iCCP") == [profile[1]]
    assert not named(result, b"sRGB")
    assert named(result, b"IHDR")[0][9] in {2, 3, 6}, "grey pixels under a profile for RGB"
    assert colours(result) == colours(original)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_grey_profile_stays_over_grey(tool):
    chance = Random(1)
    rows = [[chance.randrange(16) ** 2 for _ in range(96)] for _ in range(48)]
    if tool == "optipng":
        assert named(shrunk(png(rows, 0, 8), png=tool), b"IHDR")[0][9] == 3
    result = shrunk(png(rows, 0, 8, extras=[ICC]), png=tool)
    assert named(result, b"IHDR")[0][9] == 0
    assert len(named(result, b"IDAT")[0]) < 4000


@pytest.mark.parametrize("tool", TOOLS)
def test_without_a_profile_grey_colours_become_grey(tool):
    grey = [[v for x in range(64) for v in (x * 3,) * 3] for _ in range(48)]
    assert named(shrunk(png(grey, 2, 8), png=tool), b"IHDR")[0][9] in {0, 3}


EXTRAS = [*MEANING, ICC, (b"tEXt", b"Comment\0here"), (b"tEXt", b"Copyright\0me"), XMP,
          (b"tIME", bytes(7)), (b"eXIf", CAMERA), (b"zTXt", b"Location\0\0" + zlib.compress(b"x")),
          (b"prVt", b"private")]


@pytest.mark.parametrize(("keep", "kept"), [
    ([], []),
    (["icc"], [b"iCCP"]),
    (["orientation"], [b"eXIf"]),
    (["copyright"], [b"tEXt", b"eXIf"]),
    (["xmp"], [b"iTXt"]),
    (["exif"], [b"eXIf"]),
    (["icc", "xmp", "exif"], [b"iCCP", b"iTXt", b"eXIf"]),
])
def test_metadata_stay_as_configured(keep, kept):
    original = png(samples(2, 8), 2, 8, extras=EXTRAS)
    result = shrunk(original, keep=keep)
    rest = [name for name, _ in chunks(result) if name not in {b"IHDR", b"IDAT", b"IEND",
                                                               *dict(MEANING)}]
    assert rest == kept
    for name in kept:
        assert name == b"eXIf" or named(result, name)[0] in named(original, name)
    assert (b"Example" in result) is ("exif" in keep)
    assert (b"(c) Somebody" in result) is bool({"exif", "copyright"} & set(keep))


def test_all_metadata_can_stay():
    original = png(samples(2, 8), 2, 8, extras=[*EXTRAS, (b"bKGD", bytes(6)), (b"sBIT", b"\5\6\5")])
    result = shrunk(original, keep=["all"])
    assert len(result) < len(original)
    plain = {b"IHDR", b"IDAT", b"IEND"}
    assert sorted(c for c in chunks(result) if c[0] not in plain) == sorted(
        c for c in chunks(original) if c[0] not in plain)
    assert named(result, b"IHDR")[0][8:10] == named(original, b"IHDR")[0][8:10]
    with Image.open(BytesIO(result)) as image:
        image.load()


def test_a_small_picture_loses_its_metadata_too():
    original = png([[0] * 8] * 8, 0, 8, extras=[(b"tEXt", b"Location\0here")], level=9)
    result = shrunk(original)
    assert len(original) < 2000
    assert len(original) - len(result) < 64
    assert named(result, b"tEXt") == []
    assert shrunk(result) == "LeaveAlone: nothing to gain"


def test_metadata_go_where_nothing_else_is_gained():
    best = shrunk(png(samples(2, 8, (64, 48)), 2, 8))
    original = best[:33] + chunk(b"tEXt", b"a\0b") + best[33:]
    assert shrunk(original) == best
    assert shrunk(best) == "LeaveAlone: nothing to gain"


def test_a_gain_below_the_smallest_is_none():
    original = png(samples(2, 8, (64, 48)), 2, 8, level=9)
    result = shrunk(original, min_gain=0)
    assert 0 < len(result) < len(original)
    assert shrunk(original, min_gain=1.0) == "LeaveAlone: nothing to gain"


def test_a_gain_of_a_few_bytes_is_none():
    best = shrunk(png(samples(2, 8, (64, 48)), 2, 8))
    assert shrunk(best + b"." * 63, min_gain=0) == "LeaveAlone: nothing to gain"
    assert shrunk(best + b"." * 64, min_gain=0) == best


def test_with_chunks_about_its_samples_the_samples_stay_as_they_are_coded():
    grey = [[v for x in range(64) for v in (x * 3,) * 3] for _ in range(48)]
    for extra in ((b"bKGD", bytes(6)), (b"sBIT", b"\5\5\5")):
        for tool in TOOLS:
            result = shrunk(png(grey, 2, 8, extras=[extra]), keep=["all"], png=tool)
            assert named(result, b"IHDR")[0][8:10] == b"\x08\x02"
            assert named(result, extra[0]) == [extra[1]]


def test_an_orientation_alone_is_what_is_left_of_exif():
    for prefix in (b"", b"Exif\0\0"):  # which some programs copy from a JPEG
        result = shrunk(png(samples(2, 8), 2, 8, extras=[(b"eXIf", prefix + CAMERA)]))
        assert named(result, b"eXIf") == [prefix + exif([(0x0112, 6)])]
        assert Image.open(BytesIO(result)).getexif()[0x0112] == 6


@pytest.mark.parametrize(("change", "reason"), [
    (lambda p: p[:-20], "Broken: it ends in the middle"),
    (lambda p: p[:-12], "Broken: it ends in the middle"),
    (lambda p: p[:-30] + b"\1" + p[-29:], "Broken: a checksum in it is wrong"),
    (lambda p: SIGNATURE, "Broken: it ends in the middle"),
    (lambda p: SIGNATURE + chunk(b"IHDR", p[16:29]) + chunk(b"IEND"),
     "Broken: there is no picture in it"),
    (lambda p: SIGNATURE + chunk(b"IHDR", p[16:29]) + chunk(b"IDAT", b"junk") + chunk(b"IEND"),
     "Broken: its pixels cannot be read"),
    (lambda p: SIGNATURE + chunk(b"IHDR", p[16:29]) + chunk(b"IDAT", zlib.compress(b"\0" * 50))
     + chunk(b"IEND"), "Broken: its pixels end in the middle"),
    (lambda p: SIGNATURE + chunk(b"IHDR", p[16:29]) + chunk(b"IDAT", zlib.compress(bytes(10**5)))
     + chunk(b"IEND"), "LeaveAlone: a PNG of a rare kind"),
    (lambda p: SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", 0, 5, 8, 2, 0, 0, 0)) + p[33:],
     "Broken: its header makes no sense"),
    (lambda p: SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", 5, 5, 3, 2, 0, 0, 0)) + p[33:],
     "Broken: its header makes no sense"),
    (lambda p: SIGNATURE + chunk(b"CgBI", bytes(4)) + p[8:], "LeaveAlone: a PNG of a rare kind"),
    (lambda p: p[:33] + chunk(b"acTL", struct.pack(">II", 1, 0)) + p[33:],
     "LeaveAlone: an animated PNG"),
    (lambda p: p[:33] + chunk(b"tRNS", bytes(2)) + p[33:], "LeaveAlone: a PNG of a rare kind"),
    (lambda p: p[:33] + chunk(b"ABCD") + p[33:], "LeaveAlone: a PNG of a rare kind"),
    (lambda p: p[:33] + chunk(b"gAMA", bytes(4)) * 2 + p[33:], "LeaveAlone: a PNG of a rare kind"),
])
def test_what_is_broken_or_odd_is_told(change, reason):
    assert shrunk(change(png(samples(2, 8), 2, 8))) == reason


def test_a_checksum_over_the_pixels_counts():
    rows = zlib.compress(b"".join(b"\0" + bytes(37 * 3) for _ in range(29)))
    head = png(samples(2, 8), 2, 8)[:33]
    for wrong in (rows[:-4] + bytes(4), rows[:-4], rows[:-1]):
        told = shrunk(head + chunk(b"IDAT", wrong) + chunk(b"IEND"))
        assert told.startswith("Broken: its pixels")


def test_an_index_beyond_the_palette_is_left_alone():
    original = png([[5] * 64] * 64, 3, 8, extras=[(b"PLTE", bytes(9))])
    assert shrunk(original) == "LeaveAlone: a PNG of a rare kind"


def test_a_chunk_that_belongs_to_the_coding_is_left_alone_with_all():
    original = png(samples(2, 8), 2, 8, extras=[(b"prVT", b"about these very bytes")])
    assert shrunk(original, keep=["all"]) == "LeaveAlone: a PNG of a rare kind"
    assert not isinstance(shrunk(original), str)


def test_a_suggested_palette_beside_colours_goes():
    original = png(samples(2, 8), 2, 8, extras=[(b"PLTE", bytes(9))])
    assert named(shrunk(original), b"PLTE") == []
    assert shrunk(original, keep=["all"]) == "LeaveAlone: a PNG of a rare kind"


def test_what_lies_behind_the_end_goes_with_the_next_gain():
    original = png(samples(2, 8), 2, 8)
    assert shrunk(original + b"<?php evil") == shrunk(original)


@pytest.mark.parametrize(("limit", "reason"), [
    ({"pixels": 37 * 29 - 1}, "Broken: too many pixels"),
    ({"raw": 100}, "Broken: too many pixels"),
    ({"deep": 100}, "LeaveAlone: too many pixels for 16 bits a colour"),
])
def test_sizes_have_limits(limit, reason):
    original = png(samples(2, 16), 2, 16)
    assert shrunk(original, allowance=Allowance(**limit)) == reason


def test_nothing_is_done_when_switched_off():
    assert shrunk(png(samples(2, 8), 2, 8), png="off") == "LeaveAlone: off in the configuration"
    stripped = shrunk(png(samples(2, 8), 2, 8, extras=EXTRAS), png="strip")
    assert len(named(stripped, b"IDAT")[0]) > 3000


NAMES = st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"gAMA", b"iCCP",
                         b"eXIf", b"tEXt", b"bKGD", b"ABCD", b"abCd"])
PIECES = st.one_of(
    st.tuples(NAMES, st.binary(max_size=12)).map(lambda made: chunk(*made)),
    st.sampled_from([chunk(b"IHDR", struct.pack(">2I5B", 2, 2, 8, colour, 0, 0, laced))
                     for colour in range(8) for laced in (0, 1)]),
    st.sampled_from([chunk(b"IDAT", zlib.compress(bytes(length))) for length in range(4, 19)]),
    st.just(chunk(b"IEND")), st.binary(max_size=8))


@given(st.lists(PIECES, max_size=7))
def test_no_sequence_of_chunks_brings_it_down(pieces):
    data = SIGNATURE + b"".join(pieces)
    result = shrunk(data, png="strip")
    if not isinstance(result, str):
        assert colours(result) == colours(data)


@given(st.lists(st.tuples(NAMES.filter(lambda name: name != b"IEND"), st.binary(max_size=9))))
def test_chunks_come_apart_and_together_again(made):
    data = SIGNATURE + b"".join(chunk(*one) for one in [*made, (b"IEND", b"")])
    assert bytes(chunks_of.parse(data + b"more")) == data


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_changed_byte_is_noticed_or_harmless(at, new):
    original = png(samples(2, 8, (9, 9)), 2, 8, extras=[(b"eXIf", CAMERA)])
    at %= len(original)
    changed = original[:at] + new + original[at + len(new):]
    try:
        rules.admit(chunks_of.parse(changed))
    except (Broken, LeaveAlone):
        return
    assert changed[:len(original)] == original or at < 8 or at + len(new) > len(original)
