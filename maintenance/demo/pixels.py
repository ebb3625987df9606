"""What the images of the demo's store show: proof that optimising changed none of it.

Only for images that the demo made itself: others belong into a cage before they
are decoded.
"""

import hashlib
import os
from pathlib import Path

from PIL import Image, ImageSequence, UnidentifiedImageError


def shown_in(store: Path) -> dict[bytes, str]:
    """Return a fingerprint of the pixels of every image that can be decoded, by path."""
    found = {}
    for image in store.rglob("*"):
        if image.is_file() and not image.is_symlink():
            pixels = _pixels(image)
            if pixels is not None:
                found[os.fsencode(image.relative_to(store))] = pixels
    return found


def _pixels(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with Image.open(path) as image:
            for frame in ImageSequence.Iterator(image):
                digest.update(f"{frame.size} {frame.info.get('duration')}".encode())
                digest.update(_colours(frame))
    except (OSError, UnidentifiedImageError):
        return None
    return digest.hexdigest()


def _colours(frame: Image.Image) -> bytes:
    """Return the colours whatever way they are stored: a palette is one of several."""
    if frame.mode.startswith("I"):  # 16 bits of grey, which RGBA would cut to 8
        return frame.tobytes()
    if frame.mode == "CMYK":
        return frame.tobytes()
    return frame.convert("RGBA").tobytes()
