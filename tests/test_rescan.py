"""rescan-store from end to end, with an engine of its own."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.processes import (
    ROOT,
    Namespace,
    family,
    killed_at_every_step,
    lives,
    named,
    opened_by,
    reachable,
    started,
)
from tests.site import BAD, LATER, body_signature, booked, one_store, verdicts, wait_until

pytestmark = pytest.mark.server

CLAMD = "/usr/sbin/clamd"


def both(site):
    """One clean and one bad image, checked."""
    site.image("a.jpg")
    site.image("sub/bad.jpg", BAD)
    site.update()
    assert site.rescan()[0] == 4
    return site


# --- verdicts


def test_every_image_gets_its_verdict_and_the_result_says_so(site):
    site.image("a.jpg")
    site.image("sub/bad.jpg", BAD)
    (site.store / "link.jpg").symlink_to(site.store / "sub/bad.jpg")
    os.mkfifo(site.store / "fifo")
    update = site.update()
    status, result = site.rescan()
    assert (status, result["outcome"], result["job"]) == (4, "infected", "rescan")
    known = site.coverage()
    assert one_store(result) == {
        "name": "uploads", "images": 2, "full": 2, "delta": 0, "current": 0, "clean": 1,
        "infected": 1, "unknown": 0, "missing": 0, "left": 0, "passed": 2, "clean_current": 1,
        "clean_older": 0, "never": 0, "oldest_check": known["oldest_check"]}
    assert known["oldest_check"] is not None
    assert result["infected"] == [{
        "store": "uploads", "path": "sub/bad.jpg", "signature": "Test.Bad.UNOFFICIAL",
        "action": "reported", "ticket": None}]
    assert (result["infected_total"], result["undone"], result["undone_total"]) == (1, [], 0)
    assert result["definitions"] == {
        "generation": update["generation"],
        "databases": [{"name": "test.ndb", "version": None, "signatures": 1, "built": None}]}
    assert (result["canary"], result["bytes"]) == (True, len(b"clean enough") + len(BAD))


def test_a_second_run_scans_nothing_and_needs_no_engine(site):
    both(site)
    fake = site.root / "clamd"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "$VERSION" || touch "$STARTED"\n'
                    .replace("$VERSION", subprocess.run([CLAMD, "--version"], text=True, check=True,
                                                        capture_output=True).stdout.strip())
                    .replace("$STARTED", f"{site.root}/started"))
    fake.chmod(0o755)
    with Namespace(f"mount --bind {fake} {CLAMD}") as unable:
        ended = site.run("rescan-store", "--json", wrap=unable.wrap)
        assert (ended.status, ended.json["canary"]) == (4, None)
        assert one_store(ended.json)["current"] == 2
        assert ended.json["infected_total"] == 1, "an infected image is listed until it is gone"
        assert not (site.root / "started").exists()
        site.image("new.jpg")
        assert site.run("rescan-store", wrap=unable.wrap).status == 1
        assert (site.root / "started").exists(), "this is how a started engine would have shown"


@pytest.mark.parametrize("change", ["content", "same size and mtime", "chmod", "replaced"])
def test_a_changed_image_is_scanned_again_and_only_that_one(site, change):
    both(site)
    path = site.store / "a.jpg"
    before = path.stat()
    if change == "content":
        path.write_bytes(BAD)
    elif change == "same size and mtime":
        path.write_bytes(b"CLEAN ENOUGH")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "chmod":
        path.chmod(0o600)
    else:
        site.image("draft", BAD)
        (site.store / "draft").rename(path)
    _, result = site.rescan()
    assert (one_store(result)["full"], one_store(result)["current"]) == (1, 1)
    assert result["infected_total"] == (2 if change in {"content", "replaced"} else 1)


def test_new_definitions_make_everything_due_and_a_repaired_image_is_clean_again(site):
    both(site)
    site.image("later.jpg", LATER)
    assert site.rescan()[1]["infected_total"] == 1
    site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
    site.update()
    _, result = site.rescan()
    assert (result["infected_total"], one_store(result)["delta"]) == (2, 3)
    for name in ("later.jpg", "sub/bad.jpg"):
        site.image(name, b"repaired")
    status, result = site.rescan()
    assert (status, one_store(result)["clean"]) == (0, 3)


def test_databases_copied_in_by_hand_are_a_new_generation(site):
    both(site)
    site.image("later.jpg", LATER)
    (site.databases / "more.ndb").write_text(body_signature("Test.Later", LATER))
    _, result = site.rescan()
    assert result["infected_total"] == 2
    assert result["definitions"]["generation"] == 2


def test_full_asks_about_what_is_current_too(site):
    both(site)
    _, result = site.rescan("--full")
    assert one_store(result)["full"] == 2
    assert result["canary"] is True


# --- paths


def test_paths_inside_and_outside_a_store_are_scanned_and_only_the_former_booked(site):
    both(site)
    outside = site.root / "elsewhere"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/bad.txt").write_bytes(BAD)
    site.image("new.jpg", BAD)
    status, result = site.rescan(site.store / "new.jpg", outside, site.store / "sub")
    assert (status, result["infected_total"]) == (4, 3)
    found = {(one["store"], one["path"]) for one in result["infected"]}
    assert found == {("uploads", "new.jpg"), ("uploads", "sub/bad.jpg"),
                     (None, str(outside / "deep/bad.txt"))}
    assert {one["name"] for one in result["stores"]} == {"uploads", None}
    assert site.coverage()["infected"] == 2


def test_a_file_is_counted_once_however_often_it_is_named(site):
    both(site)
    (site.root / "link").symlink_to(site.store / "sub")
    bad = site.store / "sub/bad.jpg"
    status, result = site.rescan(bad, site.store, site.root / "link", bad, site.store / "sub")
    assert (status, result["infected_total"], len(result["infected"])) == (4, 1, 1)
    assert one_store(result)["images"] == 2


def test_paths_come_from_stdin_separated_by_nul(site):
    both(site)
    odd = site.image(b"odd\nname \xff.jpg", BAD)
    ended = site.run("rescan-store", "-", "--json", stdin=odd + b"\0" + os.fsencode(
        site.store / "a.jpg"))
    assert (ended.status, ended.json["infected_total"]) == (4, 1)
    assert one_store(ended.json)["clean"] == 1
    assert site.run("rescan-store", "-").status == 0, "no names, nothing to do"


def test_what_cannot_be_opened_among_paths_is_undone_and_the_rest_is_scanned(site):
    both(site)
    os.mkfifo(site.store / "fifo")
    closed = site.root / "closed"
    closed.mkdir(mode=0)
    status, result = site.rescan(site.root / "missing", site.store / "fifo", closed,
                                 site.store / "a.jpg")
    assert one_store(result) is not None
    assert sum(one["clean"] for one in result["stores"]) == 1
    assert result["undone_total"] == (2 if ROOT else 3)
    assert status == 3


def test_a_named_link_is_judged_by_what_it_leads_to(site):
    both(site)
    (site.root / "link").symlink_to(site.store / "sub/bad.jpg")
    status, result = site.rescan(site.root / "link")
    assert (status, result["infected"][0]["path"]) == (4, "sub/bad.jpg")


def test_what_is_excluded_is_scanned_when_it_is_named_and_no_image_of_the_store(site):
    site.write_config(store={"exclude": ["cache/**"]})
    both(site)
    site.image("cache/deep/bad.jpg", BAD)
    site.image("cache/clean.jpg")
    site.image(".imagewarden-draft", BAD)
    before = verdicts(site)
    status, result = site.rescan(site.store / "cache", site.store / ".imagewarden-draft")
    assert (status, one_store(result)["name"], one_store(result)["full"]) == (4, "uploads", 3)
    assert {(one["store"], one["path"]) for one in result["infected"]} == {
        ("uploads", "cache/deep/bad.jpg"), ("uploads", ".imagewarden-draft")}
    assert verdicts(site) == before
    assert (site.coverage()["images"], site.coverage()["infected"]) == (2, 1)


def test_a_system_clamd_that_dies_under_given_paths_is_one_line_and_nothing_is_believed(site):
    for number in range(5):
        site.image(f"a{number}.jpg", b"%d" % number)
        os.truncate(site.image(f"m{number}.jpg"), 90 * 2**20)  # the engine dwells here
    site.settings["clamav"]["engine"] = "system"
    site.settings["rescan"] = {"in_flight": 1}
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd() as daemon:
        site.update()
        with started(site.command("rescan-store", site.store, "--json")) as job:
            wait_until(lambda: f"{site.store}/m0.jpg" in opened_by(job.pid))
            daemon.kill()
            out, err = job.communicate(timeout=60)
    result, store = json.loads(out), one_store(json.loads(out))
    assert (job.returncode, result["error"]) == (
        1, "the engine was lost; not everything was scanned"), err
    assert (store["images"], store["clean"], store["unknown"]) == (6, 0, 6)
    assert [row[2] for row in verdicts(site)] == ["unknown"]


def test_given_paths_are_asked_about_again_when_new_definitions_came_meanwhile(site):
    path = site.image("later.jpg", LATER)
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        with started(site.command("rescan-store", "-", "--json")) as job:
            wait_until(lambda: reads_stdin(job.pid))
            site.feed(body_signature("Test.Later", LATER))
            site.update()
            out, _ = job.communicate(path, timeout=60)
    result = json.loads(out)
    assert (job.returncode, result["infected_total"]) == (4, 1)
    assert (one_store(result)["images"], one_store(result)["full"]) == (1, 1)
    assert result["definitions"]["generation"] == 2
    assert verdicts(site)[0][2:5] == ("infected", "Test.Later.UNOFFICIAL", 2)


def reads_stdin(pid):
    """Whether a process waits for its input: then it has its engine."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    return call[0] in {"0", "63"} and call[1] == "0x0"  # read, on x86-64 and aarch64


