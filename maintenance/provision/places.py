"""Directories that belong to the jobs' user."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision.known import Known
from maintenance.provision.steps import Step
from maintenance.text import show


@dataclass(frozen=True)
class Place:
    """A directory as it should be."""

    path: Path
    mode: int

    def provide(self, user: pwd.struct_passwd) -> Iterator[Step]:
        """Make it, or finish what a killed run began; one with content is not given away."""
        try:
            info = self.path.lstat()
        except FileNotFoundError:
            yield Step("made", str(self.path), f"{user.pw_name}, {self.mode:04o}",
                       do=lambda: self._make(user))
            return
        if not stat.S_ISDIR(info.st_mode):
            yield Step("kept", str(self.path), "a link: yours stays"
                       if self.path.is_dir() else "it is no directory")
        elif info.st_uid == 0 != user.pw_uid and not os.listdir(self.path):
            yield Step("updated", str(self.path), f"{user.pw_name}, {self.mode:04o}",
                       do=lambda: self._give(user))
        else:
            yield Step("unchanged", str(self.path))

    def _make(self, user: pwd.struct_passwd) -> None:
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            with acting_as(user):  # where he may write, links of his must not lead root away
                self.path.mkdir(self.mode)
                self.path.chmod(self.mode)
        except PermissionError:
            self.path.mkdir(self.mode)
            self._give(user)

    def _give(self, user: pwd.struct_passwd) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_uid != 0:
                raise ToolError(f"{show(self.path)} was exchanged while it was made")
            os.fchown(fd, user.pw_uid, user.pw_gid)
            os.fchmod(fd, self.mode)
        finally:
            os.close(fd)


def places(known: Known) -> Iterator[Place]:
    """Return every directory that a job may not be able to make for itself."""
    yield Place(Path(known.state), 0o700)
    if known.logs:
        yield Place(Path(known.logs), 0o750)
    for quarantine in known.quarantines:
        yield Place(Path(quarantine), 0o700)
    if known.spool:  # setgid: an application in the user's group leaves its counts there
        yield Place(Path(known.spool), 0o2770)


@contextmanager
def acting_as(user: pwd.struct_passwd) -> Iterator[None]:
    """Make files as the user for the length of the block, where root can."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
