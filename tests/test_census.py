"""The census against a naive one: any walk, any ledger, cut into blocks and pages anywhere."""

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maintenance.jobs.refuted import Refuted
from maintenance.ledger import images as pages
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Need
from maintenance.store import merge
from maintenance.store.merge import Census, differences, take_census
from maintenance.store.walk import Passed, Unread

pytestmark = pytest.mark.once

DAY = 86400.0
NOW = time.time()
# Few names, with the bytes next to the separator in them: so keys meet, and lie inside others.
KEYS = st.lists(st.sampled_from([b"a", b"a\1", b"a\1\1", b"a-", b"b", b"\xff"]), min_size=1,
                max_size=3).map(b"\0".join)
STAMPS = st.tuples(*[st.integers(1, 2)] * 4)
SINCE = st.sampled_from([None, None, None, 0.0, NOW - 0.5 * DAY, NOW - 2 * DAY])
ROWS = st.dictionaries(KEYS, st.tuples(STAMPS, SINCE, st.booleans()), max_size=12)


def below(key, unread):
    """Whether ``key`` is, or lies in, what could not be read."""
    return any(not one or key == one or key.startswith(one + b"\0") for one in unread)


@st.composite
def walks(draw):
    """What a walk may meet, as a mapping, and as it comes; images of a ledger among them."""
    rows = draw(ROWS)
    unread = draw(st.sets(KEYS, max_size=2))
    unread = {one for one in unread if not below(one, unread - {one})}
    if draw(st.integers(0, 19)) == 0:
        unread = {b""}
    images = {key: stamp for key, (stamp, _, _) in rows.items() if draw(st.booleans())}
    images |= draw(st.dictionaries(KEYS, STAMPS, max_size=12))
    images = {key: stamp for key, stamp in images.items() if not below(key, unread)}
    met, block = [], []
    for key in sorted([*images, *unread]):
        if key in unread or len(block) == draw(st.integers(1, 4)):
            met.append(block)
            block = []
        if key in unread:
            met.append(Unread(key, "why"))
        else:
            block.append((key, *images[key], None))
        if draw(st.integers(0, 9)) == 0:
            met.append(Passed(key + b"~"))
    return rows, images, unread, [one for one in [*met, block] if one != []]


def naive(rows, images, unread, believe):
    """What must stand in the ledger after the walk, and whether it is not to be believed."""
    after = dict(rows)
    known = sum(since is None and not below(key, unread) for key, (_, since, _) in rows.items())
    gone = known > 0 and 2 * len(images) < known
    if gone and not believe:
        return after, known, gone
    for key, stamp in images.items():
        before = rows.get(key)
        after[key] = (stamp, None, before is not None and before[0] == stamp and before[2])
    for key, (stamp, since, clean) in rows.items():
        if key in images or below(key, unread):
            continue
        if since is None or since == 0.0:
            after[key] = (stamp, "now", clean)
        elif since <= NOW - DAY:
            del after[key]
    return after, known, gone


@pytest.fixture(scope="module")
def place():
    """A ledger, with a store for every example."""
    state = Path(tempfile.mkdtemp())
    with Ledger.open(state) as ledger:
        connection = sqlite3.connect(state / "ledger.sqlite", isolation_level=None)
        yield ledger, connection
        connection.close()
    shutil.rmtree(state)


class Example:
    """A store of the ledger, with these rows; those that are clean are so at generation 1."""

    number = 0

    def __init__(self, place, rows):
        ledger, self.connection = place
        Example.number += 1
        self.store = f"store {self.number}"
        self.images = ledger.images(self.store)
        self.connection.executemany(
            "INSERT INTO images (store, key, inode, size, mtime_ns, ctime_ns, missing_since,"
            " verdict, generation, checked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(self.store, key, *stamp, since, *(("clean", 1, 1.0) if clean else (None,) * 3))
             for key, (stamp, since, clean) in rows.items()])

    def rows(self):
        return {row[0]: (row[1:5], "now" if row[5] and row[5] > NOW - 60 else row[5],
                         row[6] == "clean")
                for row in self.connection.execute(
                    "SELECT key, inode, size, mtime_ns, ctime_ns, missing_since, verdict"
                    " FROM images WHERE store = ?", (self.store,))}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Pages and batches that even the smallest ledger has several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE", 3)
        patch.setattr(merge, "BATCH", 2)
        yield


@settings(max_examples=300, deadline=None)
@given(walk=walks(), believe=st.booleans())
def test_a_census_is_what_comparing_every_image_with_every_row_comes_to(place, walk, believe):
    rows, images, unread, met = walk
    example = Example(place, rows)
    expected, known, gone = naive(rows, images, unread, believe)
    changed = sum(key not in rows or rows[key][0] != stamp for key, stamp in images.items())
    with Census() as foretold, Census() as census:
        for one in differences(met, example.images, foretold):
            assert one.keys
        assert example.rows() == rows, "looking writes nothing"
        take_census(met, example.images, census, believe=believe)
        for found in (foretold, census):
            assert (found.images, found.known, found.gone) == (len(images), known, gone)
            assert (found.changed, {key for key, _ in found.unread}) == (changed, unread)
            assert found.passed == sum(isinstance(one, Passed) for one in met)
    assert example.rows() == expected


@settings(max_examples=200, deadline=None)
@given(walk=walks(), full=st.booleans(), generation=st.integers(1, 2))
def test_a_dry_run_counts_as_due_what_would_be_due_after_a_census(place, walk, full, generation):
    rows, _, _, met = walk
    example, need = Example(place, rows), Need(generation, NOW, full)
    with Refuted() as refuted, Census() as census:
        for one in differences(met, example.images, census):
            refuted.note(one)
        foretold = example.images.count_due(need) + refuted.correction(example.images, need)
    with Census() as census:
        take_census(met, example.images, census, believe=True)
    assert foretold == example.images.count_due(need)
