"""A mirror of definitions on loopback, that behaves as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror:
    """``files`` by path; ``refuse``: answer everything with this status; ``cut``: half a file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refuse = 0
        self.cut = False
        self.asked: list[str] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append(path)
        content = self.files.get(path, b"")
        status = self.refuse or (200 if path in self.files else 404)
        body = content if status == 200 else b""
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(body[:len(body) // 2] if self.cut else body)
        request.close_connection = True


@contextmanager
def serving() -> Iterator[Mirror]:
    """A mirror for the length of the block."""
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            mirror.answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
