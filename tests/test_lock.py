"""One run of a job at a time, and what the next one knows of it."""

import fcntl
import threading
import time

import pytest

from maintenance.errors import Busy
from maintenance.shell import lock
from maintenance.shell.lock import announce_end, is_ending, is_held, only_one


def test_a_second_run_is_turned_away_at_once_with_the_first_ones_name(tmp_path, monkeypatch):
    monkeypatch.delattr(lock.time, "sleep")
    path = tmp_path / "lock"
    with only_one(path, 0.0):
        assert is_held(path)
        with pytest.raises(Busy, match=r"\(pid \d+, since 1970-01-01T00:00:00Z\)"), only_one(
                path, 0.0):
            pass
    assert not is_held(path)


def test_without_a_file_nobody_holds_anything_and_nothing_is_made(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not is_ending(path)
    announce_end(path, ending=True)
    assert not path.exists()


def test_a_run_that_has_announced_its_end_is_waited_for(tmp_path):
    path, begun = tmp_path / "lock", threading.Event()
    with only_one(path, 0.0):
        announce_end(path, ending=True)
        assert is_ending(path)
        second = threading.Thread(target=lambda: _take(path, begun))
        second.start()
        assert not begun.wait(0.2)
    second.join(10)
    assert begun.is_set()
    assert not is_ending(path), "that was the first one's end"


def _take(path, begun):
    with only_one(path, 0.0):
        begun.set()


def test_a_run_that_goes_on_all_the_same_is_not_waited_for_any_longer(tmp_path):
    path = tmp_path / "lock"
    with only_one(path, 0.0):
        announce_end(path, ending=True)
        threading.Timer(0.2, announce_end, [path], {"ending": False}).start()
        with pytest.raises(Busy), only_one(path, 0.0):
            pass
        assert not is_ending(path)


def test_an_end_that_does_not_come_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    path = tmp_path / "lock"
    with only_one(path, time.time()):
        announce_end(path, ending=True)
        with pytest.raises(Busy, match=r"pid \d+"), only_one(path, 0.0):
            pass


def test_what_a_dead_run_announced_counts_for_nothing(tmp_path):
    path = tmp_path / "lock"
    with only_one(path, 0.0):
        announce_end(path, ending=True)
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # not held to itself by anybody
        assert is_held(path)
    with only_one(path, 0.0):
        assert not is_ending(path)
