"""JPEGs made smaller: what they show stays, what they say goes as the configuration has it."""

import json
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.demo.pictures import srgb_profile
from maintenance.images import exif as exif_blocks
from maintenance.images import segments as segments_of
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.plan import Allowance
from tests.images import (
    exif,
    icc_segments,
    jpeg,
    pixels,
    segment,
    segments,
    shrunk,
    with_segments,
)

pytestmark = pytest.mark.once

TOOLS = ["mozjpeg", "jpegtran"]
XMP = (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
CAMERA = exif([(0x010F, b"Example\0"), (0x0112, 6), (0x013B, b"Somebody\0"),
               (0x8298, b"(c)\0")])
EVERYTHING = [(0xE1, b"Exif\0\0" + CAMERA), XMP, *icc_segments(),
              (0xED, b"Photoshop 3.0\0" + bytes(20)), (0xFE, b"a comment"),
              (0xEC, b"Ducky\0"), (0xE0, b"JFXX\0\x10" + bytes(30))]
MODES = [("L", {}), ("RGB", {"subsampling": 0}), ("RGB", {"subsampling": 1}),
         ("RGB", {"subsampling": 2}), ("CMYK", {}), ("RGB", {"restart_marker_blocks": 2}),
         ("RGB", {"keep_rgb": True})]


def same(one, other):
    return pixels(one) == pixels(other)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("mode", "options"), MODES, ids=lambda value: str(value))
def test_every_kind_shows_the_same_afterwards(mode, options, tool):
    original = jpeg(mode, **options)
    result = shrunk(original, jpeg=tool)
    assert len(result) < 0.99 * len(original)
    assert same(result, original)


def test_mozjpeg_codes_a_progressive_one_better():
    original = jpeg(size=(320, 240), progressive=True)
    result = shrunk(original)
    assert len(result) < 0.99 * len(original)
    assert same(result, original)


@pytest.mark.parametrize("tool", ["jpegtran", "strip"])
def test_a_progressive_one_is_otherwise_only_stripped(tool):
    original = jpeg(progressive=True)
    assert shrunk(original, jpeg=tool) == "LeaveAlone: nothing to gain"
    assert shrunk(with_segments(original, (0xFE, b"here")), jpeg=tool) == original


