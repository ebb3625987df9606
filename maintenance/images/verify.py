"""Proof that a result shows what its original shows; it fails closed."""

from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from maintenance.images.outcomes import Broken

BAND = 256  # rows compared at a time, so that memory holds few copies of them
ImageFile.LOAD_TRUNCATED_IMAGES = False
READERS = {"JPEG": JpegImageFile, "PNG": PngImageFile}  # not Image.open, which looks for more


def decoded(data: bytes, kind: str) -> Image.Image:
    """Decode all of it; raises Broken.

    Give it no more than the picture itself: metadata are read by ``exif`` alone.
    """
    try:
        picture: Image.Image = READERS[kind](BytesIO(data))
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError) as error:
        raise Broken("it cannot be decoded") from error
    return picture


def same_pixels(one: Image.Image, other: Image.Image) -> bool:
    """Tell whether two pictures of 8 bits are equal as they are, mode and size included."""
    return (one.mode, one.size) == (other.mode, other.size) and all(
        mine == theirs for mine, theirs in zip(_bands(one), _bands(other), strict=True))


def _bands(picture: Image.Image) -> Iterator[bytes]:
    width, height = picture.size
    for top in range(0, height, BAND):
        yield picture.crop((0, top, width, min(top + BAND, height))).tobytes()
