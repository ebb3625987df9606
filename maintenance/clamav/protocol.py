"""What is said to clamd, what it says, and what that means.

Source of the protocol: clamd(8). A reply to a scan is ``NAME: OK``,
``NAME: SIGNATURE FOUND`` or ``... ERROR``; inside IDSESSION every reply starts
with the request's number and a colon.
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator

from maintenance.verdict import CLEAN, Answer, infected, unknown

SESSION, PING, VERSION = b"zIDSESSION\0", b"zPING\0", b"zVERSION\0"
FILDES = b"zFILDES\0\0"  # with the byte that a descriptor travels on
CHUNK = 64 * 2**10  # bytes of one INSTREAM chunk
LIMITS = "Heuristics.Limits.Exceeded"
LIMIT_REACHED = "a limit of clamd was reached"  # so begins the reason of an answer
STREAM_LIMIT = "INSTREAM size limit exceeded. ERROR"
IMPATIENT = "COMMAND READ TIMED OUT"  # the end of a session that was silent for long
_NUMBERED = re.compile(r"([0-9]{1,10}): (.*)", re.DOTALL)
# The name is one that clamd makes up (`fd[12]`, `stream`): ours never travel.
# With ExtendedDetectionInfo, as on Debian, a signature carries the file's MD5 and size.
_EXTENDED = re.compile(r"\([0-9a-f]{32,64}:\d+\)$")
_NAMED = re.compile(r"(?:fd\[\d+\]|stream|instream\([^)]*\)): (.*)", re.DOTALL)


def streamed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an INSTREAM request, a piece for each chunk."""
    head = b"zINSTREAM\0"
    for chunk in filter(None, chunks):  # an empty one would end the stream
        yield head + struct.pack("!I", len(chunk)) + chunk
        head = b""
    yield head + struct.pack("!I", 0)


def chunks_of(fd: int) -> Iterator[bytes]:
    """Yield the content of a file from its start, wherever its descriptor stands."""
    offset = 0
    while chunk := os.pread(fd, CHUNK, offset):
        yield chunk
        offset += len(chunk)


def numbered(reply: str) -> tuple[int, str] | None:
    """Split a reply inside IDSESSION; None when it carries no number."""
    match = _NUMBERED.fullmatch(reply)
    return None if match is None else (int(match[1]), match[2])


def answer(reply: str) -> Answer:
    """Read the reply to one scan. What is not exactly OK or FOUND is unknown."""
    if reply == STREAM_LIMIT:
        return unknown("larger than clamd's StreamMaxLength")
    match = _NAMED.fullmatch(reply)
    if match is None:
        return unknown(f"clamd: {reply}")
    result = match[1]
    if result == "OK":
        return CLEAN
    signature = result.removesuffix(" FOUND")
    if signature == result:
        return unknown(f"clamd: {result}")
    if signature.startswith(LIMITS):
        return unknown(f"{LIMIT_REACHED}: {signature}")
    return infected(_EXTENDED.sub("", signature))
