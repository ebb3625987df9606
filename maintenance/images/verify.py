"""Proof that a result may stand in for its original; it fails closed."""

from collections.abc import Collection

from maintenance.images import chunks, jpeg, png, segments, webp
from maintenance.images.chunks import Png
from maintenance.images.outcomes import Broken, LeaveAlone
from maintenance.images.pictures import Shown, shown_by_jpeg, shown_by_png, shown_by_webp
from maintenance.images.segments import Jpeg
from maintenance.images.webp import Webp


class Different(Exception):
    """The result does not show the same, or does not hold exactly what it should."""


def same_jpeg(original: Jpeg, shown: Shown, result: bytes, keep: Collection[str]) -> None:
    """Raise Different unless ``result`` shows ``shown`` and has what ``keep`` leaves."""
    try:
        after = segments.parse(result)
        _same_told(original, after, keep)
        if jpeg.stripped(after, keep) != after:
            raise Different("metadata that were to go")
        if original.density != after.density:
            raise Different("density")
        if shown_by_jpeg(after) != shown:
            raise Different("pixels")
    except (Broken, LeaveAlone) as error:
        raise Different(str(error)) from error


def same_png(original: Png, shown: Shown, result: bytes, keep: Collection[str]) -> None:
    """Raise Different unless ``result`` shows ``shown`` and has what ``keep`` leaves."""
    try:
        after = chunks.parse(result)
        png.admit(after)
        _same_told(original, after, keep)
        if png.stripped(after, keep) != after:
            raise Different("metadata that were to go")
        if after.all(b"iCCP") and original.header.grey != after.header.grey:
            raise Different("a grey picture under a profile for colours, or the reverse")
        if shown_by_png(after, wide=original.header.depth == 16) != shown:
            raise Different("pixels")
    except (Broken, LeaveAlone) as error:
        raise Different(str(error)) from error


def same_webp(original: Webp, shown: Shown, result: bytes, keep: Collection[str]) -> None:
    """Raise Different unless ``result`` has the very pictures and what ``keep`` leaves."""
    try:
        after = webp.parse(result)
        _same_told(original, after, keep)
        if webp.stripped(after, keep) != after:
            raise Different("metadata that were to go")
        if original.picture != after.picture or shown_by_webp(after) != shown:
            raise Different("pixels")
    except (Broken, LeaveAlone) as error:
        raise Different(str(error)) from error


def _same_told(original: Jpeg | Png | Webp, after: Jpeg | Png | Webp,
               keep: Collection[str]) -> None:
    if original.colours != after.colours:
        raise Different("the meaning of its colours")
    for name in keep:
        if original.told(name) != after.told(name):
            raise Different(name)
