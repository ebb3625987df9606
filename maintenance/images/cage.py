"""What stands between a program that reads images and the host: bubblewrap, or only limits."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from maintenance.errors import ConfigError, ToolError
from maintenance.programs import ENVIRONMENT, How, Limits, find, run

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
PYTHON = os.path.realpath(sys.executable)
_APART = ("--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts")
_CLOSED = ("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
           "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp")  # noqa: S108


def cage(wish: str) -> tuple[str, ...]:
    """Return the words that go before a command to cage it; empty: limits have to do.

    ``wish`` is the setting ``sandbox``; with "required" and no bubblewrap that works here
    ConfigError is raised.
    """
    if wish == "off":
        return ()
    for words in _ways():
        if _works(words):
            return words
    if wish == "required":
        what = "does not work here" if find("bwrap") else "is not installed"
        raise ConfigError(f'optimize.sandbox: "required", but bubblewrap {what}')
    return ()


def _ways() -> list[tuple[str, ...]]:
    bound = (*_CLOSED, *_files())
    ways = [("bwrap", "--unshare-user", *_APART, *bound)]
    if os.geteuid() == 0:  # root needs none, and inside a chroot cannot have one
        ways.append(("bwrap", *_APART, *bound))
    return ways


def _files() -> list[str]:
    """Bind what an interpreter and the tools are made of, and nothing else."""
    words = ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for path in SYSTEM:
        if Path(path).is_symlink():
            words += ["--symlink", str(Path(path).readlink()), path]
        else:
            words += ["--ro-bind-try", path, path]
    if not sys.base_prefix.startswith("/usr"):
        words += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    return words


def _works(words: Sequence[str]) -> bool:
    try:
        return run([*words, PYTHON, "-ISc", ""], How(Limits(seconds=20))).status == 0
    except ToolError:
        return False
