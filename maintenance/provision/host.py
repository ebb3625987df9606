"""Where things lie on the host, and what was asked for."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ToolError, UsageError
from maintenance.provision.console import Console
from maintenance.provision.scripts import Scripts
from maintenance.provision.steps import Journal
from maintenance.provision.timetable import PLAIN
from maintenance.text import show


@dataclass(frozen=True)
class Host:
    """Where things lie on this host, and what was asked for."""

    given: argparse.Namespace
    console: Console
    journal: Journal
    library: Path
    config: Path
    scripts: Scripts

    @classmethod
    def of(cls, given: argparse.Namespace) -> Host:
        """Understand the command line."""
        prefix = os.path.abspath(given.prefix)
        if not PLAIN.fullmatch(prefix):
            raise UsageError(f"--prefix {show(prefix)}: letters, digits and ./_+@:,- only")
        library = Path(prefix, "lib", "imagewarden")
        console = Console("install", verbose=given.verbose, quiet=given.quiet,
                          log=library / "install.log")
        shown = not given.json and not given.quiet
        return cls(given, console, Journal(console, given.dry_run, shown), library,
                   Path(os.path.abspath(given.config or "/etc/imagewarden.toml")),
                   Scripts(Path(prefix, "sbin"), library / "current"))


@contextmanager
def alone(host: Host) -> Iterator[None]:
    """Keep a second install of the same prefix out; leaves no file behind."""
    if host.given.dry_run:
        yield
        return
    place = host.library.parent.parent
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ToolError("another install works here") from None
        yield
    finally:
        os.close(fd)
