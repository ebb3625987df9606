"""scan-upload: one verdict for the application, before it saves the file."""

import argparse
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from maintenance import config as configuration
from maintenance.clamav import protocol
from maintenance.errors import Exit
from maintenance.settings import Upload, UploadSettings
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.text import show
from maintenance.upload.checking import checked
from maintenance.upload.judging import Said, UploadVerdict, greatest_size, judged
from maintenance.upload.source import Source, Stalled, limited
from maintenance.upload.tallying import tally
from maintenance.verdict import unknown

_ACCEPT = re.compile(r'\s*when_unavailable\s*=\s*["\']accept["\']\s*(?:#.*)?')


class Unparsed(UploadSettings, frozen=True, kw_only=True):
    """What is left of a configuration that is no TOML."""

    fault: str


@dataclass(frozen=True, slots=True)
class UploadReport:
    """The verdict on one upload."""

    given: UploadVerdict

    def status(self) -> Exit:
        """Return what the application goes by."""
        return self.given.status

    def members(self) -> dict[str, object]:
        """Return the verdict's part of the JSON result."""
        return {"verdict": self.given.verdict, "signature": self.given.signature,
                "reason": self.given.reason}

    def summary(self) -> Iterator[str]:
        """Yield the verdict when it is good news; ``alerts`` has the rest."""
        if self.given.verdict in {"clean", "off"}:
            yield self.given.verdict

    def alerts(self) -> Iterator[str]:
        """Yield why the upload should not be kept."""
        if self.given.verdict not in {"clean", "off"}:
            yield f"{self.given.verdict}: {show(self.given.signature or self.given.reason or '')}"


def scan_upload(context: Context) -> UploadReport:
    """Give one verdict within the time-out, or say that there is none."""
    settings = cast(UploadSettings, context.config)
    if isinstance(settings, Unparsed):
        return UploadReport(judged(settings, Said(unknown(settings.fault), "error"), 0.0))
    given, file = context.options.timeout, context.options.file
    timeout = settings.upload.timeout if given is None else given
    upload = _stdin(greatest_size(settings), timeout) if file == "-" else file
    verdict = checked(settings, upload, timeout)
    tally(settings, verdict)
    return UploadReport(verdict)


def _stdin(limit: int, timeout: float) -> Source:
    deadline = time.monotonic() + timeout
    fd = sys.stdin.fileno()
    return Source(lambda: limited(iter(lambda: _read(fd, deadline), b""), limit), again=False)


def _read(fd: int, deadline: float) -> bytes:
    """Read from a pipe that may stall; raises Stalled."""
    ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise Stalled
    return os.read(fd, protocol.CHUNK)


def _settings(path: str | None) -> UploadSettings:
    """Read the configuration; of one that is half written, what to do without a verdict."""
    try:
        return configuration.load_part(path, JOB.sections, UploadSettings)
    except configuration.Unparsed as error:
        accept = any(map(_ACCEPT.fullmatch, configuration.lines(path)))
        # Nothing is opened any more: it does not matter whom root becomes.
        return Unparsed(user="root", state=Path("/nonexistent"), fault=str(error),
                        upload=Upload(when_unavailable="accept" if accept else "refuse"))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE|-", help="the upload; - reads it from stdin")
    parser.add_argument("--timeout", type=duration, metavar="10s", help="for the whole call")


JOB = Job(script="scan-upload", name="upload", run=scan_upload, options=_options,
          sections=("clamav", "upload"), settings=UploadSettings, load=_settings, records=False,
          remembers=False,
          purpose="Scan one upload: 0 clean, 4 infected, 3 no verdict, 5 too large.")
