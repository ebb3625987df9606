"""scan-upload: one verdict for the application, before it saves the file."""

import argparse
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from maintenance.clamav import protocol
from maintenance.clamav.connection import Clamd
from maintenance.errors import Exit, ImagewardenError
from maintenance.settings import Config, UploadSettings
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.text import show
from maintenance.verdict import Answer, Verdict


class TooLarge(Exception):
    """An upload is over ``max_size``; nothing more of it is read."""


@dataclass(frozen=True, slots=True)
class UploadReport:
    """The verdict on one upload; ``word`` "off" means that nobody looked."""

    word: str
    exit_status: Exit
    signature: str | None = None
    reason: str | None = None

    def status(self) -> Exit:
        """Return what the application goes by."""
        return self.exit_status

    def members(self) -> dict[str, object]:
        """Return the verdict's part of the JSON result."""
        return {"verdict": self.word, "signature": self.signature, "reason": self.reason}

    def summary(self) -> Iterator[str]:
        """Yield the verdict when it is good news; ``alerts`` has the rest."""
        if self.word in {"clean", "off"}:
            yield self.word

    def alerts(self) -> Iterator[str]:
        """Yield why the upload should not be kept."""
        if self.word not in {"clean", "off"}:
            yield f"{self.word}: {show(self.signature or self.reason or '')}"


def scan_upload(context: Context) -> UploadReport:
    """Give one verdict within the time-out, or say that there is none."""
    settings = context.config.upload
    if not settings.enabled:
        return UploadReport("off", Exit.DONE)
    given = context.options.timeout
    timeout = settings.timeout if given is None else given
    try:
        answer = _ask(context.config, context.options.file, timeout)
    except TooLarge:
        reason = f"larger than upload.max_size ({settings.max_size} bytes)"
        return UploadReport("unknown", _unless_observed(settings.observe, Exit.REFUSED),
                            reason=reason)
    status = _unless_observed(settings.observe, _status(context.config, answer))
    return UploadReport(answer.verdict.value, status, answer.signature, answer.reason)


def _unless_observed(observe: bool, status: Exit) -> Exit:
    return Exit.DONE if observe else status


def _status(config: Config, answer: Answer) -> Exit:
    if answer.verdict is Verdict.UNKNOWN:
        accept = config.upload.when_unavailable == "accept"
        return Exit.DONE if accept else Exit.INCOMPLETE
    return Exit.INFECTED if answer.verdict is Verdict.INFECTED else Exit.DONE


def _ask(config: Config, file: str, timeout: float) -> Answer:
    clamd = Clamd(config.clamav.socket)
    limit = min(config.upload.max_size, config.clamav.max_file_size)
    if file == "-":
        return clamd.scan_stream(_pieces(sys.stdin.fileno(), limit, timeout), timeout)
    fd = _open(file)
    try:
        if os.fstat(fd).st_size > limit:
            raise TooLarge
        if clamd.local:
            return clamd.scan_descriptor(fd, timeout)
        return clamd.scan_stream(_pieces(fd, limit, timeout), timeout)
    finally:
        os.close(fd)


def _open(file: str) -> int:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImagewardenError(f"{show(file)}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImagewardenError(f"{show(file)}: not a regular file")
    return fd


def _pieces(fd: int, limit: int, timeout: float) -> Iterator[bytes]:
    deadline = time.monotonic() + timeout
    size = 0
    while chunk := _read(fd, deadline):
        size += len(chunk)
        if size > limit:
            raise TooLarge
        yield chunk


def _read(fd: int, deadline: float) -> bytes:
    """Read from a pipe that may stall; raises TimeoutError."""
    ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise TimeoutError
    return os.read(fd, protocol.CHUNK)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE|-", help="the upload; - reads it from stdin")
    parser.add_argument("--timeout", type=duration, metavar="10s", help="for the whole call")


JOB = Job(script="scan-upload", name="upload", run=scan_upload, options=_options,
          sections=("clamav", "upload"), settings=UploadSettings, records=False, remembers=False,
          purpose="Scan one upload: 0 clean, 4 infected, 3 no verdict, 5 too large.")
