"""The sample store holds what its description promises."""

import hashlib
import marshal
import os
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile

from maintenance.demo import kinds, samples
from maintenance.demo.samples import Samples, make_store
from maintenance.programs import find

pytestmark = [pytest.mark.server, pytest.mark.once]
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[Path, Samples]:
    root = tmp_path_factory.mktemp("samples") / "uploads"
    return root, make_store(root)


def regular_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def at(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def decoded(path: Path) -> Image.Image:
    image = Image.open(BytesIO(path.read_bytes()))
    image.load()
    return image


def photos(store) -> list[Image.Image]:
    root, made = store
    return [decoded(at(root, name)) for name in made.photos]


def png(store, name: str) -> Image.Image:
    return decoded(store[0] / f"2026/09/02/{name}.png")


def test_every_image_but_the_truncated_one_decodes(store):
    root, made = store
    files = regular_files(root)
    assert len(files) == made.images > 50
    broken = []
    for path in files:
        try:
            decoded(path)
        except OSError:
            broken.append(path)
    assert broken == [at(root, made.truncated)]
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_photographs_have_many_sizes_and_the_size_of_photographs(store):
    images = photos(store)
    assert len(images) == kinds.PHOTOS
    assert {image.size for image in images} == set(kinds.SIZES)
    for path in (at(store[0], name) for name in store[1].photos):
        with Image.open(path) as image:
            assert 0.04 < path.stat().st_size / (image.width * image.height) < 0.5


def test_photographs_are_of_every_kind(store):
    images = photos(store)
    assert {image.mode for image in images} == {"RGB", "L", "CMYK"}
    progressive = sum("progressive" in image.info for image in images)
    assert 0 < progressive < len(images)
    assert [image.getexif().get(ExifTags.Base.Orientation) for image in images].count(6) == 1


def test_colour_photographs_carry_a_place_and_a_profile(store):
    colour = [image for image in photos(store) if image.mode == "RGB"]
    assert len(colour) > 25
    for image in colour:
        place = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert {ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude} <= set(place)
        profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_pngs_have_every_pixel_format(store):
    modes = {"rgb": "RGB", "hidden-colours": "RGBA", "palette": "P", "palette-trns": "P",
             "grey": "L", "grey-16-bit": "I;16", "1-bit": "1", "interlaced": "RGB"}
    assert {name: png(store, name).mode for name in modes} == modes


def test_hidden_colours_differ_under_zero_alpha(store):
    image = png(store, "hidden-colours")
    hidden = {pixel[:3] for pixel in _pixels(image) if pixel[3] == 0}
    assert len(hidden) > 1000


def _pixels(image: Image.Image) -> list[tuple[int, ...]]:
    raw = image.tobytes()
    return list(zip(*(raw[band::4] for band in range(4)), strict=True))


def test_grey_of_16_bits_uses_its_low_bytes(store):
    raw = png(store, "grey-16-bit").tobytes()
    assert len(set(raw[0::2])) == 256 and raw[0::2] != raw[1::2]


def test_the_interlaced_png_is_the_plain_one_in_another_order(store):
    interlaced = png(store, "interlaced")
    assert interlaced.info["interlace"] == 1
    assert interlaced.tobytes() == png(store, "rgb").tobytes()


def test_chunks_of_pngs(store):
    info = png(store, "described").info
    assert info["gamma"] == pytest.approx(0.45455)
    assert info["chromaticity"][0] == pytest.approx(0.3127)
    assert {"Author", "Title"} <= set(info)
    assert png(store, "palette-trns").info["transparency"][:3] == bytes([0, 128, 255])


def test_animations_and_webps(store):
    folder = store[0] / "2026/09/02"
    delays = []
    for name in ("moving.png", "moving.gif"):
        with Image.open(folder / name) as image:
            assert image.n_frames == len(kinds.DELAYS)
            for frame in range(image.n_frames):
                image.seek(frame)
                image.load()
                delays.append(image.info["duration"])
    assert delays == [*kinds.DELAYS, *kinds.DELAYS]
    assert getattr(decoded(folder / "still.gif"), "n_frames", 1) == 1
    assert b"VP8L" in (folder / "lossless.webp").read_bytes()[:64]
    for name in ("lossy.webp", "lossless.webp"):
        assert decoded(folder / name).getexif().get_ifd(ExifTags.IFD.GPSInfo)


def test_awkward_names_and_a_way_out(store):
    root, made = store
    assert b"\n" in made.newline and at(root, made.newline).is_file()
    with pytest.raises(UnicodeDecodeError):
        made.not_utf8.decode()
    assert at(root, made.not_utf8).is_file()
    link = at(root, made.link)
    assert link.is_symlink() and not link.resolve().is_relative_to(root.resolve())


def test_each_marker_is_in_one_image_only(store):
    root, made = store
    files = {path: path.read_bytes() for path in regular_files(root)}
    assert [p for p, data in files.items() if samples.eicar() in data] == [at(root, made.infected)]
    assert [p for p, data in files.items() if samples.MARKER in data] == [
        at(root, made.infected_later)]
    assert [p for p, data in files.items() if samples.TRADEMARK in data] == [
        at(root, made.mistaken)]


def test_clamav_finds_exactly_what_each_signature_file_names(store, tmp_path):
    if find("clamscan") is None:
        pytest.skip("needs clamscan: run bin/setup")
    root, made = store
    assert found(root, tmp_path, samples.signatures_first()) == {made.infected}
    assert found(root, tmp_path, samples.signatures_second()) == {
        made.infected, made.infected_later, made.mistaken}
    assert found(root, tmp_path, samples.signatures_third()) == {
        made.infected, made.infected_later}


def found(root: Path, scratch: Path, signatures: bytes) -> set[bytes]:
    database = scratch / "demo.ndb"
    database.write_bytes(signatures)
    scan = subprocess.run(
        ["clamscan", "--recursive", "--no-summary", "--infected", f"--database={database}", root],
        capture_output=True, timeout=120)
    assert scan.returncode == 1, scan.stderr
    prefix = os.fsencode(root) + b"/"
    return {line.split(b": Demo.")[0].removeprefix(prefix) for line in scan.stdout.splitlines()}


def test_later_signatures_only_add_to_the_first():
    first, second, third = (samples.signatures_first(), samples.signatures_second(),
                            samples.signatures_third())
    assert third.startswith(first) and second.startswith(third)
    assert [text.count(b"\n") for text in (first, third, second)] == [1, 2, 3]


def test_the_same_seed_gives_the_same_bytes(store, tmp_path):
    root, made = store
    assert make_store(tmp_path / "again") == made
    for path in regular_files(root):
        assert (tmp_path / "again" / path.relative_to(root)).read_bytes() == path.read_bytes()
    make_store(tmp_path / "other", seed=2)
    photo = os.fsdecode(made.photos[0])
    assert (tmp_path / "other" / photo).read_bytes() != (root / photo).read_bytes()


def test_an_image_that_is_there_is_not_overwritten(tmp_path):
    kept = at(tmp_path, samples.INFECTED)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"somebody's own")
    with pytest.raises(FileExistsError):
        make_store(tmp_path)
    assert kept.read_bytes() == b"somebody's own"


@pytest.mark.may_skip("the unprivileged run works on a copy without .git")
def test_no_file_of_ours_would_alarm_a_scanner():
    listed = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, timeout=60)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    names = [name for name in listed.stdout.split(b"\0") if name]
    assert b"maintenance/demo/samples.py" in names
    harmful = (samples.eicar(), samples.eicar().hex().encode(), samples.eicar()[::-1])
    for name in names:
        path = at(CHECKOUT, name)
        content = path.read_bytes() if path.is_file() else b""
        assert not any(text in content for text in harmful), name


def test_the_compiled_module_would_not_either():
    source = Path(samples.__file__)
    code = compile(source.read_bytes(), source, "exec", optimize=2)
    assert samples.eicar() not in marshal.dumps(code)


def test_the_test_string_is_the_one_all_scanners_know():
    assert hashlib.sha256(samples.eicar()).hexdigest() == (
        "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f")
