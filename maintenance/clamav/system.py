"""The clamd that the system runs: whether to use it, and what it really scans."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maintenance.clamav import clamd_conf
from maintenance.clamav.canary import Canary
from maintenance.clamav.clamd_conf import ClamdConf
from maintenance.clamav.command_line import option
from maintenance.clamav.connection import Clamd, pid_of
from maintenance.clamav.databases import Snapshot
from maintenance.clamav.proof import Proof

RELOADING = 15.0  # seconds for a reload of little; besides, for every 2 MB of databases, one
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

    @property
    def hides_limits(self) -> bool:
        """Tell whether it calls clean what it did not scan."""
        return self.conf is None or not self.conf.alerts_on_limits

    @property
    def largest(self) -> int | None:
        """Return the size from which on its word counts for nothing; None: no such size."""
        if not self.hides_limits:
            return None
        conf = self.conf or ClamdConf({"MaxFileSize": "25M", "MaxScanSize": "100M"})
        limits = [size for size in (conf.size("MaxFileSize"), conf.size("MaxScanSize")) if size]
        return min(limits, default=None)

    def proof(self, canary: Canary | None, content: Snapshot) -> Proof | None:
        """Return what proves that it has ``content``; None: no canary lies beside that."""
        if canary is None or not canary.stands_for(content):
            return None
        return Proof(self.clamd, canary, content.version_of("daily"))

    def proven(self, canary: Canary | None, content: Snapshot) -> bool:
        """Tell whether it has loaded exactly ``content``; raises EngineError."""
        proof = self.proof(canary, content)
        return proof is not None and proof.holds()

    def prove_reload(self, canary: Canary, content: Snapshot) -> bool:
        """Have it reload and wait until it finds ``canary``; raises EngineError.

        RELOADING is only an acknowledgement: a reload that fails shows nowhere
        but in clamd's log, and the old engine stays.
        """
        self.clamd.ask("RELOAD")
        proof = Proof(self.clamd, canary, content.version_of("daily"))
        size = sum(stamp[2] for stamp in content.stamps)
        deadline = time.monotonic() + RELOADING + size / (2 * 2**20)
        for pause in _pauses():
            if proof.holds():
                return True
            if time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        return False


def _pauses() -> Iterator[float]:
    pause = 0.05
    while True:
        yield pause
        pause = min(1.0, pause * 1.5)


def connect(socket: str) -> SystemEngine:
    """Return the clamd at ``socket``; raises EngineError when it does not answer in 5 s."""
    clamd = Clamd(socket)
    clamd.version()
    return SystemEngine(clamd, _conf_of(clamd))


def conf_for(socket: str) -> ClamdConf | None:
    """Return the configuration of the clamd that serves ``socket``, or would if it ran."""
    return _conf_of(Clamd(socket))


def _conf_of(clamd: Clamd) -> ClamdConf | None:
    """Find the configuration of whatever listens there: the process itself knows."""
    path = clamd_conf.SYSTEM
    if clamd.local:
        try:
            with clamd.connect(5.0) as link:
                words = Path(f"/proc/{pid_of(link)}/cmdline").read_bytes().split(b"\0")
        except OSError:
            words = []
        given = option([os.fsdecode(word) for word in words if word], "config-file", "c")
        path = clamd_conf.SYSTEM if given is None else Path(given)
    conf = clamd_conf.read(path)
    guessed = path == clamd_conf.SYSTEM and clamd.local
    return None if conf and guessed and not _same(conf.socket, clamd.address) else conf
