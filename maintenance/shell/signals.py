"""Ending in good order when told to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """SIGTERM, SIGINT or SIGHUP arrived; no ``except Exception`` swallows it."""

    def __init__(self, number: int) -> None:
        """Remember the signal."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


AGAIN = 0.01  # seconds: the destructor is done by then
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def listen() -> None:
    """Make the first of these signals raise Stopped; later ones change nothing.

    A run that is ending must not be torn out of its clean-up; whoever cannot
    wait uses SIGKILL, which every job survives.
    """
    sys.unraisablehook = _not_lost
    for number in _ENDING:
        signal.signal(number, _stop)


@contextmanager
def held_back() -> Iterator[None]:
    """Let a signal wait until the end of a block that takes moments and must not be half done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def _not_lost(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise Stopped once more where the interpreter would only print and forget it.

    That is so in a destructor, say, which any line of a job can set off.
    """
    stopped = unraisable.exc_value
    if not isinstance(stopped, Stopped):
        sys.__unraisablehook__(unraisable)
        return

    def again(_number: int, _frame: FrameType | None) -> NoReturn:
        raise stopped

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, AGAIN)
