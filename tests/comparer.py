"""Tells whether two image files show the same, and shares no code with what makes them smaller.

Pixels come from ImageMagick, as RGBA of 16 bits, the colours under full transparency
included, of every frame; what a file says about itself comes from Pillow.
"""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Facts:
    """What has to be the same."""

    format: str
    pixels: str  # digest of all frames; where it says so, turned upright
    size: tuple[int, int]
    frames: tuple[object, ...]  # of each: how long, and what becomes of it
    icc: bytes | None
    colours: tuple[object, ...]  # gAMA, cHRM, sRGB
    density: tuple[object, ...]


def facts(path: Path, *, upright: bool = True) -> Facts:
    """Look at a file; raises OSError when it cannot be read to its end.

    ``upright``: turn the picture as its orientation says, so that a tool that turns the
    pixels instead does no damage; else the orientation has to stay what it is.
    """
    with Image.open(path) as image:
        image.load()
        info, size = dict(image.info), image.size
        frames = tuple(frame(image, number) for number in range(getattr(image, "n_frames", 1)))
        turned = image.getexif().get(ORIENTATION, 1)
        kind = str(image.format)
    if turned in {5, 6, 7, 8} and upright:
        size = size[::-1]
    return Facts(kind, pixels(path, upright) + f" {0 if upright else turned}", size, frames,
                 info.get("icc_profile"),
                 tuple(info.get(name) for name in ("gamma", "chromaticity", "srgb")),
                 # A JPEG's "dpi" may be what its EXIF says of it, which is not what counts.
                 # No header and one that says nothing are the same.
                 (info.get("jfif_unit", 0), info.get("jfif_density", (1, 1)))
                 if kind == "JPEG" else
                 (info.get("dpi"), info.get("aspect")))


def frame(image: Image.Image, number: int) -> tuple[object, ...]:
    image.seek(number)
    image.load()
    return (image.info.get("duration"), image.info.get("disposal"), image.info.get("blend"),
            getattr(image, "disposal_method", None))


def pixels(path: Path, upright: bool) -> str:
    """Digest every frame as RGBA of 16 bits."""
    turn = ["-auto-orient"] if upright else []
    ran = subprocess.run(["/usr/bin/convert", path, *turn, "-depth", "16", "RGBA:-"],
                         capture_output=True, check=False)
    if ran.returncode or not ran.stdout:
        raise OSError(ran.stderr.decode(errors="replace").strip() or "no pixels")
    return hashlib.sha256(ran.stdout).hexdigest()


def damage(original: Path, result: Path, *, upright: bool = True) -> list[str]:
    """Name what ``result`` lacks or shows in another way; empty: nothing."""
    if original.read_bytes() == result.read_bytes():
        return []
    before = facts(original, upright=upright)
    try:
        after = facts(result, upright=upright)
    except (OSError, SyntaxError) as error:
        return [f"unreadable: {error}"]
    return [name for name in Facts.__dataclass_fields__
            if getattr(before, name) != getattr(after, name)]
