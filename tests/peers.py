"""Peers on a Unix socket that do what a real clamd cannot be made to do, in its protocol."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Talk:
    """The peer's end of one connection."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.heard = b""  # everything but the descriptors

    def hear(self) -> bytes:
        """Take what comes next, with its descriptors; empty when the other end closed."""
        data, fds, _, _ = socket.recv_fds(self.link, 65536, 64)
        for fd in fds:
            socket.close(fd)
        self.heard += data
        return data

    def await_scans(self, count: int) -> None:
        """Wait until ``count`` files have been handed over."""
        while self.heard.count(b"zFILDES\0\0") < count and self.hear():
            pass

    def say(self, data: bytes) -> None:
        """Send ``data``; the other end may be gone."""
        self.link.sendall(data)

    def drain(self) -> None:
        """Listen until the other end closes."""
        while self.hear():
            pass


class Peer:
    """Listens at ``path`` and plays ``part`` on every connection, in a thread each."""

    def __init__(self, path: Path, part: Callable[[Talk], None]) -> None:
        self.path = path
        self._part = part
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> "Peer":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "our own peer hangs"
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._play, args=(link,)))
            self._threads[-1].start()

    def _play(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            self._part(Talk(link))
