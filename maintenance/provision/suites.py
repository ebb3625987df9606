"""The test suite, run as different users and under different locales."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

from maintenance.errors import ToolError
from maintenance.provision.children import Account, Child, must, run
from maintenance.provision.environment import Environment
from maintenance.provision.interpreter import Interpreter

UNPRIVILEGED = "nobody"
# What would let the caller's shell decide how a test ends.
PERSONAL = ("PYTHON", "LC_", "LANG", "XDG_", "SUDO_", "MAIL", "IMAGEWARDEN_")
NOT_SOURCE = {".git", "build", "dist"}
# A folder with ClamAV's signed test databases, which are not ours to ship.
DEFINITIONS = "IMAGEWARDEN_TEST_DEFINITIONS"


@dataclass(frozen=True)
class Suite:
    """One run of the tests."""

    marked: str  # pytest's -m
    locale: str = "C.UTF-8"
    unprivileged: bool = False
    part: str = ""  # what the report calls a run that is not of all tests

    @property
    def name(self) -> str:
        """Return what the run is called in the report."""
        user = UNPRIVILEGED if self.unprivileged else pwd.getpwuid(os.geteuid()).pw_name
        return ", ".join(filter(None, (
            f"tests as {user}", self.part, f"LC_ALL={self.locale}" if self.locale == "C" else "")))


@contextmanager
def running(suite: Suite, checkout: Path, output: IO[str]) -> Iterator[Child]:
    """Run the tests in a place of their own; the status is 0 when all passed and some ran."""
    with scratch() as place:
        account = None
        if suite.unprivileged:
            entry = pwd.getpwnam(UNPRIVILEGED)
            account = Account(entry.pw_uid, entry.pw_gid)
            checkout = _copied(checkout, place / "imagewarden")
        # Root's tests start programs that become other users: like /tmp, for all.
        for own, mode in ((place / "home", 0o700), (place / "tmp", 0o1777)):
            own.mkdir()
            own.chmod(mode)
            if account and own.name == "home":
                os.chown(own, account.uid, account.gid)
        with Child(
                # Its own temporary directory has long names, too long for sockets in it.
                [Environment(checkout).python, "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider",
                 f"--basetemp={place / 'tmp' / 't'}", "-m", suite.marked],
                output, environment={**_surroundings(suite, place), **_definitions(place)},
                directory=checkout, account=account) as child:
            yield child


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend a directory that every user can enter, on a disk; its path is short.

    Short because sockets in it have to keep under 108 bytes, on a disk because
    /tmp may be too small a part of the memory.
    """
    place = Path(mkdtemp(prefix="iw-", dir="/var/tmp"))  # noqa: S108 - made unique there
    place.chmod(0o755)
    try:
        yield place
    finally:
        # Not through what a test has mounted and was killed before unmounting.
        run(["rm", "-rf", "--one-file-system", place], None)


def _copied(checkout: Path, copy: Path) -> Path:
    """Copy the checkout, environment included, to where others can read but not write it."""
    interpreter = Interpreter(os.path.realpath(Environment(checkout).python), ())
    if not interpreter.shared:
        raise ToolError(f"{UNPRIVILEGED} cannot reach {interpreter.path}; run bin/setup --python "
                        "with a Python that every user can reach")
    copy.mkdir()
    entries = sorted(path for path in checkout.iterdir() if path.name not in NOT_SOURCE)
    must(run(["cp", "-a", "--no-preserve=ownership", *entries, copy], None), "copying the checkout")
    must(run(["chmod", "-R", "a+rX,go-w", copy], None), "opening the copy to others")
    return copy


def _definitions(place: Path) -> dict[str, str]:
    """Copy the signed test databases, when there are any, to where the tests can read them."""
    source = os.environ.get(DEFINITIONS)
    if not source:
        return {}
    copy = place / "definitions"
    must(run(["cp", "-R", source, copy], None), "copying the test databases")
    must(run(["chmod", "-R", "a+rX,u+w", copy], None), "opening the copy to others")
    return {DEFINITIONS: str(copy)}


def _surroundings(suite: Suite, place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PERSONAL)}
    user = UNPRIVILEGED if suite.unprivileged else pwd.getpwuid(os.geteuid()).pw_name
    return {**kept, "LC_ALL": suite.locale, "HOME": str(place / "home"), "USER": user,
            "LOGNAME": user, "TMPDIR": str(place / "tmp"), "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "tmp" / "hypothesis")}
