"""rescan-store that takes infected images out of the store."""

import argparse
import fcntl
import logging
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from maintenance.jobs.rescan_report import RescanReport
from maintenance.jobs.taking import Taking, settle
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Asked
from maintenance.settings import Rescan, Store
from maintenance.store.brake import release
from maintenance.store.identity import stamp
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import Tree
from maintenance.verdict import infected
from tests.processes import NOBODY, ROOT, Namespace, killed_at_every_step, reachable
from tests.site import BAD, body_signature

pytestmark = pytest.mark.server

TAKE = ("--action", "quarantine")


@pytest.fixture
def bad(site):
    """A site whose store holds two infected images and a clean one."""
    site.image("a.jpg")
    site.image("b.jpg", BAD)
    site.image("sub/c.jpg", BAD + b"!")
    site.update()
    return site


def in_store(site):
    return sorted(str(path.relative_to(site.store)) for path in site.store.rglob("*")
                  if path.is_file())


def quarantine(site):
    return site.state / "quarantine/uploads"


def held(site):
    """What is in the quarantine, by path: ticket, signature, content."""
    with Quarantine.open(quarantine(site), make=False) as opened:
        found = list(opened.held())
    assert len({one.ticket for one in found}) == len(found)
    return {one.record.raw.decode(): (
        one.ticket, one.record.signature,
        read(quarantine(site) / f"{one.ticket}.image")) for one in found}


def read(path):
    assert path.stat().st_mode & 0o777 == 0
    path.chmod(0o600)
    content = path.read_bytes()
    path.chmod(0)
    return content


def keys(site):
    """The rows of the ledger that are not missing."""
    with closing(sqlite3.connect(f"file:{site.state}/ledger.sqlite?mode=ro", uri=True)) as ledger:
        return [row[0].replace(b"\0", b"/").decode() for row in ledger.execute(
            "SELECT key FROM images WHERE missing_since IS NULL ORDER BY key")]


def actions(result):
    return {one["path"]: one["action"] for one in result["infected"]}


# --- taking


def test_what_is_found_is_taken_and_the_result_says_where_it_is(bad):
    bad.settings["rescan"] = {"action": "quarantine"}
    bad.write_config()
    ended = bad.run("rescan-store", "--json")
    result, store = ended.json, ended.json["stores"][0]
    assert (ended.status, result["outcome"], result["infected_total"]) == (4, "infected", 2)
    there = held(bad)
    assert sorted(result["infected"], key=lambda one: one["path"]) == [
        {"store": "uploads", "path": path, "signature": "Test.Bad.UNOFFICIAL",
         "action": "quarantined", "ticket": there[path][0]} for path in ("b.jpg", "sub/c.jpg")]
    assert {path: one[2] for path, one in there.items()} == {"b.jpg": BAD, "sub/c.jpg": BAD + b"!"}
    assert (store["images"], store["full"], store["current"], store["left"]) == (3, 3, 0, 0)
    assert (store["clean"], store["infected"], store["missing"]) == (1, 2, 0)
    assert (in_store(bad), keys(bad)) == (["a.jpg"], ["a.jpg"])
    assert (bad.coverage()["infected"], bad.coverage()["images"]) == (0, 1)
    for path, (ticket, _, _) in there.items():
        assert f"infected: uploads: {path} (Test.Bad.UNOFFICIAL), quarantined as {ticket}" in (
            ended.err)
    status, result = bad.rescan()
    assert (status, result["infected_total"], result["canary"]) == (0, 0, None)


def test_what_was_reported_before_is_taken_without_asking_again(bad):
    assert actions(bad.rescan()[1]) == {"b.jpg": "reported", "sub/c.jpg": "reported"}
    assert in_store(bad) == ["a.jpg", "b.jpg", "sub/c.jpg"]
    status, result = bad.rescan(*TAKE)
    assert (status, result["canary"], result["infected_total"]) == (4, None, 2)
    assert set(actions(result).values()) == {"quarantined"}
    assert (result["stores"][0]["current"], result["stores"][0]["infected"]) == (3, 2)
    assert (in_store(bad), set(held(bad))) == (["a.jpg"], {"b.jpg", "sub/c.jpg"})


def test_what_new_definitions_call_clean_is_not_taken(bad):
    bad.rescan()
    bad.feed(body_signature("Test.Other", b"nothing of the kind"))
    bad.update()
    status, result = bad.rescan(*TAKE)
    assert (status, result["infected_total"]) == (0, 0)
    assert len(in_store(bad)) == 3


