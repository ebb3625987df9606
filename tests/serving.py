"""A serve-scans at work for tests, and requests to it by hand."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import started
from tests.site import Site, wait_until


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Service:
    """One that listens at ``path``."""

    path: Path
    pid: int

    def request(self, method: str, url: str, body: object = None,
                headers: Mapping[str, str] | None = None, **more: object) -> Answer:
        """Send one request on a connection of its own."""
        link = _Unix(self.path)
        try:
            link.request(method, url, body, dict(headers or {}), **more)
            got = link.getresponse()
            return Answer(got.status, dict(got.headers), got.read())
        finally:
            link.close()

    def scan(self, body: object, **headers: str) -> Answer:
        """Ask for a verdict on a raw body."""
        return self.request("POST", "/scan", body, headers)

    def send(self, data: bytes, *, end: bool = True) -> bytes:
        """Send bytes as they are, and return all that comes back."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(60)
            link.connect(str(self.path))
            link.sendall(data)
            if end:
                link.shutdown(socket.SHUT_WR)
            got = b""
            while chunk := link.recv(65536):
                got += chunk
            return got

    @property
    def memory(self) -> int:
        """Its greatest resident size so far, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


@contextmanager
def serving(site: Site, *arguments: str, **environment: str) -> Iterator[Service]:
    """Run serve-scans on a Unix socket for the block."""
    path = site.root / "scans.sock"
    command = site.command("serve-scans", "--listen", f"unix:{path}", *arguments)
    with started(command, **environment) as job:
        def up() -> bool:
            assert job.poll() is None, job.communicate()
            return path.is_socket() and _answers(path)
        wait_until(up)
        yield Service(path, job.pid)
        job.terminate()
        assert job.wait(30) == 143


def _answers(path: Path) -> bool:
    try:
        link = _Unix(path)
        link.request("GET", "/version")
        return link.getresponse().status in {200, 401}
    except OSError:
        return False
    finally:
        link.close()


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart body of (name, file's name, content), and its header."""
    lines = []
    for name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        lines.append(f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
                     .encode() + content + b"\r\n")
    return b"".join(lines) + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}
