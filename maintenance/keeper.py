"""Stands between a job and a program it starts: nothing outlives the job.

Handed to a bare Python as source (``programs.py``), so it uses the standard
library only and needs no access to our files. It starts the
program in its own process group and waits for two things: the program's end,
or the end of the job, which shows as end-of-file on the lifeline, a pipe whose
other end only the job holds. The kernel closes that end however the job dies.
Whatever the program leaves running becomes the keeper's child, also out of a
session of its own, and is killed before the keeper ends: at once when the
program has ended, or with ``tell`` when the job wants it to or is itself gone.

Argument: one JSON object with ``lifeline`` (descriptor), ``stop`` (signal
number for a polite end), ``grace`` (seconds until SIGKILL), ``limits`` (list of
[RLIMIT name, value]), ``remove`` (a directory to delete at the end, or null),
``holds`` (descriptors to keep open, from the program too), ``argv`` and maybe
``tell`` (a descriptor that is told the program's status; what the program left
running may then go on).
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from typing import Any

PDEATHSIG, SUBREAPER = 1, 36  # of prctl(2)
CLEARING = 4.0  # seconds for what was killed to be gone


def main(order: dict[str, Any]) -> int:
    """Run ``order`` to its end; return the program's status, 128+n for signal n."""
    adopt()
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
        clear_away()  # first: it might write into what is removed
        if order["remove"]:
            shutil.rmtree(order["remove"], ignore_errors=True)


def adopt() -> None:
    """Become the parent of all orphans among our descendants."""
    _prctl(SUBREAPER, 1)


def _become(order: dict[str, Any]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        # What is ignored stays so across exec: by Python, by nohup, by a shell's "&".
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        _prctl(PDEATHSIG, signal.SIGKILL)
        for ours in (order["lifeline"], *order["holds"]):
            os.close(ours)
        if order.get("tell") is not None:
            os.close(order["tell"])
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
    result: int | None = None
    while True:
        found, status = _reap()
        if found == child:
            result = _exit_status(status)
            if order.get("tell") is None:
                return result
            _tell(order["tell"], result)
        if found > 0:
            continue  # maybe an orphan that had become ours
        if found < 0 and result is not None:
            return result  # and nobody is left
        if deadline is not None and time.monotonic() >= deadline:
            break
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = dict(poll.poll(left))
        if ended in ready:
            os.read(ended, 4096)
        if order["lifeline"] in ready:
            poll.unregister(order["lifeline"])
            deadline = time.monotonic() + order["grace"]
            _ask_to_end(order["stop"])
    if result is not None:
        return result
    os.kill(child, signal.SIGKILL)
    return _exit_status(os.waitpid(child, 0)[1])


def _reap() -> tuple[int, int]:
    """Return a child that ended and its status; 0: none has; -1: there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return -1, 0


def _tell(descriptor: int, result: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens: the lifeline says the same
        os.write(descriptor, b"%d" % result)
    os.close(descriptor)


def _ask_to_end(stop: int) -> None:
    """Send ``stop`` to our group, and to orphans that had left it and became ours."""
    os.killpg(0, stop)
    for pid in _children():
        try:
            if os.getpgid(pid) != os.getpgid(0):
                os.kill(pid, stop)
        except (ProcessLookupError, PermissionError):
            continue


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def clear_away() -> None:
    """Kill all that is left; a killed parent's children come to us, so again until none is."""
    deadline = time.monotonic() + CLEARING
    while time.monotonic() < deadline:
        for pid in _children():
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a bare interpreter, kept small
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stream:  # noqa: PTH123 - the same
                    parent = stream.read().rpartition(b")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid():
                found.append(int(entry))
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def keep() -> None:
    """Run the order in ``sys.argv``."""
    status = main(json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    keep()