def test_paths_take_no_lock(site):
    both(site)
    with started(site.command("rescan-store", "-")) as job:
        wait_until(lambda: named(family(job.pid), "clamd"))
        assert site.rescan(site.store / "a.jpg")[0] == 0
        assert site.rescan()[0] == 4
        job.stdin.close()
        assert job.wait(30) == 0


# --- stores that are not what they were


@pytest.mark.parametrize("fault", ["missing", "file", "no marker", "empty", "half", "other"])
def test_a_store_that_is_not_itself_fails_and_nothing_changes(site, fault):
    for number in range(5):
        site.image(f"{number}.jpg")
    site.image(".mounted")
    site.write_config(store={"marker": ".mounted"})
    site.update()
    assert site.rescan()[0] == 0
    before, coverage = verdicts(site), site.coverage()
    aside = disturb(site, fault)
    ended = site.run("rescan-store", "--json")
    assert (ended.status, ended.json["outcome"]) == (1, "failed")
    assert ended.err.count("\n") == 1
    assert "uploads" in ended.err
    assert verdicts(site) == before
    assert site.coverage() == coverage
    if fault in {"empty", "half"}:
        status, result = site.rescan("--accept-missing")
        assert (status, one_store(result)["missing"]) == (0, 6 if fault == "empty" else 4)
        assert site.rescan()[0] == 0
    else:
        if site.store.is_dir():
            shutil.rmtree(site.store)
        elif site.store.exists():
            site.store.unlink()
        aside.rename(site.store)
        assert site.rescan()[0] == 0


