"""When a job may work: inside its window and its time limit, while the host is not busy."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from maintenance.times import Deadline
from maintenance.window import Window, load_per_core

PAUSE = 2.0  # seconds between two looks at the load


@dataclass(frozen=True, slots=True)
class WorkingHours:
    """Asked before every image."""

    window: Window
    max_load: float  # 1-minute load per core; 0: any
    deadline: Deadline
    say: Callable[[str], None] = lambda line: None  # told when a wait begins

    @property
    def over(self) -> bool:
        """Tell whether work has to end now."""
        return self.deadline.passed or not self.window.is_open()

    def wait(self, load: Callable[[], float] = load_per_core) -> bool:
        """Wait while the host is busy; False when work has to end, waiting included."""
        waits = False
        while not self.over:
            if not self.max_load or load() <= self.max_load:
                return True
            if not waits:
                self.say(f"the load is above {self.max_load:g} a core: waiting")
                waits = True
            time.sleep(PAUSE)
        return False
