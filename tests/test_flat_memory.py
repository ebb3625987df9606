"""Ten times as many images take no more memory: neither walk, nor ledger, nor report."""

import os
import tracemalloc
from contextlib import contextmanager

import pytest

from maintenance.ledger import images as pages
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Asked, Need
from maintenance.store import listing, merge
from maintenance.store import walk as walking
from maintenance.store.merge import Census, take_census
from maintenance.store.walk import walk
from maintenance.verdict import Verdict, unknown

pytestmark = pytest.mark.once

FEW, MANY = 600, 6_000
ROOM = 100_000  # bytes; the names of MANY images alone take three times as much


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    """What is in memory at once is little even beside FEW."""
    for module, name, size in ((listing, "RUN", 300), (listing, "PAGE", 10), (merge, "BATCH", 50),
                               (walking, "BLOCK", 50), (pages, "PAGE", 50)):
        monkeypatch.setattr(module, name, size)


@contextmanager
def store(place, count):
    """A directory of so many images, open, and their rows in a ledger of its own."""
    (place / "store").mkdir(parents=True)
    fd = os.open(place / "store", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(count):
        os.close(os.open(f"image-{number:06}.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    try:
        with Ledger.open(place) as ledger:
            yield fd, ledger.images("s")
    finally:
        os.close(fd)


def peak(deed):
    """How many bytes a deed has in use at most, beside what it began with."""
    tracemalloc.start()
    try:
        deed()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def census(met, images):
    with Census() as counted:
        take_census(met, images, counted, believe=True)


def peaks(place, count):
    """What the phases of a run take, one after the other."""
    with store(place, count) as (fd, images):
        census(list(walk(fd))[:1], images)  # and SQLAlchemy has learned the statements
        found = {"all new": peak(lambda: census(walk(fd), images)),
                 "no change": peak(lambda: census(walk(fd), images))}
        for page in list(images.pages()):
            images.record_answers([Asked(key, tuple(stamp), unknown("why"))
                                   for key, *stamp, _ in page], 1)
        found["due"] = peak(lambda: sum(1 for _ in images.due(Need(2, 2e9))))
        found["listed"] = peak(lambda: sum(1 for _ in images.with_verdict(Verdict.UNKNOWN)))
        found["all missing"] = peak(lambda: census([], images))
        found["all back"] = peak(lambda: census(walk(fd), images))
        return found


def test_memory_is_flat_in_the_number_of_images(tmp_path):
    few, many = peaks(tmp_path / "few", FEW), peaks(tmp_path / "many", MANY)
    grown = {phase: many[phase] - few[phase] for phase in few}
    assert {phase: size for phase, size in grown.items() if size > ROOM} == {}
