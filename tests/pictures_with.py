"""Small files that hold given words in the places where an engine looks for them."""

import struct
import zipfile
import zlib
from io import BytesIO
from random import Random

from PIL import Image

from tests.images import chunk

PIECE = 128 * 1024  # bytes that the engine takes at a time


def picture(kind: str, seed: int = 0) -> bytes:
    """A small picture; the same for the same seed."""
    rng = Random(seed)
    image = Image.new("RGB", (24, 24))
    image.putdata([(rng.randrange(256),) * 3 for _ in range(24 * 24)])
    out = BytesIO()
    image.save(out, kind)
    return out.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP")}


def in_metadata(word: bytes, kind: str = "PNG") -> bytes:
    """A picture with the word in its metadata."""
    if kind == "PNG":
        png = PICTURES["PNG"]
        return png[:33] + chunk(b"tEXt", b"Comment\0" + word) + png[33:]
    if kind == "JPEG":
        jpeg = PICTURES["JPEG"]
        return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(word) + 2) + word + jpeg[2:]
    return PICTURES[kind] + word


def at_border(word: bytes, shift: int) -> bytes:
    """A PNG in which the word lies across the end of the first piece that is scanned."""
    png = PICTURES["PNG"]
    gap = PIECE - len(png) - 8 - shift
    return png[:33] + chunk(b"tEXt", b"Comment\0" + b"\x01" * (gap - 12) + word
                            + b"\x01" * 70_000) + png[33:]


def zipped(members: dict[str, bytes], *, packed: bool = True, password: bytes = b"") -> bytes:
    """A zip archive; with a password its members are encrypted in the old way."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as box:
        for name, data in members.items():
            box.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), data,
                         zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    return _encrypted(members, password) if password else out.getvalue()


def _encrypted(members: dict[str, bytes], password: bytes) -> bytes:
    body, directory = b"", b""
    for name, data in members.items():
        crc = zlib.crc32(data)
        hidden = _cipher(password, bytes(11) + bytes([crc >> 24]) + data)
        fields = struct.pack("<5H3L2H", 20, 1, 0, 0, 0x21, crc, len(hidden), len(data), len(name),
                             0)
        directory += (b"PK\1\2\x14\0" + fields + struct.pack("<3H2L", 0, 0, 0, 0, len(body))
                      + name.encode())
        body += b"PK\3\4" + fields + name.encode() + hidden
    end = struct.pack("<4H2LH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end


def _cipher(password: bytes, plain: bytes) -> bytes:
    """The stream cipher of the first zip programs."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def turn(byte: int) -> None:
        keys[0] = _crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xffffffff
        keys[2] = _crc(keys[2], keys[1] >> 24)

    for byte in password:
        turn(byte)
    out = bytearray()
    for byte in plain:
        mix = (keys[2] | 2) & 0xffff
        out.append(byte ^ (mix * (mix ^ 1) >> 8 & 255))
        turn(byte)
    return bytes(out)


def _crc(value: int, byte: int) -> int:
    return zlib.crc32(bytes([byte]), value ^ 0xffffffff) ^ 0xffffffff


def program(word: bytes) -> bytes:
    """A Windows program of one section, which begins with the word."""
    section = word.ljust(512, b"\x90")
    header = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    header += b"PE\0\0" + struct.pack("<2H3I2H", 0x14c, 1, 0, 0, 0, 0xe0, 0x102)
    header += struct.pack("<H2B9I6H4I2H6I", 0x10b, 1, 0, 512, 0, 0, 0x1000, 0x1000, 0x2000,
                          0x400000, 0x1000, 512, 4, 0, 0, 0, 4, 0, 0, 0x2000, 512, 0, 3, 0,
                          0x100000, 0x1000, 0x100000, 0x1000, 0, 16) + bytes(128)
    header += b".text\0\0\0" + struct.pack("<4I12xI", 512, 0x1000, 512, 512, 0x60000020)
    return header.ljust(512, b"\0") + section
