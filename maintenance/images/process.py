"""One worker process, seen from the job."""

import fcntl
import json
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from subprocess import TimeoutExpired

from maintenance.errors import NoRoom, ToolError
from maintenance.images import bundle, kinds
from maintenance.images.cage import PYTHON
from maintenance.images.outcomes import Damaged, Kept, Outcome, Smaller
from maintenance.images.plan import Plan
from maintenance.programs import Child, How, Limits
from maintenance.text import show

STARTING = 60.0  # seconds for a worker to be ready
LEAVING = 0.5  # and, when it has nothing to do, to go by itself
ANSWER = 4096  # bytes of the longest answer
IMAGE, CAREFUL = b"image", b"careful"  # orders: see worker.py
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Tools with threads of their own would take cores that other workers have.
ENVIRONMENT = {"RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
TOO_LONG = "it takes too long"
KILLED = 128 + 9
_ENDINGS = {128 + 24: TOO_LONG, KILLED: "reading it was killed, perhaps for want of memory",
            128 + 6: "reading it gave up, perhaps for want of memory",
            128 + 11: "reading it crashed", 128 + 7: "reading it crashed"}


def _plain(reason: object) -> str:
    """Return a reason of a worker, which may have been taken over, as a short line."""
    return show(str(reason)[:100])


def _kind(fd: int) -> str:
    return kinds.kind_of(os.pread(fd, kinds.HEAD, 0))


class Lost(Exception):
    """The worker is gone: how, its last words, and whether the tools it used may be to blame."""

    def __init__(self, how: str, words: str, *, by_itself: bool) -> None:
        super().__init__(how)
        self.words = words
        self.by_itself = by_itself


class Process:
    """A worker; started by the constructor, ready a moment later."""

    def __init__(self, plan: Plan, caged: Sequence[str]) -> None:
        self._plan = plan
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._source = self._result = -1
        self.deadline = time.monotonic() + STARTING
        self.late = self.careful = False
        limits = Limits(memory=plan.allowance.memory, output=2 * plan.allowance.size)
        how = How(limits, grace=0.0, environment=ENVIRONMENT, stdin=theirs.fileno())
        try:
            with theirs:
                self._child = Child([*caged, PYTHON, "-ISc", bundle.UNPACK], how, self._output)
            archive = bundle.archive()
            try:
                self._send(plan.as_text().encode(), archive)
            finally:
                os.close(archive)
        except BaseException:
            self.link.close()
            self._output.close()
            raise

    def ready(self) -> None:
        """Wait until it has started; raises ToolError with its last words."""
        self.link.settimeout(max(0.01, self.deadline - time.monotonic()))
        try:
            if self._told():
                return
        except TimeoutError:
            raise ToolError("no worker for images: none was ready in time") from None
        raise ToolError(f"no worker for images: {self.last_words()}")

    def order(self, fd: int, *, careful: bool = False) -> None:
        """Hand over an open image; ``careful``: the first tools are not to touch it."""
        self._output.seek(0)  # an offset that it shares with the worker
        self._output.truncate()  # warnings about millions of images would fill the disk
        self._source, self.careful = fd, careful
        self._result = os.memfd_create("imagewarden-result", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.deadline = time.monotonic() + self._plan.allowance.seconds
        self._send(CAREFUL if careful else IMAGE, fd, self._result)

    def answer(self) -> Outcome:
        """Return what came of it; raises Lost when the worker died over it."""
        told = self._told()
        if not told:
            raise self._lost()
        result, self._result = self._result, -1
        try:
            outcome = self._outcome(json.loads(told), result)
        except (ValueError, KeyError, TypeError, OSError):
            outcome = Damaged("reading it gave no sensible answer")
        except BaseException:
            os.close(result)
            raise
        if not isinstance(outcome, Smaller):
            os.close(result)
        return outcome

    def _outcome(self, told: dict[str, object], result: int) -> Outcome:
        if "full" in told:
            raise NoRoom(f"{show(str(told['full']))}: no room left to work on an image")
        if "kept" in told:
            return Kept(_plain(told["kept"]))
        if "damaged" in told:
            return Damaged(_plain(told["damaged"]))
        # From here on not even a worker that was taken over can change it.
        fcntl.fcntl(result, fcntl.F_ADD_SEALS, SEALS)
        size = os.fstat(result).st_size
        looks_right = _kind(result) == _kind(self._source)
        if size != told["size"] or not 0 < size < os.fstat(self._source).st_size or not looks_right:
            raise ValueError(told)
        os.lseek(result, 0, os.SEEK_SET)
        return Smaller(result, size)

    def _lost(self) -> Lost:
        """Say how it ended."""
        try:
            status = self._child.wait(5.0)
        except TimeoutExpired:
            status = KILLED
        how = _ENDINGS.get(status, "reading it ended the program that reads")
        return Lost(how, self.last_words(), by_itself=status != KILLED and how != TOO_LONG)

    def last_words(self) -> str:
        """Return the last line it wrote."""
        with suppress(TimeoutExpired):
            self._child.wait(5.0)
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - ANSWER))
        lines = self._output.read().decode("utf-8", "replace").split("\n")
        return show(next((line for line in reversed(lines) if line.strip()), "it said nothing"))

    def end(self) -> None:
        """Be rid of it, whatever it does; only what goes by itself leaves word of what it used."""
        self.link.close()
        if self._result < 0:
            with suppress(TimeoutExpired):
                self._child.wait(LEAVING)
        self._child.end()
        self._output.close()
        if self._result >= 0:
            os.close(self._result)
            self._result = -1

    def _told(self) -> bytes:
        """Return what it says; empty: it is gone."""
        try:
            return self.link.recv(ANSWER)
        except ConnectionError:  # gone with something of ours unread
            return b""

    def _send(self, message: bytes, *fds: int) -> None:
        with suppress(ConnectionError):  # a dead worker is noticed when its answer is due
            socket.send_fds(self.link, [message], fds)
