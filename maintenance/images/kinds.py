"""What a file is by its first bytes; its name is not asked."""

HEAD = 12  # bytes that tell
UNKNOWN = "not a JPEG, PNG or WebP"  # reasons to keep an image
NO_GAIN = "nothing to gain"
JPEG, PNG, WEBP, GIF, OTHER = "jpeg", "png", "webp", "gif", "other"
_NAMES = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".gif", b".webp")
_STARTS = {b"\xff\xd8\xff": JPEG, b"\x89PNG\r\n\x1a\n": PNG, b"GIF8": GIF}


def kind_of(head: bytes) -> str:
    """Return the kind of a file that begins with ``head``."""
    if head.startswith(b"RIFF") and head[8:HEAD] == b"WEBP":
        return WEBP
    return next((kind for start, kind in _STARTS.items() if head.startswith(start)), OTHER)


def is_lie(name: bytes, kind: str) -> bool:
    """Tell whether a file is called an image of a kind we know and is none of them."""
    return kind == OTHER and name.lower().endswith(_NAMES)
