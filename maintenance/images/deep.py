"""Pixels of a PNG with 16 bits a colour, which Pillow would cut to 8.

Slow, for it is Python: only for what nothing else here reads exactly.
"""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import SupportsIndex

from maintenance.images.chunks import CHANNELS, GREY, RGB, Png, inflated
from maintenance.images.outcomes import Broken

OPAQUE = b"\xff\xff"


def rows(png: Png) -> Iterator[bytes]:
    """Give each row as RGBA of 16 bits, most significant byte first."""
    header = png.header
    size = header.bits // 8
    data = memoryview(b"".join(inflated(png)))
    picture = [bytearray(header.row(header.width)) for _ in range(header.height)]
    at = 0
    for (left, top, right, down), width, height in header.passes():
        before = bytes(header.row(width))
        for line in range(height):
            end = at + 1 + len(before)
            before = _unfiltered(data[at], data[at + 1:end], before, size)
            at = end
            row = picture[top + line * down]
            for byte in range(size):
                row[left * size + byte::right * size] = before[byte::size]
    key = b"".join(png.all(b"tRNS"))
    for row in picture:
        yield _widened(row, header.colour, key)


def _unfiltered(kind: int, row: memoryview, above: bytes, size: int) -> bytes:
    if kind == 0:
        return bytes(row)
    if kind == 1:
        result = bytearray(len(row))
        for start in range(size):
            result[start::size] = bytes(accumulate(bytes(row[start::size]), _sum))
        return bytes(result)
    if kind == 2:
        return bytes(map(_sum, row, above))
    if kind == 3:
        return _predicted(row, above, size, lambda left, up, _: (left + up) >> 1)
    if kind == 4:
        return _predicted(row, above, size, _paeth)
    raise Broken("its pixels cannot be read")


def _sum(one: SupportsIndex, other: SupportsIndex) -> int:
    return int(one) + int(other) & 255


def _predicted(row: memoryview, above: bytes, size: int,
               predict: Callable[[int, int, int], int]) -> bytes:
    result = bytearray(size) + row
    corner = bytes(size) + above
    for at, up in enumerate(above):
        result[at + size] = result[at + size] + predict(result[at], up, corner[at]) & 255
    return bytes(result[size:])


def _paeth(left: int, up: int, corner: int) -> int:
    middle = left + up - corner
    far, high, deep = abs(middle - left), abs(middle - up), abs(middle - corner)
    if far <= high and far <= deep:
        return left
    return up if high <= deep else corner


def _widened(row: bytearray, colour: int, key: bytes) -> bytes:
    channels = CHANNELS[colour]
    count = len(row) // (2 * channels)
    samples = [_sample(row, channel, channels) for channel in range(channels)]
    alpha = samples[-1] if colour not in {GREY, RGB} else OPAQUE * count
    if key:
        size = len(key)
        alpha = b"".join(bytes(2) if row[at:at + size] == key else OPAQUE
                         for at in range(0, len(row), size))
    colours = samples[:3] if channels >= 3 else samples[:1] * 3
    result = bytearray(8 * count)
    for place, sample in enumerate((*colours, alpha)):
        result[2 * place::8], result[2 * place + 1::8] = sample[0::2], sample[1::2]
    return bytes(result)


def _sample(row: bytearray, channel: int, channels: int) -> bytes:
    values = bytearray(len(row) // channels)
    values[0::2] = row[2 * channel::2 * channels]
    values[1::2] = row[2 * channel + 1::2 * channels]
    return bytes(values)
