"""Running freshclam: what it is given, and what its end says and does not say."""

import os
import signal
import struct
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maintenance.clamav import clamd_conf
from maintenance.clamav.command_line import option
from maintenance.programs import Account, How, Limits, run_into
from maintenance.text import show

TIME_LIMIT = 3600.0  # seconds; a first download over a slow line takes minutes
RECEIVE_TIMEOUT = 300  # seconds without progress after which a transfer is given up
TAIL_LINES = 20
# Statuses of freshclam (its source; the man page lists others) and what they mean.
STATUSES: Mapping[int, str] = {
    2: "it could not start (its lock, or its log)", 3: "SSL", 4: "a database check failed",
    5: "no connection, or no disk space", 6: "an empty file came", 7: "a damaged database came",
    8: "a new database failed its test", 9: "its configuration",
    10: "the database directory", 11: "a download failed", 14: "a file:// source is not there",
    17: "the mirror forbids access: 24 hours of cool-down", 127: "it is not installed"}
_OURS = frozenset({
    "DatabaseDirectory", "DatabaseOwner", "UpdateLogFile", "LogVerbose", "LogSyslog", "LogRotate",
    "LogTime", "LogFileMaxSize", "PidFile", "Foreground", "Checks", "NotifyClamd", "Example",
    "OnUpdateExecute", "OnErrorExecute", "OnOutdatedExecute", "TestDatabases", "Debug"})


@dataclass(frozen=True, slots=True)
class Sources:
    """Where databases come from."""

    official: bool
    mirror: str
    custom_urls: Sequence[str]
    base: Path | None  # a freshclam.conf whose proxy, mirror and custom settings count

    @property
    def none(self) -> bool:
        """Tell whether there is nothing to fetch."""
        return not self.official and not self.custom_urls and self.base is None

    def configuration(self, directory: Path) -> str:
        """Return the text of the freshclam.conf for one run."""
        # Only a freshclam that runs as root looks at the owner: it would become clamav.
        lines = [f"DatabaseDirectory {directory}", "DatabaseOwner root", "TestDatabases yes",
                 f"ReceiveTimeout {RECEIVE_TIMEOUT}"]
        inherited = [] if self.base is None else _inherited(self.base)
        lines += inherited
        if not any(line.startswith(("DatabaseMirror", "PrivateMirror")) for line in inherited):
            # Also needed where only custom URLs are fetched: without one it exits with 9.
            lines.append(f"DatabaseMirror {self.mirror}")
        lines += [f"DatabaseCustomURL {url}" for url in self.custom_urls]
        return "\n".join(lines) + "\n"

    def arguments(self) -> list[str]:
        """Return the options of one run."""
        return ["--stdout", *(["--no-dns"] if not self.official or "://" in self.mirror else []),
                *([] if self.official else ["--update-db=custom"])]


def _inherited(base: Path) -> list[str]:
    lines = base.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    pairs = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [line for line in pairs if line.split(maxsplit=1)[0] not in _OURS]


def fetch(sources: Sources, directory: Path, owner: Account | None, said: IO[bytes]) -> int:
    """Run freshclam once as ``owner`` of the database directory; return its status.

    ``said`` gets its output, which may only be read by whoever may be fooled by
    it. Raises ToolError when it is not installed or takes too long.
    """
    with tempfile.NamedTemporaryFile("w", prefix="imagewarden-freshclam-", suffix=".conf",
                                     encoding="utf-8", errors="surrogateescape") as file:
        file.write(sources.configuration(directory))
        file.flush()
        if owner is not None:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        # SIGINT: on SIGTERM it leaves its temporary directory behind.
        how = How(limits=Limits(seconds=TIME_LIMIT), account=owner, stop=signal.SIGINT)
        return run_into(said, ["freshclam", f"--config-file={file.name}",
                               *sources.arguments()], how)


def last_lines(output: bytes) -> list[str]:
    """Return the end of its output, progress bars left out, fit to print."""
    text = output.decode("utf-8", "backslashreplace").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n")]
    return [show(line) for line in lines if line][-TAIL_LINES:]


def cool_down(directory: Path) -> float | None:
    """Return when the mirror may be asked again (epoch), None when it may now.

    Source: libfreshclam's freshclam.dat, 90 bytes, retry_after at offset 61.
    """
    try:
        content = (directory / "freshclam.dat").read_bytes()
    except OSError:
        return None
    if len(content) < 69:
        return None
    until = float(struct.unpack_from("<q", content, 61)[0])
    return until if until > time.time() else None


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
