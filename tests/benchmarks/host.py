"""The host of a benchmark: a store, definitions, a clamd and a configuration in one place."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maintenance.clamav import clamd_conf, databases
from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd, pid_of
from maintenance.clamav.databases import CANARY
from maintenance.clamav.private import ScanOptions
from maintenance.errors import EngineError
from maintenance.programs import Child, How
from tests.benchmarks.timing import Run, timed

BIN = Path(__file__).resolve().parents[2] / "bin"
LONGEST_SOCKET = 107  # bytes
LOADING = 600.0  # seconds
STORE = "uploads"
# What clamd.conf of Debian's packages says besides, as far as it decides about speed.
DEBIAN = {"MaxThreads": 12, "MaxQueue": 100, "ReadTimeout": 180, "SendBufTimeout": 200,
          "IdleTimeout": 30, "CommandReadTimeout": 30, "SelfCheck": 3600}


@contextmanager
def workplace(where: Path | None) -> Iterator[Path]:
    """Lend a directory under ``where``; it is gone afterwards, also when we are killed."""
    with (tempfile.TemporaryDirectory(prefix="bench-", dir=where) as root,
          tempfile.TemporaryFile() as output,
          Child(["sleep", "infinity"], How(remove=Path(root)), output)):
        yield Path(root)


@dataclass(frozen=True, slots=True)
class Host:
    """Everything below ``root``."""

    root: Path

    @property
    def store(self) -> Path:
        """Return the tree of images."""
        return self.root / "store"

    @property
    def databases(self) -> Path:
        """Return clamd's database directory."""
        return self.root / "databases"

    @property
    def state(self) -> Path:
        """Return where the ledger is."""
        return self.root / "state"

    @property
    def clamd_conf(self) -> Path:
        """Return the configuration of clamd and clamdscan."""
        return self.root / "clamd.conf"

    @property
    def clamd(self) -> Clamd:
        """Return the clamd, whether it runs or not."""
        return Clamd(str(self.root / "clamd.sock"))

    def prepare(self) -> None:
        """Make directories and clamd's configuration; raises EngineError."""
        if len(os.fsencode(self.clamd.address)) > LONGEST_SOCKET:
            raise EngineError(f"{self.root}: too long a path for a socket; give a shorter --dir")
        for part in (self.store, self.databases):
            part.mkdir()
        options = {"Foreground": "yes", "LocalSocket": self.clamd.address,
                   "DatabaseDirectory": self.databases, "TemporaryDirectory": self.root, **DEBIAN}
        self.clamd_conf.write_text(
            clamd_conf.write({name: str(value) for name, value in options.items()})
            + ScanOptions(max_file_size=100 * 2**20, timeout=120.0).text())

    def hatch(self) -> None:
        """Put a canary beside the finished definitions, as update-definitions would."""
        canary = Canary.hatch(databases.snapshot(self.databases))
        (self.databases / CANARY).write_text(canary.line)

    def configuration(self, in_flight: int) -> Path:
        """Write a configuration of ours and return its path."""
        user = ['user = "root"'] if os.geteuid() == 0 else []
        lines = [*user, f"state = {json.dumps(str(self.state))}", 'logs = ""',
                 "[[store]]", f'name = "{STORE}"', f"path = {json.dumps(str(self.store))}",
                 "[clamav]", 'engine = "system"', f"socket = {json.dumps(self.clamd.address)}",
                 f"databases = {json.dumps(str(self.databases))}",
                 "[rescan]", f"in_flight = {in_flight}"]
        path = self.root / f"imagewarden-{in_flight}.toml"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o644)
        return path

    def run(self, script: str, in_flight: int, *arguments: str) -> Run:
        """Run one of our scripts; 4 is what it ends with where something was planted."""
        return timed(self.command(script, in_flight, *arguments), good=(0, 4))

    def command(self, script: str, in_flight: int, *arguments: str) -> list[str]:
        """Return the command of one of our scripts."""
        return [str(BIN / script), "--config", str(self.configuration(in_flight)), *arguments]

    @contextmanager
    def engine(self) -> Iterator[int]:
        """Run clamd for the block and yield its process: a new one, so its cache is cold."""
        command = ["clamd", "--config-file", str(self.clamd_conf)]
        with tempfile.TemporaryFile() as log, Child(command, How(), log) as child:
            self._await(child, log)
            canary = Canary.read(self.databases)
            if canary is None or not canary.found_by(self.clamd):
                raise EngineError("clamd does not find its canary")
            with self.clamd.connect(5.0) as link:
                pid = pid_of(link)
            yield pid

    def _await(self, child: Child, log: IO[bytes]) -> None:
        deadline = time.monotonic() + LOADING
        while not self.clamd.answers():
            if child.ended or time.monotonic() > deadline:
                log.seek(0)
                words = log.read().decode("utf-8", "replace").strip()
                raise EngineError(f"clamd does not start: {words[-500:]}")
            time.sleep(0.02)
