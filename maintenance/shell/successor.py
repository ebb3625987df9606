"""Starting another of our scripts when the work of this one calls for it."""

import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

from maintenance.forks import settle
from maintenance.programs import How, kept

_HOW = How(stop=signal.SIGTERM, grace=5.0)


class Successor:
    """A script made ready while we still have the privileges to start it.

    A child waits for one byte: with it, it becomes the script; without it (we
    changed our mind, or died) it just ends.
    """

    def __init__(self, argv: Sequence[str | Path]) -> None:
        """Fork the child that will be ``argv``."""
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as we
        waiting, self._go = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            settle((waiting, self._output.fileno()))
            _wait(waiting, [os.fspath(part) for part in argv], self._output.fileno())
        os.close(waiting)

    def start(self) -> None:
        """Let it go its own way; it outlives us."""
        os.write(self._go, b"d")

    def finish(self) -> int:
        """Let it run, wait for its end, and return its status, 128+n for signal n.

        It ends with us: when we are stopped it is stopped as well, and has
        ended before we go on; when we are killed its keeper sees to it.
        """
        try:
            os.write(self._go, b"w")
            _, status = os.waitpid(self._pid, 0)
        except BaseException:
            os.close(self._go)  # the keeper sees this as our end
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            raise
        return os.waitstatus_to_exitcode(status)

    @property
    def said(self) -> bytes:
        """Return the stdout of one that was waited for."""
        self._output.seek(0)
        return self._output.read()


def _wait(waiting: int, argv: list[str], output: int) -> NoReturn:
    try:
        word = os.read(waiting, 1)
        if word:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(output if word == b"w" else nothing, 1)
            os.setsid()
            if word == b"d":
                os.dup2(nothing, 2)
            else:
                os.set_inheritable(waiting, True)  # its other end is our lifeline
                argv = kept(argv, _HOW, waiting)
            os.chdir("/")
            os.execve(argv[0], argv, dict(os.environ))  # noqa: S606 - an argv list, no shell
    finally:
        os._exit(127)
