"""When run-schedule starts a job, over clock changes and clocks that are set. The clock is ours."""

import datetime
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
import schedule

from maintenance.jobs import timetable
from maintenance.jobs.timetable import Timetable


class Clock:
    """Real seconds, and what the clock on the wall shows meanwhile."""

    def __init__(self, monkeypatch, zone, start):
        self.zone = ZoneInfo(zone)
        self.at = datetime.datetime.fromisoformat(start).replace(tzinfo=self.zone).timestamp()
        self.steady = 1000.0
        clock = self

        class Shown(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                assert tz is None
                return clock.wall()

        monkeypatch.setattr(schedule, "datetime", SimpleNamespace(
            **{**vars(datetime), "datetime": Shown}))
        monkeypatch.setattr(timetable, "wall_clock", self.wall)
        monkeypatch.setattr(timetable, "time", SimpleNamespace(monotonic=lambda: self.steady))
        self.started = []
        self.table = Timetable(lambda name: self.started.append((name, self.steady, self.wall())))

    def wall(self):
        return datetime.datetime.fromtimestamp(self.at, self.zone).replace(tzinfo=None)

    def pass_by(self, step=20, **duration):
        """Let time go by, tick by tick."""
        for _ in range(int(timedelta(**duration).total_seconds() / step)):
            self.table.tick()
            self.at += step
            self.steady += step

    def set(self, text):
        """What ``date -s`` does."""
        self.at = datetime.datetime.fromisoformat(text).replace(tzinfo=self.zone).timestamp()

    def days(self):
        return Counter(at.date().isoformat() for _, _, at in self.started)

    def gaps(self):
        seconds = [steady for _, steady, _ in self.started]
        return {round(after - before) for before, after in zip(seconds, seconds[1:], strict=False)}


@pytest.fixture
def clock(monkeypatch):
    return lambda zone, start: Clock(monkeypatch, zone, start)


@pytest.mark.parametrize(("times", "seconds"), [("every 1m", 60), ("every 5m", 300),
                                                ("every 1h", 3600), ("every 26h", 93600)])
def test_an_interval_begins_at_once(clock, times, seconds):
    here = clock("UTC", "2026-06-01 12:00:07")
    here.table.add("job", times)
    here.pass_by(seconds=20)
    assert len(here.started) == 1
    here.pass_by(seconds=3 * seconds)
    assert len(here.started) == 4
    assert here.gaps() == {20 * -(-seconds // 20)}


def test_a_time_of_day_waits_for_its_time(clock):
    here = clock("Europe/Berlin", "2026-06-01 12:00")
    here.table.add("rescan", "05:30")
    here.pass_by(hours=72)
    assert [at.isoformat(" ") for _, _, at in here.started] == [
        f"2026-06-0{day} 05:30:00" for day in (2, 3, 4)]


LEAPS = [  # zone, the day it leaps forward, the day it goes back
    ("Europe/Berlin", "2026-03-29", "2026-10-25"),
    ("Europe/Helsinki", "2026-03-29", "2026-10-25"),
    ("America/New_York", "2026-03-08", "2026-11-01"),
    ("America/Havana", "2026-03-08", "2026-11-01"),
    ("America/Santiago", "2026-09-06", "2026-04-04"),
    ("Atlantic/Azores", "2026-03-29", "2026-10-25"),
    ("Africa/Cairo", "2026-04-24", "2026-10-29"),
    ("America/Nuuk", "2026-03-28", "2026-10-24"),
    ("Australia/Lord_Howe", "2026-10-04", "2026-04-05"),
    ("Antarctica/Troll", "2026-03-29", "2026-10-25")]


@pytest.mark.parametrize(("zone", "day"), [
    pytest.param(zone, day, id=f"{zone} {day}") for zone, *days in LEAPS for day in days])
def test_a_daily_job_runs_once_a_day_whatever_the_clock_does(clock, zone, day):
    """One job for every half hour of the day, the first of the day left out."""
    first = datetime.date.fromisoformat(day) - timedelta(days=2)
    here = clock(zone, f"{first} 00:00")
    names = [f"{half // 2:02}:{30 * (half % 2):02}" for half in range(1, 48)]
    for name in names:
        here.table.add(name, name)
    while here.wall().date() < first + timedelta(days=5):
        here.pass_by(step=300, minutes=5)
    assert Counter(name for name, _, _ in here.started) == dict.fromkeys(names, 5)
    for name, _, at in here.started:
        due = datetime.datetime.combine(first, datetime.time.fromisoformat(name))
        late = (at - due) % timedelta(days=1)
        leapt = at.date() - datetime.date.fromisoformat(day) in {timedelta(), timedelta(days=1)}
        assert late == timedelta() or (late <= timedelta(hours=2) and leapt), (name, at)


def test_a_leapt_over_job_comes_right_after_the_leap_and_a_repeated_one_does_not(clock):
    here = clock("Europe/Berlin", "2026-03-28 12:00")
    here.table.add("job", "02:30")
    here.pass_by(hours=36)
    assert [at.isoformat(" ") for _, _, at in here.started] == ["2026-03-29 03:00:00"]
    here = clock("Europe/Berlin", "2026-10-24 12:00")
    here.table.add("job", "02:30")
    here.pass_by(hours=36)
    assert [at.isoformat(" ") for _, _, at in here.started] == ["2026-10-25 02:30:00"]


@pytest.mark.parametrize(("zone", "day"), [
    pytest.param(zone, day, id=f"{zone} {day}") for zone, *days in LEAPS for day in days])
def test_an_interval_takes_no_notice_of_clock_changes(clock, zone, day):
    first = datetime.date.fromisoformat(day) - timedelta(days=1)
    here = clock(zone, f"{first} 12:00")
    here.table.add("checks", "every 5m")
    here.pass_by(step=60, hours=42)
    assert here.gaps() == {300}


def test_a_clock_that_was_years_ahead_stops_nothing(clock):
    here = clock("Europe/Berlin", "2031-06-01 12:00")
    here.table.add("rescan", "05:30")
    here.table.add("checks", "every 5m")
    here.pass_by(hours=1)
    here.set("2026-06-01 12:00")
    here.started.clear()
    here.pass_by(hours=48)
    assert {name for name, _, _ in here.started} == {"rescan", "checks"}
    assert [at.isoformat(" ") for name, _, at in here.started if name == "rescan"] == [
        "2026-06-02 05:30:00", "2026-06-03 05:30:00"]
    assert len(here.started) == 2 + 48 * 12


def test_a_clock_that_was_years_behind_starts_a_daily_job_once(clock):
    here = clock("UTC", "1970-01-01 00:00")
    here.table.add("rescan", "05:30")
    here.table.add("checks", "every 1h")
    here.pass_by(minutes=10)
    here.set("2026-06-01 12:00")
    here.pass_by(hours=24)
    assert [at.isoformat(" ") for name, _, at in here.started if name == "rescan"] == [
        "2026-06-01 12:00:00", "2026-06-02 05:30:00"]
    assert {steady for name, steady, _ in here.started if name == "checks"} == {
        1000.0 + 3600 * hour for hour in range(25)}


def test_what_a_start_raises_comes_through(clock):
    here = clock("UTC", "2026-06-01 12:00")

    def fails(name):
        raise ValueError(name)

    here.table = Timetable(fails)
    here.table.add("job", "every 1m")
    with pytest.raises(ValueError, match="job"):
        here.table.tick()
