"""What one file takes over from another: owner, mode, times, attributes."""

import array
import errno
import fcntl
import os
import stat
from contextlib import suppress

_GETFLAGS = 0x80086601  # FS_IOC_GETFLAGS
_CHATTR = 0x000380FF  # the flags an admin can set


class CannotKeep(Exception):
    """The file has something that its successor would not have: the text says what."""


def refuse(info: os.stat_result) -> None:
    """Raise CannotKeep for what can be seen to stand in the way, without trying."""
    if info.st_nlink != 1:
        raise CannotKeep("hard link")
    if os.geteuid() not in {0, info.st_uid}:
        raise CannotKeep("another owner")


def dress(fd: int, like: int, info: os.stat_result) -> None:
    """Give ``fd`` what the file behind ``like`` has, the times as in ``info``.

    What the system only pretends to do is found by looking at the outcome.
    Raises CannotKeep, or OSError for a file system that is full or broken.
    """
    try:
        os.fchown(fd, info.st_uid, info.st_gid)  # first: it takes away what follows
    except PermissionError:
        raise CannotKeep("its owner or group cannot be kept") from None
    wanted = _attributes(like)
    for name in _attributes(fd).keys() - wanted.keys():  # a default ACL of the directory, say
        with suppress(PermissionError):
            os.removexattr(fd, name)
    for name, value in wanted.items():
        _set(fd, name, value)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))
    os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
    _compare(fd, like, info)


def _set(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL}:
            raise


def _compare(fd: int, like: int, info: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid, now.st_mode) != (info.st_uid, info.st_gid, info.st_mode):
        raise CannotKeep("its owner, group or mode cannot be kept")
    if now.st_mtime_ns != info.st_mtime_ns:
        raise CannotKeep("its time cannot be kept")
    have, wanted = _attributes(fd), _attributes(like)
    for name in sorted(have.keys() | wanted.keys()):
        if have.get(name) != wanted.get(name):
            raise CannotKeep("its ACL cannot be kept" if "posix_acl" in name
                             else "an extended attribute cannot be kept")
    if _flags(fd) != _flags(like):
        raise CannotKeep("its attributes (chattr) cannot be kept")


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return {}
        raise


def _flags(fd: int) -> int:
    flags = array.array("l", [0])
    try:
        fcntl.ioctl(fd, _GETFLAGS, flags)
    except OSError:  # a file system without them
        return 0
    return flags[0] & _CHATTR
