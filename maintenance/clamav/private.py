"""A clamd of our own: started for a run, proven, and gone with it."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maintenance.clamav import clamd_conf
from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY, CONTAINERS, Snapshot
from maintenance.clamav.home import engine_home
from maintenance.errors import EngineError
from maintenance.programs import Child, How, Limits
from maintenance.text import show

INSIDE = 400 * 2**20  # bytes of an image and all that is unpacked from it
LOADING = 600.0  # seconds that loading all definitions may take on a slow host
# Measured with clamd 1.4: the official databases, packed, take 5.1 times their size in memory,
# files of hashes and bodies up to 1.5 times, and an empty engine 17 MB.
EMPTY, PACKED, PLAIN = 17 * 2**20, 5.1, 1.5
_BLAME = re.compile(r"(?:error loading database|Can't load|Malformed database|loading"
                    r" database) (?:\S*/)?([^/\s]+\.[a-z0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What decides how an image is scanned; part of a generation."""

    max_file_size: int  # bytes; larger images are not asked about
    timeout: float  # seconds for one image

    def text(self) -> str:
        """Return the part of clamd.conf that can change a verdict.

        How large an image may be is for those who ask to see to. What is inside of one
        (an appended archive, say) clamd 1.4 cuts off at MaxFileSize, and no alert tells of
        that; of what is over MaxScanSize one does. So both are the same. Its cache remembers
        as clean what it found in an image that an exception (.fp) excuses, and then misses it
        in the next; and we ask about each image once.
        """
        whole = max(self.max_file_size, INSIDE)
        return clamd_conf.write({
            "MaxFileSize": whole,
            "MaxScanSize": whole,
            "StreamMaxLength": self.max_file_size,
            "PCREMaxFileSize": whole,
            "MaxScanTime": int(self.timeout * 1000),
            "AlertExceedsMax": "yes",
            "DetectPUA": "no",
            "DisableCache": "yes",
        })


def memory_of(content: Snapshot) -> int:
    """Estimate the bytes of memory that a clamd with ``content`` takes."""
    return EMPTY + int(sum(
        size * (PACKED if Path(file).suffix.lower() in CONTAINERS else PLAIN)
        for file, _, size, *_ in content.stamps))


@contextmanager
def private_engine(databases: Path, content: Snapshot, options: ScanOptions
                   ) -> Iterator[Clamd]:
    """Start a clamd on a snapshot of ``databases``, proven by a canary of its own.

    Raises EngineError when it does not load, naming the file at fault where
    clamd does. However we end, the process and its files go too.
    """
    with engine_home() as home, tempfile.TemporaryFile() as output:
        canary = Canary.hatch(content)
        _furnish(home.path, databases, content, options, canary)
        # The keeper holds the directory, too, for it outlives us while it clears away.
        how = How(limits=Limits(), stop=signal.SIGTERM, grace=3.0, remove=home.path,
                  holds=(home.lock,))
        with Child(["clamd", "--config-file", str(home.path / "clamd.conf")], how,
                   output) as child:
            clamd = Clamd(str(home.path / "clamd.sock"))
            _await(clamd, child, output)
            if not canary.found_by(clamd):
                raise EngineError("our clamd does not find its canary: it is not trusted")
            yield clamd


def _furnish(home: Path, databases: Path, content: Snapshot, options: ScanOptions,
             canary: Canary) -> None:
    (home / "databases").mkdir()
    (home / "tmp").mkdir()
    for one in content.databases:
        (home / "databases" / one.file).symlink_to(databases.resolve() / one.file)
    (home / "databases" / CANARY).write_text(canary.line, encoding="ascii")
    cores = os.cpu_count() or 1
    own = clamd_conf.write({
        "Foreground": "yes",
        "LocalSocket": str(home / "clamd.sock"),
        "LocalSocketMode": "600",
        "DatabaseDirectory": str(home / "databases"),
        "TemporaryDirectory": str(home / "tmp"),
        "MaxThreads": max(2, cores),
        "MaxQueue": 200,
        "SelfCheck": 0,  # a run keeps the definitions it began with
        "ConcurrentDatabaseReload": "no",
        "ExitOnOOM": "yes",
    })
    (home / "clamd.conf").write_text(own + options.text(), encoding="utf-8")


def _await(clamd: Clamd, child: Child, output: IO[bytes]) -> None:
    deadline = time.monotonic() + LOADING
    while not clamd.answers():
        if child.ended:
            raise EngineError(f"clamd does not start: {_why(output)}")
        if time.monotonic() > deadline:
            raise EngineError(f"clamd did not load its databases within {LOADING:g} s")
        time.sleep(0.02)


def _why(output: IO[bytes]) -> str:
    output.seek(0)
    text = output.read().decode("utf-8", "backslashreplace")
    blamed = _BLAME.findall(text)
    if blamed:
        return f"it cannot load {show(blamed[0])}; repair or remove that file"
    errors = [line for line in text.splitlines() if "rror" in line]
    return show(errors[-1]) if errors else "it said nothing"