def test_the_option_overrides_the_configuration_and_a_dry_run_takes_nothing(bad):
    bad.settings["rescan"] = {"action": "quarantine"}
    bad.write_config()
    bad.run("rescan-store", "--dry-run")
    assert bad.run("rescan-store", "--dry-run", bad.store / "b.jpg").status == 4
    assert not quarantine(bad).exists()
    assert bad.rescan("--action", "report")[0] == 4
    bad.run("rescan-store", "--dry-run")
    assert in_store(bad) == ["a.jpg", "b.jpg", "sub/c.jpg"]


def test_given_paths_are_taken_out_of_a_store_and_left_where_they_are_elsewhere(bad):
    bad.write_config(store={"exclude": ["cache/**"]})
    outside = bad.root / "outside.jpg"
    outside.write_bytes(BAD)
    bad.image("cache/d.jpg", BAD)
    bad.rescan()
    status, result = bad.rescan(*TAKE, bad.store / "b.jpg", bad.store / "cache", outside)
    assert status == 4
    assert actions(result) == {"b.jpg": "quarantined", "cache/d.jpg": "quarantined",
                               str(outside): "reported"}
    assert outside.read_bytes() == BAD
    assert set(held(bad)) == {"b.jpg", "cache/d.jpg"}
    assert (in_store(bad), keys(bad)) == (["a.jpg", "sub/c.jpg"],) * 2


@pytest.mark.may_skip("only root can become somebody else")
@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_started_by_root_the_quarantine_is_made_for_the_user_where_only_root_can(bad):
    reachable(bad.root)
    own = [bad.store, *bad.store.rglob("*"), bad.state, *bad.state.rglob("*"),
           bad.root / "logs", *(bad.root / "logs").iterdir()]
    for path in own:
        os.chown(path, NOBODY, NOBODY)
    bad.top["user"] = "nobody"
    bad.settings["clamav"]["databases"] = str(bad.databases)
    bad.write_config(store={"quarantine": str(bad.root / "kept")})
    status, result = bad.rescan(*TAKE)
    assert (status, set(actions(result).values())) == (4, {"quarantined"})
    info = (bad.root / "kept").stat()
    assert (info.st_uid, info.st_mode & 0o777) == (NOBODY, 0o700)
    assert in_store(bad) == ["a.jpg"]


# --- what keeps an image where it is


def test_the_brake_holds_until_it_is_released(site):
    for number in range(8):
        site.image(f"{number}.jpg", b"clean enough %d" % number)
    site.feed(body_signature("Test.All", b"clean"))
    site.update()
    site.settings["rescan"] = {"action": "quarantine", "quarantine_limit": 3}
    site.write_config()
    for again in (False, True):
        ended = site.run("rescan-store", "--json")
        assert (ended.status, ended.json["infected_total"]) == (4, 5 if again else 8)
        assert sorted(actions(ended.json).values()) == (
            ["brake"] * 5 + ["quarantined"] * 3 * (not again))
        assert ended.err.count("quarantine release --store uploads") == 1
        assert len(held(site)) == 3
        assert (len(in_store(site)), site.coverage()["infected"]) == (5, 5)
    with Quarantine.open(quarantine(site), make=False) as opened:
        assert release(opened, "uploads")
    site.settings["rescan"]["quarantine_limit"] = 5
    site.write_config()
    ended = site.run("rescan-store", "--json")
    assert set(actions(ended.json).values()) == {"quarantined"}
    assert ended.err.count("quarantine release --store uploads") == 1, "the last one put it on"
    assert (ended.status, in_store(site)) == (4, [])


def test_a_signature_that_matches_everything_is_stopped_over_several_runs_too(site):
    for number in range(8):
        site.image(f"{number}.jpg", b"clean enough %d" % number)
    site.feed(body_signature("Test.All", b"clean"))
    site.update()
    site.settings["rescan"] = {"action": "quarantine", "quarantine_limit": 5}
    site.write_config()
    taken = []
    for names in ((0, 1), (2, 3), (4, 5), (6,)):  # no run of these reaches the limit by itself
        result = site.rescan(*(site.store / f"{number}.jpg" for number in names))[1]
        taken.append([one["action"] for one in result["infected"]])
    assert taken == [["quarantined"] * 2, ["quarantined"] * 2, ["quarantined", "brake"], ["brake"]]
    status, result = site.rescan()
    assert (status, list(actions(result).values())) == (4, ["brake"] * 3)
    assert (len(held(site)), len(in_store(site))) == (5, 3)


