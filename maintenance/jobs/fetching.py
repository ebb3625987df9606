"""freshclam's part of an update: run before privileges are dropped, judged after."""

import os
import pwd
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from maintenance.accounts import Account
from maintenance.clamav import databases, freshclam
from maintenance.clamav.caretaker import Caretaker, Refusal
from maintenance.clamav.preflight import hindrance
from maintenance.clamav.sources import Sources
from maintenance.errors import Busy, ImagewardenError, ToolError
from maintenance.jobs.definitions_report import LINES, Freshclam
from maintenance.masking import masked_url
from maintenance.programs import TAIL, tail
from maintenance.settings import Config, Definitions
from maintenance.shell.account import account_of, acting_as, ensure_directory
from maintenance.shell.job import Context
from maintenance.shell.result import SIGNALLED
from maintenance.text import show
from maintenance.times import iso


@dataclass(slots=True)
class Fetch:
    """A run of freshclam that has ended, or the reason why there was none."""

    directory: Path
    said: IO[bytes]  # by freshclam, not looked at yet
    sources: Sources
    daemon: bool = False  # one serves the directory, so there was none of ours
    status: int | None = None  # freshclam's own
    failures: list[str] = field(default_factory=list)  # why none was run to its end
    complaints: list[str] = field(default_factory=list)  # about sources that were left out
    spared: list[str] = field(default_factory=list)  # URLs that are not asked in a cool-down
    refused: Refusal | None = None  # why nothing could be made ready for it

    def read(self, context: Context) -> Freshclam:
        """Return what it said; its success is still to be judged."""
        with self.said:
            output = tail(self.said)
        if len(output) == TAIL:
            output = output.partition(b"\n")[2]  # not half a line, that might hide a secret
        lines = freshclam.lines(output, self.sources)
        for line in lines:
            context.log.info("freshclam: %s", line)
        for trouble in (*self.failures, *self.complaints):
            context.trouble(trouble)
        for url in self.spared:
            context.log.info("not asked during the cool-down: %s", masked_url(url))
        if self.refused is not None:
            context.log.warning("%s", self.refused.reason)
        return Freshclam("daemon" if self.daemon else "failed", self.status,
                         freshclam.cool_down(self.directory), lines[-LINES:],
                         freshclam.refuser(lines), freshclam.stopped(lines))


def fetch(config: Config, directory: Path, owner: Account | None, caretaker: Caretaker) -> Fetch:
    """Run freshclam as ``owner`` of the directory; raises Busy when another one works there."""
    other = freshclam.running(directory)
    if other is not None and not other.daemon:
        raise Busy(f"another freshclam works in {show(directory)} (pid {other.pid})")
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever reads it
    fetched = Fetch(directory, said, Sources((), (), ()), daemon=other is not None)
    if fetched.daemon:
        return fetched
    try:
        fetched.sources = _sources(config.definitions, fetched)
        if not fetched.sources.none:
            _run(fetched, owner, caretaker)
    except ToolError as error:
        fetched.failures.append(str(error))
    return fetched


def _sources(settings: Definitions, fetched: Fetch) -> Sources:
    sources = Sources.of(settings.official, settings.mirror, settings.custom_urls,
                         settings.freshclam_config)
    unusable = dict(sources.unusable())
    fetched.complaints += unusable.values()
    return sources.without(list(unusable))


def _run(fetched: Fetch, owner: Account | None, caretaker: Caretaker) -> None:
    directory, official = fetched.directory, bool(fetched.sources.databases)
    with acting_as(owner):
        lacking = hindrance(directory, official)
    if lacking is not None:
        fetched.failures.append(lacking)
        return
    if official and caretaker.cooling():
        # freshclam asks these all the same, and one that says 403 begins another 24 hours
        # in which it does not ask for the official ones.
        fetched.spared = fetched.sources.remote()
        fetched.sources = fetched.sources.without(fetched.spared)
    fetched.refused = caretaker.prepare(fetched.sources.files)
    killed = True
    try:
        fetched.status = freshclam.fetch(fetched.sources, directory, owner, fetched.said)
        killed = fetched.status >= SIGNALLED
    finally:
        if not killed or freshclam.running(directory) is None:
            caretaker.conclude(killed)


def why_none(fetch: Fetch, fetched: Freshclam, error: str) -> str | None:
    """Return what to say of definitions that cannot be read; None: it has been said."""
    if databases.stamps(fetch.directory):
        return error
    if fetch.failures:
        return None
    if fetched.until is not None:
        return f"no definitions yet, and the mirror refuses us until {iso(fetched.until)}"
    return fetched.explained() if fetched.status else error


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
        return None
    name = context.config.definitions.user
    try:
        return account_of(pwd.getpwnam(name) if name else pwd.getpwuid(info.st_uid))
    except KeyError:
        raise ImagewardenError(f"definitions.user: no such user {name or info.st_uid}") from None
