"""One hit as a line of a spool: ``YYYY-MM-DD<TAB>IMAGE<TAB>``.

No image holds a tab, so a line that was cut short anywhere does not read as a whole
one, also when the next one was written right behind it.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from maintenance.text import show

LONGEST = 760  # bytes of an image's name: what every database can keep in an index
LOST = "lost"  # stands for the day where a line says how many hits could not be written
_MARK = "…"
_DAY = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Hits:
    """What one kind of line stands for; ``day`` None: ``image`` is empty, the hits are lost."""

    image: str
    day: date | None
    count: int = 1


@lru_cache(maxsize=10000)
def tail(image: str) -> bytes:
    """Return what follows the day: the image in printable form, and the end of the line."""
    return b"\t" + kept(image).encode() + b"\t\n"


def kept(image: str) -> str:
    """Return the name under which an image is counted: printable, and no two alike.

    The middle of one that is too long gives way to its digest.
    """
    shown = show(image)
    raw = shown.encode()
    if len(raw) <= LONGEST:
        return shown
    digest = hashlib.sha256(raw).hexdigest()
    room = (LONGEST - len(digest)) // 2 - len(_MARK.encode())
    head, foot = raw[:room].decode(errors="ignore"), raw[-room:].decode(errors="ignore")
    return f"{head}{_MARK}{digest}{_MARK}{foot}"


def lost(count: int) -> bytes:
    """Return the line that says how many hits could not be written when they came."""
    return f"{LOST}\t{count}\t\n".encode("ascii")


def read(line: bytes, count: int = 1) -> Hits | None:
    """Return what ``count`` such lines, without the newline, say; None: not ours.

    What stands before the day is the rest of a line that was cut short.
    """
    before, _, rest = line.removesuffix(b"\t").rpartition(b"\t")
    if not line.endswith(b"\t") or not rest:
        return None
    if before.endswith(LOST.encode()):
        return Hits("", None, int(rest) * count) if re.fullmatch(rb"[0-9]{1,9}", rest) else None
    try:
        image = rest.decode()
        day = date.fromisoformat(before[-10:].decode("ascii"))
    except ValueError:
        return None
    if not _DAY.fullmatch(before[-10:]) or len(rest) > LONGEST or not image.isprintable():
        return None
    return Hits(image, day, count)
