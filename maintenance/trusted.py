"""Whether a file may tell us what to do."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from maintenance.errors import ConfigError
from maintenance.text import show


def read(file: str) -> tuple[bytes, os.stat_result]:
    """Return a regular file's content and facts, both by one descriptor; raises OSError."""
    # Checked on the descriptor, so that what is trusted is what is read; a FIFO must not block.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(0, "not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(), info
    finally:
        os.close(descriptor)


def refuse_untrusted(file: str, info: os.stat_result) -> None:
    """Raise ConfigError when others could decide what ``file`` says."""
    if info.st_mode & 0o022:
        raise ConfigError(f"{show(file)}: group or others can write it: chmod go-w {show(file)}")
    if os.geteuid() != 0:
        return
    if info.st_uid != 0:
        raise ConfigError(f"{show(file)}: not root's, but root starts us: chown root {show(file)}")
    for step, seen in _way(file):
        loose = stat.S_ISDIR(seen.st_mode) and seen.st_mode & 0o022
        if seen.st_uid != 0:
            fault, repair = "not root's", "chown -h root"
        elif loose and not seen.st_mode & stat.S_ISVTX:
            fault, repair = "writable by group or others", "chmod go-w"
        else:
            continue
        raise ConfigError(f"{show(file)}: root starts us, but {show(step)} on its way is {fault}: "
                          f"{repair} {show(step)}")


def _way(file: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory, symlink and file the kernel passes on its way to ``file``.

    Resolving first and looking at the result would miss a symlink in the middle
    that somebody else can turn round.
    """
    # Asks for the working directory, which may have been deleted, only where it is needed.
    here, pending = Path("/"), [*reversed(Path(file).absolute().parts[1:])]
    yield here, here.lstat()
    while pending:
        name = pending.pop()
        here = here.parent if name == ".." else here / name
        seen = here.lstat()
        yield here, seen
        if stat.S_ISLNK(seen.st_mode):
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            pending += [part for part in reversed(target.parts) if part != "/"]
