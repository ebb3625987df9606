"""A complete small site for tests: configuration, store, feed of signatures, scripts."""

import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(__file__).resolve().parent.parent / "bin"
BAD = b"a harmless text that only a test's signature calls bad"
LATER = b"another harmless text, called bad by a later update"


def body_signature(name: str, content: bytes) -> str:
    """One line of an .ndb file that finds ``content`` anywhere."""
    return f"{name}:0:*:{content.hex()}\n"


@dataclass(frozen=True, slots=True)
class Ended:
    """A script that ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on stdout."""
        return json.loads(self.out)


@dataclass
class Site:
    """Everything below ``root``; the feed already names BAD."""

    root: Path
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    top: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in ("store", "feed"):
            (self.root / part).mkdir()
        self.feed(body_signature("Test.Bad", BAD))
        self.settings = {
            "clamav": {"engine": "private", "socket": str(self.socket), "timeout": "20s"},
            "definitions": {"official": False,
                            "custom_urls": [f"file://{self.root / 'feed/test.ndb'}"]}}
        if os.geteuid() == 0:
            self.top = {"user": "root"}
        self.write_config()

    @property
    def config(self) -> Path:
        return self.root / "imagewarden.toml"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def databases(self) -> Path:
        return self.state / "databases"

    @property
    def socket(self) -> Path:
        return self.root / "clamd.sock"

    def feed(self, lines: str) -> None:
        """Let the source of custom definitions hold ``lines``."""
        (self.root / "feed/test.ndb").write_text(lines)

    def write_config(self, store: Mapping[str, object] | None = None) -> None:
        """Write the configuration anew from ``top`` and ``settings``."""
        top = {**self.top, "state": str(self.state), "logs": str(self.root / "logs")}
        lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
        stores = {"name": "uploads", "path": str(self.store), **(store or {})}
        lines += ["[[store]]", *(f"{key} = {json.dumps(value)}" for key, value in stores.items())]
        for section, values in self.settings.items():
            lines += [f"[{section}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)

    def image(self, name: str | bytes, content: bytes = b"clean enough") -> bytes:
        """Put a file into the store and return its path as bytes."""
        path = os.fsencode(self.store) + b"/" + os.fsencode(name)
        there = Path(os.fsdecode(path))
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        return path

    def command(self, script: str, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
        """The argv of one of our scripts."""
        return [BIN / script, *arguments, "--config", self.config]

    def run(self, script: str, *arguments: str | bytes | Path, stdin: bytes = b"",
            timeout: float = 60, wrap: Sequence[str | Path] = ()) -> Ended:
        """Run a script as cron would; ``wrap``: a command that runs it."""
        done = subprocess.run([*wrap, *self.command(script, *arguments)], input=stdin, cwd="/",
                              capture_output=True, timeout=timeout, check=False,
                              env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent",
                                   "TMPDIR": os.environ.get("TMPDIR", "/tmp")})
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def update(self, *arguments: str) -> dict:
        """Run update-definitions without a rescan; its JSON result."""
        ended = self.run("update-definitions", "--no-rescan", "--json", *arguments)
        assert ended.status == 0, ended
        return ended.json

    def rescan(self, *arguments: str | bytes | Path) -> tuple[int, dict]:
        """Run rescan-store; its status and JSON result."""
        ended = self.run("rescan-store", "--json", *arguments)
        assert ended.out, ended
        return ended.status, ended.json

    def coverage(self) -> dict:
        """What store-status says of the store."""
        return self.run("store-status", "--json").json["stores"][0]

    @contextmanager
    def clamd(self, **options: str) -> Iterator[subprocess.Popen]:
        """A real clamd on ``socket`` that serves ``databases``, as a host would run it."""
        conf = self.root / "clamd.conf"
        conf.write_text("".join(f"{key} {value}\n" for key, value in {
            "Foreground": "yes", "LocalSocket": str(self.socket), "FixStaleSocket": "yes",
            "DatabaseDirectory": str(self.databases), "AlertExceedsMax": "yes",
            "TemporaryDirectory": str(self.root), "SelfCheck": "0", **options}.items()))
        with (self.root / "clamd.log").open("ab") as log:
            daemon = subprocess.Popen(["/usr/sbin/clamd", "--config-file", conf],
                                      stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(self.socket) or daemon.poll() is not None)
            assert daemon.poll() is None, (self.root / "clamd.log").read_text()
            yield daemon
        finally:
            daemon.kill()
            daemon.wait()


def one_store(result: dict) -> dict:
    """The first store of a rescan's result."""
    return result["stores"][0]


def verdicts(site: Site) -> list[tuple]:
    """What the ledger holds of every image."""
    with closing(sqlite3.connect(f"file:{site.state}/ledger.sqlite?mode=ro", uri=True)) as ledger:
        return ledger.execute("SELECT key, inode, verdict, signature, generation, missing_since"
                              " FROM images ORDER BY key").fetchall()


def booked(site: Site) -> int:
    """How many images have a verdict by now."""
    try:
        return sum(row[2] is not None for row in verdicts(site))
    except sqlite3.Error:
        return 0


def answers(path: Path) -> bool:
    """Whether a clamd says PONG at ``path``."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(path))
            link.sendall(b"zPING\0")
            return link.recv(16) == b"PONG\0"
    except OSError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port at which nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds: float = 30) -> None:
    """Wait for ``condition`` to become true; an AssertionError when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
