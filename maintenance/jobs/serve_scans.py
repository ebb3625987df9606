"""serve-scans: verdicts on uploads over HTTP, for applications in other languages."""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maintenance import config as configuration
from maintenance import trusted
from maintenance.errors import Exit, ImagewardenError, UsageError
from maintenance.settings import UploadSettings
from maintenance.shell.job import Context, Job
from maintenance.shell.options import duration
from maintenance.shell.signals import Stopped
from maintenance.text import show

if TYPE_CHECKING:
    from maintenance.serve.listening import Place

LISTEN = "unix:/run/imagewarden/scans.sock"
BODY = 30.0  # seconds for a body to come
MOST = 200  # connections
SHORTEST = 16  # characters of a token


@dataclass(frozen=True, slots=True)
class ServedReport:
    """Nothing: it ends by a signal, or fails."""

    def status(self) -> Exit:
        """Return 0."""
        return Exit.DONE

    def members(self) -> dict[str, object]:
        """Return nothing more than every result has."""
        return {}

    def summary(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()

    def alerts(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()


def serve_scans(context: Context) -> ServedReport:
    """Answer until a signal comes."""
    try:
        listening = importlib.import_module("maintenance.serve.listening")
        application = importlib.import_module("maintenance.serve.application")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("maintenance"):
            raise
        python = Path(sys.prefix, "bin", "python3")
        raise ImagewardenError(f"{error.name} is not installed: {show(python)} -m pip install"
                               " 'aiohttp>=3.9' 'prometheus_client>=0.20'") from None
    options = context.options
    place: Place = listening.Place.of(options.listen)
    token = _token(options, place)
    if context.config_path is not None:
        os.environ[configuration.VARIABLE] = context.config_path
    scans = application.Scans(options.body_timeout, token)
    context.log.info("listening at %s", place)
    number = asyncio.run(listening.Listener(scans, place, options.connections).run())
    raise Stopped(number)


def _token(options: argparse.Namespace, place: "Place") -> str:
    if not place.local and not (options.allow_remote and options.token_file):
        raise UsageError(f"--listen: {place} can be reached from other hosts:"
                         " that takes --allow-remote and --token-file")
    if options.token_file is None:
        return ""
    name = options.token_file
    token = ""
    try:
        content, info = trusted.read(name)
        with suppress(UnicodeDecodeError):
            token = content.decode("ascii").strip()
    except OSError as error:
        raise ImagewardenError(f"{show(name)}: {error.strerror}") from None
    if info.st_mode & 0o066:
        raise ImagewardenError(f"{show(name)}: readable or writable by group or others:"
                               f" chmod go-rw {show(name)}")
    if len(token) < SHORTEST or not token.isprintable():
        raise ImagewardenError(f"{show(name)}: a token has at least {SHORTEST} ASCII characters")
    return token


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", metavar="unix:PATH|HOST:PORT", default=LISTEN,
                        help=f"default: {LISTEN}")
    parser.add_argument("--allow-remote", action="store_true",
                        help="HOST may be one that other hosts can reach; needs --token-file")
    parser.add_argument("--token-file", metavar="FILE",
                        help="clients have to send its content: Authorization: Bearer TOKEN")
    parser.add_argument("--connections", type=int, metavar="N", default=MOST,
                        help=f"at a time; the next are answered by 503 (default {MOST})")
    parser.add_argument("--body-timeout", type=duration, metavar="30s", default=BODY,
                        help="for a body to come")


JOB = Job(script="serve-scans", name="upload", run=serve_scans, options=_options,
          sections=("clamav", "upload"), settings=UploadSettings, records=False, remembers=False,
          purpose="Give verdicts on uploads over HTTP: POST /scan.")
