"""The night that `bin/demo` shows, step by step."""

import os
import shutil

from maintenance.demo import pixels, samples
from maintenance.demo.place import USER, Place
from maintenance.demo.samples import Samples
from maintenance.demo.telling import CHECKOUT, Story
from maintenance.demo.uploads import clamd_for_uploads
from maintenance.errors import Exit
from maintenance.text import show

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

[rescan]
action = "quarantine"           # the default only reports
"""


def tell(place: Place, story: Story) -> None:
    """Run the night; raises ImagewardenError when anything is not as it should be."""
    made = _prepare(place, story)
    before = pixels.shown_in(place / "uploads")
    story.chapter("The first definitions arrive")
    story.run(place, "update-definitions", "--no-rescan")
    with clamd_for_uploads(place):
        _first_rescan(place, story, made)
        _uploads(place, story)
        _new_definitions(place, story, made)
        _a_mistake(place, story, made)
        _optimised(place, story, made, before)
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
              " that only\n  later definitions know, one is cut off, some have names that break"
              f" careless programs.\n  Its configuration: {show(place.config)}"
              f"\n  The commands below are typed in {show(CHECKOUT)}.")
    return made


def _first_rescan(place: Place, story: Story, made: Samples) -> None:
    story.chapter("The first rescan looks at every image, and takes out what is infected")
    seen = story.run(place, "rescan-store", expected=Exit.INFECTED)
    story.check(f"it names {show(made.infected)}", holds=show(made.infected) in seen.err)
    story.chapter("The next one has nothing to do, and starts no engine")
    story.run(place, "rescan-store")
    told = story.ask(place, "rescan-store")
    story.check("every image was current, and no engine ran (by its --json result)",
                holds=told["canary"] is None
                and [one["current"] for one in told["stores"]] == [made.images - 1])


def _uploads(place: Place, story: Story) -> None:
    story.chapter("The application asks about three uploads before it saves them")
    story.run(place, "scan-upload", str(place / "incoming" / "holiday.jpg"))
    story.run(place, "scan-upload", str(place / "incoming" / "invoice.jpg"),
              expected=Exit.INFECTED)
    story.run(place, "scan-upload", str(place / "incoming" / "flyer.png"))


def _new_definitions(place: Place, story: Story, made: Samples) -> None:
    story.chapter("New definitions arrive: the rescan finds what was clean before")
    place.publish(samples.signatures_second())
    story.run(place, "update-definitions", "--wait", expected=Exit.INFECTED)
    story.run(place, "quarantine", "list")
    held = _held(place, story)
    story.check(f"{show(made.infected_later)} was taken", holds=show(made.infected_later) in held)
    story.chapter("The clamd for uploads was told: the third upload is refused now")
    story.run(place, "scan-upload", str(place / "incoming" / "flyer.png"),
              expected=Exit.INFECTED)


def _a_mistake(place: Place, story: Story, made: Samples) -> None:
    story.chapter("One of those signatures was a mistake: it is withdrawn, and the image restored")
    ticket = _held(place, story)[show(made.mistaken)]
    story.run(place, "quarantine", "restore", ticket, expected=Exit.INFECTED)
    story.say("  (as long as the engine finds it, only with --force)")
    place.publish(samples.signatures_third())
    story.run(place, "update-definitions", "--wait")
    story.run(place, "quarantine", "restore", ticket)
    story.run(place, "rescan-store")


def _held(place: Place, story: Story) -> dict[str, str]:
    """Return the tickets of what is held, by path."""
    return {one["path"]: one["ticket"] for one in story.ask(place, "quarantine", "list")["held"]}


def _optimised(place: Place, story: Story, made: Samples, before: dict[bytes, str]) -> None:
    story.chapter("At night images become smaller (--now: whatever the hour)")
    seen = story.run(place, "optimize-images", "--now", expected=Exit.INCOMPLETE)
    story.check(f"it names {show(made.truncated)}, which is damaged",
                holds=show(made.truncated) in seen.err)
    after = pixels.shown_in(place / "uploads")
    story.check(f"all {len(after)} images that can be decoded show the same pixels as before",
                holds=len(after) == len(before) - 2  # in quarantine
                and all(before[path] == shown for path, shown in after.items()))
    story.chapter("The next night touches nothing")
    story.run(place, "optimize-images", "--now")


def _at_a_glance(place: Place, story: Story, made: Samples) -> None:
    story.chapter("What Zabbix would be sent")
    story.run(place, "send-checks", "--print")
    story.chapter("Where we stand")
    story.run(place, "store-status")
    [store] = story.ask(place, "store-status")["stores"]
    remain = made.images - 2
    story.check(
        f"all {remain} images are checked against the definitions of now, none is unknown or"
        " infected,\n    2 are in quarantine (by its --json result)",
        holds=(store["images"], store["clean_current"], store["quarantined"])
        == (remain, remain, 2)
        and store["unknown"] == store["never"] == store["clean_older"] == store["infected"] == 0)
