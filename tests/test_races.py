"""Whoever can write to the store works against the rescan: the real script, the real clamd."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from maintenance.store.quarantine import Quarantine
from tests.processes import ROOT, engines, started
from tests.site import BAD, wait_until

pytestmark = pytest.mark.server
TAKE = ("--action", "quarantine")


def held(site) -> dict[str, bytes]:
    """What is in the quarantine, by the paths it had; every one is closed."""
    place = site.state / "quarantine/uploads"
    with Quarantine.open(place, make=False) as opened:
        found = list(opened.held())
    contents = {}
    for one in found:
        image = place / f"{one.ticket}.image"
        assert image.stat().st_mode & 0o777 == 0
        image.chmod(0o400)
        contents[one.record.raw.decode()] = image.read_bytes()
        image.chmod(0)
    assert len(contents) == len(found)
    return contents


def opened_by(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(entry))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("swap", ["file", "link", "hard link"])
def test_what_takes_the_place_of_an_image_after_its_verdict_is_not_taken(site, swap):
    image = Path(os.fsdecode(site.image("bad.jpg", BAD)))
    later = os.fsdecode(site.image("later.jpg"))
    os.truncate(later, 90 * 2**20)  # the engine dwells here: the verdict before is not settled
    site.settings["rescan"] = {"in_flight": 1}
    site.write_config()
    site.update()
    precious = site.root / "precious.jpg"
    precious.write_bytes(b"precious")
    with started(site.command("rescan-store", "--json", *TAKE)) as job:
        wait_until(lambda: later in opened_by(job.pid))
        engine = engines(job.pid)[0]
        os.kill(engine, signal.SIGSTOP)
        if swap == "hard link":
            os.link(image, site.root / "other")
        else:
            image.rename(site.root / "aside.jpg")
        if swap == "file":
            image.write_bytes(b"precious")
        elif swap == "link":
            image.symlink_to(precious)
        os.kill(engine, signal.SIGCONT)
        out, err = job.communicate(timeout=60)
    result = json.loads(out)
    assert b"Traceback" not in err
    assert held(site) == {}
    assert precious.read_bytes() == b"precious"
    assert (job.returncode, [one["action"] for one in result["infected"]]) == (4, ["reported"])
    assert [one["path"] for one in result["undone"]] == ["bad.jpg"]
    assert result["undone"][0]["reason"].startswith("not taken: ")
    assert image.is_symlink() == (swap == "link")
    assert image.read_bytes() == (BAD if swap == "hard link" else b"precious")


def test_a_directory_that_flips_to_a_link_while_a_rescan_takes_leads_nowhere(site):
    for number in range(30):
        site.image(f"clean{number}.jpg")
    bad = {f"d/{number:02}.jpg": BAD + b"%d" % number for number in range(20)}
    for path, content in bad.items():
        site.image(path, content)
    bait = site.root / "bait"
    bait.mkdir()
    for path in bad:
        (bait / Path(path).name).write_bytes(BAD)
    before = {path.name: path.stat().st_ctime_ns for path in bait.iterdir()}
    site.settings["rescan"] = {"action": "quarantine", "quarantine_limit": 1000}
    site.write_config()
    site.update()
    flips = flipping(site.store / "d", site.root / "spare", site.root / "link", bait)
    try:
        while flips.count < 10_000:
            ended = site.run("rescan-store", "--json")
            assert "Traceback" not in ended.err
            assert ended.status in {0, 1, 3, 4}
    finally:
        flips.stop()
    assert {path.name: path.stat().st_ctime_ns for path in bait.iterdir()} == before
    left = {f"d/{path.name}": path.read_bytes() for path in (site.store / "d").iterdir()}
    taken = held(site)
    assert left.keys().isdisjoint(taken)
    assert left | taken == bad
    site.rescan("--accept-missing")
    assert held(site) == bad
    assert list((site.store / "d").iterdir()) == []
    assert {path.name: path.stat().st_ctime_ns for path in bait.iterdir()} == before


class flipping:  # noqa: N801 - read like a verb
    """Makes ``real`` a directory and a link to ``target`` in turns, until it is stopped."""

    def __init__(self, real: Path, spare: Path, link: Path, target: Path) -> None:
        self.count = 0
        self._names = real, spare, link
        link.symlink_to(target)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._flip)
        self._thread.start()

    def _flip(self) -> None:
        real, spare, link = self._names
        while not self._ended.is_set():
            os.rename(real, spare)
            os.rename(link, real)
            os.rename(real, link)
            os.rename(spare, real)
            self.count += 1

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def test_links_lead_a_rescan_nowhere_and_stay_as_they_are(site):
    outside = site.root / "outside"
    outside.mkdir()
    (outside / "bad.jpg").write_bytes(BAD)
    links = {"file.jpg": outside / "bad.jpg", "directory": outside, "dangling": "/no/such",
             "loop": "loop", "up": ".."}
    for name, target in links.items():
        (site.store / name).symlink_to(target)
    site.image("a.jpg")
    site.update()
    for paths in ((), (site.store,)):
        status, result = site.rescan(*TAKE, *paths)
        assert (status, result["infected"], result["undone"]) == (0, [], [])
    assert site.rescan()[1]["stores"][0]["passed"] == len(links)
    assert (outside / "bad.jpg").read_bytes() == BAD
    assert {name: os.readlink(site.store / name) for name in links} == {
        name: str(target) for name, target in links.items()}


def test_two_names_of_one_image_are_both_reported_and_neither_is_taken(site):
    site.image("a.jpg", BAD)
    os.link(site.store / "a.jpg", site.store / "b.jpg")
    before = (site.store / "a.jpg").stat()
    site.update()
    status, result = site.rescan(*TAKE)
    assert (status, {one["path"]: one["action"] for one in result["infected"]}) == (
        4, {"a.jpg": "reported", "b.jpg": "reported"})
    assert {one["path"] for one in result["undone"]} == {"a.jpg", "b.jpg"}
    assert all("hard links" in one["reason"] for one in result["undone"])
    assert held(site) == {}
    for name in ("a.jpg", "b.jpg"):
        after = (site.store / name).stat()
        assert (after.st_ino, after.st_nlink, after.st_mode) == (
            before.st_ino, 2, before.st_mode)


def test_what_is_no_image_stops_no_rescan_and_a_huge_hole_costs_nothing(site):
    site.image("a.jpg", BAD)
    os.mkfifo(site.store / "fifo")
    if ROOT:
        os.mknod(site.store / "device", 0o666 | 0o020000, os.makedev(1, 5))  # /dev/zero
    os.truncate(site.image("huge.jpg"), 2**40)
    os.truncate(site.image("hole.jpg"), 90 * 2**20)
    site.update()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(site.store)  # a socket's own path may not be long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        status, result = site.rescan(*TAKE)
    store = result["stores"][0]
    assert (status, store["passed"], store["clean"], store["unknown"]) == (4, 2 + ROOT, 1, 1)
    assert [one["path"] for one in result["undone"]] == ["huge.jpg"]
    assert held(site) == {"a.jpg": BAD}


def test_an_image_that_somebody_writes_all_the_time_is_unknown_and_not_taken(site):
    path = Path(os.fsdecode(site.image("busy.jpg", BAD)))
    os.truncate(path, 30 * 2**20)
    site.image("still.jpg", BAD)
    site.update()
    ended = threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as stream:
            while not ended.is_set():
                for content in (bytes(len(BAD)), BAD):
                    stream.seek(0)
                    stream.write(content)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        status, result = site.rescan(*TAKE)
    finally:
        ended.set()
        writer.join()
    assert (status, [one["path"] for one in result["infected"]]) == (4, ["still.jpg"])
    assert [(one["path"], one["reason"]) for one in result["undone"]] == [
        ("busy.jpg", "changed while it was scanned")]
    assert held(site) == {"still.jpg": BAD}
    status, result = site.rescan(*TAKE)
    assert (status, set(held(site))) == (4, {"still.jpg", "busy.jpg"})
