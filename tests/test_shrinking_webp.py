"""WebPs stripped: pictures stay byte for byte, what is said goes as the configuration has it."""

import struct
from io import BytesIO
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maintenance.demo.pictures import frames, photo, srgb_profile
from maintenance.images import webp as rules
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.pictures import shown_by_webp
from maintenance.images.plan import Allowance
from maintenance.images.verify import Different, same_webp
from tests.images import exif, shrunk
from tests.test_shrinking_jpeg import names

pytestmark = pytest.mark.once

CAMERA = exif([(0x010F, b"Example\0"), (0x0112, 6), (0x8298, b"(c) Somebody\0")])
XMP = (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-"
       b"syntax-ns#'><rdf:Description xmlns:dc='http://purl.org/dc/elements/1.1/' dc:creator='me'/>"
       b"</rdf:RDF></x:xmpmeta>")
EVERYTHING = {"exif": CAMERA, "xmp": XMP, "icc_profile": srgb_profile()}
NO_GAIN = "LeaveAlone: nothing to gain"


def webp(moving=False, alpha=False, **options):
    stream = BytesIO()
    if moving:
        first, *rest = frames(Random(1), (48, 36))
        first.save(stream, "WEBP", save_all=True, append_images=rest, duration=[30, 40, 50, 60],
                   loop=3, background=(1, 2, 3, 4), **options)
    else:
        picture = photo(Random(1), (61, 45)).convert("RGBA" if alpha else "RGB")
        if alpha:
            picture.putalpha(picture.getchannel("R"))
        picture.save(stream, "WEBP", **options)
    return stream.getvalue()


def chunks(data):
    """The (name, content) of a file, read by nothing of ours."""
    found, at = [], 12
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        found.append((name, data[at + 8:at + 8 + length]))
        at += 8 + length + length % 2
    return found


def riff(*parts):
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
                              for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_chunk(data, name, change):
    return riff(*((one, change(content) if one == name else content)
                  for one, content in chunks(data)))


def picture(data):
    return [(name, content) for name, content in chunks(data)
            if name not in {b"VP8X", b"ICCP", b"EXIF", b"XMP "}]


def shown(data):
    """Every frame as another decoder composes it, and how long it stands."""
    image = Image.open(BytesIO(data))
    found = [(image.size, image.info.get("loop"), image.info.get("background"))]
    for number in range(image.n_frames):
        image.seek(number)
        found.append((image.mode, image.info.get("duration"), image.tobytes()))
    return found


