"""What is on its way to clamd: only as much of it in memory as the kernel did not take yet."""

import socket
from array import array
from collections import deque
from collections.abc import Iterator

Piece = tuple[bytes, int | None]  # bytes, and the descriptor that travels with their first


class Unreadable(Exception):
    """A request cannot be read to its end: ``number`` says which, the text why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class Outgoing:
    """Requests in their order, each a stream of pieces that is drawn when there is room."""

    def __init__(self, link: socket.socket) -> None:
        """Send through ``link``, which never blocks."""
        self._link = link
        self._requests: deque[tuple[int, Iterator[Piece]]] = deque()
        self._bytes = memoryview(b"")
        self._fd: int | None = None

    def __bool__(self) -> bool:
        """Tell whether something is still to be sent."""
        return bool(self._requests)

    def put(self, number: int, request: Iterator[Piece]) -> None:
        """Have ``request`` sent after all that was put before it."""
        self._requests.append((number, request))

    def clear(self) -> None:
        """Give up what was not sent."""
        self._requests.clear()

    def flush(self) -> None:
        """Send what the kernel takes; raises OSError and Unreadable."""
        while self._requests:
            if not self._bytes and not self._draw():
                self._requests.popleft()
                continue
            try:
                sent = self._send()
            except BlockingIOError:
                return
            self._bytes, self._fd = self._bytes[sent:], None

    def _draw(self) -> bool:
        number, request = self._requests[0]
        try:
            piece = next(request, None)
        except OSError as error:  # of the source: no word about the connection
            raise Unreadable(number, error.strerror or str(error)) from None
        if piece is not None:
            self._bytes, self._fd = memoryview(piece[0]), piece[1]
        return piece is not None

    def _send(self) -> int:
        if self._fd is None:
            return self._link.send(self._bytes)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [self._fd]))
        return self._link.sendmsg([self._bytes], [rights])
