"""Running other people's programs: the one way this toolkit does it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from maintenance.accounts import PATH, Account
from maintenance.errors import ToolError
from maintenance.text import show

ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
TAIL = 16384  # bytes of a program's output worth keeping
CLEARING = 5.0  # seconds besides the grace in which a keeper has killed what is left
# Looked up once, at import: after dropping privileges our own files may be out of reach.
_PYTHON = os.path.realpath(sys.executable)
_KEEPER = Path(__file__).with_name("keeper.py").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take; None: no limit of ours."""

    seconds: float = 60.0
    memory: int | None = None  # bytes of address space
    output: int | None = None  # bytes of the largest file it may write

    def rlimits(self) -> list[tuple[str, int]]:
        """Return the limits as (RLIMIT name, value)."""
        asked = {"RLIMIT_AS": self.memory, "RLIMIT_FSIZE": self.output, "RLIMIT_CORE": 0}
        return [(name, value) for name, value in asked.items() if value is not None]


@dataclass(frozen=True, slots=True)
class How:
    """The circumstances of a child."""

    limits: Limits = field(default_factory=Limits)
    account: Account | None = None
    stop: signal.Signals = signal.SIGTERM  # asks it politely; SIGKILL follows
    grace: float = 5.0  # seconds between the two
    environment: Mapping[str, str] = field(default_factory=dict)  # besides ENVIRONMENT
    remove: Path | None = None  # a directory of the child's own, deleted after it
    holds: tuple[int, ...] = ()  # descriptors its keeper keeps open: a lock outlives us with it
    stdin: int = subprocess.DEVNULL  # or a descriptor it is to have there
    outlived: bool = False  # what the program leaves running goes on until it or we end


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended; status 128+n: by signal n."""

    status: int
    tail: bytes  # the last of its stdout and stderr together, at most TAIL


def find(program: str) -> str | None:
    """Return the absolute path of ``program``; never one from the caller's PATH."""
    return shutil.which(program, path=PATH)


def kept(argv: Sequence[str], how: How, lifeline: int, tell: int | None = None) -> list[str]:
    """Return the command of a keeper that runs ``argv`` to its end or that of ``lifeline``.

    Whoever starts it has to make it the leader of a session of its own.
    """
    order = {"lifeline": lifeline, "stop": how.stop, "grace": how.grace, "holds": how.holds,
             "limits": how.limits.rlimits(), "argv": argv,
             "remove": None if how.remove is None else str(how.remove), "tell": tell}
    return [_PYTHON, "-ISc", _KEEPER, json.dumps(order)]


class Child:
    """A running program that ends with us, also when we are killed."""

    def __init__(self, argv: Sequence[str], how: How, output: IO[bytes],
                 errors: IO[bytes] | None = None) -> None:
        """Start ``argv``; raises ToolError when it is not installed or cannot be started.

        Its stderr goes to ``errors``, or where its stdout goes.
        """
        program = find(argv[0])
        if program is None:
            raise ToolError(f"{show(argv[0])} is not installed (looked in {PATH})")
        lifeline, self._life = os.pipe()
        self.news, tell = os.pipe() if how.outlived else (-1, -1)
        account = how.account
        self._grace = how.grace
        theirs = (lifeline, tell) if how.outlived else (lifeline,)
        try:
            self._keeper = subprocess.Popen(
                kept([program, *argv[1:]], how, lifeline, tell if how.outlived else None),
                stdin=how.stdin, stdout=output, stderr=errors or output, cwd="/",
                env={**ENVIRONMENT, **how.environment}, pass_fds=(*theirs, *how.holds),
                start_new_session=True,
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else account.groups)
        except OSError as error:
            self._close()
            raise ToolError(f"{show(argv[0])}: {error.strerror}") from None
        finally:
            for fd in theirs:
                os.close(fd)

    def __enter__(self) -> Self:
        """Return the child itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.end()

    @property
    def ended(self) -> bool:
        """Tell whether it is gone."""
        return self._keeper.poll() is not None

    def wait(self, seconds: float) -> int:
        """Return the status, 128+n for signal n; raises subprocess.TimeoutExpired."""
        status = self._keeper.wait(seconds)
        return status if status >= 0 else 128 - status

    def result(self) -> int | None:
        """Return the status of a program that may be outlived; None: it still runs.

        Readable ``news`` says that there is one. Raises ToolError when its keeper is lost.
        """
        os.set_blocking(self.news, False)
        try:
            told = os.read(self.news, 16)
        except BlockingIOError:
            return None
        if not told:
            raise ToolError(f"its keeper (pid {self.pid}) was killed")
        return int(told)

    @property
    def lost(self) -> bool:
        """Tell whether somebody killed its keeper, so that what it started may have got away."""
        return self.ended and self._keeper.returncode < 0

    @property
    def pid(self) -> int:
        """Return the process to wait for, which is the keeper's."""
        return self._keeper.pid

    def ask_to_end(self) -> None:
        """Ask it to stop, with all it started, and do not wait."""
        if self._life >= 0:
            os.close(self._life)  # the keeper sees this as our end
            self._life = -1

    def end(self) -> None:
        """Ask it to stop, and see to it that it did, with all it started."""
        self.ask_to_end()
        deadline = time.monotonic() + self._grace + CLEARING
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.005)
        if not self.ended or self.lost:
            with suppress(ProcessLookupError):
                os.killpg(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()
        self._close()

    def _close(self) -> None:
        self.ask_to_end()
        if self.news >= 0:
            os.close(self.news)
            self.news = -1


def run(argv: Sequence[str], how: How | None = None) -> Ran:
    """Run a program to its end.

    Output goes to an unnamed file, not a pipe: a chatty child never blocks on
    us. Raises ToolError when it is not installed or out of time.
    """
    with tempfile.TemporaryFile() as output:
        return Ran(run_into(output, argv, how), tail(output))


def run_into(output: IO[bytes], argv: Sequence[str], how: How | None = None) -> int:
    """Return only the status and leave in ``output``, unread, what the program said.

    For a caller that may not look at it yet: what another user's program wrote
    is read after privileges are dropped.
    """
    how = how or How()
    try:
        with Child(argv, how, output) as child:
            return child.wait(how.limits.seconds)
    except subprocess.TimeoutExpired:
        raise ToolError(
            f"{show(argv[0])}: no result after {how.limits.seconds:g} s") from None


def tail(output: IO[bytes]) -> bytes:
    """Return the last ``TAIL`` bytes of an output."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - TAIL))
    return output.read()