KINDS = {"lossy": {}, "lossless": {"lossless": True}, "lossy, alpha": {"alpha": True},
         "lossless, alpha": {"alpha": True, "lossless": True}, "moving": {"moving": True},
         "moving, lossless": {"moving": True, "lossless": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_go_and_every_picture_stays_byte_for_byte(kind):
    original = webp(**KINDS[kind], **EVERYTHING)
    result = shrunk(original)
    assert [name for name, _ in chunks(original)][:2] == [b"VP8X", b"ICCP"]
    assert picture(result) == picture(original)
    assert shown(result) == shown(original)
    assert Image.open(BytesIO(result)).info["icc_profile"] == srgb_profile()
    assert Image.open(BytesIO(result)).getexif()[0x0112] == 6
    assert b"Example" not in result
    assert b"xmpmeta" not in result
    assert shrunk(result) == NO_GAIN


@pytest.mark.parametrize(("keep", "present", "flags"), [
    ([], [], 0), (["icc"], ["ICC-header:ProfileVersion"], 0x20),
    (["orientation"], ["IFD0:Orientation"], 0x08),
    (["copyright"], ["IFD0:Copyright"], 0x08), (["xmp"], ["XMP-dc:Creator"], 0x04),
    (["exif"], ["IFD0:Make", "IFD0:Orientation", "IFD0:Copyright"], 0x08),
    (["icc", "exif", "xmp"], ["IFD0:Make", "XMP-dc:Creator", "ICC-header:ProfileVersion"], 0x2C),
])
def test_metadata_stay_as_configured(keep, present, flags):
    original = webp(**EVERYTHING)
    result = shrunk(original, keep=keep) if len(keep) < 3 else original
    if len(keep) == 3:
        assert shrunk(original, keep=keep) == NO_GAIN
    before, after = names(original), names(result)
    every = {"IFD0:Make", "IFD0:Orientation", "IFD0:Copyright", "XMP-dc:Creator",
             "ICC-header:ProfileVersion"}
    assert every <= set(before)
    kept = every & set(after)
    assert set(present) <= kept
    if len(keep) < 2:
        assert kept == set(present)
    assert all(after[name] == before[name] for name in kept)
    assert chunks(result)[0][1][0] & 0x2C == flags


def test_all_metadata_can_stay():
    original = webp(**EVERYTHING)
    assert shrunk(original, keep=["all"]) == NO_GAIN
    assert shrunk(original + b"<?php evil".ljust(100), keep=["all"]) == original


def test_a_last_byte_that_only_fills_may_be_missing():
    original = riff(*chunks(webp()), (b"ABCD", b"odd"))
    assert shrunk(original[:-1]) == webp()


def test_one_without_metadata_is_not_even_decoded():
    assert shrunk(riff((b"VP8 ", bytes(40)))) == NO_GAIN


def test_what_lies_behind_the_end_and_what_nobody_knows_goes():
    plain = webp()
    assert shrunk(plain) == NO_GAIN
    assert shrunk(plain + b"x" * 63) == NO_GAIN
    assert shrunk(plain + b"x" * 64) == plain
    assert shrunk(riff(*chunks(plain), (b"ABCD", b"private"))) == plain


def test_a_block_with_a_jpegs_beginning_keeps_its_orientation():
    original = webp(exif=b"Exif\0\0" + CAMERA)
    assert Image.open(BytesIO(shrunk(original))).getexif()[0x0112] == 6


def test_what_the_header_does_not_announce_is_not_brought_to_life():
    """A profile would change the colours, an orientation turn the picture."""
    loud = webp(**EVERYTHING)
    silent = with_chunk(loud, b"VP8X", lambda data: b"\0" + data[1:])
    for keep in ([], ["icc", "orientation"], ["icc", "exif", "xmp", "copyright"]):
        result = shrunk(silent, keep=keep)
        assert result == riff((b"VP8X", chunks(silent)[0][1]), *picture(loud))
        assert "icc_profile" not in Image.open(BytesIO(result)).info
    plain = webp()
    assert shrunk(riff(*chunks(plain), (b"EXIF", CAMERA)), keep=["exif"]) == plain


VP8X = b"VP8X", bytes(10)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda w: w[:-2], "Broken: it ends in the middle"),
    (lambda w: w[:40], "Broken: it ends in the middle"),
    (lambda w: w[:12], "Broken: it ends in the middle"),
    (lambda w: w[:4] + struct.pack("<I", len(w) - 10) + w[8:], "Broken: it ends in the middle"),
    (lambda w: riff(), "Broken: there is no picture in it"),
    (lambda w: riff(VP8X, (b"EXIF", CAMERA)), "Broken: there is no picture in it"),
    (lambda w: riff((b"VP8X", b""), *chunks(w)), "Broken: its header is cut short"),
    (lambda w: riff((b"VP8 ", b"")), "Broken: its header is cut short"),
    (lambda w: riff((b"EXIF", CAMERA), *chunks(w)), "LeaveAlone: a WebP of a rare kind"),
    (lambda w: riff(*chunks(w), *chunks(w)), "LeaveAlone: a WebP of a rare kind"),
    (lambda w: riff(VP8X, *chunks(w), *[(b"EXIF", CAMERA)] * 2),
     "LeaveAlone: a WebP of a rare kind"),
    (lambda w: riff((b"VP8 ", bytes(40)), (b"EXIF", CAMERA)), "Broken: it cannot be decoded"),
    (lambda w: riff((b"VP8X", b"\x08" + bytes(3) + b"\x10\x27\0\x10\x27\0"), *chunks(w),
                    (b"EXIF", CAMERA)), "Broken: too many pixels"),
])
def test_what_is_broken_or_odd_is_told(change, reason):
    assert shrunk(change(webp())) == reason


