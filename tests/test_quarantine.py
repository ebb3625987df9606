"""The quarantine script: what it shows, gives back, deletes and lets go of."""

import fcntl
import json
import os
import pwd
import re
import shutil
import stat
import time
from pathlib import Path

import pytest

from maintenance.store.brake import Braked, Intake
from maintenance.store.intake import Finding
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import Tree
from tests.processes import on_terminal, reachable, started
from tests.site import BAD, wait_until

pytestmark = pytest.mark.server
HARMLESS = b"clean enough"


def place(site):
    return site.state / "quarantine/uploads"


def take(site, path, content=BAD, signature="Test.Bad.UNOFFICIAL", limit=20):
    """Take an image as a rescan would."""
    site.image(path, content)
    file = site.store / os.fsdecode(path)
    file.chmod(0o640)
    os.utime(file, ns=(10**18, 10**18 + 5))
    for directory in (site.state, place(site).parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    raw = os.fsencode(path)
    with Tree(site.store) as tree, Quarantine.open(place(site), make=True) as quarantine:
        return Intake(quarantine, limit, 10**9).take(
            tree.parent_of(raw), raw, file.stat(), Finding("uploads", signature, 3, "a run"))


def quarantine(site, *words, status=0):
    """Run the script; its JSON object."""
    ended = site.run("quarantine", *words, "--json")
    assert ended.status == status, ended
    assert "Traceback" not in ended.err
    return ended.json


def held(site):
    return quarantine(site, "list")["held"]


def test_before_anything_was_taken_the_list_is_empty(site):
    assert held(site) == []
    assert "nothing" in site.run("quarantine", "list").out
    assert not site.state.exists()


def test_the_list_has_exactly_its_members(site):
    ticket = take(site, b"d/a\n\xff.jpg")
    (one,) = held(site)
    assert set(one) == {"ticket", "store", "path", "signature", "taken", "size"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one.pop("taken"))
    assert one == {"ticket": ticket, "store": "uploads", "path": "d/a\\u{a}\\xff.jpg",
                   "signature": "Test.Bad.UNOFFICIAL", "size": len(BAD)}
    table = site.run("quarantine", "list").out
    assert ticket in table
    assert "d/a\\u{a}\\xff.jpg" in table


def test_show_tells_everything(site):
    ticket = take(site, "a.jpg")
    (one,) = quarantine(site, "show", ticket)["tickets"]
    assert {key: one[key] for key in ("ticket", "state", "mode", "uid", "mtime_ns", "generation",
                                      "run", "links", "path_hex", "copied")} == {
        "ticket": ticket, "state": "held", "mode": "0640", "uid": os.geteuid(),
        "mtime_ns": 10**18 + 5, "generation": 3, "run": "a run", "links": 1,
        "path_hex": b"a.jpg".hex(), "copied": False}
    assert Path(one["file"]).exists()
    assert f"sha256: {one['sha256']}" in site.run("quarantine", "show", ticket).out


@pytest.mark.parametrize("words", [
    ["delete"], ["restore"], ["list", "x"], [], ["delete", "x", "--older-than", "1d"],
    ["delete", "x", "--force"], ["list", "--store", "none"]])
def test_wrong_usage_is_2(site, words):
    ended = site.run("quarantine", *words)
    assert (ended.status, ended.out) == (2, "")
    assert not site.state.exists()


def test_options_stand_anywhere(site):
    ticket = take(site, "a.jpg")
    for words in (["--json", "show", ticket, "--store", "uploads"],
                  ["--store", "uploads", "show", "--json", ticket]):
        assert site.run("quarantine", *words).json["tickets"][0]["ticket"] == ticket


# --- restore


def test_what_is_clean_now_comes_back_as_it_was(site):
    site.update()
    ticket = take(site, "d/a.jpg", HARMLESS)
    ended = site.run("quarantine", "restore", ticket)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    file = site.store / "d/a.jpg"
    info = file.stat()
    assert (file.read_bytes(), stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (
        HARMLESS, 0o640, 10**18 + 5)
    assert held(site) == []
    log = (site.root / "logs/quarantine.log").read_text()
    assert f"restored {ticket}" in log


def test_what_is_still_infected_stays_unless_forced(site):
    site.update()
    bad, good = take(site, "bad.jpg"), take(site, "good.jpg", HARMLESS)
    ended = site.run("quarantine", "restore", bad, good, "--json")
    assert (ended.status, ended.err.count("\n")) == (4, 1)
    assert "Test.Bad" in ended.err
    assert [one["outcome"] for one in ended.json["restored"]] == ["refused", "restored"]
    assert ended.json["outcome"] == "infected"
    assert not (site.store / "bad.jpg").exists()
    assert [one["ticket"] for one in held(site)] == [bad]
    assert stat.S_IMODE((place(site) / f"{bad}.image").stat().st_mode) == 0
    assert quarantine(site, "restore", bad, "--force")["restored"][0]["outcome"] == "restored"
    assert (site.store / "bad.jpg").read_bytes() == BAD


def test_without_a_verdict_nothing_is_restored(site):
    site.settings["clamav"]["max_file_size"] = "1K"
    site.write_config()
    site.update()
    ticket = take(site, "large.jpg", bytes(2000))
    assert quarantine(site, "restore", ticket, status=3)["restored"][0]["outcome"] == "refused"
    assert not (site.store / "large.jpg").exists()


def test_without_an_engine_it_is_one_line(site):
    tickets = [take(site, "a.jpg", HARMLESS), take(site, "b.jpg", HARMLESS)]
    ended = site.run("quarantine", "restore", *tickets)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "update-definitions" in ended.err
    assert len(held(site)) == 2


def test_a_system_clamd_answers_too(site):
    site.update()
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    tickets = [take(site, "bad.jpg"), take(site, "good.jpg", HARMLESS)]
    with site.clamd():
        site.update()
        result = quarantine(site, "restore", *tickets, status=4)
    assert [one["outcome"] for one in result["restored"]] == ["refused", "restored"]


def test_a_new_file_under_the_name_is_not_touched(site):
    ticket = take(site, "a.jpg")
    site.image("a.jpg", b"new")
    ended = site.run("quarantine", "restore", ticket, "--force")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "--to DIR" in ended.err
    assert (site.store / "a.jpg").read_bytes() == b"new"
    assert len(held(site)) == 1


@pytest.mark.parametrize("fault", ["gone", "link out", "link within", "file"])
def test_without_its_directory_it_goes_only_where_an_admin_says(site, fault):
    ticket = take(site, "d/e/a.jpg")
    outside = site.root / "outside"
    (outside / "e").mkdir(parents=True)
    (site.store / "d").rename(site.store / "was d")
    if fault == "link out":
        (site.store / "d").symlink_to(outside)
    elif fault == "link within":
        (site.store / "d").symlink_to("was d")
    elif fault == "file":
        (site.store / "d").write_text("")
    ended = site.run("quarantine", "restore", ticket, "--force")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "--to DIR" in ended.err
    assert not list(outside.rglob("*.jpg")) + list(site.store.rglob("*.jpg"))
    assert "no/such" in site.run("quarantine", "restore", ticket, "--force", "--to",
                                 "/no/such").err
    result = quarantine(site, "restore", ticket, "--force", "--to", outside)
    assert result["restored"][0]["to"] == f"{outside}/a.jpg"
    assert (outside / "a.jpg").read_bytes() == BAD
    assert stat.S_IMODE((outside / "a.jpg").stat().st_mode) == 0o640


def test_nothing_is_restored_into_a_store_that_is_not_mounted(site):
    site.write_config(store={"marker": ".mounted"})
    site.image(".mounted")
    ticket = take(site, "a.jpg")
    site.store.rename(site.root / "store elsewhere")
    site.store.mkdir()
    ended = site.run("quarantine", "restore", ticket, "--force")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ticket in ended.err
    assert "marker" in ended.err
    assert not list(site.store.iterdir())
    assert len(held(site)) == 1


def test_no_directory_is_not_the_one_we_are_in(site):
    ticket = take(site, "a.jpg")
    ended = site.run("quarantine", "restore", ticket, "--force", "--dry-run", "--to", "")
    assert (ended.status, ended.err.count("\n")) == (1, 1)


def test_bytes_that_changed_are_not_restored_unless_forced(site):
    site.update()
    ticket = take(site, "a.jpg", HARMLESS)
    image = place(site) / f"{ticket}.image"
    image.chmod(0o600)
    image.write_bytes(b"other")
    assert "its bytes" in site.run("quarantine", "restore", ticket).err
    assert not (site.store / "a.jpg").exists()
    quarantine(site, "restore", ticket, "--force")
    assert (site.store / "a.jpg").read_bytes() == b"other"


def test_an_unknown_ticket_is_one_line_and_the_others_are_done(site):
    ticket = take(site, "a.jpg")
    for word in ("show", "restore", "delete"):
        force = ["--force"] if word == "restore" else []
        wrong = ("no-such", "../../store/x", "0" * 20 + "-00000000", "brake.json")
        ended = site.run("quarantine", word, *wrong, *force)
        assert (ended.status, ended.out, ended.err.count("no such ticket\n")) == (1, "", 4)
    ended = site.run("quarantine", "delete", "no-such", ticket, "--json")
    assert (ended.status, [one["ticket"] for one in ended.json["deleted"]]) == (1, [ticket])
    assert held(site) == []
    assert site.run("quarantine", "delete", ticket).status == 1, "once is enough"


def test_a_dry_run_changes_nothing(site):
    ticket = take(site, "a.jpg", limit=1)
    before = {path: path.stat().st_ctime_ns for path in place(site).iterdir()}
    for words in (["restore", ticket, "--force"], ["restore", ticket], ["delete", ticket],
                  ["delete", "--older-than", "0"], ["release"]):
        result = quarantine(site, *words, "--dry-run")
        (rows,) = (result[key] for key in ("restored", "deleted", "released") if key in result)
        assert rows[0]["outcome"].startswith("would be"), rows
    assert {path: path.stat().st_ctime_ns for path in place(site).iterdir()} == before
    assert not (site.store / "a.jpg").exists()


def test_a_restore_waits_while_something_is_taken(site):
    ticket = take(site, "a.jpg")
    lock = os.open(place(site) / "lock", os.O_RDWR)
    inode = os.fstat(lock).st_ino
    fcntl.flock(lock, fcntl.LOCK_EX)
    with started(site.command("quarantine", "restore", ticket, "--force")) as job:
        wait_until(lambda: any("->" in line and f":{inode} " in line for line in
                               Path("/proc/locks").read_text().splitlines()))
        assert not (site.store / "a.jpg").exists()
        os.close(lock)
        assert job.wait(30) == 0
    assert (site.store / "a.jpg").exists()


def test_a_terminal_hears_what_was_done(site):
    ticket = take(site, "a.jpg")
    status, shown = on_terminal(site.command("quarantine", "restore", ticket, "--force"))
    assert status == 0
    assert f"{ticket}: restored to {site.store}/a.jpg" in shown.replace("\r\n", "")


# --- delete, release


def test_delete_by_age(site):
    old, new = take(site, "a.jpg"), take(site, "b.jpg")
    record = place(site) / f"{old}.held"
    record.write_text(json.dumps({**json.loads(record.read_text()),
                                  "taken": time.time() - 91 * 86400}))
    assert [one["ticket"] for one in quarantine(site, "delete", "--older-than", "90d")["deleted"]
            ] == [old]
    assert [one["ticket"] for one in held(site)] == [new]
    assert not (place(site) / f"{old}.image").exists()


def test_the_brake_shows_and_is_released(site):
    site.update()
    take(site, "a.jpg", limit=1)
    with pytest.raises(Braked):
        take(site, "b.jpg")
    state = site.run("store-status", "--json").json
    assert state["quarantine"] == {"held": 1, "bytes": len(BAD), "brake": ["uploads"]}
    assert state["stores"][0]["quarantined"] == 1
    assert "brake on: uploads" in site.run("store-status").out
    assert quarantine(site, "list")["brakes"][0]["store"] == "uploads"
    assert "brake of uploads: on since" in site.run("quarantine", "list").out
    shutil.rmtree(site.root / "logs")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{site.state}/ledger.sqlite{suffix}").unlink(missing_ok=True)
    with pytest.raises(Braked):  # it does not depend on the ledger
        take(site, "b.jpg")
    assert quarantine(site, "release", "--store", "uploads")["released"] == [
        {"store": "uploads", "outcome": "released"}]
    assert quarantine(site, "release")["released"][0]["outcome"] == "was not on"
    take(site, "b.jpg")
    assert site.run("store-status", "--json").json["quarantine"]["brake"] == []


def test_a_damaged_record_is_one_line_and_the_others_are_listed(site):
    first, second = take(site, "a.jpg"), take(site, "b.jpg")
    (place(site) / f"{first}.held").write_text("{")
    ended = site.run("quarantine", "list", "--json")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert first in ended.err
    assert [one["ticket"] for one in ended.json["held"]] == [second]
    site.update()
    checks = {one["check"]: one for one in site.run("doctor", "--json").json["checks"]}
    assert checks["quarantine uploads"]["state"] == "warning"
    quarantine(site, "delete", first)
    assert len(held(site)) == 1


# --- the directory


def test_a_quarantine_that_others_can_enter_is_refused_and_doctor_says_how_to_repair(site):
    site.update()
    ticket = take(site, "a.jpg")
    place(site).chmod(0o755)
    for words in (["list"], ["show", ticket], ["delete", ticket], ["restore", ticket, "--force"]):
        ended = site.run("quarantine", *words)
        assert ended.status == 1
        assert "chmod 0700" in ended.err.splitlines()[0]
    assert not (site.store / "a.jpg").exists()
    assert site.run("store-status", "--json").json["stores"][0]["quarantined"] is None
    checks = {one["check"]: one for one in site.run("doctor", "--json").json["checks"]}
    assert checks["quarantine uploads"]["state"] == "failed"
    assert "chmod 0700" in checks["quarantine uploads"]["detail"]


def test_a_quarantine_that_a_link_leads_into_a_store_is_refused(site):
    (site.store / "q").mkdir(mode=0o700)
    (site.root / "way").symlink_to(site.store)
    site.write_config(store={"quarantine": str(site.root / "way/q")})
    ended = site.run("quarantine", "list")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "inside the store" in ended.err


def test_two_stores_may_share_one_quarantine(site):
    ticket = take(site, "a.jpg")
    text = site.config.read_text()
    (site.root / "other").mkdir()
    site.config.write_text(text.replace(
        "[[store]]", f'[[store]]\nname = "other"\npath = "{site.root}/other"\n'
        f'quarantine = "{place(site)}"\n[[store]]'))
    assert [one["ticket"] for one in held(site)] == [ticket]
    assert quarantine(site, "list", "--store", "other")["held"] == []
    for word in (["show"], ["restore", "--force"], ["delete"]):
        ended = site.run("quarantine", *word, ticket, "--store", "other")
        assert (ended.status, "no such ticket" in ended.err) == (1, True), word
    site.update()
    state = site.run("store-status", "--json").json
    assert {one["name"]: one["quarantined"] for one in state["stores"]} == {
        "uploads": 1, "other": 0}
    assert state["quarantine"]["held"] == 1


@pytest.mark.may_skip("only root has privileges to drop")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_started_by_root_it_works_as_the_user(site):
    reachable(site.root)
    ticket = take(site, "d/a.jpg", HARMLESS)
    site.top["user"] = "www-data"
    site.write_config()
    for path in (site.state, *site.state.rglob("*"), site.store, *site.store.rglob("*")):
        shutil.chown(path, "www-data", "www-data")
    site.update()
    assert [one["ticket"] for one in held(site)] == [ticket]
    assert quarantine(site, "restore", ticket)["restored"][0]["outcome"] == "restored"
    file = site.store / "d/a.jpg"
    assert pwd.getpwuid(file.stat().st_uid).pw_name == "www-data"
    made = [*site.state.rglob("*"), *(site.root / "logs").rglob("*")]
    assert {pwd.getpwuid(path.stat().st_uid).pw_name for path in made} == {"www-data"}
    secret = site.root / "roots"
    secret.mkdir(mode=0o700)
    ended = site.run("quarantine", "restore", ticket, "--to", secret)
    assert ended.status == 1


def test_show_cannot_be_led_to_another_terminal_line(site):
    ticket = take(site, "a.jpg", signature="Evil\x1b[31m\nname")
    out = site.run("quarantine", "list").out + site.run("quarantine", "show", ticket).out
    assert all(line.isprintable() for line in out.split("\n"))
