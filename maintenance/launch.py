"""The way from a script in bin/ to its job, run by the virtual environment's Python.

Any Python from 3.8 on can read this file: it is the one that has to say what is
wrong when nothing is set up. It runs before every job, so it imports little.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import sys

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time it takes to import
if TYPE_CHECKING:
    from typing import NoReturn

CHECKOUT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(CHECKOUT, ".venv")


def launch(job: str, program: str = "shell.main") -> NoReturn:
    """Have ``main`` in ``maintenance.<program>`` run ``job``, exit with its status.

    The first pass, by the system's Python, becomes the second by exec: same
    process, same arguments, so signals and exit statuses need no forwarding.
    """
    try:
        if os.path.realpath(sys.prefix) == os.path.realpath(VENV):
            _run(job, program)
        _become_the_venv()
    except KeyboardInterrupt:
        sys.exit(130)


def _become_the_venv() -> NoReturn:
    problem = _problem()
    if problem:
        _give_up(problem)
    # A Ctrl-C that meets a starting interpreter is a traceback nobody can catch:
    # hold it back until the second pass can answer it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    python = os.path.join(VENV, "bin", "python3")
    try:
        os.execv(python, [python, "-I", os.path.realpath(sys.argv[0]), *sys.argv[1:]])  # noqa: S606
    except OSError:  # its interpreter was removed or replaced by an upgrade
        _give_up("set-up is out of date")


def _run(job: str, program: str) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if sys.path[0] != CHECKOUT:
        sys.path.insert(0, CHECKOUT)
    try:
        main = importlib.import_module("maintenance." + program).main
    except ModuleNotFoundError as error:
        # The system's Python went from 3.11 to 3.13 under the venv, say. A module
        # of our own that is missing is a bug, and may show as one.
        if (error.name or "").startswith("maintenance"):
            raise
        _give_up("set-up is out of date")
    sys.exit(main(job))


def _problem() -> str:
    """Say what is wrong with the set-up; empty when nothing is."""
    try:
        with open(os.path.join(VENV, "lock.sha256"), encoding="ascii") as stream:
            stamp = stream.read().strip()
    except (OSError, ValueError):
        return "imagewarden is not set up here"
    try:
        with open(os.path.join(CHECKOUT, "requirements.lock"), "rb") as lock:
            wanted = hashlib.sha256(lock.read()).hexdigest()
    except OSError:
        return "requirements.lock cannot be read"
    return "" if stamp == wanted else "set-up is out of date"


def _give_up(problem: str) -> NoReturn:
    sys.stderr.write(f"{problem}: run {os.path.join(CHECKOUT, 'bin', 'setup')}\n")
    sys.exit(1)
