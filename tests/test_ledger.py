"""The ledger: what it answers, and what becomes of it when damaged, full, killed or shared."""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maintenance.errors import ImagewardenError, LedgerError, NoRoom
from maintenance.ledger import damage
from maintenance.ledger import images as pages
from maintenance.ledger.database import NETWORK
from maintenance.ledger.ledger import Ledger, Run
from maintenance.ledger.rows import Asked, Coverage, Need
from maintenance.ledger.schema import VERSION
from maintenance.verdict import CLEAN, Verdict, infected, unknown
from tests.rows import all_rows, explained

ROOT = Path(__file__).parent.parent
FILE = "ledger.sqlite"
ANSWERS = [CLEAN, infected("Test.Bad"), unknown("clamd hung up"), None]
FACTS = [{"name": "daily", "version": 1, "signatures": 2, "built": None, "sha256": "0" * 64}]
HEADER = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from maintenance.errors import *
from maintenance.ledger.rows import *
from maintenance.ledger.ledger import *
from maintenance.verdict import *
state = Path(sys.argv[2])
"""


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path) as opened:
        yield opened


def python(code, *arguments, wrap=()):
    """The command that runs ``code`` in a process of its own."""
    return [*wrap, sys.executable, "-c", HEADER + code, str(ROOT), *map(str, arguments)]


def seen(*keys, inode=1):
    return [(key, inode, 10, 20, 30, None) for key in keys]


def run_of(job, status=0, started=1.0, finished=2.0, generation=None):
    return Run(job, started, finished, "done", status, {"job": job, "ü": [1]}, generation)


def raw(state, statement, *values):
    connection = sqlite3.connect(state / FILE)
    with connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


# --- what it answers


def test_a_new_ledger_knows_nothing(ledger):
    images = ledger.images("uploads")
    assert ledger.rebuilt is None
    assert list(images.pages()) == list(images.due(Need(1, time.time()))) == []
    assert images.find(b"a") is None
    assert images.coverage(None) == Coverage(0, 0, 0, 0, 0, 0, 0, None, 0, 0)
    assert ledger.generations.current() is None
    assert ledger.last_rescan() is None
    assert ledger.last_runs() == []
    assert ledger.outbox_state() == (0, 0, None)


def test_rows_come_in_the_order_of_the_walk(ledger, monkeypatch):
    monkeypatch.setattr(pages, "PAGE", 3)
    keys = [b"a\0b", b"a", b"a-b", b"a\0", b"\xff", b"\x01", b"a.b", b"aa", b"A", b"a\0x\0y",
            b"'\n"]
    ledger.images("uploads").record_seen(seen(*keys))
    ledger.images("other").record_seen(seen(b"zzz"))
    assert [row.key for row in all_rows(ledger.images("uploads"))] == sorted(keys)


def test_every_number_that_a_file_system_gives_can_be_kept(ledger):
    stamp = (2**63 - 1, 2**62, -2**63, 2**63 - 1)
    ledger.images("s").record_seen([(b"a", *stamp, None)])
    assert ledger.images("s").find(b"a").stamp == stamp


def filled(rng, images, generations):
    """Random rows, and what each must look like."""
    model = {}
    for number in range(rng.randint(0, 60)):
        key = rng.choice([b"", b"a\0", b"b"]) + b"%03d" % number
        answer, generation = rng.choice(ANSWERS), rng.randint(1, generations)
        checked, gone = float(rng.randint(1, 6)), rng.random() < 0.15
        images.record_seen(seen(key, inode=number))
        if answer is not None:
            images.record_answers([Asked(key, (number, 10, 20, 30), answer)], generation)
        model[key] = (answer, generation, checked, gone)
    return model


def age(state, model):
    """Give the rows the times of the model."""
    connection = sqlite3.connect(state / FILE)
    with connection:
        for key, (answer, _, checked, gone) in model.items():
            connection.execute(
                "UPDATE images SET checked = ?, missing_since = ? WHERE key = ? AND store = 's'",
                (None if answer is None else checked, 5.0 if gone else None, key))
    connection.close()


@pytest.mark.parametrize("seed", range(25))
def test_what_is_due_comes_by_generation_and_age_page_by_page_and_once(
        tmp_path, ledger, monkeypatch, seed):
    monkeypatch.setattr(pages, "PAGE", random.Random(seed).choice([1, 2, 5, 1000]))
    rng = random.Random(seed)
    images, other = ledger.images("s"), ledger.images("other")
    model = filled(rng, images, 3)
    filled(rng, other, 3)
    age(tmp_path, model)
    for full in (False, True):
        need = Need(generation=rng.randint(1, 3), started=float(rng.randint(1, 7)), full=full)
        never = sorted(key for key, (answer, _, _, gone) in model.items()
                       if answer is None and not gone)
        again = sorted((generation == need.generation, generation > need.generation, generation,
                        checked, key)
                       for key, (answer, generation, checked, gone) in model.items()
                       if answer is not None and not gone and checked < need.started
                       and (full or generation != need.generation
                            or answer.verdict is Verdict.UNKNOWN))
        expected = never + [key for *_, key in again]
        assert [row.key for row in images.due(need)] == expected
        assert images.count_due(need) == len(expected)


def test_a_verdict_that_nobody_wrote_is_damage_and_not_an_image_more(tmp_path, ledger):
    images = ledger.images("s")
    images.record_answers([Asked(b"a", (1, 2, 3, 4), CLEAN)], 1)
    raw(tmp_path, "UPDATE images SET verdict = 'cleaN'")
    with pytest.raises(LedgerError, match="never written"):
        images.coverage(1)


@pytest.mark.parametrize("seed", range(8))
def test_coverage_counts_every_image_once(tmp_path, ledger, seed):
    rng = random.Random(seed)
    images = ledger.images("s")
    model = filled(rng, images, 3)
    filled(rng, ledger.images("other"), 3)
    age(tmp_path, model)
    for generation in (1, 2, None):
        here = [one for one in model.values() if not one[3]]
        found = images.coverage(generation)
        assert found.images == len(here)
        assert found.images == (found.clean_current + found.clean_older + found.unknown
                                + found.infected + found.never)
        assert found.clean_current == sum(one[0] is CLEAN and one[1] == generation for one in here)
        assert found.never == sum(one[0] is None for one in here)
        assert found.infected == sum(one[0] is ANSWERS[1] for one in here)
        assert found.missing == len(model) - len(here)
        assert found.oldest_check == min((one[2] for one in here if one[0]), default=None)
        assert found.bytes == 10 * len(here)


@pytest.mark.parametrize("full", [False, True])
def test_what_is_due_is_found_and_counted_by_index_however_many_rows_there_are(
        ledger, monkeypatch, full):
    monkeypatch.setattr(pages, "PAGE", 1)
    images = ledger.images("s")
    images.record_seen(seen(b"a", b"b"))
    for generation in (1, 2, 3):
        keys = [b"%d %d" % (generation, n) for n in range(2)]
        images.record_answers([Asked(key, (1, 2, 3, 4), unknown("why")) for key in keys],
                              generation)
    need = Need(2, time.time() + 1, full, min_age=1.0)
    with explained(images) as plans:
        assert len(list(images.due(need))) == 8
    assert {plan.partition(" (")[0] for plan in plans} == {
        "SEARCH images USING INDEX images_due"} | (
        set() if full else {"SEARCH images USING INDEX images_unsure"})
    assert {plan.partition(" (")[2] for plan in plans} >= {
        "store=? AND generation=? AND checked=? AND key>?)",
        "store=? AND (generation,checked,key)>(?,?,?) AND generation<?)",
        "store=? AND generation=? AND (checked,key)>(?,?) AND checked<?)"}
    with explained(images) as plans:
        assert (images.count_due(need), images.count_young(need)) == (8, 0)
    assert {plan.partition(" (")[0] for plan in plans} == {
        "SEARCH images USING COVERING INDEX images_due"} | (
        set() if full else {"SEARCH images USING INDEX images_unsure"})
    with explained(images) as plans:
        assert len(list(images.with_verdict(Verdict.UNKNOWN))) == 6
    assert set(plans) == {"SEARCH images USING INDEX images_unclean (store=? AND verdict=?)",
                          "SEARCH images USING INDEX images_unclean"
                          " (store=? AND verdict=? AND key>?)"}
    with explained(images) as plans:
        assert images.count_due_among([b"a", b"1 1", b"2 1"], need, missing=False) == 3
    assert {"(store=? AND key=?)" in plan or "key=?" in plan for plan in plans} == {True}
    with explained(images) as plans:
        images.coverage(1)
        assert len(list(images.pages())) == 8
    assert {plan.partition(" (")[0] for plan in plans} == {
        "SEARCH images USING PRIMARY KEY"}, "whole rows in their own order"


def test_what_is_booked_meanwhile_does_not_come_up_again(ledger, monkeypatch):
    monkeypatch.setattr(pages, "PAGE", 2)
    images = ledger.images("s")
    images.record_seen(seen(*(b"%d" % n for n in range(9))))
    need, asked = Need(1, time.time()), []
    for row in images.due(need):
        asked.append(row.key)
        images.record_answers([Asked(row.key, row.stamp, unknown("again and again"))], 1)
    assert asked == [b"%d" % n for n in range(9)]
    assert images.count_due(need) == 0
    assert images.count_due(Need(1, time.time() + 1)) == 9


def test_an_answer_is_kept_with_everything_that_was_said(ledger):
    images = ledger.images("s")
    for key, answer in ((b"i", infected("Test.Bad")), (b"u", unknown("no\nreply")), (b"c", CLEAN)):
        images.record_answers([Asked(key, (1, 2, 3, 4), answer)], 7)
        row = images.find(key)
        assert (row.verdict, row.signature, row.reason) == (
            answer.verdict, answer.signature, answer.reason)
        assert (row.stamp, row.generation, row.missing) == ((1, 2, 3, 4), 7, False)
        assert time.time() - 60 < row.checked <= time.time()
    assert [row.key for row in images.with_verdict(Verdict.INFECTED)] == [b"i"]
    images.record_answers([Asked(b"i", (1, 2, 3, 4), CLEAN)], 8)
    assert images.find(b"i").signature is None
    images.record_answers([], 9)


def test_what_is_infected_stays_so_until_somebody_says_otherwise_or_it_changes(ledger):
    images, stamp = ledger.images("uploads"), (1, 2, 3, 4)

    def ask(answer, generation, now=stamp):
        images.record_answers([Asked(b"i", now, answer)], generation)
        row = images.find(b"i")
        return row.verdict, row.signature, row.reason, row.generation

    for generation in (3, 4):
        ask(infected("Test.Bad"), 3)
        assert ask(unknown("hung up"), generation) == (
            Verdict.INFECTED, "Test.Bad", "hung up", 3)
        assert images.coverage(generation).infected == 1
        started = images.find(b"i").checked
        assert images.count_due(Need(generation, started)) == 0, "once in a run"
        assert images.count_due(Need(generation, started + 1)) == 1
    assert ask(infected("Test.Other"), 4) == (Verdict.INFECTED, "Test.Other", None, 4)
    assert ask(CLEAN, 5) == (Verdict.CLEAN, None, None, 5)
    assert ask(unknown("hung up"), 5) == (Verdict.UNKNOWN, None, "hung up", 5)
    ask(infected("Test.Bad"), 5)
    assert ask(unknown("hung up"), 6, (1, 2, 3, 5)) == (Verdict.UNKNOWN, None, "hung up", 6)


def test_what_vanished_before_its_scan_is_neither_due_nor_counted(ledger):
    images = ledger.images("s")
    images.record_seen(seen(b"a", b"b"))
    images.missing.vanished([b"a"])
    images.missing.vanished([])
    assert [row.key for row in images.due(Need(1, time.time()))] == [b"b"]
    assert images.coverage(1).missing == 1
    images.record_back([b"a"])
    assert images.coverage(1).missing == 0


def test_what_vanished_before_its_scan_goes_only_after_two_walks_a_day_apart(tmp_path, ledger):
    images = ledger.images("s")
    images.record_seen(seen(b"a"))
    images.missing.vanished([b"a"])

    def since():
        return next(images.pages())[0][5]

    for _ in range(2):  # the first walk without it, and another on the same day
        raw(tmp_path, "UPDATE images SET missing_since = missing_since - 172800"
                      " WHERE missing_since < 1")
        images.missing.settle([(b"a", since())])
        assert images.find(b"a").missing
        images.missing.vanished([b"a"])
    raw(tmp_path, "UPDATE images SET missing_since = missing_since - 172800")
    images.missing.settle([(b"a", since())])
    assert images.find(b"a") is None


def test_what_somebody_met_or_missed_since_the_walk_is_not_dropped(tmp_path, ledger):
    images = ledger.images("s")
    keys = [b"gone", b"met", b"missed", b"vanished"]
    images.record_seen(seen(*keys))
    raw(tmp_path, "UPDATE images SET missing_since = 1000.0")
    images.record_back(keys[1:])
    images.missing.settle([(b"missed", None)])
    images.missing.vanished([b"vanished"])
    images.missing.settle([(key, 1000.0) for key in keys])
    assert [row.key for row in all_rows(images)] == keys[1:]


def test_a_time_that_was_never_written_is_damage(ledger):
    with pytest.raises(LedgerError, match="never written"):
        ledger.images("s").missing.settle([(b"a", "yesterday")])


def test_young_images_are_due_but_do_not_come_up(ledger):
    images, now = ledger.images("s"), time.time()
    at = {b"new": now - 5, b"old": now - 70, b"checked": now - 70, b"changed": now - 5,
          b"future": now + 3600, b"current": now - 5}
    images.record_seen([(key, 1, 2, 3, int(ctime * 1e9), None) for key, ctime in at.items()])
    images.record_answers([Asked(key, (1, 2, 3, int(at[key] * 1e9)), CLEAN)
                           for key in (b"checked", b"changed")], 1)
    images.record_answers([Asked(b"current", (1, 2, 3, int(at[b"current"] * 1e9)), CLEAN)], 2)
    later = time.time() + 1
    grown = Need(2, later)
    assert (images.count_due(grown), images.count_young(grown)) == (5, 0)
    need = Need(2, later, min_age=60.0)
    assert [row.key for row in images.due(need)] == [b"future", b"old", b"checked"]
    assert (images.count_due(need), images.count_young(need)) == (5, 2)
    every = Need(2, later, full=True, min_age=60.0)
    assert (images.count_due(every), images.count_young(every)) == (6, 3)


def test_definitions_that_went_back_are_a_new_generation(ledger):
    first = ledger.generations.met("aaa", "ClamAV 1", FACTS, confirmed=False)
    assert ledger.generations.met("aaa", "ClamAV 1", FACTS, confirmed=False) == first
    second = ledger.generations.met("bbb", "ClamAV 1", FACTS, confirmed=False)
    third = ledger.generations.met("aaa", "ClamAV 1", FACTS, confirmed=False)
    assert [one.number for one in (first, second, third)] == [1, 2, 3]
    assert ledger.generations.current().number == 3
    confirmed = ledger.generations.met("aaa", "ClamAV 1", FACTS, confirmed=True)
    assert confirmed.number == 3
    assert confirmed.checked >= third.checked
    assert ledger.generations.current() == confirmed
    assert confirmed.databases == FACTS


def test_the_last_run_of_each_job_is_told(ledger):
    ledger.record_run(run_of("rescan", 0, finished=10.0, generation=1), send=True)
    ledger.record_run(run_of("rescan", 4, finished=20.0, generation=2), send=True)
    ledger.record_run(run_of("rescan", 1, finished=30.0), send=True)
    ledger.record_run(run_of("checks", 1, finished=5.0), send=False)
    checks, rescan = ledger.last_runs()
    assert (checks.job, checks.finished, checks.last_success) == ("checks", 5.0, None)
    assert (rescan.job, rescan.finished, rescan.last_success) == ("rescan", 30.0, 20.0)
    assert ledger.last_rescan() == 2
    assert ledger.outbox_state() == (3, 0, 10.0)


def test_a_run_is_never_recorded_without_being_queued(tmp_path, ledger):
    raw(tmp_path, "CREATE TRIGGER no BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(LedgerError):
        ledger.record_run(run_of("rescan"), send=True)
    assert ledger.last_runs() == []
    ledger.record_run(run_of("rescan"), send=False)
    assert len(ledger.last_runs()) == 1


def test_what_was_left_undone_is_replaced_as_a_whole(tmp_path, ledger):
    ledger.replace_undone("rescan", "s", [(b"a", "one"), (b"b", "two"), (b"a", "three")])
    ledger.replace_undone("optimize", "s", [(b"x", "other job")])
    ledger.replace_undone("rescan", "t", [(b"y", "other store")])
    ledger.replace_undone("rescan", "s", [(b"b", "four")])
    assert raw(tmp_path, "SELECT key, reason FROM undone ORDER BY key") == [
        (b"b", "four"), (b"x", "other job"), (b"y", "other store")]


# --- damage


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The state directory of a ledger with a bit of everything."""
    state = tmp_path_factory.mktemp("healthy")
    with Ledger.open(state) as ledger:
        images = ledger.images("s")
        for first in range(0, 600, 100):
            keys = [b"directory\0image-%06d" % n for n in range(first, first + 100)]
            images.record_seen(seen(*keys))
            images.record_answers([Asked(key, (1, 10, 20, 30), answer) for key, answer
                                   in zip(keys, ANSWERS[:3] * 30, strict=False)], 1)
        for number in range(30):
            ledger.generations.met(f"{number:064x}", "ClamAV 1", FACTS, confirmed=True)
            ledger.record_run(run_of("rescan", generation=number + 1), send=True)
        ledger.replace_undone("rescan", "s", [(b"%d" % n, "reason") for n in range(50)])
    raw(state, "PRAGMA wal_checkpoint(TRUNCATE)")
    return state


