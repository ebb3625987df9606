"""The walk held against the ledger, after every kind of edit somebody can make to a store."""

import os
import random
import shutil
import sqlite3
import time
from typing import NamedTuple

import pytest

from maintenance.ledger import images as pages
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Asked
from maintenance.store import merge
from maintenance.store import walk as blocks
from maintenance.store.identity import key_of, stamp
from maintenance.store.merge import Census, differences, take_census
from maintenance.store.walk import Unread, walk
from maintenance.verdict import CLEAN, Verdict, infected
from tests.processes import nobody
from tests.rows import all_rows
from tests.test_walk import NAMES

DAYS = 86400.0


class Counted(NamedTuple):
    """What a census came to."""

    images: int
    changed: int
    known: int
    gone: bool
    unread: list[tuple[bytes, str]]


def census(met, images, *, believe=False, dry=False):
    """Take a census of ``met``, or only foretell it."""
    with Census() as found:
        if dry:
            assert all(differences(met, images, found))
        else:
            take_census(met, images, found, believe=believe)
        return Counted(found.images, found.changed, found.known, found.gone, list(found.unread))


class Scene:
    """A store and its ledger."""

    def __init__(self, root):
        self.state, self.store = root / "state", os.fsencode(root / "store")
        self.state.mkdir()
        os.mkdir(self.store, 0o755)
        self.ledger = Ledger.open(self.state)
        self.images = self.ledger.images("uploads")

    def path(self, name):
        return os.path.join(self.store, name)

    def write(self, name, content=b"x"):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as stream:
            stream.write(content)

    def census(self, believe=True, dry=False):
        fd = os.open(self.store, os.O_RDONLY)
        try:
            with nobody():
                met = list(walk(fd))
        finally:
            os.close(fd)
        return census(met, self.images, believe=believe, dry=dry)

    def check_all(self, answer=CLEAN, generation=1):
        """Book an answer for every row."""
        self.images.record_answers(
            [Asked(row.key, row.stamp, answer) for row in all_rows(self.images)], generation)

    def rows(self):
        return {row.path: row for row in all_rows(self.images)}

    def days_pass(self, days):
        """What has been missing has been so for longer."""
        with sqlite3.connect(self.state / "ledger.sqlite") as connection:
            connection.execute("UPDATE images SET missing_since = missing_since - ?",
                               (days * DAYS,))
        connection.close()


