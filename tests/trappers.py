"""Peers on TCP that do what a real Zabbix server cannot be made to do, in its protocol."""

import json
import socket
import struct
import threading
from collections.abc import Callable

from tests.peers import Peer, Talk


class Trapper(Peer):
    """Listens on loopback and plays ``part`` on every connection."""

    def __init__(self, part: Callable[["Caller"], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests: list[list[dict]] = []  # the values of each request
        self._part = lambda talk: part(Caller(talk, self.requests))
        self._threads = [threading.Thread(target=self._serve)]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def values(self) -> list[dict]:
        """Everything that was ever offered."""
        return [value for request in self.requests for value in request]


class Caller:
    """One connection of a sender."""

    def __init__(self, talk: Talk, requests: list[list[dict]]) -> None:
        self.link, self._talk, self._requests = talk.link, talk, requests

    def hear(self) -> list[dict]:
        """Take one whole request and return its values."""
        self.link.settimeout(20)
        head = self._exactly(13)
        assert head[:5] == b"ZBXD\1", head
        told = json.loads(self._exactly(struct.unpack("<II", head[5:])[0]))
        assert told["request"] == "sender data"
        self._requests.append(told["data"])
        return told["data"]

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.link.recv(length - len(data))
            if not part:
                raise OSError("hung up")
            data += part
        return data

    def say(self, data: bytes) -> None:
        self.link.sendall(data)

    def answer(self, processed: int, failed: int) -> None:
        """Answer as a real server does."""
        self.say(packet({"response": "success", "info":
                         f"processed: {processed}; failed: {failed};"
                         f" total: {processed + failed}; seconds spent: 0.000055"}))

    def wait_for_the_end(self) -> None:
        """Listen until the other end closes."""
        self.link.settimeout(60)
        while self.link.recv(65536):
            pass

    def reset(self) -> None:
        """Close with a RST."""
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.link.close()


def packet(body: object) -> bytes:
    """A packet of Zabbix's protocol."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"ZBXD\1" + struct.pack("<II", len(data), 0) + data


def takes(caller: Caller) -> None:
    """A server that takes everything."""
    caller.answer(len(caller.hear()), 0)


def refuses_all(caller: Caller) -> None:
    """A server that says success and takes nothing."""
    caller.answer(0, len(caller.hear()))


def lacks(*keys: str) -> Callable[[Caller], None]:
    """A server without the items ``keys``."""
    def part(caller: Caller) -> None:
        values = caller.hear()
        good = sum(value["key"] not in keys for value in values)
        caller.answer(good, len(values) - good)
    return part
