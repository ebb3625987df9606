"""A whole night on a sample store, told step by step: what `bin/demo` shows."""

import argparse
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from maintenance.demo import claim, samples
from maintenance.demo.place import USER, Place
from maintenance.demo.samples import Samples
from maintenance.demo.telling import CHECKOUT, Story
from maintenance.demo.uploads import clamd_for_uploads
from maintenance.errors import Exit, ImagewardenError
from maintenance.provision.console import parser
from maintenance.shell import signals
from maintenance.text import show
from maintenance.times import iso

DESCRIPTION = """\
Runs a whole night on a sample store that it makes: definitions arrive, the store
is scanned, uploads are scanned, new definitions find what was clean before. It
writes into one directory only, which it empties when it starts."""

CONFIG = """\
# Made by bin/demo. A real one: docs/imagewarden.example.toml
{user}state = "{root}/state"
logs = "{root}/logs"

[[store]]
name = "uploads"
path = "{root}/uploads"

[clamav]
engine = "private"              # rescans bring their own clamd
socket = "{socket}"
databases = "{root}/databases"

[definitions]
official = false                # the demo downloads nothing
custom_urls = ["file://{feed}"]
"""

ENDING = """
The same on a real store (README.md tells more):
    cp docs/imagewarden.example.toml /etc/imagewarden.toml    # then set state and [[store]] in it
    bin/update-definitions
    bin/rescan-store
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
            _tell(place, story)
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


def _tell(place: Place, story: Story) -> None:
    made = _prepare(place, story)
    story.chapter("The first definitions arrive")
    story.run(place, "update-definitions", "--no-rescan")
    with clamd_for_uploads(place):
        _first_night(place, story, made)
        _uploads(place, story)
        _new_definitions(place, story, made)
        _at_a_glance(place, story, made)


def _prepare(place: Place, story: Story) -> Samples:
    """Make the store, the files to upload, the first definitions and the configuration."""
    story.chapter(f"A sample store in {show(place / 'uploads')}")
    made = samples.make_store(place / "uploads")
    (place / "incoming").mkdir()
    for name, source in (("holiday.jpg", made.photos[0]), ("invoice.jpg", made.infected),
                         ("flyer.png", made.infected_later)):
        shutil.copyfile(place / "uploads" / os.fsdecode(source), place / "incoming" / name)
    for directory in ("databases", "clamd", "feed"):
        (place / directory).mkdir()
    for directory in ("uploads", "databases", "clamd"):
        place.give(place / directory)
    place.publish(samples.signatures_first())
    user = "" if place.owner is None else f'user = "{USER}"  # root starts, he works\n'
    place.config.write_text(CONFIG.format(
        user=user, root=place.root, socket=place.socket, feed=place.feed), encoding="utf-8")
    story.say(f"  {made.images} images of all kinds; one carries the EICAR test string, one a mark"
              " that only\n  later definitions know, some have names that break careless programs."
              f"\n  Its configuration: {show(place.config)}"
              f"\n  The commands below are typed in {show(CHECKOUT)}.")
    return made


def _first_night(place: Place, story: Story, made: Samples) -> None:
    story.chapter("The first rescan looks at every image")
    seen = story.run(place, "rescan-store", expected=Exit.INFECTED)
    story.check(f"it names {show(made.infected)}", holds=show(made.infected) in seen.err)
    story.chapter("The next one has nothing to do, and starts no engine")
    seen = story.run(place, "rescan-store", expected=Exit.INFECTED)
    story.say("  (4 as long as an infected image is in the store)")
    told = story.ask(place, "rescan-store", expected=Exit.INFECTED)
    story.check("every image was current, and no engine ran (by its --json result)",
                holds=told["canary"] is None
                and [one["current"] for one in told["stores"]] == [made.images])


def _uploads(place: Place, story: Story) -> None:
    story.chapter("The application asks about three uploads before it saves them")
    story.run(place, "scan-upload", str(place / "incoming" / "holiday.jpg"))
    story.run(place, "scan-upload", str(place / "incoming" / "invoice.jpg"),
              expected=Exit.INFECTED)
    story.run(place, "scan-upload", str(place / "incoming" / "flyer.png"))


def _new_definitions(place: Place, story: Story, made: Samples) -> None:
    story.chapter("New definitions arrive, and a rescan follows")
    place.publish(samples.signatures_second())
    story.run(place, "update-definitions", "--wait", expected=Exit.INFECTED)
    story.chapter("What was clean under the first definitions is found now")
    seen = story.run(place, "rescan-store", expected=Exit.INFECTED)
    story.check(f"it names {show(made.infected_later)}",
                holds=show(made.infected_later) in seen.err)
    story.chapter("The clamd for uploads was told: the third upload is refused now")
    story.run(place, "scan-upload", str(place / "incoming" / "flyer.png"),
              expected=Exit.INFECTED)


def _at_a_glance(place: Place, story: Story, made: Samples) -> None:
    story.chapter("Where we stand")
    story.run(place, "store-status")
    [store] = story.ask(place, "store-status")["stores"]
    story.check(
        f"all {made.images} images are checked against the definitions of now, none is unknown,"
        " 2 are infected (by its --json result)",
        holds=(store["images"], store["clean_current"], store["infected"])
        == (made.images, made.images - 2, 2)
        and store["unknown"] == store["never"] == store["clean_older"] == 0)
