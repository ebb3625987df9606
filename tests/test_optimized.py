"""The optimiser's rows in the ledger, and a ledger of an older version."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from maintenance.errors import LedgerError
from maintenance.ledger import optimized
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.optimized import Settled
from maintenance.ledger.rows import Asked, Seen
from maintenance.ledger.schema import VERSION
from maintenance.verdict import CLEAN, Verdict, infected, unknown

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
    ledger.images("s").record_seen([Seen(key, stamp, changed=True)
                                    for key, stamp in stamps.items()])
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
    ledger.images("s").record_seen([Seen(b"changed", (9, 70, 9, 9), changed=True)])
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


def test_the_order_comes_from_an_index(tmp_path, ledger):
    met(ledger, a=1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT * FROM images WHERE store = 's' AND (size, key) < (5, x'00')"
            " ORDER BY size DESC, key DESC LIMIT 10").fetchall()
    assert "images_size" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def test_every_kind_of_change_makes_an_image_due_and_its_hash_tells_it_again(ledger):
    images = ledger.optimized("s", "r")
    changes = {b"size": (1, 11, 101, 201), b"mtime": (2, 10, 0, 202), b"ctime": (3, 10, 103, 0),
               b"inode": (0, 10, 104, 204), b"none": (5, 10, 105, 205)}
    before = {key: (number, 10, 100 + number, 200 + number)
              for number, key in enumerate(changes, 1)}
    ledger.images("s").record_seen([Seen(key, stamp, changed=True)
                                    for key, stamp in before.items()])
    images.settle([Settled(key, stamp, key * 3, None, 7) for key, stamp in before.items()])
    ledger.images("s").record_seen([Seen(key, stamp, changed=True)
                                    for key, stamp in changes.items()])
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


def test_nothing_is_recorded_of_an_image_that_is_another_by_now(ledger):
    stamps = met(ledger, a=1)
    images = ledger.optimized("s", "r")
    ledger.images("s").record_seen([Seen(b"a", (9, *stamps[b"a"][1:]), changed=True)])
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
    ledger.images("s").record_seen([Seen(b"a", (77, 60, 100, 999), changed=True)])  # the next walk
    candidate, = images.due()
    assert (candidate.expected, candidate.saved) == (b"hash", 40)


# --- migration


def old_ledger(state, content=None):
    """What version 1 wrote; it was dumped by version 1 itself."""
    with closing(sqlite3.connect(state / FILE)) as connection:
        connection.executescript(content or (ROOT / "tests/ledger-1.sql").read_text())


def version(state):
    with closing(sqlite3.connect(state / FILE)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def schema(state):
    with closing(sqlite3.connect(state / FILE)) as connection:
        columns = {table: connection.execute(f"SELECT name, type, \"notnull\", dflt_value, pk"
                                             f" FROM pragma_table_info('{table}')").fetchall()
                   for table, in connection.execute(
                       "SELECT name FROM sqlite_master WHERE type = 'table'")}
        return columns, sorted(connection.execute(
            "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'").fetchall())


def test_a_ledger_of_version_1_is_brought_up_to_date_and_nothing_is_lost(tmp_path):
    for state in ("old", "new"):
        (tmp_path / state).mkdir()
    old_ledger(tmp_path / "old")
    with Ledger.open(tmp_path / "new"):
        pass
    for _ in range(2):
        with Ledger.open(tmp_path / "old") as ledger:
            assert ledger.rebuilt is None
            rows = {row.key: row.verdict for row in ledger.images("uploads").in_order()}
            assert rows == {b"bad.png": Verdict.INFECTED, b"new.png": None,
                            b"sub\0clean.png": Verdict.CLEAN}
            assert ledger.generations.current().fingerprint == "f1"
            assert (ledger.last_rescan(), ledger.outbox_state()[0]) == (1, 1)
            assert tally(ledger.optimized("uploads", "r")) == (2, 0, {"infected": 1})
    assert version(tmp_path / "old") == VERSION
    assert schema(tmp_path / "old") == schema(tmp_path / "new")


def test_an_older_ledger_in_use_is_left_alone(tmp_path):
    old_ledger(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + """
from pathlib import Path
from maintenance.ledger.ledger import Ledger
with Ledger.open(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            connection.execute("PRAGMA user_version = 1")  # as if it were a version older
        with pytest.raises(LedgerError, match="when no other job runs"):
            Ledger.open(tmp_path)
        assert version(tmp_path) == 1
        other.communicate()


def test_a_migration_killed_anywhere_is_done_by_the_next_job(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + """
import os, signal
from pathlib import Path
from maintenance.ledger import migrations
from maintenance.ledger.ledger import Ledger
real, steps = migrations._STEPS[1], int(sys.argv[2])
class Deadly:
    def __iter__(self):
        for number, statement in enumerate(real):
            if number == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement
        if steps == len(real):
            os.kill(os.getpid(), signal.SIGKILL)
migrations._STEPS[1] = Deadly()
Ledger.open(Path(sys.argv[1]))
"""
    for step in range(4):
        state = tmp_path / str(step)
        state.mkdir()
        old_ledger(state)
        died = subprocess.run([sys.executable, "-c", code, state, str(step)], check=False)
        assert died.returncode == -9
        with Ledger.open(state) as ledger:
            assert ledger.rebuilt is None
            assert ledger.images("uploads").count() == 3
        assert version(state) == VERSION


def test_what_only_says_that_it_is_of_an_older_version_is_damage(tmp_path):
    with Ledger.open(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(LedgerError, match="duplicate column"):
        Ledger.open(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        assert "damaged" in ledger.rebuilt


def test_a_planted_file_in_the_place_of_the_users_lock_is_not_followed(tmp_path):
    (tmp_path / "ledger.users").symlink_to(tmp_path / "victim")
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path)
    assert not (tmp_path / "victim").exists()
    os.unlink(tmp_path / "ledger.users")
    shutil.rmtree(tmp_path)