def disturb(site, fault):
    """Let something befall the store; where its images went."""
    aside = site.root / "aside"
    if fault == "half":
        aside.mkdir()
        for path in sorted(site.store.iterdir())[2:]:
            path.rename(aside / path.name)
    else:
        site.store.rename(aside)
    if fault == "file":
        site.store.write_text("")
    elif fault in {"empty", "no marker", "other"}:
        site.store.mkdir()
    if fault in {"empty", "half", "other"}:
        site.write_config()
    if fault == "other":  # under the same names, and new
        for name in ("0.jpg", "elsewhere.jpg"):
            site.image(name, BAD)
    return aside


@pytest.mark.may_skip("needs a mount of our own")
def test_a_store_that_is_unmounted_between_two_runs_loses_nothing(site):
    site.update()
    disk = site.root / "disk"
    disk.mkdir()
    with Namespace(f"mount -t tmpfs tmpfs {disk}; mount --bind {disk} {site.store}") as room:
        def ran():
            return site.run("rescan-store", "--json", wrap=room.wrap)
        room.run(f"cd {site.store}; echo clean > a.jpg; echo clean > b.jpg")
        assert ran().status == 0
        before, coverage = verdicts(site), site.coverage()
        room.run(f"umount {site.store}")
        for _ in range(2):
            ended = ran()
            assert (ended.status, ended.err.count("\n")) == (1, 1)
            assert "is it mounted" in ended.err
            assert (verdicts(site), site.coverage()) == (before, coverage)
            assert "is it mounted" in site.run("store-status").out
        room.run(f"mount --bind {disk} {site.store}")
        after = ran()
        assert (after.status, one_store(after.json)["current"], after.json["canary"]) == (
            0, 2, None)


