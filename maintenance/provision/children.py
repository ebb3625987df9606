"""The programs that set-up and check start: apt-get, pip, pytest and the like.

Not ``maintenance.programs``, though the same keeper: this has to run on a system
whose own Python is older than the one the toolkit needs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from maintenance.errors import ToolError

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
GRACE = 7.0  # seconds between asking a child to stop and killing it
# Handed over as source: whom a child runs as may not be able to read our files.
KEEPER = Path(__file__).resolve().parents[1] / "keeper.py"


@dataclass(frozen=True)
class Account:
    """Whom a child runs as, instead of root."""

    uid: int
    gid: int


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the signals that stop us into SystemExit, so that every clean-up runs.

    Only the first one: a second Ctrl-C must not cut short what the first began.
    """
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in stopping:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in stopping}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Child:
    """A running program; it ends with us.

    What it started is gone ``GRACE`` seconds after us, also when we are killed
    outright: that is the keeper's business.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        output: IO[str] | None,
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] = "/",
        account: Account | None = None,
    ) -> None:
        """Start it; its stdout and stderr go to ``output``."""
        lifeline, self._life = os.pipe()
        as_whom: dict[str, Any] = {} if account is None else {
            "user": account.uid, "group": account.gid, "extra_groups": ()}
        try:
            order = _order(argv, lifeline)
            self._keeper = subprocess.Popen(
                [sys.executable, "-ISc", KEEPER.read_text(encoding="utf-8"), order],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory,
                env={**(os.environ if environment is None else environment), "PATH": PATH},
                pass_fds=(lifeline,), start_new_session=True, **as_whom)
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(lifeline)

    def __enter__(self) -> Child:
        """Return the child itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, if it still runs."""
        os.close(self._life)
        if self._keeper.returncode is None:
            _end(self._keeper)

    def wait(self) -> int:
        """Return its status when it has ended; 128+n: by signal n."""
        status = self._keeper.wait()
        return status if status >= 0 else 128 - status


def run(
    argv: Sequence[str | os.PathLike[str]],
    output: IO[str] | None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: str | os.PathLike[str] = "/",
    account: Account | None = None,
) -> int:
    """Run a program to its end and return its status; see ``Child``."""
    with Child(argv, output, environment=environment, directory=directory,
               account=account) as child:
        return child.wait()


def ask(argv: Sequence[str | os.PathLike[str]]) -> str | None:
    """Return what a program prints; None when it fails or is not there."""
    try:
        asked = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.decode("utf-8", "replace")


def must(status: int, what: str) -> None:
    """Raise ToolError unless ``status`` is 0."""
    if status:
        raise ToolError(f"{what} failed with status {status}")


def _order(argv: Sequence[str | os.PathLike[str]], lifeline: int) -> str:
    words = [os.fspath(word) for word in argv]
    program = shutil.which(words[0], path=PATH)
    if program is None:
        raise ToolError(f"{words[0]} is not installed (looked in {PATH})")
    return json.dumps({"lifeline": lifeline, "stop": signal.SIGTERM, "grace": GRACE, "limits": [],
                       "holds": [], "remove": None,
                       "argv": [program, *words[1:]]})


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Wait for a keeper that has seen our end of the lifeline close."""
    try:
        keeper.wait(GRACE + 1)
    except subprocess.TimeoutExpired:
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()
