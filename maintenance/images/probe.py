"""A good image for a worker, to tell images that kill from a host on which nothing works."""

import os
import select
import struct
import time
import zlib

from maintenance.errors import ToolError
from maintenance.images.chunks import Chunk, Png
from maintenance.images.process import Lost, Process

PIXEL = bytes(Png((Chunk(b"IHDR", struct.pack(">II5B", 1, 1, 8, 0, 0, 0, 0)),
                   Chunk(b"IDAT", zlib.compress(b"\0\0")), Chunk(b"IEND", b""))))


def require_works(process: Process, after: str) -> None:
    """Raise ToolError unless this worker can read an image at all; ``after``: what led here."""
    fd = os.memfd_create("imagewarden-probe")
    try:
        os.write(fd, PIXEL)
        process.order(fd)
        wait = max(0.0, process.deadline - time.monotonic())
        if not select.select([process.link], [], [], wait)[0]:
            raise ToolError(f"{after}, and reading a good one takes too long")
        process.answer()
    except Lost as lost:
        raise ToolError(f"{after}, and so does a good one; its last words: {lost.words}") from None
    finally:
        os.close(fd)