def test_over_quarantine_max_images_are_only_reported(bad):
    bad.settings["rescan"] = {"action": "quarantine", "quarantine_max": f"{len(BAD) + 5}"}
    bad.write_config()
    for taken in (1, 0):
        status, result = bad.rescan()
        assert (status, result["undone_total"]) == (4, 1)
        assert sorted(actions(result).values()) == ["quarantined"] * taken + ["reported"]
        assert "quarantine_max" in result["undone"][0]["reason"]
    assert len(in_store(bad)) == 2


def test_a_quarantine_on_another_file_system_gets_a_copy_and_gives_back_the_same(bad):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        bad.write_config(store={"quarantine": f"{other}/q"})
        (bad.store / "b.jpg").chmod(0o640)
        os.utime(bad.store / "b.jpg", ns=(10**18, 10**18 + 5))
        status, result = bad.rescan(*TAKE)
        tickets = {one["path"]: one["ticket"] for one in result["infected"]}
        assert (status, in_store(bad)) == (4, ["a.jpg"])
        assert {path.stat().st_mode & 0o777 for path in Path(other, "q").glob("*.image")} == {0}
        one = bad.run("quarantine", "show", tickets["b.jpg"], "--json").json["tickets"][0]
        assert (one["copied"], one["mode"]) == (True, "0640")
        assert bad.run("quarantine", "restore", "--force", *tickets.values()).status == 0
        assert list(Path(other, "q").glob("*.image")) == []
    after = (bad.store / "b.jpg").stat()
    assert (after.st_mode & 0o777, after.st_mtime_ns) == (0o640, 10**18 + 5)
    assert (bad.store / "b.jpg").read_bytes() == BAD
    assert in_store(bad) == ["a.jpg", "b.jpg", "sub/c.jpg"]


def test_a_full_quarantine_ends_the_run_in_one_line_and_the_next_one_takes(bad):
    place = bad.root / "kept"
    place.mkdir(mode=0o700)
    bad.write_config(store={"quarantine": str(place)})
    with Namespace(f"mount -t tmpfs -o mode=700,size=64k tmpfs {place}") as disk:
        disk.run(f"dd if=/dev/zero of={place}/filler bs=4k 2>&- || :")
        ended = bad.run("rescan-store", "--json", *TAKE, wrap=disk.wrap)
        assert (ended.status, ended.json["outcome"]) == (1, "failed")
        assert str(place) in ended.json["error"]
        assert "Traceback" not in ended.err
        assert in_store(bad) == ["a.jpg", "b.jpg", "sub/c.jpg"]
        assert bad.coverage()["infected"] == 2
        disk.run(f"rm {place}/filler")
        ended = bad.run("rescan-store", "--json", *TAKE, wrap=disk.wrap)
        assert (ended.status, set(actions(ended.json).values())) == (4, {"quarantined"})
    assert in_store(bad) == ["a.jpg"]


def test_a_signature_that_an_admin_ignores_takes_nothing_any_more_and_its_images_come_back(bad):
    tickets = [one["ticket"] for one in bad.rescan(*TAKE)[1]["infected"]]
    (bad.databases / "local.ign2").write_text("Test.Bad\n")
    assert bad.update()["changed"]
    ended = bad.run("quarantine", "restore", *tickets)
    assert (ended.status, ended.err) == (0, "")
    status, result = bad.rescan(*TAKE)
    assert (status, result["infected"], result["stores"][0]["clean"]) == (0, [], 3)


def test_an_image_with_another_name_stays_and_the_reason_is_told(bad):
    os.link(bad.store / "b.jpg", bad.root / "another")
    for _ in range(2):
        status, result = bad.rescan(*TAKE)
        assert (status, actions(result)["b.jpg"]) == (4, "reported")
        (undone,) = result["undone"]
        assert undone["path"] == "b.jpg"
        assert "hard links" in undone["reason"]
    assert in_store(bad) == ["a.jpg", "b.jpg"]


def test_what_cannot_be_taken_is_undone_once_though_it_is_met_twice(bad):
    os.link(bad.store / "b.jpg", bad.root / "another")
    bad.rescan()
    status, result = bad.rescan(*TAKE, "--full")
    assert (status, result["undone_total"], len(result["undone"])) == (4, 1, 1)
    assert sorted(actions(result).values()) == ["quarantined", "reported"]


