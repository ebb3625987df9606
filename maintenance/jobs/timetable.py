"""When each job is due: intervals by the steady clock, times of day by the wall's."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import schedule

UNITS = {"m": "minutes", "h": "hours"}
STEP = timedelta(seconds=2)  # a wall clock that moved this much against the other was set
DAY = timedelta(days=1)
CHANGE = timedelta(hours=2)  # no clock change moves the clock further


def wall_clock() -> datetime:
    """Return the local time, as the library counts it."""
    return datetime.now()  # noqa: DTZ005 - what is written HH:MM is local


class Timetable:
    """The library's scheduler, for a clock that is set forward and back.

    It knows the wall clock only. Put back an hour, an "every 5m" would pause for
    that hour; put back years, a daily time would never come. So intervals move
    with the clock, and a time of day is never further away than the next day.
    A time that the clock leaps over comes right after the leap; one that it
    meets twice counts once.
    """

    def __init__(self, start: Callable[[str], None]) -> None:
        """Call ``start`` with a job's name whenever it is due."""
        self._start = start
        self._scheduler = schedule.Scheduler()
        self._wall, self._steady = wall_clock(), time.monotonic()

    def add(self, name: str, times: str) -> None:
        """Have ``name`` started "every Nm" or "every Nh", first at once, or at "HH:MM"."""
        every = re.fullmatch(r"every (\d+)([mh])", times)
        if every is None:
            self._scheduler.every().day.at(times).do(self._start, name)
            return
        job: schedule.Job = getattr(self._scheduler.every(int(every[1])), UNITS[every[2]])
        job.do(self._start, name)
        job.next_run = wall_clock()

    def tick(self) -> None:
        """Start what is due; what ``start`` raises comes through."""
        self._follow_the_clock()
        self._scheduler.run_pending()

    def _follow_the_clock(self) -> None:
        wall, steady = wall_clock(), time.monotonic()
        shift = wall - self._wall - timedelta(seconds=steady - self._steady)
        self._wall, self._steady = wall, steady
        if abs(shift) < STEP:
            return
        for job in self._scheduler.jobs:
            if job.next_run is None:
                continue
            if job.at_time is None:
                job.next_run += shift
            while job.next_run - wall > DAY + CHANGE and job.at_time is not None:
                job.next_run -= DAY