def use(state):
    """Everything that jobs do with a ledger; returns why it was rebuilt."""
    with Ledger.open(state) as ledger:
        images = ledger.images("s")
        need = Need(2, time.time() + 1)
        rows = all_rows(images)
        list(images.due(need))
        images.count_due(need)
        images.coverage(1)
        list(images.with_verdict(Verdict.INFECTED))
        images.record_seen(seen(*(row.key for row in rows[:100])))
        images.record_answers([Asked(b"new", (1, 2, 3, 4), CLEAN)], 1)
        images.missing.settle([(b"new", None)])
        ledger.generations.current()
        ledger.generations.met("f" * 64, "ClamAV 2", FACTS, confirmed=True)
        ledger.last_rescan()
        ledger.last_runs()
        ledger.outbox_state()
        ledger.replace_undone("rescan", "s", [(b"x", "y")])
        ledger.record_run(run_of("rescan"), send=True)
        return ledger.rebuilt


def survives(state):
    """Use a damaged ledger until it works: no traceback, and never for good out of order."""
    said = []
    for _ in range(3):
        try:
            rebuilt = use(state)
        except ImagewardenError as error:
            said.append(str(error))
            assert "\n" not in str(error)
            assert FILE in str(error)
            if "newer" in str(error):
                return
        else:
            if rebuilt is not None:
                assert "moved to" in rebuilt
                assert list(state.glob(FILE + ".damaged-*"))
                assert use(state) is None, "a ledger that was rebuilt is a good one"
            return
    pytest.fail(f"it does not come back: {said}")


