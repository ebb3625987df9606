"""Moving and copying files by descriptors, never over another file."""

import ctypes
import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from maintenance.errors import FileChanged
from maintenance.store.identity import DIRECTORY

CHUNK = 2**20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOREPLACE = 1
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


def rename_new(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Rename; raises FileExistsError where something stands at the target already.

    Python's own rename replaces it. A file system that cannot do this in one
    step gets a link and then an unlink: a crash leaves both names.
    """
    sys.audit("os.rename", source, target, source_dir, target_dir)  # as its own would
    if _renameat2(source_dir, source, target_dir, target):
        return
    os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    os.unlink(source, dir_fd=source_dir)


def _renameat2(source_dir: int, source: bytes, target_dir: int, target: bytes) -> bool:
    """Return False where it is not known; raises OSError when it fails."""
    call = getattr(_libc, "renameat2", None)
    if call is None:
        return False
    if call(source_dir, source, target_dir, target, _NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS}:
        return False
    raise OSError(code, os.strerror(code), target)


def put_back(source_dir: int, source: bytes, target_dir: int, target: bytes, spare: bytes) -> bytes:
    """Give a file its name back, or ``spare`` where that is taken by now; return which."""
    try:
        rename_new(source_dir, source, target_dir, target)
    except FileExistsError:
        rename_new(source_dir, source, target_dir, spare)
        return spare
    return target


def look(directory: int, name: bytes) -> os.stat_result | None:
    """Return what stands at ``name``, a link itself included; None: nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell whether two names of this moment lead to one file."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def sha256(fd: int) -> str:
    """Return the digest of the whole file behind ``fd``."""
    digest = hashlib.sha256()
    for piece in _pieces(fd):
        digest.update(piece)
    return digest.hexdigest()


def copy(source: int, target: int, expected: str) -> None:
    """Copy a file and push it to disk; raises FileChanged unless ``expected`` is its SHA-256.

    The copy is read again: what counts is what it holds, not what was written.
    """
    pour(source, target)
    os.fsync(target)
    if sha256(target) != expected:
        raise FileChanged("its content is no longer what was recorded")


def pour(source: int, target: int) -> int:
    """Write all that ``source`` holds to ``target``; return how many bytes that is."""
    at = 0
    for piece in _pieces(source):
        at += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(target, rest):]
    return at


def _pieces(fd: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(fd, CHUNK, at):
        yield piece
        at += len(piece)


def path_of(fd: int) -> bytes:
    """Return where an open directory is at this moment."""
    return os.readlink(b"/proc/self/fd/%d" % fd)  # noqa: PTH115 - bytes


@contextmanager
def reopened(path: bytes, inode: int) -> Iterator[int | None]:
    """Yield a directory that once was at ``path``, if the very same is still there.

    No link is followed on the way.
    """
    fd = _descend(path, inode)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _descend(path: bytes, inode: int) -> int | None:
    fd = os.open(b"/", _STEP)
    try:
        for name in filter(None, path.split(b"/")):
            below = os.open(name, _STEP, dir_fd=fd)
            os.close(fd)
            fd = below
        return os.open(b".", DIRECTORY, dir_fd=fd) if os.fstat(fd).st_ino == inode else None
    except OSError:
        return None
    finally:
        os.close(fd)