@pytest.mark.parametrize("paths", [(), ("b.jpg", "sub", "a.jpg")])
@pytest.mark.parametrize("fault", ["others can enter", "read-only store"])
def test_where_nothing_can_be_taken_one_line_says_so_and_the_verdicts_are_booked(bad, fault,
                                                                               paths):
    (bad.state / "quarantine").mkdir(0o700)
    quarantine(bad).mkdir(0o700)
    mounts = "true"
    if fault == "others can enter":
        quarantine(bad).chmod(0o750)
    else:
        mounts = f"mount --bind {bad.store} {bad.store} && mount -o remount,ro,bind {bad.store}"
    with Namespace(mounts) as broken:
        ended = bad.run("rescan-store", *TAKE, *(bad.store / path for path in paths), "--json",
                        "-q", wrap=broken.wrap)
        if fault == "read-only store" and paths:
            ended_clean = bad.run("rescan-store", *TAKE, bad.store / "a.jpg", wrap=broken.wrap)
            assert ended_clean.status == 0, "there was nothing to take"
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended.err
    assert 'store "uploads"' in ended.err
    assert set(actions(ended.json).values()) == {"reported"}
    assert (ended.json["infected_total"], ended.json["undone_total"]) == (2, 0)
    coverage = bad.coverage()
    assert (coverage["infected"], coverage["clean_current"]) == (2, 1)
    assert in_store(bad) == ["a.jpg", "b.jpg", "sub/c.jpg"]


