"""The socket: who may connect, how many at a time, and for how long with nothing to say."""

import asyncio
import ipaddress
import re
import signal
import socket
import stat
from asyncio import AbstractServer, BaseTransport, Protocol, Transport
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web

from maintenance.errors import ImagewardenError, UsageError
from maintenance.serve.application import Scans
from maintenance.text import show

SILENT = 15.0  # seconds for the head of a request
LINGERING = 2.0  # seconds that the rest of a body is read for which was refused
LEAVING = 10.0  # seconds that requests have to end when we are told to
_WORDS = b'{"error": "too many connections"}'
FULL = (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (len(_WORDS), _WORDS))
_LISTEN = re.compile(r"unix:(/.*)|(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: ``path``, or host and port."""

    path: Path | None
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "Place":
        """Read ``unix:PATH`` or ``HOST:PORT``; raises UsageError."""
        match = _LISTEN.fullmatch(text)
        if match is None or int(match[3] or 0) > 65535:
            raise UsageError(f"--listen: {show(text)} is neither unix:/PATH nor HOST:PORT")
        return cls(Path(match[1]) if match[1] else None, (match[2] or "").strip("[]"),
                   int(match[3] or 0))

    @property
    def local(self) -> bool:
        """Tell whether only this host can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Return it for a sentence."""
        return show(self.path) if self.path is not None else f"{self.host}:{self.port}"


class _Full(Protocol):
    """What those get for whom there is no room."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Say so, and hang up: not before a request has come, whose answer would be lost."""
        connection = cast(Transport, transport)
        connection.write(FULL)
        connection.write_eof()
        asyncio.get_running_loop().call_later(LINGERING, connection.close)


@dataclass(slots=True)
class Listener:
    """The server, from its start until a signal ends it."""

    scans: Scans
    place: Place
    most: int

    async def run(self) -> int:
        """Serve, and return the number of the signal that ended it; raises ImagewardenError."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[int]()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, told.put_nowait, int(number))
        runner = web.AppRunner(self.scans.application(), access_log=None, keepalive_timeout=SILENT,
                               shutdown_timeout=LEAVING, lingering_time=LINGERING)
        await runner.setup()
        try:
            server = await self._listen(runner)
            ended_by = await told.get()
            server.close()
            if self.place.path is not None:
                self.place.path.unlink(missing_ok=True)
        finally:
            await runner.cleanup()
        return ended_by

    async def _listen(self, runner: web.AppRunner) -> AbstractServer:
        loop, path = asyncio.get_running_loop(), self.place.path
        server = cast(web.Server, runner.server)

        begun: set[Protocol] = set()  # that the server does not know yet

        def connected() -> Protocol:
            known = set(server.connections)
            self.scans.metrics.connections.set(len(known))
            if len(known | begun) >= self.most:
                return _Full()
            made = server()
            begun.add(made)
            # The loop tells the server of it with its next turn; with the one after we forget it.
            loop.call_soon(loop.call_soon, begun.discard, made)
            loop.call_later(SILENT, _give_up, made)
            return made

        try:
            if path is None:
                return await loop.create_server(connected, self.place.host, self.place.port)
            _cleared(path)
            listening = await loop.create_unix_server(connected, path)
            path.chmod(0o660)
        except OSError as error:
            raise ImagewardenError(f"cannot listen at {self.place}: "
                                   f"{error.strerror or error}") from None
        return listening


def _give_up(connection: web.RequestHandler) -> None:
    """Hang up on a client that has not even begun a request."""
    if connection._current_request is None and connection._request_count == 0:
        connection.force_close()


def _cleared(path: Path) -> None:
    """Remove the socket of one that died; raises ImagewardenError when one lives."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ImagewardenError(f"{show(path)}: there, and no socket")
    except FileNotFoundError:
        return
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(1)
        try:
            link.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ImagewardenError(f"{show(path)}: somebody listens there already")
