"""The directory a demo works in: nothing outside it is written, or trusted."""

import fcntl
import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maintenance.accounts import Account
from maintenance.demo.place import USER, Place
from maintenance.errors import Busy, ImagewardenError, UsageError
from maintenance.text import show

MARKER = ".imagewarden-demo"
NAME = "imagewarden-demo"
# It stands in a URL, in TOML and in clamd.conf, which all quote differently.
PLAIN = re.compile(r"/[\w./+,=~-]+")
LONGEST_SOCKET = 107  # bytes the kernel takes for the path of a Unix socket
CONFINED = (Path("/etc/apparmor.d/usr.sbin.clamd"), Path("/etc/apparmor.d/usr.bin.freshclam"))


def usual() -> Path:
    """Return the directory for a demo that was not told one.

    Where AppArmor confines clamd and freshclam, both may only write below /tmp;
    elsewhere something that survives a restart is friendlier.
    """
    root = os.geteuid() == 0
    if _confined():
        return Path("/tmp", NAME if root else f"{NAME}-{os.geteuid()}")  # noqa: S108 - see claimed
    if root:
        return Path("/var/tmp", NAME)  # noqa: S108 - see claimed
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / NAME


def _confined() -> bool:
    try:
        enabled = Path("/sys/module/apparmor/parameters/enabled").read_text(encoding="ascii")
    except OSError:
        return False
    return enabled.startswith("Y") and any(profile.exists() for profile in CONFINED)


@contextmanager
def claimed(asked: Path) -> Iterator[Place]:
    """Yield the directory, empty, and keep other demos out of it.

    It is made, or taken when it is our own and empty or an earlier demo's. In a
    directory such as /tmp anybody may have put something under its name: that
    is refused, as is all that somebody else could change under our feet.
    """
    root = Path.cwd() / asked
    root = root.parent.resolve() / root.name
    owner = _owner()
    _check_name(Place(root, owner))
    _check_way(root)
    _make(root)
    _check_ownership(root)
    with _marked(root):
        _clear(root)
        root.chmod(0o700 if owner is None else 0o755)
        yield Place(root, owner)


def _owner() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        raise ImagewardenError(f"{USER} is not a user of this system; run it as yourself") from None
    return Account(entry.pw_uid, entry.pw_gid)


def _check_name(place: Place) -> None:
    if not PLAIN.fullmatch(str(place.root)):
        raise UsageError(f"--dir: {show(place.root)}: use letters, digits and ./+,=~-_ only")
    if len(os.fsencode(place.socket)) > LONGEST_SOCKET:
        raise UsageError(f"--dir: {show(place.root)}: too long for a socket in it")


def _make(root: Path) -> None:
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # whatever it is, it is looked at next
            root.mkdir(0o700)
    except OSError as error:
        raise ImagewardenError(f"{show(root)}: {error.strerror}") from None


def _check_way(root: Path) -> None:
    """For root: refuse a way that others could turn round, or that is closed to the owner."""
    if os.geteuid() != 0:
        return
    for step in (parent for parent in root.parents if parent.exists()):
        seen = step.stat()
        loose = seen.st_mode & 0o022 and not seen.st_mode & stat.S_ISVTX
        if seen.st_uid != 0 or loose:
            raise ImagewardenError(f"{show(root)}: others can change {show(step)} above it")
        if not seen.st_mode & stat.S_IXOTH:
            raise ImagewardenError(f"{show(root)}: {USER} cannot pass {show(step)} above it")


def _check_ownership(root: Path) -> None:
    seen = root.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        raise ImagewardenError(f"{show(root)}: not a directory")
    if seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
        raise ImagewardenError(f"{show(root)}: belongs to somebody else, or others can write to it")


@contextmanager
def _marked(root: Path) -> Iterator[None]:
    """Hold the lock on the marker, which says that everything here is a demo's to remove."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    if not any(root.iterdir()):
        flags |= os.O_CREAT
    try:
        descriptor = os.open(root / MARKER, flags, 0o600)
    except OSError:
        raise ImagewardenError(
            f"{show(root)}: not a demo's directory; name another, or an empty one") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Busy(f"{show(root)}: another demo runs there") from None
    finally:
        os.close(descriptor)


def _clear(root: Path) -> None:
    for entry in os.scandir(root):
        if entry.name == MARKER:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
