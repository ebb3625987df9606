"""A JPEG taken apart into its segments."""

import re
import struct
from dataclasses import dataclass

from maintenance.images import exif
from maintenance.images.outcomes import Broken, LeaveAlone

START = b"\xff\xd8"
END = b"\xff\xd9"
SOS, EOI, COMMENT = 0xDA, 0xD9, 0xFE
APP = range(0xE0, 0xF0)
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
ARITHMETIC = range(0xC9, 0xD0)
EXIF = b"Exif\0\0"
XMP, XMP_MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
_ENDS_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker with what belongs to it; ``scan`` is the coded data behind a start of scan."""

    marker: int
    data: bytes
    scan: bytes = b""

    def __bytes__(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, len(self.data) + 2) + self.data + self.scan


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A whole file, and what lies behind its end."""

    segments: tuple[Segment, ...]
    trailing: bytes = b""

    def __bytes__(self) -> bytes:
        """Return the file without what lay behind its end."""
        return START + b"".join(map(bytes, self.segments)) + END

    @property
    def frame(self) -> Segment:
        """Return the segment that says how large and in how many colours."""
        found = [segment for segment in self.segments if segment.marker in FRAMES]
        if not found or not any(segment.marker == SOS for segment in self.segments):
            raise Broken("there is no picture in it")
        if len(found) > 1:
            raise LeaveAlone("a hierarchical JPEG")
        if len(found[0].data) < 6:
            raise Broken("its header is cut short")
        return found[0]

    @property
    def pixels(self) -> int:
        """Return how many it has."""
        height, width = struct.unpack_from(">HH", self.frame.data, 1)
        return int(height * width)

    @property
    def extras(self) -> tuple[Segment, ...]:
        """Return all that is not the picture itself."""
        return tuple(segment for segment in self.segments if is_extra(segment))

    @property
    def density(self) -> bytes:
        """Return unit and dots of the JFIF header."""
        return b"".join(s.data[7:12] for s in self.segments if starts(s, 0xE0, b"JFIF"))

    @property
    def colours(self) -> bytes:
        """Return what says how the colours are meant."""
        return b"".join(s.data[:12] for s in self.segments if is_adobe(s))

    def told(self, name: str) -> object:
        """Return what is there of the kind of metadata that the setting calls ``name``."""
        blocks = [s.data[len(EXIF):] for s in self.segments if starts(s, 0xE1, EXIF)]
        if name == "orientation":
            return [exif.orientation(block) for block in blocks[:1]] or [1]
        if name == "copyright":
            return [exif.rights(block) for block in blocks if exif.rights(block)]
        if name == "exif":
            return blocks
        if name == "icc":
            return [s.data for s in self.segments if starts(s, 0xE2, ICC)]
        if name == "xmp":
            return [s.data for s in self.segments if starts(s, 0xE1, XMP, XMP_MORE)]
        return self.extras


def parse(data: bytes) -> Jpeg:
    """Take a file apart; raises Broken, or LeaveAlone when it is not ours to touch."""
    segments: list[Segment] = []
    at = 2
    while True:
        if data[at:at + 1] not in {b"\xff", b""}:
            raise LeaveAlone("something between the segments of the JPEG")
        while data[at:at + 2] == b"\xff\xff":
            at += 1  # filling
        head = data[at:at + 4]
        if head[:2] == END:
            return Jpeg(tuple(segments), data[at + 2:])
        if len(head) < 4:
            raise Broken("it ends in the middle")
        _, marker, length = struct.unpack(">BBH", head)
        if marker == 0x01 or 0xD0 <= marker <= 0xD8 or marker == 0:
            raise LeaveAlone("something between the segments of the JPEG")
        if length < 2 or at + 2 + length > len(data):
            raise Broken("it ends in the middle")
        body, at = data[at + 4:at + 2 + length], at + 2 + length
        scan = b""
        if marker == SOS:
            found = _ENDS_SCAN.search(data, at)
            if found is None:
                raise Broken("it ends in the middle")
            scan, at = data[at:found.start()].rstrip(b"\xff"), found.start()
        segments.append(Segment(marker, body, scan))


def starts(segment: Segment, marker: int, *words: bytes) -> bool:
    """Tell whether it has this marker, and its data begin with one of these."""
    return segment.marker == marker and segment.data.startswith(words)


def is_adobe(segment: Segment) -> bool:
    """Tell whether it says how the colours are meant."""
    return starts(segment, 0xEE, b"Adobe") and len(segment.data) >= 12


def is_extra(segment: Segment) -> bool:
    """Tell whether it is no part of the picture itself."""
    return segment.marker in APP or segment.marker == COMMENT
