"""A mirror of definitions on loopback that behaves as it is told, and a proxy before it."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Mirror:
    """What is served, and how badly.

    ``files`` by path; ``refuse``: answer everything with this status, ``body`` and
    ``retry_after`` (seconds); ``cut``: half a file; ``times``: a file's Last-Modified (epoch);
    ``gate``: no answer before it is set.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.refuse = 0
        self.body = b""
        self.retry_after = 0
        self.cut = False
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.url = ""

    def publish(self, folder: Path, name: str, version: int) -> None:
        """Serve ClamAV's own signed test database under the name of an official one."""
        self.files[f"/{name}.cvd"] = (folder / f"test-{version}.cvd").read_bytes()
        sign = (folder / f"test-{version}.cvd.sign").read_bytes()
        self.files[f"/{name}-{version}.cvd.sign"] = sign

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(path)
        self.gate.wait(60)
        status = self.refuse or (200 if path in self.files else 404)
        since = request.headers.get("If-Modified-Since")
        if status == 200 and since and path in self.times and (
                self.times[path] <= parsedate_to_datetime(since).timestamp()):
            status = 304
        body = {200: self.files.get(path, b""), self.refuse: self.body}.get(status, b"")
        request.send_response(status)
        if self.retry_after and self.refuse:
            request.send_header("Retry-After", str(self.retry_after))
        if path in self.times:
            request.send_header("Last-Modified", formatdate(self.times[path], usegmt=True))
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body[:len(body) // 2] if self.cut else body)
        request.close_connection = True


class Proxy:
    """What went through: ``targets`` as HOST:PORT, and what each was ``allowed`` by."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.allowed: list[str | None] = []
        self.port = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.targets.append(request.path)
        self.allowed.append(request.headers.get("Proxy-Authorization"))
        host, _, port = request.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            request.send_response(200)
            request.end_headers()
            here = request.connection
            while True:
                for one in select.select([here, there], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        request.close_connection = True
                        return
                    (there if one is here else here).sendall(data)


@contextmanager
def serving() -> Iterator[Mirror]:
    """A mirror for the length of the block."""
    mirror = Mirror()
    with _listening(mirror) as port:
        mirror.url = f"http://127.0.0.1:{port}"
        try:
            yield mirror
        finally:
            mirror.gate.set()


@contextmanager
def proxying() -> Iterator[Proxy]:
    """A proxy for the length of the block."""
    proxy = Proxy()
    with _listening(proxy) as proxy.port:
        yield proxy


@contextmanager
def _listening(what: Mirror | Proxy) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            with suppress(ConnectionError):
                what.answer(self)

        do_CONNECT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
