"""Odd images, as they are and broken at random: the same and smaller, or untouched and named.

What is the same is not for us to say here, but for ImageMagick, djpeg, Pillow and a decoder of
PNGs that owes nothing to ours.
"""

import json
import os
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from maintenance.images.outcomes import Damaged, Kept, Smaller
from maintenance.images.recipe import Recipe
from maintenance.images.workers import Source, Workers
from maintenance.settings import Optimize
from tests import comparer, odd_images
from tests.images import SIGNATURE, colours
from tests.test_optimize import counts, drafts, optimize

pytestmark = pytest.mark.once

TOOLS = [("oxipng", "mozjpeg"), ("optipng", "jpegtran")]


def damage(before: Path, after: Path) -> list[str]:
    """Name what differs between an image and what became of it."""
    old, new = before.read_bytes(), after.read_bytes()
    if old.startswith(SIGNATURE):
        differs = colours(old) != colours(new)
    else:
        differs = old.startswith(b"\xff\xd8") and decoded(before) != decoded(after)
    found = ["pixels, by the letter"] * differs
    try:
        comparer.facts(before)
    except (OSError, SyntaxError):
        return found  # broken as it is, it tells nothing to compare
    return found + comparer.damage(before, after, upright=False)


def decoded(path: Path) -> bytes:
    """Pixels of a JPEG by djpeg; those of inks, which it cannot put out, are left to others."""
    return subprocess.run(["djpeg", "-pnm", path], capture_output=True, check=False).stdout


def told(paths: list[Path]) -> dict[str, dict]:
    """What files say, by exiftool."""
    ran = subprocess.run(["exiftool", "-j", "-G1", *paths], capture_output=True, check=False)
    return {Path(one["SourceFile"]).name: one for one in json.loads(ran.stdout)}


@pytest.fixture
def site(site):
    site.settings["optimize"] = {"window": ""}
    site.write_config()
    return site


@pytest.mark.server
@pytest.mark.parametrize(("png", "jpeg"), TOOLS)
def test_each_odd_image_is_the_same_and_smaller_or_untouched_and_named(site, png, jpeg):
    site.settings["optimize"] |= {"png": png, "jpeg": jpeg}
    site.write_config()
    originals = site.root / "originals"
    originals.mkdir()
    good, bad = odd_images.good(), odd_images.bad()
    for name, data in {**good, **bad}.items():
        site.image(name, data)
        (originals / name).write_bytes(data)
    status, result = optimize(site)
    assert status == 3
    undone = {one["path"]: one["reason"] for one in result["undone"]}
    kept = {one["path"]: one["reason"] for one in result["kept"]}
    assert set(undone) == set(bad), "what is broken is undone, and nothing else is"
    assert set(kept) == {"moving.png", "arithmetic.jpg", "two in one.jpg", "ultra hdr.jpg",
                         "still.gif", "moving.gif"}
    changed = [name for name in good if (site.store / name).read_bytes() != good[name]]
    same = set(good) - set(changed) - set(kept)
    assert len(same) == result["kept_reasons"].get("nothing to gain", 0)
    assert same <= {"plain lossy.webp", "plain lossless.webp", "optimised.jpg", "progressive.jpg"}
    for name, data in bad.items():
        assert (site.store / name).read_bytes() == data
    for name in kept:
        assert (site.store / name).read_bytes() == good[name]
    assert len(changed) > 90
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        harm = dict(zip(changed, pool.map(lambda name: damage(originals / name, site.store / name),
                                          changed), strict=True))
    assert {name: what for name, what in harm.items() if what} == {}
    assert all((site.store / name).stat().st_size < len(good[name]) for name in changed)
    stated(site.store, changed)
    sums = {kind: one["shrunk"] for kind, one in result["formats"].items()}
    assert sums == {**Counter(kind_of(name) for name in changed), "gif": 0, "other": 0}
    assert not drafts(site)
    assert counts(optimize(site)[1]) == {
        "current": len(changed) + len(same), "kept": len(kept) + len(bad)}


