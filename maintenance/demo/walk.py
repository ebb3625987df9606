"""bin/demo: sets a sample store up, runs a whole night on it, and shows what it gave."""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from maintenance.demo import claim
from maintenance.demo.night import tell
from maintenance.demo.telling import Story
from maintenance.errors import Exit, ImagewardenError
from maintenance.provision.console import parser
from maintenance.shell import signals
from maintenance.text import show
from maintenance.times import iso

DESCRIPTION = """\
Runs a whole night on a sample store that it makes: definitions arrive, the store
is scanned, uploads are scanned, new definitions find what was clean before, what
is infected goes into quarantine and one image comes back, images become smaller.
It writes into one directory only, which it empties when it starts."""

ENDING = """
The same on a real store, every night (README.md tells more):
    bin/install --dry-run --store /srv/uploads    # says what it would do; then without --dry-run
What this demo made stays for you to look at, until the next one or: rm -r {root}
It holds the EICAR test string, which virus scanners take for a virus."""


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Show the demo and return the exit status: 0 when every step ended as it should."""
    options = _options(name, argv)
    os.umask(0o022)  # the jobs, started by root, read what we write as another user
    started, clock = time.time(), time.monotonic()
    story = Story(None if options.quiet or options.json else sys.stdout)
    status, error = int(Exit.DONE), None
    try:
        signals.listen()
        with claim.claimed(options.dir or claim.usual()) as place:
            tell(place, story)
        story.say(f"\nEverything as expected, in {time.monotonic() - clock:.0f} s.")
        story.say(ENDING.format(root=show(place.root)))
    except ImagewardenError as failure:
        status, error = int(failure.status), str(failure)
    except BrokenPipeError:  # whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return Exit.FAILED
    except OSError as failure:  # no room, most likely
        status, error = int(Exit.FAILED), _told(failure)
    except signals.Stopped as stopped:
        status, error = stopped.status, str(stopped)
    if error is not None:
        sys.stderr.write(f"demo: {error}\n")
    if options.json and status not in {Exit.USAGE, Exit.CONFIG}:
        _print_result(story, started, time.monotonic() - clock, error)
    return status


def _options(name: str, argv: Sequence[str] | None) -> argparse.Namespace:
    made = parser(DESCRIPTION)
    made.prog = name
    made.add_argument(
        "--dir", type=Path, metavar="DIR",
        help=f"work in this directory: an empty one, or an earlier demo's ({claim.usual()})")
    return made.parse_args(argv)


def _told(failure: OSError) -> str:
    where = f"{show(failure.filename)}: " if failure.filename else ""
    return f"{where}{failure.strerror}"


def _print_result(story: Story, started: float, seconds: float, error: str | None) -> None:
    result = {
        "job": "demo", "outcome": "done" if error is None else "failed",
        "started": iso(started), "seconds": round(seconds, 3), "host": socket.gethostname(),
        "steps": story.steps, **({} if error is None else {"error": error}),
    }
    sys.stdout.write(json.dumps(result) + "\n")