def test_a_store_that_failed_does_not_stop_the_other(site):
    site.image("bad.jpg", BAD)
    site.update()
    text = site.config.read_text()
    site.config.write_text(text.replace(
        "[[store]]", '[[store]]\nname = "gone"\npath = "/no/such"\n[[store]]'))
    status, result = site.rescan()
    assert (status, result["infected_total"], len(result["stores"])) == (1, 1, 1)


def test_a_few_missing_images_are_counted_and_found_again(site):
    for number in range(4):
        site.image(f"{number}.jpg")
    site.update()
    site.rescan()
    (site.store / "3.jpg").rename(site.root / "3.jpg")
    status, result = site.rescan()
    assert (status, one_store(result)["missing"], one_store(result)["images"]) == (0, 1, 3)
    (site.root / "3.jpg").rename(site.store / "3.jpg")
    _, result = site.rescan()
    assert (one_store(result)["missing"], one_store(result)["clean"]) == (0, 4)


@pytest.mark.may_skip("root may read every directory")
@pytest.mark.skipif(ROOT, reason="root may read every directory")
def test_a_directory_that_cannot_be_read_is_undone_and_its_images_are_not_missing(site):
    both(site)
    site.image("b.jpg")
    site.image("c.jpg")
    site.rescan()
    (site.store / "sub").chmod(0)
    try:
        status, result = site.rescan()
        assert (status, result["undone_total"]) == (4, 1), "the infected one is still known"
        assert result["undone"][0]["path"] == "sub"
        assert one_store(result)["missing"] == 0
    finally:
        (site.store / "sub").chmod(0o755)


@pytest.mark.may_skip("only root can become somebody else")
@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_a_directory_only_root_could_read_is_undone(site):
    both(site)
    site.image("b.jpg")
    reachable(site.root)
    site.top["user"] = "nobody"
    site.settings["clamav"]["databases"] = str(site.databases)
    for path in (site.state, *site.state.rglob("*"), site.root / "logs",
                 *(site.root / "logs").iterdir()):
        os.chown(path, 65534, 65534)
    site.write_config()
    (site.store / "sub").chmod(0o700)
    status, result = site.rescan()
    assert (result["undone_total"], one_store(result)["missing"]) == (1, 0)
    assert status == 4


def test_an_unknown_store_is_wrong_usage(site):
    site.update()
    for words in (["rescan-store"], ["rescan-store", site.store], ["store-status"]):
        ended = site.run(*words, "--store", "nosuch", "--json")
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert "nosuch" in ended.err


def test_without_definitions_one_line_says_what_to_run(site):
    site.image("a.jpg")
    ended = site.run("rescan-store")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "update-definitions" in ended.err


# --- limits


