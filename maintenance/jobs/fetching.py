"""freshclam's part of an update: run before privileges are dropped, judged after."""

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maintenance.clamav import databases, freshclam
from maintenance.clamav.freshclam import Sources
from maintenance.errors import Busy, ImagewardenError, ToolError
from maintenance.jobs.definitions_report import Freshclam
from maintenance.programs import Account, tail
from maintenance.settings import Config
from maintenance.shell.account import account_of, ensure_directory
from maintenance.shell.job import Context
from maintenance.text import show
from maintenance.times import iso


@dataclass(slots=True)
class Fetch:
    """A run of freshclam that has ended, or the reason why there was none."""

    directory: Path
    said: IO[bytes]  # by freshclam, not looked at yet
    daemon: bool = False  # one serves the directory, so there was none of ours
    status: int | None = None  # freshclam's own
    failure: str | None = None  # why it could not be run

    def read(self, context: Context) -> Freshclam:
        """Return what it said; its success is still to be judged."""
        with self.said:
            lines = [] if self.status is None else freshclam.last_lines(tail(self.said))
        for line in lines:
            context.log.info("freshclam: %s", line)
        if self.failure is not None:
            context.trouble(self.failure)
        return Freshclam("daemon" if self.daemon else "failed", self.status,
                         freshclam.cool_down(self.directory), lines)


def fetch(config: Config, directory: Path, owner: Account | None) -> Fetch:
    """Run freshclam as ``owner`` of the directory; raises Busy when another one works there."""
    other = freshclam.running(directory)
    if other is not None and not other.daemon:
        raise Busy(f"another freshclam works in {show(directory)} (pid {other.pid})")
    settings = config.definitions
    sources = Sources(settings.official, settings.mirror, settings.custom_urls,
                      settings.freshclam_config)
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever reads it
    fetched = Fetch(directory, said, daemon=other is not None)
    if not fetched.daemon and not sources.none:
        try:
            fetched.status = freshclam.fetch(sources, directory, owner, fetched.said)
        except ToolError as error:
            fetched.failure = str(error)
    return fetched


def judge(fetched: Freshclam, *, differs: bool) -> None:
    """Decide by content what a run came to; freshclam's status only explains."""
    if differs:
        fetched.outcome = "changed"
    elif fetched.until is not None:
        fetched.outcome = "cool-down"
    else:
        fetched.outcome = "failed" if fetched.status else "unchanged"


def explain(fetched: Freshclam) -> str:
    """Return what its status means."""
    meaning = freshclam.STATUSES.get(fetched.status or 0, "see its lines in the log")
    return f"freshclam failed with status {fetched.status}: {meaning}"


def why_none(fetch: Fetch, fetched: Freshclam, error: str) -> str | None:
    """Return what to say of definitions that cannot be read; None: it has been said."""
    if databases.stamps(fetch.directory):
        return error
    if fetch.failure is not None:
        return None
    if fetched.until is not None:
        return f"no definitions yet, and the mirror refuses us until {iso(fetched.until)}"
    return explain(fetched) if fetched.status else error


def owner_of(context: Context, directory: Path) -> Account | None:
    """Return whom freshclam runs as; None: as ourselves. Our own directory is made first."""
    if directory == context.config.own_databases:
        ensure_directory(directory, 0o755, context.account)
    try:
        info = directory.stat()
    except OSError as error:
        raise ImagewardenError(f"{show(directory)}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise ImagewardenError(f"{show(directory)}: not a directory")
    if os.geteuid() != 0:
        if info.st_uid != os.geteuid() and not os.access(directory, os.W_OK):
            raise ImagewardenError(f"{show(directory)} is {_name(info.st_uid)}'s: start"
                                   " update-definitions as root, or as that user")
        return None
    name = context.config.definitions.user
    try:
        return account_of(pwd.getpwnam(name) if name else pwd.getpwuid(info.st_uid))
    except KeyError:
        raise ImagewardenError(f"definitions.user: no such user {name or info.st_uid}") from None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