@pytest.mark.parametrize("kind", ["lossy", "lossless", "moving"])
def test_pixels_have_a_limit(kind):
    original = webp(**KINDS[kind], exif=CAMERA)
    plain = webp(**KINDS[kind])  # lossy and lossless without the header of the extended kind
    count = 48 * 36 if kind == "moving" else 61 * 45
    for data in (original, plain + bytes(100)):
        assert isinstance(shrunk(data, allowance=Allowance(pixels=count)), bytes)
        assert shrunk(data, allowance=Allowance(pixels=count - 1)) == "Broken: too many pixels"


RICH = webp(moving=True, **EVERYTHING)


def checked(original, result, keep=frozenset({"icc", "orientation"})):
    taken = rules.parse(original)
    same_webp(taken, shown_by_webp(taken), result, keep)


def without(data, name):
    return riff(*(part for part in chunks(data) if part[0] != name))


STRIPPED = shrunk(RICH)


def test_what_is_the_same_passes():
    checked(RICH, STRIPPED)
    checked(RICH, RICH, {"exif", "xmp", "icc"})


@pytest.mark.parametrize("result", [
    b"", STRIPPED[:-2], RICH, without(STRIPPED, b"ICCP"), without(STRIPPED, b"EXIF"),
    without(STRIPPED, b"ANMF"), without(STRIPPED, b"ANIM"),
    with_chunk(STRIPPED, b"ICCP", lambda data: data[:-1] + b"!"),
    with_chunk(STRIPPED, b"EXIF", lambda data: exif([(0x0112, 5)])),
    with_chunk(STRIPPED, b"ANIM", lambda data: data[:4] + b"\5\0"),
    with_chunk(STRIPPED, b"ANMF", lambda data: data[:12] + b"\1" + data[13:]),
    with_chunk(STRIPPED, b"VP8X", lambda data: data[:4] + b"\x30" + data[5:]),
    with_chunk(STRIPPED, b"VP8X", lambda data: bytes([data[0] & ~0x20]) + data[1:]),
    with_chunk(STRIPPED, b"VP8X", lambda data: bytes([data[0] & ~0x02]) + data[1:]),
    riff(*chunks(STRIPPED), (b"ABCD", b"more")),
    riff(*chunks(STRIPPED), (b"XMP ", XMP)),
], ids=range(16))
def test_whatever_is_not_the_same_is_refused(result):
    with pytest.raises(Different):
        checked(RICH, result)


def test_the_same_pixels_coded_in_another_way_are_refused():
    one, other = (webp(lossless=True, method=method) for method in (0, 6))
    assert shown(one) == shown(other)
    with pytest.raises(Different, match="pixels"):
        checked(one, other)


def test_other_pixels_in_chunks_that_look_the_same_are_refused():
    """The decoder has a word too, not only our reading of the container."""
    original = rules.parse(webp(exif=CAMERA))
    with pytest.raises(Different, match="pixels"):
        same_webp(original, shown_by_webp(rules.parse(webp(quality=10))), shrunk(bytes(original)),
                  {"orientation"})


PIECES = st.tuples(st.sampled_from([b"VP8X", b"VP8 ", b"VP8L", b"ANIM", b"ANMF", b"ICCP", b"EXIF",
                                    b"XMP ", b"ALPH", b"ABCD"]),
                   st.one_of(st.binary(max_size=12), st.sampled_from([CAMERA, bytes(10)]),
                             st.sampled_from([data for _, data in chunks(webp())])))


@given(st.lists(PIECES, max_size=6), st.binary(max_size=3))
def test_no_sequence_of_chunks_brings_it_down(parts, trailing):
    result = shrunk(riff(*parts) + trailing)
    if not isinstance(result, str):
        assert picture(result) == [part for part in parts if part[0] in rules.PICTURE]


@given(st.lists(PIECES, min_size=1, max_size=6))
def test_chunks_come_apart_and_together_again(parts):
    try:
        assert bytes(rules.parse(riff(*parts))) == riff(*parts)
    except (Broken, LeaveAlone):
        assert parts[0][0] not in {b"VP8 "} or len(parts) > 1 or len(parts[0][1]) < 10
