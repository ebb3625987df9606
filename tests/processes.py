"""Real processes for tests: namespaces to break a host in, families, terminals."""

import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = os.geteuid() == 0
NOBODY = 65534
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
               "TMPDIR": os.environ.get("TMPDIR", "/tmp")}


class Namespace:
    """A mount namespace that lives as long as the block; ``wrap`` runs a command in it."""

    def __init__(self, mounts: str) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "-m" if ROOT else "-rm", "sh", "-c", f"{mounts} && echo ready && read x"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pid = str(self._holder.pid)
        self.enter = (["nsenter", "-t", pid, "-m", "--"] if ROOT else
                      ["nsenter", "-t", pid, "-U", "-m", "--preserve-credentials", "--"])
        # Inside a user namespace we would be root, who is treated differently: go back.
        self.wrap = self.enter if ROOT else [
            *self.enter, "unshare", "-U", f"--map-user={os.geteuid()}",
            f"--map-group={os.getegid()}", "--"]

    def __enter__(self):
        if self._holder.stdout.readline() != "ready\n":
            self.__exit__()
            raise AssertionError("the mounts failed")
        return self

    def __exit__(self, *_):
        self._holder.communicate("\n")

    def run(self, script: str) -> str:
        """Run shell lines in it, as the root of the namespace."""
        return subprocess.run([*self.enter, "sh", "-ec", script], check=True,
                              stdout=subprocess.PIPE, text=True).stdout


def reachable(path: Path) -> None:
    """Let every user pass to ``path`` and look at it; what is open already stays as it is."""
    for place in (path, *path.parents):
        mode = stat.S_IMODE(place.stat().st_mode)
        if mode & 0o055 != 0o055:
            place.chmod(mode | 0o055)


def hidden(*programs: str) -> Namespace:
    """A namespace in which these programs are not installed."""
    return Namespace(" && ".join(f"mount --bind /dev/null {program}" for program in programs))


def parents() -> dict[int, int]:
    """Every process with its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = int(fields[1])
    return found


def family(pid: int) -> list[int]:
    """All descendants of ``pid``."""
    table = parents()
    grown, new = [], [pid]
    while new:
        new = [child for child, parent in table.items() if parent in new]
        grown += new
    return grown


def named(pids: Sequence[int], name: str) -> list[int]:
    """Those of ``pids`` that run the program ``name``."""
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except OSError:
            continue
    return found


def engines(pid: int) -> list[int]:
    """The engines among the descendants of ``pid``; a clamd that says its version is none."""
    found = []
    for one in named(family(pid), "clamd"):
        with suppress(OSError):
            if b"--config-file" in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
    return found


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def opened_by(pid: int) -> list[str]:
    """The files that a process has open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return found


def status_of(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@contextmanager
def started(argv, **how) -> Iterator[subprocess.Popen]:
    """A script in the background; it and all it started are gone afterwards."""
    with subprocess.Popen(argv, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=ENVIRONMENT, **{"stdin": subprocess.PIPE, **how}) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *family(process.pid)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def on_terminal(argv, seconds: float = 60) -> tuple[int, str]:
    """Run a command whose stdout and stderr are one terminal; its status and what it showed."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    process = subprocess.Popen(argv, cwd="/", stdin=slave, stdout=slave, stderr=slave,
                               env=ENVIRONMENT)
    os.close(slave)
    shown, deadline = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:  # the last holder of the other end is gone
                    break
        return process.wait(10), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)


def killed_at_every_step(site, work: Path, script: str, *words: str) -> list[dict]:
    """Kill ``script`` on copies of ``site`` at every file operation; what came of each.

    Each entry: ``where`` it died and what files were there ``between``; ``status``, ``result``
    and files ``left`` of the next run.
    """
    checkout = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="crash-") as scratch:
        parts = [subprocess.Popen(
            [checkout / ".venv/bin/python3", "-I", checkout / "tests/crash.py",
             checkout / "bin" / script, checkout, site.root, work, f"2/{part}", *words],
            stdout=subprocess.PIPE, env={**ENVIRONMENT, "TMPDIR": scratch}) for part in (0, 1)]
        steps = [json.loads(line) for part in parts for line in part.communicate()[0].splitlines()]
        made = [path for one in steps for path in (scratch, *one["made"])]
        wait = time.monotonic() + 15  # for the keepers of the last victims
        while any(path.encode() in words for words in commands() for path in made):
            assert time.monotonic() < wait, "something outlived its job"
            time.sleep(0.1)
        for one in steps:  # root's jobs do not heed our TMPDIR
            for path in one["made"]:
                shutil.rmtree(path, ignore_errors=True)
    assert [part.returncode for part in parts] == [0, 0]
    return sorted(steps, key=lambda one: one["step"])


def commands() -> Iterator[bytes]:
    """The command lines of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue


@contextmanager
def nobody():
    """Root is kept from nothing: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
