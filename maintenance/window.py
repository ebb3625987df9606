"""The hours in which a job may work, and the load above which it waits."""

import os
import re
import time
from dataclasses import dataclass

_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the day by the local clock, such as "03:00-05:30"; "": all of it.

    It is asked again and again rather than turned into a duration, so that the days
    on which clocks change, and those on which somebody sets them, need no thought:
    what the clock on the wall says counts.
    """

    text: str

    def is_open(self, at: time.struct_time | None = None) -> bool:
        """Tell whether it is open at a local time; None: now."""
        if not self.text:
            return True
        now = time.localtime() if at is None else at
        begin, end = (int(hour) * 60 + int(minute)
                      for hour, minute in re.findall(r"(\d\d):(\d\d)", self.text))
        # Counted from its beginning, so that midnight is a minute like any other.
        return (now.tm_hour * 60 + now.tm_min - begin) % _DAY < (end - begin) % _DAY


def load_per_core() -> float:
    """Return the load of the last minute for each core of this host."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
