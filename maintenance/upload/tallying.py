"""Counting verdicts: a line for each, in a file of the user whom the application runs as.

The file is held by a shared kernel lock while a line is written, so that whoever takes
it over by renaming it knows when no line can come any more.
"""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass

from maintenance.errors import Exit
from maintenance.held import hold, stands
from maintenance.settings import UploadSettings
from maintenance.upload.judging import UploadVerdict

FRESH = ".uploads"  # how the name of a file ends; it begins with the user's number
WORDS = ("clean", "infected", "unknown", "off", "refused")
# Why there was no verdict, or which rule was broken.
CAUSES = ("timeout", "stalled", "away", "limit", "error", "size", "type", "pixels", "frames")
ACCEPTED, OBSERVED = "accepted", "observed"  # kept all the same: no clamd, or upload.observe
ATTEMPTS = 5
_LINE = re.compile(rf"([0-9]{{1,11}})\t({'|'.join(WORDS)})\t({'|'.join(CAUSES)})?"
                   rf"\t([0-9]{{1,10}})\t({ACCEPTED}|{OBSERVED})?".encode("ascii"))
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tallied:
    """One line, understood."""

    at: int  # epoch seconds
    word: str
    cause: str
    microseconds: int
    mark: str

    @property
    def line(self) -> bytes:
        """Return it as it is written; begun anew, should the line before be cut short."""
        text = f"\n{self.at}\t{self.word}\t{self.cause}\t{self.microseconds}\t{self.mark}\n"
        return text.encode("ascii")


def tally(settings: UploadSettings, verdict: UploadVerdict) -> None:
    """Count a verdict; one that cannot be counted stands all the same."""
    with suppress(OSError):
        _append(settings, _tallied(verdict).line)


def read(line: bytes) -> Tallied | None:
    """Return what a line without its newline says; None: it is not ours."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    at, word, cause, microseconds, mark = (part.decode("ascii") for part in match.groups(b""))
    return Tallied(int(at), word, cause, int(microseconds), mark)


def make(settings: UploadSettings) -> None:
    """Make the spool where it is missing, but not ``state``; raises OSError."""
    directory = settings.upload_spool
    if settings.upload.spool is None:
        with suppress(FileExistsError):
            directory.parent.mkdir(0o700)
    with suppress(FileExistsError):
        directory.mkdir(0o700)
        directory.chmod(0o2770)  # whatever the umask: a group may share it


def _tallied(verdict: UploadVerdict) -> Tallied:
    rule = verdict.cause in {"size", "type", "pixels", "frames"}
    mark = OBSERVED if verdict.observed else ""
    if verdict.verdict == "unknown" and verdict.status is Exit.DONE and not mark:
        mark = ACCEPTED
    return Tallied(int(time.time()), "refused" if rule else verdict.verdict, verdict.cause,
                   round(verdict.seconds * 10**6), mark)


def _append(settings: UploadSettings, line: bytes) -> None:
    path = settings.upload_spool / f"{os.geteuid()}{FRESH}"
    for _ in range(ATTEMPTS):
        try:
            fd = os.open(path, _FLAGS, 0o640)
        except FileNotFoundError:
            make(settings)
            continue
        try:
            if hold(fd) and stands(path, fd):
                os.write(fd, line)
                return
        finally:
            os.close(fd)


def file_of(name: str) -> int | None:
    """Return whose file is called ``name``; None: it is no file of a user."""
    match = re.fullmatch(rf"([0-9]{{1,10}}){re.escape(FRESH)}", name)
    return None if match is None or int(match[1]) >= 2**32 else int(match[1])
