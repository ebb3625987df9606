"""Where a process leaves its hits: an append-only file of its own, without a lock.

The file is held by a shared kernel lock as long as somebody may still write to it.
``flush-hits`` takes files over by renaming them; a writer notices within a second of
its next hit, and begins another.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from maintenance.held import hold, stands
from maintenance.hits import line

FRESH = ".hits"  # how the names of files end, before they are taken over
ATTEMPTS = 5
_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Spool:
    """One process's end. Threads may write at once: each line is one write."""

    def __init__(self, directory: Path, most: int, full: Callable[[], None]) -> None:
        """Write below ``directory``; ``full`` is called after every ``most`` hits."""
        self._directory, self._most, self._full = directory, most, full
        self._fd, self._name = -1, ""
        self._day = b""
        self._since = self._until = 0.0  # the times for which all of this holds
        self._written = self._lost = 0
        self._turn = threading.Lock()

    def write(self, image: str) -> None:
        """Add a hit, whatever happens: one that cannot be written is counted as lost."""
        try:
            now = time.time()
            if not self._since <= now < self._until:
                self._look(now)
            text = self._day + line.tail(image)
            if os.write(self._fd, text) != len(text):
                self.lose()  # half a line: it does no harm to the next one
        except (OSError, ValueError):
            self.lose()
        else:
            self._written += 1

    def lose(self) -> None:
        """Count a hit that could not be written: a later line will say so."""
        self._lost += 1
        self._until = 0.0

    def forget(self) -> None:
        """Begin anew in a child that was forked: what is here is its parent's."""
        fd, self._fd = self._fd, -1
        self._until, self._written, self._lost = 0.0, 0, 0
        self._turn = threading.Lock()
        if fd >= 0:
            os.close(fd)

    def _look(self, now: float) -> None:
        """See, once a second, that our file was not taken over, and which day it is."""
        with self._turn:
            if self._fd < 0 or not stands(self._directory / self._name, self._fd):
                self._begin()
            if lost := self._lost:
                text = line.lost(lost)
                if os.write(self._fd, text) != len(text):
                    raise OSError
                self._lost -= lost
            self._day = time.strftime("%Y-%m-%d", time.localtime(now)).encode("ascii")
            self._since, self._until = now, int(now) + 1.0  # midnight is a whole second
        if self._written >= self._most:
            self._written = 0
            self._full()

    def _begin(self) -> None:
        """Open a file that is certain to be read to its end.

        The descriptor's number stays the same: another thread may be about to
        write to it, and must not find a file of somebody else's there.
        """
        for _ in range(ATTEMPTS):
            name = secrets.token_hex(16) + FRESH
            fd = os.open(self._directory / name, _NEW, 0o640)
            os.fchmod(fd, 0o640)  # whatever the umask: flush-hits may be another user
            # Until it is held, it may be taken for one that is finished, and removed.
            if hold(fd) and stands(self._directory / name, fd):
                self._name = name
                if self._fd < 0:
                    self._fd = fd
                else:
                    os.dup2(fd, self._fd, inheritable=False)
                    os.close(fd)
                return
            os.close(fd)
        raise OSError
