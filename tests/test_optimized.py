"""The optimiser's rows in the ledger, and a ledger of an older version."""

import random
from pathlib import Path

import pytest

from maintenance.ledger import optimized
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.optimized import Settled
from maintenance.ledger.rows import Asked
from maintenance.verdict import CLEAN, Verdict, infected, unknown
from tests.rows import explained

ROOT = Path(__file__).parent.parent
FILE = "ledger.sqlite"


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path) as opened:
        yield opened


def met(ledger, **sizes):
    """Rows of images; their stamps by key."""
    stamps = {name.encode(): (number, size, 100 + number, 200 + number)
              for number, (name, size) in enumerate(sizes.items())}
    ledger.images("s").record_seen([(key, *stamp, None) for key, stamp in stamps.items()])
    return stamps


def tally(images):
    found = images.tally()
    return found.due, found.current, dict(found.kept)


# --- what is due


def test_the_largest_come_first_and_each_once_whatever_is_recorded_meanwhile(ledger, monkeypatch):
    monkeypatch.setattr(optimized, "PAGE", 7)
    rng = random.Random(4)
    stamps = met(ledger, **{f"k{number}": rng.randrange(20) for number in range(60)})
    images = ledger.optimized("s", "r")
    expected = sorted(stamps, key=lambda key: (stamps[key][1], key), reverse=True)
    came = []
    for number, candidate in enumerate(images.due()):
        came.append(candidate.key)
        if number % 2:
            images.settle([Settled(candidate.key, candidate.stamp, b"x", None, 0)])
    assert came == expected
    assert [one.key for one in images.due()] == expected[::2]
    assert [one.key for one in images.due(expected[:4])] == expected[:4:2]
    assert tally(images) == (30, 30, {})


def test_what_only_another_recipe_has_dealt_with_comes_last_and_not_all_at_once(ledger):
    stamps = met(ledger, old1=100, old2=90, old3=80, changed=70, new=10)
    older = ledger.optimized("s", "older")
    older.settle([Settled(key, stamps[key], b"x", reason, 0) for key, reason in (
        (b"old1", None), (b"old2", "a GIF"), (b"old3", None), (b"changed", None))])
    ledger.images("s").record_seen([(b"changed", 9, 70, 9, 9, None)])
    images = ledger.optimized("s", "newer")
    fresh, again = [b"changed", b"new"], [b"old1", b"old2", b"old3"]
    for limit, expected in ((None, fresh + again), (2, fresh + again[:2]), (0, fresh)):
        assert [one.key for one in images.due(again=limit)] == expected
    assert tally(images) == (5, 0, {})
    came = []
    for one in images.due():
        came.append(one.key)
        images.settle([Settled(one.key, one.stamp, b"y", None, 0)])
    assert came == fresh + again, "each once, though the first are dealt with by now"


def test_every_kind_of_change_makes_an_image_due_and_its_hash_tells_it_again(ledger):
    images = ledger.optimized("s", "r")
    changes = {b"size": (1, 11, 101, 201), b"mtime": (2, 10, 0, 202), b"ctime": (3, 10, 103, 0),
               b"inode": (0, 10, 104, 204), b"none": (5, 10, 105, 205)}
    before = {key: (number, 10, 100 + number, 200 + number)
              for number, key in enumerate(changes, 1)}
    ledger.images("s").record_seen([(key, *stamp, None) for key, stamp in before.items()])
    images.settle([Settled(key, stamp, key * 3, None, 7) for key, stamp in before.items()])
    ledger.images("s").record_seen([(key, *stamp, None) for key, stamp in changes.items()])
    due = {one.key: (one.expected, one.saved) for one in images.due()}
    assert due == {b"size": (None, 0), b"mtime": (b"mtime" * 3, 7), b"ctime": (b"ctime" * 3, 7)}
    assert ledger.optimized("s", "other").tally().due == 5
    other = {one.key: (one.expected, one.saved)
             for one in ledger.optimized("s", "other").due()}
    assert other[b"none"] == (None, 7), "another recipe looks at it, and adds to what is saved"


def test_reasons_are_told_and_infected_or_missing_images_are_not_due(ledger):
    stamps = met(ledger, a=1, b=2, c=3, d=4, e=5)
    images = ledger.optimized("s", "r")
    images.settle([Settled(b"a", stamps[b"a"], b"x", "hard link", 0),
                   Settled(b"b", stamps[b"b"], b"x", None, 0)])
    ledger.images("s").record_answers(
        [Asked(b"c", stamps[b"c"], infected("Test.Bad")),
         Asked(b"b", stamps[b"b"], CLEAN), Asked(b"d", stamps[b"d"], CLEAN)], 1)
    ledger.images("s").missing.vanished([b"e"])
    assert tally(images) == (1, 1, {"hard link": 1, "infected": 1})
    assert [one.key for one in images.due()] == [b"d"]
    assert tally(ledger.optimized("another store", "r")) == (0, 0, {})


def test_counting_and_choosing_read_the_rows_in_their_own_order(ledger):
    met(ledger, a=1)
    images = ledger.optimized("s", "r")
    with explained(images) as plans:
        tally(images)
        assert len(list(images.due())) == 1
    assert [plan for plan in plans if "images" in plan] == [
        "SEARCH images USING PRIMARY KEY (store=?)"] * 3


def test_nothing_is_recorded_of_an_image_that_is_another_by_now(ledger):
    stamps = met(ledger, a=1)
    images = ledger.optimized("s", "r")
    ledger.images("s").record_seen([(b"a", 9, *stamps[b"a"][1:], None)])
    images.settle([Settled(b"a", stamps[b"a"], b"x", None, 5)])
    assert tally(images) == (1, 0, {})
    assert next(images.due()).saved == 0


def test_a_replaced_image_is_clean_and_in_step_in_its_new_form(ledger):
    stamps = met(ledger, a=100, b=100)
    images, old, new = ledger.optimized("s", "r"), stamps[b"a"], (77, 60, 100, 999)
    ledger.images("s").record_answers([Asked(b"a", old, unknown("clamd hung up"))], 3)
    settled = Settled(b"a", old, b"hash", None, 40)
    images.intend(settled, 60)
    assert tally(images) == (2, 0, {}), "killed here, it is due"
    assert next(one for one in images.due() if one.key == b"a").expected is None
    images.replaced(settled, new, 4)
    row = ledger.images("s").find(b"a")
    assert (row.stamp, row.verdict, row.generation, row.reason) == (new, Verdict.CLEAN, 4, None)
    assert tally(images) == (1, 1, {})
    assert ledger.images("s").coverage(4).bytes_saved == 40
    unscanned = Settled(b"b", stamps[b"b"], b"hash b", None, 40)
    images.intend(unscanned, 60)
    images.replaced(unscanned, (78, 60, 101, 999), None)
    assert ledger.images("s").find(b"b").verdict is None


def test_a_run_killed_after_the_rename_left_what_its_work_is_known_by(ledger):
    stamps = met(ledger, a=100)
    images = ledger.optimized("s", "r")
    images.intend(Settled(b"a", stamps[b"a"], b"hash", None, 40), 60)
    ledger.images("s").record_seen([(b"a", 77, 60, 100, 999, None)])  # the next walk
    candidate, = images.due()
    assert (candidate.expected, candidate.saved) == (b"hash", 40)
