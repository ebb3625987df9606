"""A ledger that an older version left: brought up to date, left alone, or found damaged."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from maintenance.errors import LedgerError
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.migrations import _STEPS
from maintenance.ledger.rows import Need
from maintenance.ledger.schema import VERSION
from maintenance.verdict import Verdict
from tests.rows import all_rows

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
FILE = "ledger.sqlite"
OLD = range(1, VERSION)


def old_ledger(state, number):
    """What that version wrote; it was dumped by that version itself."""
    with closing(sqlite3.connect(state / FILE)) as connection:
        connection.executescript((ROOT / f"tests/ledger-{number}.sql").read_text())


def version(state):
    with closing(sqlite3.connect(state / FILE)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def schema(state):
    with closing(sqlite3.connect(state / FILE)) as connection:
        columns = {table: connection.execute(f"SELECT name, type, \"notnull\", dflt_value, pk"
                                             f" FROM pragma_table_info('{table}')").fetchall()
                   for table, in connection.execute(
                       "SELECT name FROM sqlite_master WHERE type = 'table'")}
        indexes = connection.execute(
            "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index'").fetchall()
        statistics = connection.execute("SELECT * FROM sqlite_stat1").fetchall()
        return columns, sorted(indexes), sorted(statistics)


def test_a_ledger_of_version_1_is_brought_up_to_date_and_nothing_is_lost(tmp_path):
    old_ledger(tmp_path, 1)
    for _ in range(2):
        with Ledger.open(tmp_path) as ledger:
            assert ledger.rebuilt is None
            rows = {row.key: row.verdict for row in all_rows(ledger.images("uploads"))}
            assert rows == {b"bad.png": Verdict.INFECTED, b"new.png": None,
                            b"sub\0clean.png": Verdict.CLEAN}
            assert ledger.generations.current().fingerprint == "f1"
            assert (ledger.last_rescan(), ledger.outbox_state()[0]) == (1, 1)
            tally = ledger.optimized("uploads", "r").tally()
            assert (tally.due, tally.current, tally.kept) == (2, 0, {"infected": 1})


def test_a_ledger_of_version_2_is_brought_up_to_date_and_nothing_is_lost(tmp_path):
    old_ledger(tmp_path, 2)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        before = connection.execute("SELECT * FROM images ORDER BY key").fetchall()
    for _ in range(2):
        with Ledger.open(tmp_path) as ledger:
            assert ledger.rebuilt is None
            images = ledger.images("uploads")
            assert [row.key for row in images.due(Need(2, 2e9))] == [
                b"new.png", b"sub\0old.png", b"unsure.png", b"undone.png"]
            assert [row.key for row in images.with_verdict(Verdict.INFECTED)] == [
                b"bad.png", b"undone.png"]
            assert (images.coverage(2).missing, images.count_present()) == (1, 6)
            tally = ledger.optimized("uploads", "recipe").tally()
            assert (tally.due, tally.current, tally.kept) == (
                2, 1, {"hard link": 1, "infected": 2})
            assert (ledger.last_rescan(), ledger.outbox_state()[0]) == (2, 1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT * FROM images ORDER BY key").fetchall() == before


@pytest.mark.parametrize("old", OLD)
def test_what_was_brought_up_to_date_is_like_what_is_made_today(tmp_path, old):
    for state in ("old", "new"):
        (tmp_path / state).mkdir()
    old_ledger(tmp_path / "old", old)
    for state in ("old", "new"):
        with Ledger.open(tmp_path / state):
            pass
    assert version(tmp_path / "old") == VERSION
    assert schema(tmp_path / "old") == schema(tmp_path / "new")


def test_an_older_ledger_in_use_is_left_alone(tmp_path):
    old_ledger(tmp_path, 1)
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


@pytest.mark.parametrize("old", OLD)
def test_a_migration_killed_anywhere_is_done_by_the_next_job(tmp_path, old):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + """
import os, signal
from pathlib import Path
from maintenance.ledger import migrations
from maintenance.ledger.ledger import Ledger
old, steps = int(sys.argv[2]), int(sys.argv[3])
real = migrations._STEPS[old]
class Deadly:
    def __iter__(self):
        for number, statement in enumerate(real):
            if number == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement
        if steps == len(real):
            os.kill(os.getpid(), signal.SIGKILL)
migrations._STEPS[old] = Deadly()
Ledger.open(Path(sys.argv[1]))
"""
    last = len(_STEPS[old])
    for step in {0, 1, last // 2, last}:
        state = tmp_path / str(step)
        state.mkdir()
        old_ledger(state, old)
        with closing(sqlite3.connect(state / FILE)) as connection:
            before = connection.execute("SELECT count(*) FROM images").fetchone()[0]
        died = subprocess.run([sys.executable, "-c", code, state, str(old), str(step)],
                              check=False)
        assert died.returncode == -9
        with Ledger.open(state) as ledger:
            assert ledger.rebuilt is None
            assert ledger.images("uploads").count() == before
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
