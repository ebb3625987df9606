"""Windows on ordinary days, over midnight, and on the days that clocks change."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from maintenance.jobs import working_hours
from maintenance.jobs.working_hours import WorkingHours
from maintenance.times import Deadline
from maintenance.window import Window


def is_open(window, moment):
    return Window(window).is_open(moment.timetuple())


def at(hour, minute=0):
    return datetime(2026, 6, 1, hour, minute)  # noqa: DTZ001 - by the clock on the wall


@pytest.mark.parametrize(("window", "opened", "closed"), [
    ("03:00-05:30", [(3, 0), (5, 29)], [(2, 59), (5, 30), (0, 0), (23, 59)]),
    ("23:30-01:15", [(23, 30), (23, 59), (0, 0), (1, 14)], [(23, 29), (1, 15), (12, 0)]),
    ("22:00-00:00", [(22, 0), (23, 59)], [(0, 0), (21, 59)]),
    ("00:00-06:00", [(0, 0), (5, 59)], [(6, 0), (23, 59)]),
    ("", [(0, 0), (12, 0)], [])])
def test_a_window_is_open_from_its_first_minute_until_its_last_is_over(window, opened, closed):
    assert all(is_open(window, at(*moment)) for moment in opened)
    assert not any(is_open(window, at(*moment)) for moment in closed)


def hours_open(window, day, zone="Europe/Berlin"):
    """How long it is open on a day, minute by minute of real time."""
    start = datetime(*day, tzinfo=ZoneInfo(zone)).timestamp()
    moments = [datetime.fromtimestamp(start + 60 * minute, ZoneInfo(zone))
               for minute in range(26 * 60)]
    return sum(is_open(window, moment) for moment in moments
               if (moment.year, moment.month, moment.day) == day) / 60


def test_on_the_day_an_hour_is_skipped_a_window_in_it_is_shorter():
    assert hours_open("01:00-04:00", (2026, 3, 29)) == 2
    assert hours_open("02:00-03:00", (2026, 3, 29)) == 0
    assert hours_open("03:00-05:30", (2026, 3, 29)) == 2.5


def test_on_the_day_an_hour_comes_twice_the_clock_on_the_wall_decides_both_times():
    assert hours_open("01:00-04:00", (2026, 10, 25)) == 4
    assert hours_open("03:00-05:30", (2026, 10, 25)) == 2.5


def test_a_busy_host_is_waited_for_until_it_is_quiet(monkeypatch):
    paused, loads = [], iter([9.0, 3.0, 1.0])
    monkeypatch.setattr(working_hours.time, "sleep", paused.append)
    hours = WorkingHours(Window(""), 1.0, Deadline.after(0))
    assert hours.wait(lambda: next(loads))
    assert len(paused) == 2
    assert WorkingHours(Window(""), 0.0, Deadline.after(0)).wait(lambda: 1e9)


def test_the_end_of_the_window_ends_the_waiting_too(monkeypatch):
    clock = iter([True, True, False])
    monkeypatch.setattr(working_hours.time, "sleep", lambda _: None)
    monkeypatch.setattr(Window, "is_open", lambda _: next(clock))
    assert not WorkingHours(Window("03:00-05:30"), 1.0, Deadline.after(0)).wait(lambda: 9.0)
