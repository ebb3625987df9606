"""The one way a file name reaches a message, and a user's."""

import os
import pwd


def show(name: str | bytes | os.PathLike[str]) -> str:
    r"""Return ``name`` as one printable line that no other name shares.

    Bytes that are not UTF-8 come out as ``\xNN``, unprintable characters as
    ``\u{N}``; a backslash or double quote gets a backslash, which keeps the
    real text ``\xff`` apart from the byte.
    """
    plain = os.fspath(name)
    text = plain if isinstance(plain, str) else plain.decode("utf-8", "surrogateescape")
    return "".join(_printable(character) for character in text)


def user_name(uid: int) -> str:
    """Return what a user is called, the number of one that has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _printable(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape carries one undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    if character in {"\\", '"'}:
        return "\\" + character
    return character if character.isprintable() else f"\\u{{{code:x}}}"
