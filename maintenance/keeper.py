"""Stands between a job and a program it starts: nothing outlives the job.

Not imported but handed to a bare Python as source (``programs.py``), so it uses
the standard library only and needs no access to our files. It starts the
program in its own process group and waits for two things: the program's end,
or the end of the job, which shows as end-of-file on the lifeline, a pipe whose
other end only the job holds. The kernel closes that end however the job dies.

Argument: one JSON object with ``lifeline`` (descriptor), ``stop`` (signal
number for a polite end), ``grace`` (seconds until SIGKILL), ``limits`` (list of
[RLIMIT name, value]), ``remove`` (a directory to delete at the end, or null)
and ``argv``.
"""

import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from typing import Any


def main(order: dict[str, Any]) -> int:
    """Run ``order`` to its end; return the program's status, 128+n for signal n."""
    ended, bell = os.pipe()
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        _become(order)
    for polite in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)  # meant for the program: we must outlive it
    try:
        return _wait(order, child, ended)
    finally:
        if order["remove"]:
            shutil.rmtree(order["remove"], ignore_errors=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _become(order: dict[str, Any]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(order["lifeline"])
        for name, value in order["limits"]:
            _, hard = resource.getrlimit(getattr(resource, name))
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(getattr(resource, name), (value, value))
        os.execv(order["argv"][0], order["argv"])  # noqa: S606 - an argv list, no shell
    except OSError as error:
        os.write(2, f"{order['argv'][0]}: {error.strerror}\n".encode())
    os._exit(127)


def _wait(order: dict[str, Any], child: int, ended: int) -> int:
    poll = select.poll()
    poll.register(order["lifeline"], select.POLLIN | select.POLLHUP)
    poll.register(ended, select.POLLIN)
    deadline: float | None = None
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return _exit_status(status)
        if deadline is not None and time.monotonic() >= deadline:
            break
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = dict(poll.poll(left))
        if ended in ready:
            os.read(ended, 4096)
        if order["lifeline"] in ready:
            poll.unregister(order["lifeline"])
            deadline = time.monotonic() + order["grace"]
            os.killpg(0, order["stop"])
    os.kill(child, signal.SIGKILL)
    return _exit_status(os.waitpid(child, 0)[1])


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def keep() -> None:
    """Run the order in ``sys.argv`` and take what is left of the group along."""
    status = main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    # A grandchild that stayed behind goes too; exiting first would leave it.
    _kill_others()
    os._exit(status)


def _kill_others() -> None:
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a bare interpreter, kept small
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                if os.getpgid(int(entry)) == os.getpgrp():
                    os.kill(int(entry), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


if __name__ == "__main__":
    keep()
