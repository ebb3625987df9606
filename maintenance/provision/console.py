"""What set-up and check have in common with every script: options, lines, exit statuses."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import maintenance
from maintenance.errors import Exit, ImagewardenError, ToolError, UsageError
from maintenance.provision.children import run, stoppable

CHECKOUT = Path(__file__).resolve().parents[2]
TAIL = 10  # lines of a failed program's output worth showing


@dataclass(frozen=True)
class Console:
    """Where the lines and the output of children go."""

    script: str
    verbose: bool = False
    quiet: bool = False
    log: Path = CHECKOUT / "build" / "setup.log"

    def say(self, line: str) -> None:
        """Tell a person what goes on: on a terminal, or when asked to."""
        if not self.quiet and (self.verbose or sys.stderr.isatty()):
            sys.stderr.write(f"{self.script}: {line}\n")

    def run(
        self, argv: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run a program with its output in the log, or shown; raises ToolError when it fails.

        The error carries the last lines of the output, where the reason stands.
        """
        if self.verbose:
            sys.stderr.flush()
            status = run(argv, sys.stderr, environment=environment)
            seen = ""
        else:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a+", encoding="utf-8", errors="replace") as log:
                log.write(f"\n$ {' '.join(map(str, argv))}\n")
                log.flush()
                start = log.tell()
                status = run(argv, log, environment=environment)
                log.seek(start)
                seen = "".join(log.readlines()[-TAIL:]).rstrip()
        if status:
            where = f"; all of it is in {self.log}, its last lines are:\n{seen}" if seen else ""
            raise ToolError(f"{os.path.basename(argv[0])} failed with status {status}{where}")


def parser(description: str, config: str = "accepted as by every script; not read here"
           ) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    made = argparse.ArgumentParser(description=description, allow_abbrev=False)
    made.add_argument("--version", action="version",
                      version=f"imagewarden {maintenance.__version__}")
    made.add_argument("-v", "--verbose", action="store_true",
                      help="show what is done, and its output")
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    made.add_argument("--json", action="store_true", help="print the result as one JSON object")
    made.add_argument("--config", metavar="FILE", help=config)
    made.add_argument("--log-format", choices=("text", "json"), default="text",
                      help="accepted as by every script; not used here")
    return made


def conclude(script: str, as_json: bool, work: Callable[[], Mapping[str, object]]) -> int:
    """Do the work, print what is to be printed and return the exit status.

    ``work`` returns the members of its result; an ``outcome`` of its own among
    them decides the status. A mistake in the command line has no result.
    """
    started, clock = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    result: dict[str, object] = {"job": script, "outcome": "done"}
    try:
        with stoppable():
            result.update(work())
    except UsageError as error:
        sys.stderr.write(f"{script}: {error}\n")
        return Exit.USAGE
    except (ImagewardenError, OSError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"{script}: {error}\n")
        result.update(outcome="failed", error=str(error).partition("\n")[0])
    if as_json:
        result.update(
            started=started.strftime("%Y-%m-%dT%H:%M:%SZ"), host=socket.gethostname(),
            seconds=round(time.monotonic() - clock, 3))
        sys.stdout.write(json.dumps(result) + "\n")
    return Exit.DONE if result["outcome"] == "done" else Exit.FAILED