def test_the_time_limit_leaves_the_rest_to_the_next_run(site):
    for number in range(50):
        site.image(f"a{number}.jpg", b"%d" % number)
        site.image(f"z{number}.jpg", b"%d" % number)
    for number in range(5):  # one after the other, these take longer than the limit
        os.truncate(site.image(f"m{number}.jpg"), 90 * 2**20)
    site.settings["rescan"] = {"in_flight": 1}
    site.write_config()
    site.update()
    status, result = site.rescan("--time-limit", "0.3s")
    assert (status, result["outcome"]) == (0, "done")
    first = one_store(result)
    assert first["left"] == 105 - first["full"] >= 50
    for path in site.store.glob("m*"):
        path.unlink()
    second = one_store(site.rescan("--time-limit", "4h")[1])
    assert (second["left"], second["clean"]) == (0, 100)
    assert second["full"] == 100 - min(first["full"], 50)


def test_what_was_never_checked_comes_first_and_then_the_oldest(site):
    for name in ("a.jpg", "b.jpg", "c.jpg", "m1.jpg", "m2.jpg"):
        site.image(name)
    os.truncate(site.image("m0.jpg"), 90 * 2**20)  # the engine dwells here
    site.settings["rescan"] = {"in_flight": 1}
    site.write_config()
    site.update()
    site.rescan()
    ages = {b"c.jpg": 90, b"m2.jpg": 80, b"m0.jpg": 70}  # the rest: just now
    with closing(sqlite3.connect(f"{site.state}/ledger.sqlite")) as ledger:
        for key, days in ages.items():
            ledger.execute("UPDATE images SET checked = checked - 86400 * ? WHERE key = ?",
                           (days, key))
        ledger.commit()
    site.image("z new.jpg")
    site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
    site.update()
    with started(site.command("rescan-store", "--json")) as job:
        wait_until(lambda: f"{site.store}/m0.jpg" in opened_by(job.pid))
        job.terminate()
        out, _ = job.communicate(timeout=60)
    done = {row[0] for row in verdicts(site) if row[4] == 2}
    assert done - {b"m0.jpg"} == {b"z new.jpg", b"c.jpg", b"m2.jpg"}
    store = one_store(json.loads(out))
    assert (store["clean_current"], store["clean_older"]) == (len(done), 7 - len(done))
    assert store["oldest_check"] == site.coverage()["oldest_check"]
    status, result = site.rescan()
    assert (status, one_store(result)["delta"], one_store(result)["left"]) == (0, 7 - len(done), 0)


def slow(site):
    """Images that keep an engine busy for seconds, after all others."""
    for number in range(16):
        site.image(f"z{number:02}.jpg")
        os.truncate(site.store / f"z{number:02}.jpg", 90 * 2**20)


def test_a_dry_run_says_what_is_due_and_changes_nothing(site):
    both(site)
    site.image("new.jpg", BAD)
    (site.databases / "more.ndb").write_text(body_signature("Test.Later", LATER))
    before, known = verdicts(site), told(site)
    ended = site.run("rescan-store", "--dry-run", "--json")
    assert ended.json["canary"] is None
    assert one_store(ended.json)["left"] >= 1
    site.run("rescan-store", "--dry-run", site.store / "new.jpg")
    assert verdicts(site) == before
    assert told(site) == known


def test_a_dry_run_counts_each_image_that_is_due_once(site):
    for name in ("changed.jpg", "stays.jpg", "goes.jpg", "aside.jpg", "later.jpg"):
        site.image(name)
    site.update()
    assert site.rescan()[0] == 0
    (site.store / "aside.jpg").rename(site.root / "aside.jpg")
    site.rescan()
    (site.databases / "more.ndb").write_text(body_signature("Test.Later", LATER))
    number = site.run("update-definitions", "--no-rescan", "--json").json["generation"]
    assert number == 2, "all are due"
    site.image("changed.jpg", b"in another form")
    for name in ("new.jpg", "another.jpg"):
        site.image(name)
    (site.store / "goes.jpg").unlink()
    ended = site.run("rescan-store", "--dry-run", "--json")
    assert one_store(ended.json)["left"] == 5, "changed, stays, later and the two new ones"
    store = one_store(site.rescan()[1])
    assert (store["full"], store["delta"]) == (3, 2)