@pytest.mark.parametrize("tool", [*TOOLS, "strip"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_an_orientation_alone_is_what_is_left_of_exif(turn, tool):
    for order in "<>":
        block = exif([(0x010F, b"Example\0"), (0x0112, turn)], order)
        result = shrunk(with_segments(jpeg(), (0xE1, b"Exif\0\0" + block)), jpeg=tool)
        assert segments(result)[1] == (0xE1, b"Exif\0\0" + exif([(0x0112, turn)]))
        assert same(result, jpeg())


@pytest.mark.parametrize("turn", [0, 9])
def test_an_orientation_that_is_none_goes(turn):
    block = exif([(0x0112, turn)])
    assert shrunk(with_segments(jpeg(), (0xE1, b"Exif\0\0" + block))) == shrunk(jpeg())


def names(data):
    """What a file says, by exiftool, which is independent of us."""
    ran = subprocess.run(["exiftool", "-j", "-G1", "-struct", "-"], input=data, check=True,
                         stdout=subprocess.PIPE)
    told = json.loads(ran.stdout)[0]
    return {name: value for name, value in told.items()
            if not name.startswith(("File:", "System:", "ExifTool:", "Composite:"))
            and name != "SourceFile"}


@pytest.mark.parametrize(("keep", "present", "absent"), [
    ([], ["JFIF:XResolution"], ["IFD0:Orientation", "ICC-header:ProfileVersion", "IFD0:Make",
                                "IFD0:Copyright"]),
    (["icc"], ["ICC-header:ProfileVersion"], ["IFD0:Orientation", "IFD0:Make"]),
    (["orientation"], ["IFD0:Orientation"], ["IFD0:Make", "IFD0:Copyright", "IFD0:Artist"]),
    (["copyright"], ["IFD0:Copyright", "IFD0:Artist"], ["IFD0:Make", "IFD0:Orientation"]),
    (["orientation", "copyright"], ["IFD0:Orientation", "IFD0:Copyright"], ["IFD0:Make"]),
    (["exif"], ["IFD0:Make", "IFD0:Orientation", "IFD0:Copyright"], ["ICC-header:ProfileVersion"]),
    (["xmp"], ["XMP-dc:Creator"], ["IFD0:Make"]),
])
def test_metadata_stay_as_configured(keep, present, absent):
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
           b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
           b"xmlns:dc='http://purl.org/dc/elements/1.1/' dc:creator='me'/></rdf:RDF></x:xmpmeta>")
    original = with_segments(jpeg(dpi=(300, 300)), *EVERYTHING, xmp)
    result = shrunk(original, keep=keep)
    before, after = names(original), names(result)
    for name in present:
        assert after[name] == before[name]
    assert not set(absent) & set(after)
    assert set(absent) <= set(before)
    assert "a comment" not in str(after)
    assert not [name for name in after if name.startswith(("Photoshop", "Ducky", "JFXX"))]
    if "icc" in keep:
        parts = [data[14:] for marker, data in segments(result) if marker == 0xE2]
        assert b"".join(parts) == srgb_profile()


def test_all_metadata_can_stay():
    original = with_segments(jpeg(), *EVERYTHING)
    result = shrunk(original, keep=["all"])
    assert len(result) < len(original)
    assert [one for one in segments(result) if one[0] >= 0xE0] == [
        one for one in segments(original) if one[0] >= 0xE0]


def test_metadata_go_where_nothing_else_is_gained():
    best = shrunk(jpeg())
    assert shrunk(best) == "LeaveAlone: nothing to gain"
    assert shrunk(with_segments(best, (0xFE, b""))) == best


def test_a_small_picture_loses_its_metadata_too():
    tiny = jpeg(size=(8, 8))
    assert len(tiny) < 2000
    assert shrunk(with_segments(tiny, (0xFE, b"here"))) == tiny
    assert shrunk(tiny) == "LeaveAlone: nothing to gain"


def test_a_gain_below_the_smallest_is_none():
    assert shrunk(jpeg(), min_gain=0.5) == "LeaveAlone: nothing to gain"


def test_density_stays_and_the_small_picture_in_the_header_goes():
    plain = jpeg(dpi=(72, 144))
    head = segments(plain)[0][1]
    small = head[:12] + b"\2\2" + bytes(12)
    original = plain[:2] + segment(0xE0, small) + plain[6 + len(head):]
    assert segments(shrunk(original))[0] == (0xE0, head)


def test_a_header_with_a_broken_name_stays_too():
    plain = jpeg(dpi=(72, 144))
    broken = plain.replace(b"JFIF\0", b"JFIF\x80")
    assert segments(shrunk(broken))[0] == segments(broken)[0]


MPF = (0xE2, b"MPF\0" + bytes(40))


@pytest.mark.parametrize(("change", "reason"), [
    (lambda j: j[:len(j) // 2], "Broken: it ends in the middle"),
    (lambda j: j[:-2], "Broken: it ends in the middle"),
    (lambda j: j[:30], "Broken: it ends in the middle"),
    (lambda j: j[:3], "Broken: it ends in the middle"),
    (lambda j: b"\xff\xd8\xff\xd9", "Broken: there is no picture in it"),
    (lambda j: j[:20] + b"junk" + j[20:], "LeaveAlone: something between the segments of the JPEG"),
    (lambda j: j + jpeg(size=(9, 9)), "LeaveAlone: a second image behind the first"),
    (lambda j: with_segments(j, MPF), "LeaveAlone: a second image behind the first"),
    (lambda j: with_segments(j, (0xE1, XMP[1] + b"hdrgm:Version")),
     "LeaveAlone: a gain map for HDR screens"),
    (lambda j: with_segments(j, (0xE2, b"urn:iso:std:iso:ts:21496:-1\0")),
     "LeaveAlone: a gain map for HDR screens"),
    (lambda j: with_segments(j, (0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20RESI")),
     "LeaveAlone: a JPEG with an extension"),
    (lambda j: j.replace(b"\xff\xc0", b"\xff\xc9"), "LeaveAlone: an arithmetic coded JPEG"),
    (lambda j: j.replace(b"\xff\xc0", b"\xff\xc3"), "LeaveAlone: a JPEG of a rare kind"),
    (lambda j: j.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
     "LeaveAlone: a JPEG with more than 8 bits a colour"),
    (lambda j: j.replace(b"\xff\xdb", b"\xff\xef"), "Broken: it cannot be decoded"),
    (lambda j: with_segments(j, (0xC0, bytes(8))), "LeaveAlone: a hierarchical JPEG"),
    (lambda j: b"", "Broken: it is empty"),
    (lambda j: b"GIF89a" + j, "LeaveAlone: a GIF"),
    (lambda j: b"<html>", "LeaveAlone: not a JPEG, PNG or WebP"),
])
def test_what_is_broken_or_odd_is_told(change, reason):
    assert shrunk(change(jpeg())) == reason


@pytest.mark.parametrize("length", [7, 9, 13])
@pytest.mark.parametrize("tool", ["mozjpeg", "strip"])
def test_a_header_that_is_cut_short_keeps_no_metadata_in(length, tool):
    plain = with_segments(jpeg(), *EVERYTHING)
    head = segments(plain)[0][1]
    result = shrunk(plain[:2] + segment(0xE0, head[:length]) + plain[6 + len(head):], jpeg=tool)
    assert segments(result)[0] == (0xE0, head[:length])
    assert "IFD0:Make" not in names(result)


def test_what_lies_behind_the_end_goes_with_the_next_gain():
    assert shrunk(jpeg() + b"<?php evil") == shrunk(jpeg())


def test_provenance_boxes_are_metadata():
    box = (0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20jumb" + bytes(20))
    assert shrunk(with_segments(jpeg(), box)) == shrunk(jpeg())


def test_pixels_have_a_limit():
    limit = Allowance(pixels=160 * 120 - 1)
    assert shrunk(jpeg(), allowance=limit) == "Broken: too many pixels"


def test_nothing_is_done_when_switched_off():
    original = with_segments(jpeg(), *EVERYTHING)
    assert shrunk(original, jpeg="off") == "LeaveAlone: off in the configuration"


def test_stripping_alone_leaves_every_scan_as_it_is():
    original = jpeg()
    assert shrunk(with_segments(original, *EVERYTHING[1:2], *EVERYTHING[5:]),
                  jpeg="strip") == original


MARKERS = st.sampled_from([0xC0, 0xC2, 0xC4, 0xDB, 0xDA, 0xDD, 0xE0, 0xE1, 0xE2, 0xEB, 0xEE,
                           0xFE])
BODIES = st.one_of(st.binary(max_size=20), st.sampled_from([
    b"Exif\0\0" + CAMERA, b"Exif\0\0" + CAMERA[:20], b"JFIF\0\1\1\0\0\1\0\1\0\0",
    b"Adobe" + bytes(7), b"Adobe", XMP[1], b"MPF\0", b"\x08\0\1\0\1\1\1\x11\0"]))


@given(st.lists(st.tuples(MARKERS, BODIES), max_size=6), st.binary(max_size=12))
def test_no_sequence_of_segments_brings_it_down(parts, scan):
    data = b"\xff\xd8" + b"".join(segment(*part) for part in parts) + scan + b"\xff\xd9"
    result = shrunk(data, jpeg="strip")
    if not isinstance(result, str):
        assert same(result, data)


SCANS = st.lists(st.sampled_from([b"\1", b"\xff\0", b"\xff\xd0", b"\xff\xd7", b"\xfe"]), max_size=6)


@given(st.lists(st.tuples(st.sampled_from([0xC0, 0xDB, 0xE5, 0xFE, 0xDA]), st.binary(max_size=9),
                          SCANS), max_size=6), st.binary(max_size=5))
def test_segments_come_apart_and_together_again(made, trailing):
    data = b"\xff\xd8" + b"".join(
        segment(marker, body) + (b"".join(scan) if marker == 0xDA else b"")
        for marker, body, scan in made) + b"\xff\xd9"
    taken = segments_of.parse(data + trailing)
    assert bytes(taken) == data
    assert taken.trailing == trailing


@given(st.integers(0, 30), st.binary(min_size=1, max_size=4))
def test_a_broken_block_of_exif_never_brings_it_down(at, new):
    changed = CAMERA[:at] + new + CAMERA[at + len(new):]
    once = exif_blocks.reduced(changed, {"orientation", "copyright"})
    assert exif_blocks.reduced(once, {"orientation", "copyright"}) == once
    assert exif_blocks.orientation(once) == exif_blocks.orientation(changed)


@given(st.binary(max_size=3), st.one_of(st.none(), st.integers(0, 70000)))
def test_a_field_that_reaches_beyond_the_block_is_not_there(text, place):
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8298, 2, 10, place or 0) + bytes(4) + text
    assert exif_blocks.fields(tiff).get(0x8298, bytes(10)) in tiff + bytes(10)


def test_parsing_is_quick_on_filling_without_end():
    with pytest.raises(Broken):
        segments_of.parse(b"\xff\xd8" + b"\xff" * 10**6)
    with pytest.raises((Broken, LeaveAlone)):
        segments_of.parse(b"\xff\xd8" + segment(0xDA, b"") + b"\xff" * 10**6)