def test_a_store_that_another_host_works_on_is_busy(bad):
    bad.rescan()
    before = bad.run("store-status", "--json").json["jobs"]
    with (quarantine(bad) / "rescan.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for action in ("report", "quarantine"):
            ended = bad.run("rescan-store", "--action", action, "--json")
            assert (ended.status, ended.json["outcome"], ended.err) == (75, "busy", "")
        assert bad.rescan(bad.store / "a.jpg")[0] == 0, "given paths take no lock"
    assert len(in_store(bad)) == 3
    assert len(bad.run("store-status", "--json").json["jobs"]) == len(before)
    assert bad.rescan()[0] == 4


def test_two_stores_can_share_a_quarantine(bad):
    other = bad.root / "other"
    other.mkdir()
    (other / "b.jpg").write_bytes(BAD)
    shared = f'quarantine = "{bad.root}/shared"\n'
    text = bad.config.read_text().replace("[[store]]", f"[[store]]\n{shared}")
    bad.config.write_text(
        text + f'[[store]]\nname = "other"\npath = "{other}"\n{shared}')
    status, result = bad.rescan(*TAKE)
    assert (status, [one["action"] for one in result["infected"]]) == (4, ["quarantined"] * 3)
    assert {(one["store"], one["path"]) for one in result["infected"]} == {
        ("uploads", "b.jpg"), ("uploads", "sub/c.jpg"), ("other", "b.jpg")}


def a_run(limit=20):
    """The context of a run that takes what is infected."""
    return SimpleNamespace(options=argparse.Namespace(action="quarantine", dry_run=False),
                           host="here", log=logging.getLogger(),
                           config=SimpleNamespace(rescan=Rescan(quarantine_limit=limit)))


@pytest.mark.parametrize("fault", ["written", "swapped", "link", "gone"])
def test_only_the_very_file_that_was_scanned_is_taken(tmp_path, fault):
    store, image = tmp_path / "store", tmp_path / "store/b.jpg"
    store.mkdir()
    image.write_bytes(BAD)
    scanned = stamp(image.stat())
    with (Ledger.open(tmp_path) as ledger, Tree(store) as tree,
          Quarantine.open(tmp_path / "q", make=True) as kept):
        images, report = ledger.images("uploads"), RescanReport(generation=1)
        images.record_answers([Asked(b"b.jpg", scanned, infected("Test.Bad"))], 1)
        image.rename(tmp_path / "aside")
        if fault == "written":
            image.write_bytes(b"another image")
        elif fault == "swapped":
            image.write_bytes(BAD)
        elif fault == "link":
            image.symlink_to(tmp_path / "aside")
        taking = Taking.into(kept, a_run(), Store(name="uploads", path=store), images, report)
        met = taking.meet(tree, b"b.jpg", scanned, "Test.Bad")
        assert list(kept.held()) == []
        assert (tmp_path / "aside").read_bytes() == BAD
        if fault == "gone":
            assert (met, images.find(b"b.jpg").missing, report.undone_total) == (None, True, 0)
        else:
            assert (met.action, met.ticket, report.undone_total) == ("reported", None, 1)
            assert image.exists()


@pytest.fixture
def store(tmp_path):
    """A store with three infected images, their rows, and its quarantine."""
    place = tmp_path / "store"
    place.mkdir()
    for name in "abc":
        (place / name).write_bytes(BAD)
    with (Ledger.open(tmp_path) as ledger, Tree(place) as tree,
          Quarantine.open(tmp_path / "q", make=True) as kept):
        images = ledger.images("uploads")
        images.record_answers([Asked(name.encode(), stamp((place / name).stat()),
                                     infected("Test.Bad")) for name in "abc"], 3)
        yield SimpleNamespace(place=place, ledger=ledger, tree=tree, kept=kept, images=images,
                              settings=Store(name="uploads", path=place))


def take(store, names, limit):
    """A run that meets images, and what they were."""
    taking = Taking.into(store.kept, a_run(limit), store.settings, store.images,
                         RescanReport(generation=3))
    rows = [store.images.find(name) for name in names]
    for row in rows:
        taking.meet(store.tree, row.path, row.stamp, "Test.Bad")
    return taking, rows


def test_the_brake_is_told_of_what_was_met_and_of_nothing_else(store):
    taking, (_, _, row) = take(store, [b"a", b"b", b"c"], limit=1)
    assert len(list(store.kept.held())) == 1
    assert taking.stayed == {}, "a million would take no memory"
    assert [one.action for one in (taking.told(row), taking.told(replace(row, generation=2)))] == [
        "brake", "reported"]


def test_only_the_row_of_the_very_image_that_was_taken_goes(store):
    _, (row,) = take(store, [b"a"], limit=20)
    same = Asked(row.key, row.stamp, infected("Test.Bad"))
    for other in ("uploads", "other"):
        store.ledger.images(other).record_answers([same], 3)
        settle(store.kept, store.ledger.images(other), other)
    assert store.images.find(b"a") is None
    assert store.ledger.images("other").find(b"a") is not None
    for number in range(3):
        moved = list(row.stamp)
        moved[number] += 1
        store.images.record_answers([replace(same, stamp=tuple(moved))], 3)
        settle(store.kept, store.images, "uploads")
        assert store.images.find(b"a") is not None, number
    assert len(list(store.images.infected())) == 3


# --- the end of a run, at any moment


def test_a_store_whose_only_image_was_just_taken_is_not_one_that_is_not_mounted(site):
    site.image("b.jpg", BAD)
    site.update()
    site.rescan()
    with closing(sqlite3.connect(f"{site.state}/ledger.sqlite")) as ledger:
        ledger.execute("CREATE TABLE kept AS SELECT * FROM images")
        ledger.commit()
    assert site.rescan(*TAKE)[0] == 4
    with closing(sqlite3.connect(f"{site.state}/ledger.sqlite")) as ledger:  # as if killed there
        ledger.execute("INSERT INTO images SELECT * FROM kept")
        ledger.execute("DROP TABLE kept")
        ledger.commit()
    status, result = site.rescan(*TAKE)
    assert (status, result["stores"][0]["missing"]) == (0, 0), result


def test_killed_at_every_file_operation_an_image_is_here_or_there_and_the_next_run_completes(
        bad, tmp_path_factory):
    bad.rescan()
    steps = killed_at_every_step(bad, tmp_path_factory.mktemp("copies"), "rescan-store", *TAKE)
    assert len(steps) > 60
    seen = set()
    for one in steps:
        where = (one["step"], one["where"])
        stayed = {path for path in one["between"] if path in {"store/b.jpg", "store/sub/c.jpg"}}
        taken = [path for path in one["between"] if path.endswith(".image")]
        assert len(stayed) + len(taken) == 2, where
        seen.add(len(taken))
        assert (one["status"] == 4) == bool(one["result"]["infected_total"]), where
        assert one["status"] in {0, 4}, where
        # Both verdicts are booked before the first is taken, and no row is lost with it.
        assert not taken or one["result"]["canary"] is None, where
        store = one["result"]["stores"][0]
        assert (store["clean"], store["missing"]) == (1, 0), where
        assert store["images"] == 1 + one["result"]["infected_total"], where
        files = [Path(path) for path in one["left"]]
        assert [path.name for path in files if path.parts[0] == "store" and path.suffix] == [
            "a.jpg"], where
        names = [path.suffix for path in files if "quarantine" in path.parts and path.suffix]
        assert sorted(names) == [".held", ".held", ".image", ".image", ".lock"], where
    assert seen == {0, 1, 2}
    assert {one["status"] for one in steps} == {0, 4}
