"""A small image store with everything in it that a large one has sooner or later."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from maintenance.demo import kinds, pictures

INFECTED = b"2026/09/02/invoice.jpg"
INFECTED_LATER = b"2026/09/03/flyer.png"
MISTAKEN = b"2026/09/02/logo.png"
TRUNCATED = b"2026/09/03/half an upload.jpg"
LINK = b"avatars/passwd.jpg"
LINK_TARGET = b"/etc/passwd"
NEWLINE = b"avatars/two\nlines.png"
NOT_UTF8 = b"avatars/\xff\xfe.jpg"

MARKER = b"imagewarden demo: harmless, and named from the second definitions on"
TRADEMARK = b"imagewarden demo: harmless, and called bad by mistake for a while"


@dataclass(frozen=True, slots=True)
class Samples:
    """What `make_store` made: paths are relative to the store.

    ``images`` counts regular files, so the symbolic link is not among them.
    """

    images: int
    photos: tuple[bytes, ...]
    infected: bytes = INFECTED
    infected_later: bytes = INFECTED_LATER
    mistaken: bytes = MISTAKEN
    truncated: bytes = TRUNCATED
    link: bytes = LINK
    newline: bytes = NEWLINE
    not_utf8: bytes = NOT_UTF8


def make_store(root: Path, seed: int = 1) -> Samples:
    """Fill ``root``, which may exist but must be empty, with the same images for one seed."""
    root.mkdir(parents=True, exist_ok=True)
    images, photos = 0, []
    for path, content in _entries(Random(seed)):  # noqa: S311 - pictures, not secrets
        file = root / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(content)
        images += 1
        if path.startswith(b"2026/09/01/"):
            photos.append(path)
    (root / os.fsdecode(LINK)).symlink_to(os.fsdecode(LINK_TARGET))
    return Samples(images, tuple(photos))


def eicar() -> bytes:
    """Return the string all scanners agree to call a virus, for tests.

    It is put together here, and in reverse so that no compiler does it ahead of
    time: a scanner must find it neither in this source nor in its .pyc file.
    """
    backwards = (
        b"TEST-FILE!$H+H*",
        b"ANTIVIRUS-",
        b"STANDARD-",
        b"7CC)7}$EICAR-",
        b"X5O!P%@AP[4\\PZX54(P^)",
    )
    return b"".join(reversed(backwards))


def signatures_first() -> bytes:
    """Return the first demo.ndb: it knows the EICAR string, anywhere in any file."""
    return _signature(b"Demo.Eicar-Test", eicar())


def signatures_second() -> bytes:
    """Return the next demo.ndb: it also names an image that was clean until then.

    And one that is harmless: signatures have their bad days.
    """
    return signatures_third() + _signature(b"Demo.Too-Broad", TRADEMARK)


def signatures_third() -> bytes:
    """Return the last demo.ndb, without the mistake."""
    return signatures_first() + _signature(b"Demo.Marker", MARKER)


def _signature(name: bytes, body: bytes) -> bytes:
    return name + b":0:*:" + body.hex().encode() + b"\n"


def _entries(chance: Random) -> Iterator[kinds.Entry]:
    yield from kinds.photographs(chance)
    yield from kinds.pngs(chance)
    yield from kinds.gifs(chance)
    yield from kinds.webps(chance)
    yield from _odd_ones(chance)


def _commented(picture: Image.Image, comment: bytes) -> bytes:
    text = PngInfo()
    text.add_text("Comment", comment.decode())
    return pictures.encoded(picture, "PNG", pnginfo=text)


def _odd_ones(chance: Random) -> Iterator[kinds.Entry]:
    """Give what goes wrong in real stores: bad content under good names, and bad names."""
    picture = pictures.photo(chance, kinds.SIZES[0])
    whole = pictures.encoded(picture, "JPEG", quality=88)
    yield TRUNCATED, whole[: len(whole) * 2 // 3]
    yield INFECTED, pictures.encoded(picture, "JPEG", quality=80, comment=eicar())
    yield INFECTED_LATER, _commented(pictures.photo(chance, kinds.SMALL), MARKER)
    yield MISTAKEN, _commented(pictures.photo(chance, kinds.SMALL), TRADEMARK)
    avatar = pictures.photo(chance, (128, 128))
    yield b"avatars/1.png", pictures.encoded(avatar, "PNG")
    yield NEWLINE, pictures.encoded(avatar.rotate(90), "PNG")
    yield NOT_UTF8, pictures.encoded(avatar, "JPEG", quality=85)
