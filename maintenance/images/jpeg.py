"""Which JPEGs we touch, and which of their segments stay."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from maintenance.images import exif
from maintenance.images.outcomes import LeaveAlone
from maintenance.images.segments import (
    ARITHMETIC,
    BASELINE,
    EXIF,
    EXTENDED,
    ICC,
    PROGRESSIVE,
    XMP,
    XMP_MORE,
    Jpeg,
    Segment,
    is_adobe,
    is_extra,
    starts,
)


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
    if starts(segment, 0xE2, b"MPF\0"):
        raise LeaveAlone("a second image behind the first")
    gain_map = segment.marker == 0xE1 and b"hdrgm" in segment.data
    if gain_map or starts(segment, 0xE2, b"urn:iso:std:iso:ts:21496"):
        raise LeaveAlone("a gain map for HDR screens")
    boxes = starts(segment, 0xEB, b"JP") and b"jumb" not in segment.data[:64]
    if boxes or starts(segment, 0xEB, b"HDR_RI"):
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
    if not is_extra(segment):
        return data
    if starts(segment, 0xE0, b"JFIF"):
        return data[:12] + bytes(len(data[12:14]))  # without the small picture
    if starts(segment, 0xE1, EXIF) and "exif" not in keep:
        block = exif.reduced(data[len(EXIF):], keep)
        return EXIF + block if block else None
    wanted = (starts(segment, 0xE1, EXIF)
              or starts(segment, 0xE1, XMP, XMP_MORE) and "xmp" in keep
              or starts(segment, 0xE2, ICC) and "icc" in keep)
    if wanted:
        return data
    return data[:12] if is_adobe(segment) else None


def with_coding_of(jpeg: Jpeg, other: Jpeg) -> Jpeg:
    """Return ``jpeg`` with its picture coded as in ``other``: tables, frame and scans."""
    coding = (segment for segment in other.segments if not is_extra(segment))
    return Jpeg((*jpeg.extras, *coding))
