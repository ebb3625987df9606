"""Becoming the user a job works as, and the directories that are his."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maintenance.accounts import Account
from maintenance.errors import ImagewardenError
from maintenance.text import show

STATE_MODE = 0o700
LOGS_MODE = 0o750


def account_of(entry: pwd.struct_passwd) -> Account:
    """Return a user's ids with all his groups."""
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_uid, entry.pw_gid, tuple(groups))


@contextmanager
def acting_as(account: Account | None) -> Iterator[None]:
    """Create and open files as ``account`` for the length of the block.

    Reversible, so no protection against code of his; it keeps root from being
    led somewhere by links that he planted.
    """
    if account is None:
        yield
        return
    groups = os.getgroups()
    os.setgroups(account.groups)
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def ensure_directory(path: Path, mode: int, account: Account | None) -> None:
    """Make a directory of the job's user where its parent exists.

    Raises ImagewardenError when it cannot be, is no directory, or another user
    could write to it.
    """
    try:
        with acting_as(account):
            _make(path, mode)
    except PermissionError:
        if account is None:
            raise _trouble(path, "cannot be made: permission denied") from None
        # Its parent is not the user's to write to, so nothing of his is in the way.
        _make_for(path, mode, account)
    except OSError as error:
        raise _trouble(path, error.strerror or str(error)) from None
    with acting_as(account):
        _check(path)


def _make(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode)
        path.chmod(mode)  # whatever the umask says
    except FileExistsError:
        pass


def _make_for(path: Path, mode: int, account: Account) -> None:
    try:
        _make(path, mode)
        fd = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid == 0 and account.uid != 0:
                os.fchown(fd, account.uid, account.gid)
        finally:
            os.close(fd)
    except OSError as error:
        raise _trouble(path, error.strerror or str(error)) from None


def _check(path: Path) -> None:
    try:
        info = path.stat()
        writable = os.access(path, os.W_OK | os.X_OK, effective_ids=True)
    except OSError as error:
        raise _trouble(path, error.strerror or str(error)) from None
    if not path.is_dir():
        raise _trouble(path, "not a directory")
    if not writable:
        raise _trouble(path, "not writable for the user the job runs as")
    if info.st_mode & 0o022:
        raise _trouble(path, f"others can write to it; chmod go-w {show(path)}")


def _trouble(path: Path, what: str) -> ImagewardenError:
    return ImagewardenError(f"{show(path)}: {what}")
