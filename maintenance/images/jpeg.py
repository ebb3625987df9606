"""The segments of a JPEG: which of them stay.

Nothing is decoded here. A picture we do not completely understand (a second one
behind the first, a gain map) raises LeaveAlone, a broken one Broken.
"""

import re
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

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
        return tuple(segment for segment in self.segments if _is_extra(segment))

    @property
    def density(self) -> bytes:
        """Return unit and dots of the JFIF header."""
        return b"".join(s.data[7:12] for s in self.segments if _starts(s, 0xE0, b"JFIF\0"))

    @property
    def colours(self) -> bytes:
        """Return what says how the colours are meant."""
        return b"".join(s.data[:12] for s in self.segments if _is_adobe(s))

    def told(self, name: str) -> object:
        """Return what is there of the kind of metadata that the setting calls ``name``."""
        blocks = [s.data[len(EXIF):] for s in self.segments if _starts(s, 0xE1, EXIF)]
        if name == "orientation":
            return [exif.orientation(block) for block in blocks] or [1]
        if name == "copyright":
            return [exif.rights(block) for block in blocks if exif.rights(block)]
        if name == "exif":
            return blocks
        if name == "icc":
            return [s.data for s in self.segments if _starts(s, 0xE2, ICC)]
        if name == "xmp":
            return [s.data for s in self.segments if _starts(s, 0xE1, XMP, XMP_MORE)]
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


def admit(jpeg: Jpeg) -> None:
    """Raise LeaveAlone for what we cannot rewrite without losing something."""
    frame = jpeg.frame
    if frame.marker in ARITHMETIC:
        raise LeaveAlone("an arithmetic coded JPEG")
    if frame.marker not in {BASELINE, EXTENDED, PROGRESSIVE}:
        raise LeaveAlone("a JPEG of a rare kind")
    if frame.data[0] != 8:
        raise LeaveAlone("a JPEG with more than 8 bits a colour")
    if frame.data[5] not in {1, 3, 4}:
        raise LeaveAlone("a JPEG of a rare kind")
    if not jpeg.pixels:
        raise LeaveAlone("a JPEG of a rare kind")
    for segment in jpeg.segments:
        _admit_extra(segment)
    if b"\xff\xd8\xff" in jpeg.trailing:
        raise LeaveAlone("a second image behind the first")


def _admit_extra(segment: Segment) -> None:
    if _starts(segment, 0xE2, b"MPF\0"):
        raise LeaveAlone("a second image behind the first")
    gain_map = segment.marker == 0xE1 and b"hdrgm" in segment.data
    if gain_map or _starts(segment, 0xE2, b"urn:iso:std:iso:ts:21496"):
        raise LeaveAlone("a gain map for HDR screens")
    boxes = _starts(segment, 0xEB, b"JP") and b"jumb" not in segment.data[:64]
    if boxes or _starts(segment, 0xEB, b"HDR_RI"):
        raise LeaveAlone("a JPEG with an extension")


def stripped(jpeg: Jpeg, keep: Collection[str]) -> Jpeg:
    """Return it without the metadata that ``keep`` does not name, and without trailing data."""
    if "all" in keep:
        return Jpeg(jpeg.segments)
    return Jpeg(tuple(_chosen(jpeg.segments, keep)))


def _chosen(segments: Sequence[Segment], keep: Collection[str]) -> Iterator[Segment]:
    for segment in segments:
        data = _reduced(segment, keep)
        if data is not None:
            yield replace(segment, data=data)


def _reduced(segment: Segment, keep: Collection[str]) -> bytes | None:
    """Return what is left of a segment's data; None: the segment goes."""
    data = segment.data
    if not _is_extra(segment):
        return data
    if _starts(segment, 0xE0, b"JFIF\0") and len(data) >= 14:
        return data[:12] + b"\0\0"  # without the small picture
    if _starts(segment, 0xE1, EXIF) and "exif" not in keep:
        block = exif.reduced(data[len(EXIF):], keep)
        return EXIF + block if block else None
    wanted = (_starts(segment, 0xE1, EXIF)
              or _starts(segment, 0xE1, XMP, XMP_MORE) and "xmp" in keep
              or _starts(segment, 0xE2, ICC) and "icc" in keep)
    if wanted:
        return data
    return data[:12] if _is_adobe(segment) else None


def _starts(segment: Segment, marker: int, *words: bytes) -> bool:
    return segment.marker == marker and segment.data.startswith(words)


def _is_adobe(segment: Segment) -> bool:
    return _starts(segment, 0xEE, b"Adobe") and len(segment.data) >= 12


def with_coding_of(jpeg: Jpeg, other: Jpeg) -> Jpeg:
    """Return ``jpeg`` with its picture coded as in ``other``: tables, frame and scans."""
    coding = (segment for segment in other.segments if not _is_extra(segment))
    return Jpeg((*jpeg.extras, *coding))


def _is_extra(segment: Segment) -> bool:
    return segment.marker in APP or segment.marker == COMMENT