def copy(healthy, tmp_path, number):
    state = tmp_path / str(number)
    shutil.copytree(healthy, state)
    return state


def test_a_ledger_that_is_used_again_stays_as_it_is(healthy, tmp_path):
    assert use(copy(healthy, tmp_path, 0)) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_ledger_cut_off_anywhere_is_rebuilt_or_refused_clearly(healthy, tmp_path, seed):
    rng = random.Random(seed)
    size = (healthy / FILE).stat().st_size
    for number in range(5):
        state = copy(healthy, tmp_path, number)
        length = rng.choice([rng.randrange(size), rng.randrange(200), rng.randrange(size) & ~4095])
        os.truncate(state / FILE, length)
        survives(state)


@pytest.mark.parametrize("seed", range(8))
def test_a_ledger_overwritten_anywhere_is_rebuilt_or_refused_clearly(healthy, tmp_path, seed):
    rng = random.Random(seed)
    size = (healthy / FILE).stat().st_size
    for number in range(6):
        state = copy(healthy, tmp_path, number)
        with (state / FILE).open("r+b") as stream:
            for _ in range(rng.choice([1, 3, 20])):
                # Every third in the header and the schema, where little goes a long way.
                stream.seek(rng.randrange(rng.choice([100, 4096, size, size, size])))
                stream.write(rng.randbytes(rng.choice([1, 1, 4, 500])))
        survives(state)


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"x" * 5000, b"\0" * 8192,
                                     b"SQLite format 3\0" + b"\xff" * 9000])
