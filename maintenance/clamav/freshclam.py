"""Running freshclam: what it is given, and what its end says and does not say."""

import os
import re
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maintenance.accounts import Account
from maintenance.clamav import clamd_conf, housekeeping
from maintenance.clamav.command_line import option
from maintenance.clamav.sources import Sources
from maintenance.programs import How, Limits, run_into
from maintenance.text import show

TIME_LIMIT = 3600.0  # seconds; a first download over a slow line takes minutes
# Statuses of freshclam (its source; the man page lists others) and what they mean.
STATUSES: Mapping[int, str] = {
    2: "it could not start", 3: "it cannot work in the database directory",
    4: "a file could not be read or written", 5: "no connection, or no disk space",
    6: "an empty file came", 7: "a damaged database came",
    8: "a new database failed its test", 9: "its configuration",
    10: "the database directory", 11: "a download failed", 12: "the mirror is behind",
    14: "an update could not be applied, or a file:// source is not there",
    15: "not enough memory", 17: "the mirror forbids access: 24 hours of cool-down",
    18: "the mirror asks to come back later", 127: "it is not installed"}
# With these it ends when a server refuses us, and then freshclam.dat says until when.
REFUSED = frozenset({0, 11, 17, 18})
_NOT_FETCHED = re.compile(r"Can't download \S+ from (\S+)$")
_WHAT = re.compile(r"(?:custom database URL|Update failed for database): (\S+)$")
_WHY = re.compile(r"(?:Message|Parse error at \S+|Failed to load new database): (.+)"
                  r"|downloadFile: (file not found)")
_STOPPED = "Update process terminated"  # its last word on SIGINT, with status 0


def fetch(sources: Sources, directory: Path, owner: Account | None, said: IO[bytes]) -> int:
    """Run freshclam once as ``owner`` of the database directory; return its status.

    ``said`` gets its output, which may only be read by whoever may be fooled by
    it. Raises ToolError when it is not installed or takes too long.
    """
    # In memory, under no name: it may hold passwords, and a kill leaves nothing of it.
    conf = os.memfd_create("freshclam.conf")
    try:
        with os.fdopen(conf, "w", encoding="utf-8", errors="surrogateescape",
                       closefd=False) as file:
            file.write(sources.configuration(directory))
        os.fchmod(conf, 0o600)
        if owner is not None:
            os.fchown(conf, owner.uid, owner.gid)
        # SIGINT: on SIGTERM it leaves its temporary directory behind.
        how = How(limits=Limits(seconds=TIME_LIMIT), account=owner, stop=signal.SIGINT, stdin=conf)
        return run_into(said, ["freshclam", "--config-file=/proc/self/fd/0",
                               *sources.arguments()], how)
    finally:
        os.close(conf)


def lines(output: bytes, sources: Sources) -> list[str]:
    """Return what it said line by line, fit to print: no progress bars, no secrets."""
    text = sources.masked(output.decode("utf-8", "backslashreplace").replace("\r", "\n"))
    found = [line.strip() for line in text.split("\n")]
    return [show(line) for line in found if line]


def refuser(said: Sequence[str]) -> str | None:
    """Return the URL that it could not fetch, as it was masked; None: it named none."""
    found = [match[1] for line in said if (match := _NOT_FETCHED.search(line))]
    return found[-1] if found else None


def detail(said: Sequence[str]) -> str:
    """Return what failed and why, as far as its words are of use; else nothing."""
    found = [next((match[match.lastindex or 0] for line in said
                   if (match := words.search(line))), None) for words in (_WHAT, _WHY)]
    return ": ".join(one for one in found if one is not None)


def stopped(said: Sequence[str]) -> bool:
    """Tell by its lines whether somebody stopped it, which its status does not say."""
    return said[-1:] == [_STOPPED]


def cool_down(directory: Path) -> float | None:
    """Return when the mirror may be asked again (epoch), None when it may now."""
    try:
        fd = os.open(directory, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return housekeeping.cool_down(fd)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Running:
    """A freshclam that works in the same directory."""

    pid: int
    daemon: bool


def running(directory: Path) -> Running | None:
    """Return another freshclam on ``directory``, a daemon first.

    One of a user who may not write there is not believed: anybody can call a
    process freshclam, and would keep us from fetching anything.
    """
    if not directory.exists():
        return None
    trusted = {0, os.geteuid(), directory.stat().st_uid}
    found = [one for one in _others(trusted) if _works_in(one[1], directory)]
    runs = [Running(pid, any(word in {"-d", "--daemon"} or word.startswith("--daemon=")
                             for word in words)) for pid, words in found]
    return min(runs, key=lambda one: not one.daemon, default=None)


def _others(trusted: Collection[int]) -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if ((entry / "comm").read_text().strip() == "freshclam"
                        and _uid((entry / "status").read_text()) in trusted):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    yield int(entry.name), [os.fsdecode(word) for word in words if word]
            except OSError:
                continue


def _uid(status: str) -> int:
    line = next((line for line in status.splitlines() if line.startswith("Uid:")), "Uid: -1")
    return int(line.split()[1])  # the real one: /proc's owner is root for many a process


def _works_in(words: Sequence[str], directory: Path) -> bool:
    given = option(words, "datadir")
    if given is None:
        conf = clamd_conf.read(Path(option(words, "config-file") or "/etc/clamav/freshclam.conf"))
        given = (conf.options if conf else {}).get("DatabaseDirectory", "/var/lib/clamav")
    return os.path.realpath(given) == os.path.realpath(directory)