@pytest.fixture
def scene(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


@pytest.fixture
def small_pages(monkeypatch):
    """Many pages and batches even of a small store."""
    monkeypatch.setattr(pages, "PAGE", 4)
    monkeypatch.setattr(merge, "BATCH", 3)
    monkeypatch.setattr(blocks, "BLOCK", 5)


def on_disk(store):
    found = {}
    for place, _, files in os.walk(store):
        for name in files:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                found[os.path.relpath(path, store)] = stamp(os.lstat(path))
    return found


def edit(rng, scene):
    """Do one random thing to the store."""
    there = sorted(on_disk(scene.store))
    name = os.path.join(*rng.choices(NAMES[:14], k=rng.randint(1, 3)))
    deed = rng.choice(["write"] * 3 + ["remove", "move", "link", "touch", "tree", "swap"])
    try:
        if deed == "write" or not there:
            scene.write(name, rng.randbytes(rng.randint(0, 9)))
        elif deed == "remove":
            os.unlink(scene.path(rng.choice(there)))
        elif deed == "move":
            os.rename(scene.path(rng.choice(there)), scene.path(name))
        elif deed == "link":
            victim = scene.path(rng.choice(there))
            os.unlink(victim)
            os.symlink("nowhere", victim)
        elif deed == "touch":
            os.utime(scene.path(rng.choice(there)), ns=(0, rng.randrange(2**62)))
        elif deed == "tree":
            top = rng.choice(there).split(b"/")[0]
            if os.path.isdir(scene.path(top)):
                shutil.rmtree(scene.path(top))
        else:
            top = scene.path(rng.choice(there).split(b"/")[0])
            os.rename(top, top[:-1] + b"~")
    except OSError:
        return


@pytest.mark.parametrize("seed", range(12))
def test_after_any_edits_the_ledger_says_what_the_disk_shows(scene, small_pages, seed):
    rng = random.Random(seed)
    for generation in range(1, 6):
        before = scene.rows()
        for _ in range(rng.randint(0, 25)):
            edit(rng, scene)
        disk = on_disk(scene.store)
        foretold = scene.census(dry=True)
        assert scene.rows() == before, "counting writes nothing"
        found = scene.census()
        rows = scene.rows()
        assert found.images == foretold.images == len(disk)
        assert found.known == foretold.known == sum(not row.missing for row in before.values())
        assert {path for path, row in rows.items() if not row.missing} == set(disk)
        assert {path for path, row in rows.items() if row.missing} == set(before) - set(disk)
        changed = {path for path, now in disk.items()
                   if path not in before or before[path].stamp != now}
        assert found.changed == foretold.changed == len(changed)
        for path, now in disk.items():
            assert rows[path].stamp == now
            kept = None if path in changed else before[path].verdict
            assert rows[path].verdict == kept
        scene.check_all(rng.choice([CLEAN, infected("Test.Bad")]), generation)


def test_an_unchanged_image_keeps_its_verdict_and_a_changed_one_forgets_it(scene):
    for name in (b"same", b"changed", b"replaced"):
        scene.write(name)
    scene.census()
    scene.check_all(infected("Test.Bad"), 7)
    scene.write(b"changed", b"y")
    scene.write(b"draft")
    os.rename(scene.path(b"draft"), scene.path(b"replaced"))
    scene.census()
    rows = scene.rows()
    same = rows[b"same"]
    assert (same.verdict, same.signature, same.generation) == (Verdict.INFECTED, "Test.Bad", 7)
    for name in (b"changed", b"replaced"):
        row = rows[name]
        assert (row.verdict, row.signature, row.generation, row.checked) == (None,) * 4


def test_an_image_whose_size_and_time_were_put_back_is_changed_all_the_same(scene):
    scene.write(b"a", b"before")
    scene.census()
    scene.check_all()
    info = os.lstat(scene.path(b"a"))
    time.sleep(0.02)  # longer than a tick of the kernel's clock
    scene.write(b"a", b"after!")
    os.utime(scene.path(b"a"), ns=(info.st_atime_ns, info.st_mtime_ns))
    scene.census()
    assert scene.rows()[b"a"].verdict is None


def test_a_row_goes_only_after_two_complete_readings_a_day_apart(scene):
    scene.write(b"d/gone")
    scene.write(b"d/stays")
    scene.census()
    os.unlink(scene.path(b"d/gone"))
    scene.census()
    assert scene.rows()[b"d/gone"].missing
    scene.days_pass(0.9)
    scene.census()
    assert scene.rows()[b"d/gone"].missing
    scene.days_pass(0.2)
    scene.census()
    assert set(scene.rows()) == {b"d/stays"}


def test_an_image_that_comes_back_unchanged_is_as_if_it_had_never_gone(scene):
    scene.write(b"a")
    scene.write(b"b")
    scene.census()
    scene.check_all(CLEAN, 3)
    os.rename(scene.path(b"a"), scene.path(b".imagewarden-aside"))
    scene.census()
    assert scene.rows()[b"a"].missing
    os.rename(scene.path(b".imagewarden-aside"), scene.path(b"a"))
    scene.census()
    row = scene.rows()[b"a"]
    assert not row.missing
    # The renames moved its ctime: it is new, and asked about again.
    assert row.stamp == on_disk(scene.store)[b"a"]
    scene.check_all(CLEAN, 3)
    os.rename(scene.store, scene.store + b"-aside")
    os.mkdir(scene.store)
    scene.census()
    assert all(row.missing for row in scene.rows().values())
    os.rmdir(scene.store)
    os.rename(scene.store + b"-aside", scene.store)
    scene.census()
    assert all(not row.missing and row.verdict is Verdict.CLEAN for row in scene.rows().values())
    scene.days_pass(5)
    scene.census()
    assert set(scene.rows()) == {b"a", b"b"}


def test_what_lies_in_an_unreadable_directory_is_not_missing(scene):
    for name in (b"a/x", b"closed", b"d/listed/x", b"d/listed/y/z", b"d/shut/x", b"d-", b"z"):
        scene.write(name)
    scene.census()
    before = scene.rows()
    os.chmod(scene.path(b"d/listed"), 0o444)
    os.chmod(scene.path(b"d/shut"), 0)
    try:
        for _ in range(3):
            found = scene.census()
            scene.days_pass(2)
            assert scene.rows() == before
    finally:
        os.chmod(scene.path(b"d/listed"), 0o755)
        os.chmod(scene.path(b"d/shut"), 0o755)
    assert {key for key, _ in found.unread} == {b"d\0listed\0x", b"d\0listed\0y", b"d\0shut"}
    assert (found.images, found.known) == (4, 4)
    assert not found.gone


def test_a_store_that_cannot_be_read_at_all_loses_nothing(scene):
    for name in (b"a", b"b/c"):
        scene.write(name)
    scene.census()
    before = scene.rows()
    found = census([Unread(b"", "Input/output error")], scene.images)
    assert scene.rows() == before
    assert found == Counted(0, 0, 0, False, [(b"", "Input/output error")])


def test_a_directory_that_becomes_an_image_and_back(scene):
    scene.write(b"n/x")
    scene.write(b"n-/x")
    scene.census()
    shutil.rmtree(scene.path(b"n"))
    scene.write(b"n")
    scene.census()
    assert {path: row.missing for path, row in scene.rows().items()} == {
        b"n": False, b"n/x": True, b"n-/x": False}
    os.unlink(scene.path(b"n"))
    scene.write(b"n/x")
    scene.census()
    assert {path: row.missing for path, row in scene.rows().items()} == {
        b"n": True, b"n/x": False, b"n-/x": False}


@pytest.mark.parametrize(("left", "gone"), [(0, True), (4, True), (5, False), (10, False)])
def test_under_half_of_what_is_known_is_not_believed(scene, left, gone):
    for number in range(10):
        scene.write(b"%d" % number)
    scene.census()
    for number in range(left, 10):
        os.unlink(scene.path(b"%d" % number))
    assert scene.census(believe=False).gone is gone
    assert scene.census(dry=True).gone is gone


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_a_walk_that_is_not_believed_changes_nothing_unless_told_to(scene, monkeypatch, batch):
    monkeypatch.setattr(merge, "BATCH", batch)
    for number in range(40):
        scene.write(b"%02d" % number)
    scene.census()
    scene.check_all()
    before = scene.rows()
    for number in range(30):
        os.unlink(scene.path(b"%02d" % number))
    scene.write(b"35", b"another disk's image")
    scene.write(b"new")
    assert scene.census(believe=False).gone
    assert scene.rows() == before
    assert scene.census().gone
    rows = scene.rows()
    assert rows[b"35"].verdict is None
    assert not rows[b"new"].missing
    assert sum(row.missing for row in rows.values()) == 30


def test_an_empty_store_that_was_never_full_is_believed(scene):
    assert not scene.census().gone


def test_what_an_unbelieved_walk_did_not_meet_is_not_held_against_it(scene):
    for number in range(4):
        scene.write(b"%d" % number)
    scene.census()
    shutil.move(scene.store, scene.store + b"-aside")
    os.mkdir(scene.store)
    assert scene.census(believe=False).gone
    os.rmdir(scene.store)
    shutil.move(scene.store + b"-aside", scene.store)
    scene.census()
    assert not any(row.missing for row in scene.rows().values())


def test_a_walk_that_dies_marks_nothing_missing(scene):
    for name in (b"a", b"b", b"z"):
        scene.write(name)
    scene.census()
    before = scene.rows()
    last = next(scene.images.pages())[2:]

    def dying():
        yield last
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        census(dying(), scene.images, believe=True)
    assert scene.rows() == before


def test_stores_do_not_touch_each_other(scene):
    scene.write(b"a")
    scene.census()
    other = scene.ledger.images("other")
    census([], other)
    assert not scene.rows()[b"a"].missing


def test_memory_stays_flat_while_a_large_store_is_walked(scene):
    def counted():
        for first in range(0, 30_000, 1000):
            # Never more than a batch or two ahead of what is written.
            assert scene.images.count() >= first - 2 * merge.BATCH
            yield [(b"%08d" % number, number, 1, 1, 1, None)
                   for number in range(first, first + 1000)]

    census(counted(), scene.images)
    assert scene.images.count() == 30_000
    assert [key for page in scene.images.pages() for key, *_ in page] == [
        b"%08d" % n for n in range(30_000)]
    assert key_of(b"a/b") == b"a\0b"