def kind_of(name):
    return {"jpg": "jpeg"}.get(name.rpartition(".")[2], name.rpartition(".")[2])


def stated(store, changed):
    """A portrait stands upright, nobody learns where it was taken."""
    after = told([store / name for name in changed])
    for turn in range(1, 9):
        name = f"orientation {turn}.jpg"
        assert comparer.facts(store / name).size == ((160, 120) if turn < 5 else (120, 160))
    for name in ("portrait.png", "thumbnail.jpg", "lossy.webp", "moving lossless.webp"):
        assert "Rotate 90" in str(after[name]), name
    for words in after.values():
        assert not {one for one in words if one.startswith(("GPS:", "IFD1:"))
                    or one in {"IFD0:Make", "IFD0:Copyright"}}


@pytest.mark.server
def test_copyright_stays_when_it_is_asked_for_and_the_place_goes(site):
    site.settings["optimize"]["keep_metadata"] = ["icc", "orientation", "copyright"]
    site.write_config()
    good = odd_images.good()
    names = ["orientation 6.jpg", "portrait.png", "lossy.webp"]
    for name in names:
        site.image(name, good[name])
    before = told([site.store / name for name in names])
    assert all("GPS:GPSLatitude" in words for words in before.values())
    assert counts(optimize(site)[1]) == {"shrunk": 3}
    for words in told([site.store / name for name in names]).values():
        assert words["IFD0:Copyright"] == "(c) Somebody"
        assert words["IFD0:Orientation"] == "Rotate 90 CW"
        assert not {one for one in words if one.startswith("GPS:") or one == "IFD0:Make"}


def attack(place: Path, seed: int, count: int) -> Counter:
    """Give ``count`` broken images to real workers; what came of them, all of it good."""
    chance = Random(seed)
    whole = [(name, data) for name, data in odd_images.good().items() if len(data) < 20000]

    def sources():
        for number in range(count):
            name, data = chance.choice(whole)
            path = place / f"{number}.{name.rpartition('.')[2]}"
            path.write_bytes(odd_images.mutated(data, chance))
            yield Source(path, os.open(path, os.O_RDONLY))

    found = Counter()
    recipe = Recipe.of(Optimize(png=chance.choice(["auto", "optipng"])))
    with Workers(recipe, Optimize(), 2) as hands, ThreadPoolExecutor(2) as pool:
        judged = []
        for result in hands.over(sources()):
            os.close(result.fd)
            found[type(result.outcome).__name__] += 1
            if isinstance(result.outcome, Smaller):
                judged.append(pool.submit(judge, result))
            else:
                assert isinstance(result.outcome, Kept | Damaged)
                result.what.unlink()
        for verdict in judged:
            verdict.result()
    return found


def judge(result) -> None:
    """Hold a replacement against what it is to replace."""
    after = result.what.with_name(f"after {result.what.name}")
    with os.fdopen(result.outcome.result, "rb") as stream:
        after.write_bytes(stream.read())
    assert after.stat().st_size < result.what.stat().st_size
    assert damage(result.what, after) == [], result.what
    after.unlink()
    result.what.unlink()


broken_images = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow says of them


@broken_images
def test_bits_flipped_and_ends_cut_off_bring_nothing_down_and_nothing_bad_up(tmp_path):
    found = attack(tmp_path, 1, 60)
    assert sum(found.values()) == 60
    assert all(found[name] for name in ("Smaller", "Kept", "Damaged"))


@broken_images
@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(2, 6))
def test_thousands_of_broken_images_bring_nothing_down_and_nothing_bad_up(tmp_path, seed):
    found = attack(tmp_path, seed, 1500)
    assert sum(found.values()) == 1500
    assert min(found[name] for name in ("Smaller", "Kept", "Damaged")) > 30
