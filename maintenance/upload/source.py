"""What an application can hand over, as clamd can take it: a descriptor, or chunks."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from maintenance.clamav import protocol
from maintenance.errors import ImagewardenError
from maintenance.text import show


class TooLarge(Exception):
    """An upload has more bytes than it may; no more of it is read."""


class Stalled(Exception):
    """An upload does not come in time."""


Path = str | bytes | os.PathLike[str]
# A path, a descriptor, or any binary file: the libraries' have no type in common.
Upload = Any
_File = Any


@dataclass(frozen=True, slots=True)
class Source:
    """One upload; ``again``: it can be read a second time."""

    chunks: Callable[[], Iterator[bytes]]
    fd: int | None = None  # of a regular file, whose content is all of it
    again: bool = True


@contextmanager
def opened(upload: Upload, limit: int) -> Iterator[Source]:
    """Lend an upload of at most ``limit`` bytes; where a file stood, it stands afterwards.

    Raises TooLarge, ImagewardenError for a path that is no readable regular file, and
    TypeError for what is no upload.
    """
    if isinstance(upload, Source):
        yield upload
    elif isinstance(upload, str | bytes | os.PathLike):
        fd = _open(upload)
        try:
            yield _regular(fd, limit, fd)
        finally:
            os.close(fd)
    elif isinstance(upload, int) and not isinstance(upload, bool):
        with _of_descriptor(upload, limit) as source:
            yield source
    else:
        with _of_object(_unwrapped(upload), limit) as source:
            yield source


def limited(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Yield what is read; raises TooLarge beyond ``limit`` bytes."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLarge
        yield chunk


def _open(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    except ValueError:
        raise ImagewardenError(f"{show(path)}: not a file's name") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImagewardenError(f"{show(path)}: not a regular file")
    return fd


def _regular(fd: int, limit: int, own: int | None) -> Source:
    """Return a regular file; ``own``: a descriptor whose place in it clamd may move."""
    if os.fstat(fd).st_size > limit:
        raise TooLarge
    return Source(lambda: limited(protocol.chunks_of(fd), limit), own)


@contextmanager
def _lent(fd: int, limit: int) -> Iterator[Source]:
    """Lend a file that somebody else has opened."""
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc: then its bytes are sent
        yield _regular(fd, limit, None)
        return
    try:
        yield _regular(fd, limit, own)
    finally:
        os.close(own)


@contextmanager
def _of_descriptor(fd: int, limit: int) -> Iterator[Source]:
    try:
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
    except (OSError, OverflowError) as error:
        raise ImagewardenError(f"descriptor {fd}: {error}") from None
    if regular:
        with _lent(fd, limit) as source:
            yield source
    else:
        yield Source(lambda: limited(iter(lambda: os.read(fd, protocol.CHUNK), b""), limit),
                     again=False)


def _unwrapped(upload: _File) -> _File:
    """Return the file inside werkzeug's FileStorage, Django's UploadedFile, and their like."""
    for name in ("stream", "file", "file"):  # Django's may hold a NamedTemporaryFile
        upload = getattr(upload, name, None) or upload
    if not callable(getattr(upload, "read", None)):
        raise TypeError(f"an upload is a path, a descriptor or a binary file, not {upload!r}")
    return upload


@contextmanager
def _of_object(file: _File, limit: int) -> Iterator[Source]:
    fd = _descriptor(file)
    if fd is not None:
        if callable(getattr(file, "flush", None)) and file.writable():
            file.flush()
        with _lent(fd, limit) as source:
            yield source
        return
    try:
        place = file.tell() if file.seekable() else None
    except (AttributeError, OSError):
        place = None
    if place is None:
        yield Source(lambda: limited(_read(file), limit), again=False)
        return
    try:
        if file.seek(0, os.SEEK_END) > limit:
            raise TooLarge
        yield Source(lambda: limited(_from_start(file), limit))
    finally:
        file.seek(place)


def _descriptor(file: _File) -> int | None:
    """Return the descriptor behind a file object, when it is one of a regular file."""
    # fileno() of one that is still in memory would write it to the disk.
    tempfile = sys.modules.get("tempfile")  # 5 ms to import, and who has such a file has done so
    if tempfile and isinstance(file, tempfile.SpooledTemporaryFile) and not file._rolled:
        return None
    try:
        fd = int(file.fileno())
        return fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (AttributeError, OSError, ValueError):
        return None


def _from_start(file: _File) -> Iterator[bytes]:
    file.seek(0)
    return _read(file)


def _read(file: _File) -> Iterator[bytes]:
    while chunk := file.read(protocol.CHUNK):
        if not isinstance(chunk, bytes):
            raise TypeError("an upload is a binary file, not one of text")
        yield chunk
