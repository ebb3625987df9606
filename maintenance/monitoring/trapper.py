"""Zabbix's trapper protocol: values out, a count of those taken back."""

import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from maintenance.errors import MonitoringError
from maintenance.monitoring.answer import Nonsense, read
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value
from maintenance.times import Deadline

HEADER = struct.Struct("<4sBII")  # magic, flags, length, and what is reserved
MAGIC, FLAGS = b"ZBXD", 1
LONGEST_ANSWER = 64 * 2**10  # real ones have a hundred bytes
REDIRECTS = 3  # followed for one request

Address = tuple[socket.AddressFamily, Any]


def send(server: Server, values: Sequence[Value], deadline: Deadline) -> int:
    """Offer ``values`` in one request and return how many were taken.

    A proxy that leaves this host to another of its group says to which: that one is
    asked instead. Everything, looking up names included, ends at ``deadline``. Raises
    MonitoringError when there is no answer, or none that can be understood.
    """
    for _ in range(1 + REDIRECTS):
        answer = _exchange(server, values, deadline)
        if isinstance(answer, int):
            return answer
        server = answer
    raise MonitoringError(f"{server}: proxies send us round in a circle")


def _exchange(server: Server, values: Sequence[Value], deadline: Deadline) -> "int | Server":
    try:
        with _connected(server, deadline) as link:
            link.settimeout(_left(deadline))
            link.sendall(request(values))
            return read(_answer(link, deadline), len(values))
    except TimeoutError:
        raise MonitoringError(f"{server}: no answer in time") from None
    except OSError as error:
        raise MonitoringError(f"{server}: {error.strerror or error}") from None
    except Nonsense as error:
        raise MonitoringError(f"{server}: {error}") from None


def request(values: Sequence[Value]) -> bytes:
    """Return the packet that carries ``values``."""
    told = {"request": "sender data", "data": [value.members() for value in values]}
    # A lone surrogate, which UTF-8 cannot hold, must not keep the others back.
    body = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    return HEADER.pack(MAGIC, FLAGS, len(body), 0) + body


def _left(deadline: Deadline) -> float:
    left = deadline.left
    if left <= 0:
        raise TimeoutError
    return left


def _connected(server: Server, deadline: Deadline) -> socket.socket:
    addresses = _addresses(server, deadline)
    trouble: OSError = TimeoutError()
    for at, (family, address) in enumerate(addresses):
        link = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows everything must not take the others' time.
            link.settimeout(_left(deadline) / (len(addresses) - at))
            link.connect(address)
        except OSError as error:
            link.close()
            trouble = error
        except BaseException:
            link.close()
            raise
        else:
            return link
    raise trouble


def _addresses(server: Server, deadline: Deadline) -> Sequence[Address]:
    """Look the name up, in a thread: the resolver cannot be told when to give up."""
    with suppress(socket.gaierror):
        return _look_up(server, socket.AI_NUMERICHOST)
    found: list[Sequence[Address] | OSError] = []

    def ask() -> None:
        try:
            found.append(_look_up(server, 0))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise TimeoutError
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _look_up(server: Server, flags: int) -> Sequence[Address]:
    # In bytes: for a text Python would load its IDNA codec, maybe out of reach by now.
    host = server.host.encode("utf-8", "surrogateescape")
    found = socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM, flags=flags)
    return [(one[0], one[4]) for one in found]


def _answer(link: socket.socket, deadline: Deadline) -> bytes:
    head = b"".join(_received(link, HEADER.size, deadline))
    magic, flags, length, reserved = HEADER.unpack(head)
    if magic != MAGIC or flags != FLAGS or reserved:
        raise Nonsense("answers, but is no Zabbix server")
    if length > LONGEST_ANSWER:
        raise Nonsense(f"announces an answer of {length} bytes")
    return b"".join(_received(link, length, deadline))


def _received(link: socket.socket, length: int, deadline: Deadline) -> Iterator[bytes]:
    while length:
        link.settimeout(_left(deadline))
        part = link.recv(min(length, 16384))
        if not part:
            raise Nonsense("hung up before its answer was complete")
        length -= len(part)
        yield part