def told(site):
    """What store-status says, but for its own run."""
    state = site.run("store-status", "--json").json
    return {key: state[key] for key in ("stores", "definitions", "jobs", "outbox")}


def test_what_is_over_max_file_size_is_unknown_and_named(site):
    site.settings["clamav"]["max_file_size"] = "1M"
    site.write_config()
    site.image("large.jpg", bytes(1_100_000) + BAD)
    site.image("small.jpg")
    site.update()
    for again in (False, True):
        status, result = site.rescan()
        assert (status, result["undone_total"], one_store(result)["unknown"]) == (3, 1, 1), again
        assert result["undone"][0]["path"] == "large.jpg"
        assert "max_file_size" in result["undone"][0]["reason"]
        assert (one_store(result)["full"], one_store(result)["current"]) == (not again, again)
    status, result = site.rescan(site.store / "large.jpg")
    assert (status, one_store(result)["full"]) == (3, 0)
    assert "max_file_size" in result["undone"][0]["reason"]


def test_an_infected_image_that_is_over_the_limit_now_is_still_told_of(site):
    site.image("a.jpg")
    site.image("bad.jpg", BAD + b"." * 2000)
    site.update()
    assert site.rescan()[0] == 4
    site.settings["clamav"]["max_file_size"] = "1K"
    site.write_config()
    for _ in range(2):
        status, result = site.rescan("--action", "quarantine")
        assert (status, result["infected_total"], result["undone_total"]) == (4, 1, 1)
        assert result["infected"][0]["action"] == "reported", "nobody confirmed it"
        assert "max_file_size" in result["undone"][0]["reason"]
    assert site.coverage()["infected"] == 1
    site.settings["clamav"]["max_file_size"] = "1M"
    site.write_config()
    status, result = site.rescan("--action", "quarantine")
    assert (status, result["infected"][0]["action"], result["undone"]) == (4, "quarantined", [])


def test_young_images_wait_for_the_next_run_and_start_no_engine(site):
    site.write_config(store={"min_age": "1h"})
    site.image("a.jpg", BAD)
    site.update()
    status, result = site.rescan()
    assert (status, result["canary"], one_store(result)["left"]) == (0, None, 1)
    assert one_store(result)["images"] == 1
    assert (one_store(result)["full"], one_store(result)["current"]) == (0, 0)
    assert site.coverage()["never"] == 1
    site.write_config()
    assert site.rescan()[0] == 4


def test_young_images_do_not_make_every_update_start_another_rescan(site):
    site.write_config(store={"min_age": "1h"})
    site.image("a.jpg")
    site.update()
    assert site.rescan()[0] == 0
    assert site.run("update-definitions", "--json").json["rescan"] == "not needed"


# --- endings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_rescan_keeps_its_verdicts_and_takes_its_engine_along(site, number):
    for one in range(100):
        site.image(f"{one:03}.jpg", b"%d" % one)
    slow(site)
    site.update()
    with started(site.command("rescan-store", "--json")) as job:
        wait_until(lambda: booked(site) >= 64)
        children = family(job.pid)
        assert named(children, "clamd")
        job.send_signal(number)
        begun = time.monotonic()
        out, err = job.communicate(timeout=30)
        assert time.monotonic() - begun < 15
    assert job.returncode == 128 + number
    assert number.name in err.decode()
    result = json.loads(out)
    assert result["outcome"] == "failed"
    assert 64 <= one_store(result)["clean"] < 116
    assert one_store(result)["left"] == 116 - one_store(result)["clean"]
    assert one_store(result)["never"] == one_store(result)["left"]
    wait_until(lambda: not any(map(lives, children)), 10)
    assert booked(site) >= one_store(result)["clean"]
    jobs = site.run("store-status", "--json").json["jobs"]
    assert [one["outcome"] for one in jobs if one["job"] == "rescan"] == ["failed"]
    for path in site.store.glob("z*"):
        path.unlink()
    status, after = site.rescan()
    assert (status, one_store(after)["clean"]) == (0, 100)
    assert one_store(after)["full"] <= 36