def test_what_is_no_ledger_is_moved_aside(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with Ledger.open(tmp_path) as ledger:
        assert "damaged: moved to" in ledger.rebuilt
    aside, = tmp_path.glob(FILE + ".damaged-*")
    assert aside.read_bytes() == content
    with Ledger.open(tmp_path) as ledger:
        assert ledger.rebuilt is None


def test_an_empty_file_is_a_new_ledger(tmp_path):
    (tmp_path / FILE).touch()
    assert use(tmp_path) is None


@pytest.mark.parametrize("statement", [
    "UPDATE images SET verdict = 'cleaN'", "UPDATE images SET key = 'text'  WHERE key = "
    "(SELECT min(key) FROM images)", "UPDATE generations SET databases = '{'",
    "UPDATE images SET checked = 'yesterday' WHERE checked IS NOT NULL",
    "ALTER TABLE images RENAME COLUMN full_checked TO lost", "DROP TABLE outbox",
    "UPDATE images SET verdict = CAST(x'ff' AS TEXT)", "DROP TABLE undone"])
def test_what_no_version_of_ours_has_written_is_damage(healthy, tmp_path, statement):
    state = copy(healthy, tmp_path, 0)
    raw(state, statement)
    survives(state)
    assert list(state.glob(FILE + ".damaged-*"))


def test_a_damaged_schema_that_cannot_even_be_quoted_is_damage(healthy, tmp_path):
    state = copy(healthy, tmp_path, 0)
    content = (state / FILE).read_bytes()
    (state / FILE).write_bytes(content.replace(b"TABLE outbox", b"TABLE \xff\xfe(ox"))
    assert (state / FILE).read_bytes() != content
    survives(state)
    assert list(state.glob(FILE + ".damaged-*"))


def test_damage_found_in_the_middle_of_a_run_is_mended_by_the_next(healthy, tmp_path):
    state = copy(healthy, tmp_path, 0)
    with Ledger.open(state) as ledger:
        with (state / FILE).open("r+b") as stream:
            stream.seek(4096)
            stream.write(os.urandom((state / FILE).stat().st_size - 4096))
        with pytest.raises(LedgerError, match="the next run moves it aside"):
            list(ledger.images("s").pages())
    with Ledger.open(state) as ledger:
        assert ledger.rebuilt is not None
    with Ledger.open(state) as ledger:
        assert ledger.rebuilt is None


def test_a_ledger_that_an_admin_removed_after_damage_is_begun_anew_for_good(tmp_path):
    with Ledger.open(tmp_path):
        pass
    (tmp_path / (FILE + ".damaged")).touch()
    for path in tmp_path.glob(FILE + "*"):
        if path.suffix != ".damaged":
            path.unlink()
    assert use(tmp_path) is None
    assert use(tmp_path) is None


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_newer_schema_is_refused_and_left_untouched(tmp_path, journal):
    with Ledger.open(tmp_path):
        pass
    raw(tmp_path, f"PRAGMA journal_mode = {journal}")
    raw(tmp_path, f"PRAGMA user_version = {VERSION + 1}")
    raw(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
    before = hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest()
    for _ in range(2):
        with pytest.raises(LedgerError, match="newer imagewarden"):
            Ledger.open(tmp_path)
    assert hashlib.sha256((tmp_path / FILE).read_bytes()).hexdigest() == before
    assert not list(tmp_path.glob("*.damaged*"))


def test_a_place_where_no_ledger_can_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for state in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(LedgerError):
            Ledger.open(state)
    (tmp_path / FILE).mkdir()
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger.open(tmp_path)


def test_a_planted_lock_is_not_followed(tmp_path):
    (tmp_path / "ledger.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path)
    assert not (tmp_path / "victim").exists()


# --- death, company, room, place


WRITER = """\
with Ledger.open(state) as ledger:
    images = ledger.images(sys.argv[3])
    for number in range(int(sys.argv[4])):
        keys = [b"%06d-%02d" % (number, n) for n in range(20)]
        images.record_seen([(key, 1, 2, 3, 4, None) for key in keys])
        images.record_answers([Asked(key, (1, 2, 3, 4), CLEAN) for key in keys], 1)
        ledger.generations.met(f"{number % 2}", "ClamAV 1", [], confirmed=True)  # reads first
        ledger.record_run(Run("rescan", 1.0, 2.0, "done", 0, {}, None), send=True)
        print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [0, 1, 7, 40])
def test_a_writer_killed_anywhere_leaves_what_it_had_committed(tmp_path, lines):
    with subprocess.Popen(python(WRITER, tmp_path, "s", 10**6), stdout=subprocess.PIPE) as writer:
        for _ in range(lines):
            writer.stdout.readline()
        if not lines:
            time.sleep(0.3)
        writer.kill()
        committed = lines + writer.stdout.read().count(b"\n")
    with Ledger.open(tmp_path) as ledger:
        assert ledger.rebuilt is None
        waiting, _, _ = ledger.outbox_state()
        assert committed <= waiting <= committed + 1
        found = ledger.images("s").coverage(1)
        assert committed * 20 <= found.clean_current <= (committed + 1) * 20
        assert found.images - found.clean_current in {0, 20}
    assert use(tmp_path) is None


def test_a_ledger_killed_while_it_is_made_is_made_by_the_next(tmp_path):
    for delay in (0.15, 0.2, 0.22, 0.25, 0.3, 0.35):
        state = tmp_path / str(delay)
        state.mkdir()
        with subprocess.Popen(python("Ledger.open(state)\ninput()", state),
                              stdin=subprocess.PIPE) as maker:
            time.sleep(delay)
            maker.kill()
        assert use(state) is None


def test_many_processes_write_at_once_and_none_fails(tmp_path):
    writers = [subprocess.Popen(python(WRITER, tmp_path, store, 60), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
               for store in ("one", "two", "one", "two")]
    outputs = [writer.communicate(timeout=100) for writer in writers]
    assert [(writer.returncode, output[1]) for writer, output in
            zip(writers, outputs, strict=True)] == [(0, "")] * 4
    with Ledger.open(tmp_path) as ledger:
        assert ledger.rebuilt is None
        assert ledger.outbox_state()[0] == 240
        for store in ("one", "two"):
            assert ledger.images(store).coverage(1).clean_current == 1200


def test_a_reader_waits_for_no_writer(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        ledger.images("s").record_seen(seen(b"a"))
        writer = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM images")
        begun = time.monotonic()
        assert len(list(ledger.images("s").pages())) == 1
        assert time.monotonic() - begun < 20
        writer.execute("ROLLBACK")
        writer.close()


FULL = """\
def fill():
    with open(state / "filler", "wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            pass
batch = lambda n: [(b"%06d-%s" % (n, b"x" * 50 + b"%03d" % m), 1, 2, 3, 4, None)
                   for m in range(200)]
def attempt(deed):
    try:
        deed()
        print("done")
    except ImagewardenError as error:
        print(type(error).__name__, "no space" in str(error))
def write():
    with Ledger.open(state) as ledger:
        for number in range(1000):
            ledger.images("s").record_seen(batch(number))
attempt(write)
os.truncate(state / "ledger.lock", 0)
with Ledger.open(state) as ledger:
    print(ledger.rebuilt, ledger.images("s").count() % 200)
fill()
attempt(write)
(state / "filler").unlink()
with Ledger.open(state) as ledger:
    print(ledger.rebuilt, ledger.images("s").count() % 200)
"""


def mounted(tmp_path, options, code):
    """Run ``code`` with its state on a small file system of its own."""
    state = tmp_path / "state"
    state.mkdir()
    done = subprocess.run(
        ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c",
         f'mount -t tmpfs -o {options} none "$0" && exec "$@"', state, *python(code, state)],
        capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_full_disk_ends_the_run_and_damages_nothing(tmp_path):
    assert mounted(tmp_path, "size=1m", FULL) == [
        "NoRoom True", "None 0", "NoRoom True", "None 0"]


def test_a_disk_that_is_full_from_the_start_is_told_as_such(tmp_path):
    code = FULL.partition("attempt(write)")[0] + "fill()\nattempt(lambda: Ledger.open(state))\n"
    assert mounted(tmp_path, "size=64k", code) == ["NoRoom True"]


def test_a_word_in_an_error_is_not_taken_for_a_full_disk(tmp_path, ledger):
    raw(tmp_path, "CREATE TRIGGER t BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(LedgerError) as raised:
        ledger.record_run(run_of("rescan"), send=False)
    assert not isinstance(raised.value, NoRoom)


PLACE = """\
try:
    Ledger.open(state)
    print("opened")
except LedgerError as error:
    print(error)
"""
MOUNTS = """\
21 1 0:1 / / rw - ext4 /dev/vda rw
22 21 0:2 / {mount} rw,relatime shared:1 - {kind} server:/export rw
23 21 0:3 / {other} rw - {others} none rw
"""


def opened_on(tmp_path, kind, others="tmpfs", below="", over=False):
    """What opening says where the kernel tells of such mounts."""
    mount = tmp_path / "a mount\\\u00fc"
    state = mount / below
    state.mkdir(parents=True, exist_ok=True)
    escaped = str(mount).replace("\\", "\\134").replace(" ", "\\040")
    (tmp_path / "mountinfo").write_text(MOUNTS.format(
        mount=escaped, kind=kind, other=escaped if over else escaped[:-1], others=others))
    return subprocess.run(
        ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c",
         'mount --bind "$0" /proc/$$/mountinfo && exec "$@"', tmp_path / "mountinfo",
         *python(PLACE, state)], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path, kind):
    """Only what the kernel says of its mounts is made up; there is no server here to mount."""
    assert f"network file system ({kind})" in opened_on(tmp_path, kind, below="deep/er")
    assert not list((tmp_path / "a mount\\\u00fc").rglob(FILE + "*"))


def test_a_local_file_system_beside_or_over_a_network_one_is_taken(tmp_path):
    assert opened_on(tmp_path, "xfs", "nfs4") == "opened"
    assert opened_on(tmp_path, "nfs4", "xfs", over=True) == "opened"


def test_the_kernel_is_asked_for_every_kind_that_is_refused():
    assert {"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"} <= NETWORK
    assert damage.QUICK_CHECK_MAX >= 2**20
