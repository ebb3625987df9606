"""The clamd that the system runs: whether to use it, and what it really scans."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from maintenance.clamav import clamd_conf
from maintenance.clamav.canary import Evidence
from maintenance.clamav.clamd_conf import ClamdConf
from maintenance.clamav.command_line import option
from maintenance.clamav.connection import PATIENCE, Clamd, pid_of
from maintenance.clamav.databases import Snapshot
from maintenance.clamav.proof import Proof, agrees
from maintenance.text import show

RELOADING = 15.0  # seconds for a reload of little; besides, for every 2 MB of databases, one
IDLE = 60.0  # seconds more for one that waits for its threads: 30 each, by its IdleTimeout
_ENABLED = ("/etc/systemd/system/multi-user.target.wants/clamav-daemon.service",
            "/etc/systemd/system/sockets.target.wants/clamav-daemon.socket")


def fits(socket: str, max_file_size: int) -> bool:
    """Tell whether ``auto`` means the system's clamd, by what is installed.

    It must serve our socket, be enabled, alert on limits, and scan files as
    large as we want scanned.
    """
    conf = clamd_conf.read(clamd_conf.SYSTEM)
    enabled = any(Path(one).is_symlink() for one in _ENABLED) or any(
        Path("/etc/rc2.d").glob("S*clamav-daemon"))
    return bool(conf and enabled and _same(conf.socket, socket) and conf.alerts_on_limits
                and conf.covers(max_file_size))


def _same(one: str, other: str) -> bool:
    return bool(one) and Path(one).resolve() == Path(other).resolve()


@dataclass(frozen=True, slots=True)
class SystemEngine:
    """A clamd that serves others too, and may reload at any moment."""

    clamd: Clamd
    conf: ClamdConf | None  # None: nobody knows what its limits are
    pid: int | None = None  # None: it is not ours to know

    @property
    def hides_limits(self) -> bool:
        """Tell whether it calls clean what it did not scan."""
        return self.conf is None or not self.conf.alerts_on_limits

    @property
    def largest(self) -> int | None:
        """Return the size from which on its word counts for nothing; None: no such size."""
        return (self.conf or ClamdConf({"MaxFileSize": "25M"})).silent_from()

    def stranger_to(self, directory: Path) -> str | None:
        """Return why it does not scan with what is in ``directory``; None: it may well do."""
        if not self.clamd.local:
            return f"clamd at {self.clamd.address} is not on this host, so it is for uploads only"
        if self.conf is None or self.conf.databases.resolve() == directory.resolve():
            return None
        return (f"clamd at {self.clamd.address} loads its databases from"
                f" {show(self.conf.databases)}, but our definitions are in {show(directory)}:"
                " set clamav.databases")

    def proof(self, evidence: Evidence | None, content: Snapshot) -> Proof | None:
        """Return what proves that it has ``content``; None: there is no evidence of that."""
        if evidence is None or not evidence.stands_for(content):
            return None
        return Proof(self.clamd, evidence, content.version_of("daily"))

    def proven(self, evidence: Evidence | None, content: Snapshot) -> bool:
        """Tell whether it has loaded exactly ``content``; raises EngineError."""
        proof = self.proof(evidence, content)
        return proof is not None and proof.holds()

    def prove_reload(self, evidence: Evidence, content: Snapshot) -> bool:
        """Have it reload and wait until it finds ``evidence``; raises EngineError.

        RELOADING is only an acknowledgement: a reload that fails shows nowhere
        but in clamd's log, and the old engine stays.
        """
        return self._reload(content, lambda: evidence.found_by(self.clamd))

    def catch_up(self, content: Snapshot) -> bool:
        """Have it reload, and tell by VERSION whether it is as new; that proves little."""
        return self._reload(content, lambda: True)

    def _reload(self, content: Snapshot, done: Callable[[], bool]) -> bool:
        self.clamd.ask("RELOAD")
        size = sum(stamp[2] for stamp in content.stamps)
        aside = self.conf is None or self.conf.reloads_aside
        deadline = time.monotonic() + RELOADING + (0 if aside else IDLE) + size / (2 * 2**20)
        pauses = _pauses()
        while True:
            if done() and self.as_new_as(content):
                return True
            # Raises when the reload has taken the engine away; while it loads it may be silent.
            self.clamd.version(max(PATIENCE, deadline - time.monotonic()))
            pause = next(pauses)
            if time.monotonic() + pause > deadline:
                return False
            time.sleep(pause)

    def as_new_as(self, content: Snapshot) -> bool:
        """Tell whether VERSION is that of ``content``, as far as it says any."""
        return agrees(self.clamd.version(), content.version_of("daily"))


def _pauses() -> Iterator[float]:
    pause = 0.05
    while True:
        yield pause
        pause = min(1.0, pause * 1.5)


def connect(socket: str) -> SystemEngine:
    """Return the clamd at ``socket``; raises EngineError when it does not answer in 5 s."""
    clamd = Clamd(socket)
    clamd.version()
    pid = pid_at(socket)
    return SystemEngine(clamd, _conf_of(clamd, pid), pid)


def conf_for(socket: str) -> ClamdConf | None:
    """Return the configuration of the clamd that serves ``socket``, or would if it ran."""
    return _conf_of(Clamd(socket), pid_at(socket))


def pid_at(socket: str) -> int | None:
    """Return the process that listens at ``socket``; None: nobody, or not on this host."""
    clamd = Clamd(socket)
    if not clamd.local:
        return None
    try:
        with clamd.connect(5.0) as link:
            return pid_of(link)
    except OSError:
        return None


def _conf_of(clamd: Clamd, pid: int | None) -> ClamdConf | None:
    """Find the configuration of whatever listens there: the process itself knows."""
    path = clamd_conf.SYSTEM
    if pid is not None:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            words = []
        given = option([os.fsdecode(word) for word in words if word], "config-file", "c")
        path = clamd_conf.SYSTEM if given is None else Path(given)
    conf = clamd_conf.read(path)
    return None if conf and path == clamd_conf.SYSTEM and not _serves(conf, clamd) else conf


def _serves(conf: ClamdConf, clamd: Clamd) -> bool:
    """Tell whether a clamd with this configuration would listen there."""
    if clamd.local:
        return _same(conf.socket, clamd.address)
    place = urlsplit(clamd.address)
    return (place.hostname in {"127.0.0.1", "::1", "localhost"}
            and conf.options.get("TCPSocket") == str(place.port or 3310))
