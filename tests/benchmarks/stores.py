"""Stores of images as a site's uploads look, the same for the same numbers."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

from PIL import Image, PngImagePlugin

from maintenance.demo.pictures import photo
from tests.benchmarks import signatures
from tests.benchmarks.signatures import Planted

SEED = 20261125
SCENE = (4000, 3000)  # pixels; every picture is a part of one scene
SHAPES = ((4, 3), (3, 2), (16, 9), (1, 1), (3, 4))
JPEGS = 0.7  # of all images
# Bytes that a pixel of our scene takes in a file.
JPEG_DENSITY, PNG_DENSITY = 0.17, 1.3
# Sizes follow a log-normal distribution: with a mean of 67 kB half of them are below 37 kB, one in
# ten is above 150 kB, and the largest have some MB.
SPREAD, LARGEST = 1.1, 60.0
TINY = 1000  # bytes, at most


def make(store: Path, count: int, total: int) -> list[Planted]:
    """Make ``count`` images of about ``total`` bytes; return those that are infected."""
    chance = Random(SEED)
    scene = photo(chance, SCENE)
    draws = [min(chance.lognormvariate(0, SPREAD), LARGEST) for _ in range(count)]
    unit = total / sum(draws)
    plants = dict(zip(range(count // 8, count, max(1, count // 5)), signatures.plants(),
                      strict=False))
    infected = []
    for number, draw in enumerate(draws):
        suffix, content = _picture(chance, scene, number, int(draw * unit))
        path = place(number, suffix)
        if number in plants:
            content, planted = plants[number].into(path, content)
            infected.append(planted)
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(content)
    return infected


def make_tiny(store: Path, count: int) -> None:
    """Make ``count`` small files; they are holes, so that they take no room and are soon gone."""
    made = set()
    for number in range(count):
        path = f"{store}/{place(number, 'jpg')}"
        directory = os.path.dirname(path)
        if directory not in made:
            os.makedirs(directory)
            made.add(directory)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.ftruncate(fd, 1 + number % TINY)
        os.close(fd)


def place(number: int, suffix: str) -> str:
    """Return where an image lies: two levels of at most 100 directories each."""
    return f"{number % 100:02}/{number // 100 % 100:02}/upload-{number:07}.{suffix}"


def paths(store: Path) -> Iterator[Path]:
    """Yield every image of a store."""
    yield from sorted(path for path in store.rglob("*") if path.is_file())


def _picture(chance: Random, scene: Image.Image, number: int, size: int) -> tuple[str, bytes]:
    """Return an image of about ``size`` bytes; its number in it makes it unlike all others."""
    jpeg = chance.random() < JPEGS
    part = _cut(chance, scene, size / (JPEG_DENSITY if jpeg else PNG_DENSITY))
    stream = BytesIO()
    if jpeg:
        part.save(stream, "JPEG", quality=chance.choice((75, 85, 85, 92)),
                  progressive=chance.random() < 0.3, comment=f"image {number}")
        return "jpg", stream.getvalue()
    note = PngImagePlugin.PngInfo()
    note.add_text("Title", f"image {number}")
    part.save(stream, "PNG", pnginfo=note)
    return "png", stream.getvalue()


def _cut(chance: Random, scene: Image.Image, pixels: float) -> Image.Image:
    across, down = chance.choice(SHAPES)
    unit = (pixels / (across * down)) ** 0.5
    width = min(max(8, int(across * unit)), SCENE[0])
    height = min(max(8, int(down * unit)), SCENE[1])
    left, top = (chance.randrange(room + 1) for room in (SCENE[0] - width, SCENE[1] - height))
    return scene.crop((left, top, left + width, top + height))