def test_a_rescan_that_is_stopped_in_its_walk_tells_what_is_known_of_what_it_walked(site):
    both(site)
    (site.root / "other").mkdir()
    site.config.write_text(
        site.config.read_text() + f'[[store]]\nname = "other"\npath = "{site.root}/other"\n')
    checkout = Path(__file__).resolve().parents[1]
    ended = subprocess.run(
        [checkout / ".venv/bin/python3", "-I", "-c", STOPPED_AT, checkout / "bin/rescan-store",
         checkout, site.root / "other", "--json", "--config", site.config],
        capture_output=True, check=False, timeout=60, cwd="/")
    result = json.loads(ended.stdout)
    assert (ended.returncode, result["outcome"]) == (143, "failed"), ended.stderr
    store = one_store(result)
    assert (store["clean"], store["infected"], store["clean_current"]) == (1, 1, 1)
    assert len(result["stores"]) == 1


# Runs the script at argv[1], which is told to stop when it opens the directory argv[3].
STOPPED_AT = """
import os, runpy, signal, sys
script, checkout, place = sys.argv[1:4]
sys.path.insert(0, checkout)
def hook(event, args):
    if event == "open" and args[0] == place:
        os.kill(os.getpid(), signal.SIGTERM)
sys.argv = [script, *sys.argv[4:]]
sys.addaudithook(hook)
runpy.run_path(script, run_name="__main__")
"""


def test_after_a_killed_rescan_the_next_one_asks_only_about_what_was_not_booked(site):
    for one in range(200):
        site.image(f"{one:03}.jpg", b"%d" % one)
    slow(site)
    site.update()
    with started(site.command("rescan-store")) as job:
        wait_until(lambda: booked(site) >= 128)
        job.kill()
        job.wait()
    before = booked(site)
    assert 128 <= before < 216
    for path in site.store.glob("z*"):
        path.unlink()
    status, result = site.rescan()
    assert (status, one_store(result)["clean"], one_store(result)["left"]) == (0, 200, 0)
    assert one_store(result)["full"] == 200 - min(before, 200)


def test_an_image_that_changes_while_it_is_scanned_is_asked_about_again(site):
    path = os.fsdecode(site.image("a.jpg"))
    os.truncate(path, 90 * 2**20)
    site.update()
    with started(site.command("rescan-store", "--json")) as job:
        wait_until(lambda: path in opened_by(job.pid))
        engine = named(family(job.pid), "clamd")[0]
        os.kill(engine, signal.SIGSTOP)
        Path(path).write_bytes(BAD)
        os.kill(engine, signal.SIGCONT)
        out, _ = job.communicate(timeout=60)
    result = json.loads(out)
    assert (job.returncode, result["infected_total"], result["undone_total"]) == (4, 1, 0)
    assert (one_store(result)["full"], result["bytes"]) == (1, len(BAD))


def test_a_killed_rescan_takes_its_engine_along(site):
    site.update()
    with started(site.command("rescan-store", "-")) as job:
        wait_until(lambda: named(family(job.pid), "clamd"))
        children = family(job.pid)
        job.kill()
        job.wait()
        wait_until(lambda: not any(map(lives, children)), 10)


def test_killed_at_every_file_operation_the_next_run_comes_to_the_same(site, tmp_path_factory):
    both(site)
    site.image("later.jpg", LATER)
    site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
    site.update()
    steps = killed_at_every_step(site, tmp_path_factory.mktemp("copies"), "rescan-store")
    assert len(steps) > 40
    assert {one["status"] for one in steps} == {4}
    for one in steps:
        assert one["result"]["infected_total"] == 2, one["where"]
        assert one_store(one["result"])["clean"] == 1, one["where"]
        assert one["result"]["definitions"]["generation"] == 2, one["where"]
    left = {json.dumps([path for path in one["left"] if "state/facts/" not in path])
            for one in steps}
    assert len(left) == 1, left
