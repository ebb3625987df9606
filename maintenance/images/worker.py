"""The process that reads images: one after the other, until its socket closes.

Started by ``workers.py`` with nothing but a socket as its standard input. Every
order is two descriptors, the image and an empty file for the result, and says whether
the image needs care because a worker died over it. The answer is one JSON object:
``{"kept": reason}``, ``{"damaged": reason}``, ``{"full": place}`` or ``{"size": n}``.
"""

import ctypes
import errno
import json
import os
import resource
import socket
from contextlib import suppress

from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.plan import Plan
from maintenance.images.shrink import shrink

NO_NEW_PRIVS = 38  # of prctl(2)
CAREFUL = b"careful"
READY: dict[str, object] = {"ready": True}


def serve(link: socket.socket, plan_text: str) -> None:
    """Work until the other end closes."""
    plan = Plan.from_text(plan_text)
    _let_go()
    _tell(link, READY)
    while True:
        order, fds, _, _ = socket.recv_fds(link, 16, 2)
        if not order:
            return
        source, result = fds
        try:
            _tell(link, _answer(source, result, plan.careful if order == CAREFUL else plan))
        finally:
            os.close(source)
            os.close(result)


def _let_go() -> None:
    """Give up what a worker never needs; its memory was limited before it began."""
    ctypes.CDLL(None).prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    with suppress(OSError):
        os.nice(10)


def _answer(source: int, result: int, plan: Plan) -> dict[str, object]:
    _allow(plan.allowance.cpu)
    try:
        better = shrink(_read(source, plan.allowance.size), plan)
        _write(result, better)
    except LeaveAlone as reason:
        return {"kept": str(reason)}
    except Broken as reason:
        return {"damaged": str(reason)}
    except MemoryError:
        return {"damaged": "it needs more memory than an image may take"}
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return {"full": str(error.filename or "memory for results")}
    return {"size": len(better)}


def _allow(seconds: int) -> None:
    """Let this image have so much processor time; beyond it the kernel ends us."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, hard))


def _read(source: int, most: int) -> bytes:
    size = os.fstat(source).st_size
    if size > most:
        raise Broken("too large a file")
    data = bytearray()
    while part := os.pread(source, size + 1 - len(data), len(data)):
        data += part
        if len(data) > size:
            raise LeaveAlone("it grows while it is read")
    return bytes(data)


def _write(result: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(result, view):]


def _tell(link: socket.socket, answer: dict[str, object]) -> None:
    link.sendall(json.dumps(answer).encode())
