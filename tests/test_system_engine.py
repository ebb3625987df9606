"""A clamd that serves others too: proven, reloaded, and never believed blindly."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY, snapshot
from maintenance.clamav.system import connect
from tests.feeds import SIGNED, needs_signed
from tests.processes import Namespace, reachable
from tests.site import BAD, LATER, body_signature, wait_until

pytestmark = [pytest.mark.server, pytest.mark.once]


def use_system(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()


def test_an_update_is_proven_to_be_loaded_and_a_rescan_books_it(site):
    use_system(site)
    site.image("bad.jpg", BAD)
    site.image("later.jpg", LATER)
    first = site.run("update-definitions", "--no-rescan", "--json")
    assert first.status == 1, "nothing answers at the socket yet"
    assert first.json["engine"] == "unproven"
    with site.clamd():
        assert site.update()["engine"] == "reloaded"
        status, result = site.rescan()
        assert (status, result["infected_total"]) == (4, 1)
        site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
        assert site.update()["engine"] == "reloaded"
        status, result = site.rescan()
        assert (status, result["infected_total"]) == (4, 2)


def test_an_engine_that_has_not_loaded_what_is_on_disk_is_not_used(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        (site.databases / "more.ndb").write_text(body_signature("Test.More", b"by hand copied"))
        ended = site.run("rescan-store", "--json")
        assert ended.status == 1
        assert "not proven" in ended.json["error"]
        assert ended.json["stores"][0]["clean"] == 0
        canary, engine = Canary.read(site.databases), connect(str(site.socket))
        assert canary.found_by(engine.clamd)
        assert not engine.proven(canary, snapshot(site.databases))
        assert site.update()["engine"] == "reloaded"
        assert site.rescan()[0] == 0


def reloads(site):
    """How often clamd has loaded its databases anew."""
    return (site.root / "reloads.log").read_text().count("Database correctly reloaded")


def test_clamd_is_told_to_reload_after_a_change_and_only_then(site):
    use_system(site)
    site.run("update-definitions", "--no-rescan")
    with site.clamd(LogFile=str(site.root / "reloads.log")):
        for _ in range(3):
            assert site.update()["engine"] == "reloaded"
        assert reloads(site) == 1, "once, for its first canary"
        site.feed(body_signature("Test.Later", LATER))
        assert site.update()["engine"] == "reloaded"
        assert reloads(site) == 2


def test_a_database_that_does_not_load_is_named_before_it_costs_clamd_its_engine(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(ConcurrentDatabaseReload="no", IdleTimeout="1"):
        site.update()
        (site.databases / "broken.ldb").write_text("not a signature\n")
        for _ in range(2):
            ended = site.run("update-definitions", "--no-rescan", "--json")
            assert (ended.status, ended.json["engine"]) == (1, "unproven")
            assert ended.err.count("\n") == 1
            assert ended.err.endswith("it cannot load broken.ldb; repair or remove that file\n")
        assert site.rescan()[0] == 1
        assert site.coverage()["clean_current"] == 0
        (site.databases / "broken.ldb").unlink()
        assert site.update()["engine"] == "reloaded"
        assert site.rescan()[0] == 0
        assert site.coverage()["clean_current"] == 1


def test_a_clamd_that_has_lost_its_engine_is_an_alarm_and_nothing_is_booked(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(ConcurrentDatabaseReload="no", IdleTimeout="1"):
        site.update()
        (site.databases / "broken.ldb").write_text("not a signature\n")
        clamd = Clamd(str(site.socket))
        clamd.ask("RELOAD")  # as somebody else may do
        wait_until(lambda: "/4294967295/" in clamd.ask("VERSION", 30))
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["engine"]) == (1, "unproven")
        assert "no usable engine" in ended.err
        assert ended.err.endswith("it cannot load broken.ldb; repair or remove that file\n")
        assert site.rescan()[0] == 1
        assert site.coverage()["clean_current"] == 0


def test_a_reload_that_comes_to_nothing_is_an_alarm_and_nothing_is_booked(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    elsewhere = site.root / "elsewhere"
    shutil.copytree(site.databases, elsewhere)
    with site.clamd(DatabaseDirectory=str(elsewhere)):
        conf = site.root / "clamd.conf"
        conf.write_text(conf.read_text().replace(str(elsewhere), str(site.databases)))
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["engine"]) == (1, "unproven")
        assert ended.err.endswith("did not load the definitions on disk; its log says why\n")
        assert site.rescan()[0] == 1
        assert site.coverage()["clean_current"] == 0


def test_a_canary_that_cannot_be_written_where_it_could_be_is_an_alarm(site):
    use_system(site)
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        in_the_way = site.databases / ".imagewarden-canary.new"
        in_the_way.mkdir()
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["engine"]) == (1, "unproven")
        assert "no canary could be written" in ended.json["error"]
        in_the_way.rmdir()
        assert site.update()["engine"] == "reloaded"


@pytest.mark.may_skip("ClamAV's signed test databases are not ours to ship")
@needs_signed
def test_an_engine_that_is_older_than_the_disk_is_not_believed_whatever_it_finds(site):
    use_system(site)
    site.image("a.jpg")
    site.settings["definitions"] = {"official": False}
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    shutil.copyfile(SIGNED / "test-1.cvd", site.databases / "daily.cvd")
    later = site.root / "later"
    later.mkdir()
    shutil.copyfile(SIGNED / "test-3.cvd", later / "daily.cvd")
    canary = Canary.hatch(snapshot(later))
    (site.databases / CANARY).write_text(canary.line)
    with site.clamd():
        shutil.copyfile(later / "daily.cvd", site.databases / "daily.cvd")
        engine, disk = connect(str(site.socket)), snapshot(site.databases)
        assert canary.stands_for(disk)
        assert canary.found_by(engine.clamd)
        assert not engine.proven(canary, disk)
        assert site.rescan()[0] == 1
        assert site.coverage()["clean_current"] == 0
        assert site.update()["engine"] == "reloaded"
        assert site.rescan()[0] == 0


def test_databases_that_clamds_user_cannot_read_are_named_with_the_repair(site):
    if os.geteuid() != 0:
        return  # a clamd of ours is ourselves
    reachable(site.root)
    other = site.root / "db"
    other.mkdir(mode=0o755)
    site.root.chmod(0o1777)  # for clamd's socket
    site.settings["clamav"]["databases"] = str(other)
    use_system(site)
    site.run("update-definitions", "--no-rescan")
    with site.clamd(User="clamav", DatabaseDirectory=str(other), LocalSocketMode="666",
                    ConcurrentDatabaseReload="yes", TemporaryDirectory="/tmp"):
        assert site.update()["engine"] == "reloaded"
        (other / "more.ndb").write_text(body_signature("Test.More", b"for root alone"))
        (other / "more.ndb").chmod(0o600)
        os.chown(other / "more.ndb", 33, 33)  # not the directory's owner's: not ours to open up
        ended = site.run("update-definitions", "--no-rescan", "--json", timeout=120)
        assert (ended.status, ended.json["engine"]) == (1, "unproven")
        assert f"clamav cannot read {other}/more.ndb: chmod a+r {other}/more.ndb" in ended.err
        (other / "more.ndb").chmod(0o644)
        assert site.update()["engine"] == "reloaded"


@pytest.mark.parametrize("needed", [True, False])
def test_a_clamd_with_other_databases_is_left_alone(site, needed):
    site.settings["clamav"]["engine"] = "system" if needed else "private"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    elsewhere = site.root / "elsewhere"
    shutil.copytree(site.databases, elsewhere)
    with site.clamd(DatabaseDirectory=str(elsewhere), LogFile=str(site.root / "reloads.log")):
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert reloads(site) == 0
        assert (ended.status, ended.json["engine"]) == ((1, "unproven") if needed else (0, "none"))
        assert (f"loads its databases from {elsewhere}" in ended.err) == needed
    assert not (elsewhere / "imagewarden-canary.hdb").exists()


# --- a database directory that is not ours to write to


@contextmanager
def not_ours(site, theirs):
    """Run jobs where the database directory can only be read; a daemon of others fills it."""
    with Namespace(f"mount --bind {theirs} {theirs} && mount -o remount,bind,ro {theirs}") as room:
        yield lambda script, *more: site.run(script, "--json", *more, wrap=room.wrap, timeout=120)


@pytest.fixture
def foreign(site):
    """A clamd on a directory that was never ours, with a first signature in it."""
    theirs = site.root / "theirs"
    site.settings["clamav"]["databases"] = str(theirs)
    site.settings["definitions"] = {"official": False}
    use_system(site)
    theirs.mkdir()
    add(site)
    site.image("a.jpg")
    with site.clamd(DatabaseDirectory=str(theirs), ConcurrentDatabaseReload="yes",
                    LogFile=str(site.root / "reloads.log")), not_ours(site, theirs) as job:
        yield job


def update(job, engine, status=0):
    ended = job("update-definitions", "--no-rescan")
    assert (ended.status, ended.json["engine"]) == (status, engine), ended
    return ended


def add(site, *texts):
    lines = [body_signature("Test.Bad", BAD), *(
        body_signature(f"Test.{number}", text) for number, text in enumerate(texts))]
    (site.root / "theirs/test.ndb").write_text("".join(lines))


def test_there_it_is_unproven_until_a_new_signature_can_be_asked_for(site, foreign):
    ended = update(foreign, "unproven")
    assert ended.err.count("\n") == 1
    assert "the directory is not ours to write to" in ended.err
    refused = foreign("rescan-store")
    assert (refused.status, refused.json["stores"][0]["clean"]) == (1, 0)
    assert "not proven" in refused.json["error"]
    add(site, b"the first new text")
    assert update(foreign, "reloaded").err == ""
    assert foreign("rescan-store").status == 0
    before = reloads(site)
    update(foreign, "reloaded")
    assert reloads(site) == before, "once proven it stays so"
    assert "ok" in {one["state"] for one in foreign("doctor").json["checks"]
                    if one["check"] == "engine"}
    add(site)  # what was withdrawn leaves nothing to ask for
    update(foreign, "unproven")
    assert foreign("rescan-store").status == 1
    add(site, b"the first new text", b"the second new text")
    update(foreign, "reloaded")
    assert site.coverage()["clean_current"] == 0
    assert foreign("rescan-store").status == 0
    assert site.coverage()["clean_current"] == 1


def test_there_a_signature_that_an_older_one_covers_proves_nothing(site, foreign):
    update(foreign, "unproven")
    add(site, b"what comes before " + BAD)
    update(foreign, "unproven")


def test_there_a_reload_that_fails_is_an_alarm_and_its_repair_a_proof(site, foreign):
    update(foreign, "unproven")
    add(site, b"the first new text")
    (site.root / "theirs/broken.ldb").write_text("not a signature\n")
    assert "it cannot load broken.ldb" in update(foreign, "unproven", status=1).err
    assert foreign("rescan-store").status == 1
    (site.root / "theirs/broken.ldb").unlink()
    update(foreign, "reloaded")
    assert foreign("rescan-store").status == 0


@pytest.mark.parametrize("alert", ["no", "yes"])
def test_what_is_over_a_limit_of_the_engine_is_unknown_and_stays_whatever_the_action(site, alert):
    use_system(site)
    for name, size in (("at", 2**20), ("over", 2**20 + 1), ("twice", 2**21)):
        site.image(f"{name}.jpg", bytes(size - len(BAD)) + BAD)
    site.image("below.jpg", bytes(2**20 - 1 - len(BAD)) + BAD)
    site.image("small.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(AlertExceedsMax=alert, MaxFileSize="1M"):
        site.update()
        for paths in ((), (site.store,)):
            status, result = site.rescan("--action", "quarantine", *paths)
            assert status == (3 if paths else 4)
            assert result.get("limits") == ("hidden" if alert == "no" else None)
            taken = {"below.jpg"} if alert == "no" else {"below.jpg", "at.jpg"}
            assert {one["path"] for one in result["infected"]} == (set() if paths else taken)
            left = {"at.jpg", "over.jpg", "twice.jpg"} - taken
            assert {one["path"] for one in result["undone"]} == left
            assert {path.name for path in site.store.iterdir()} == left | {"small.jpg"}
    known = site.coverage()
    assert (known["unknown"], known["clean_current"], known["infected"]) == (len(left), 1, 0)


def test_an_image_on_which_some_signatures_are_not_tried_is_unknown_though_clamd_says_ok(site):
    use_system(site)
    pattern = b"only a regular expression finds"
    for name, size in (("at", 2**20), ("over", 2**20 + 1)):
        site.image(f"{name}.jpg", pattern + b"  this" + bytes(size - len(pattern) - 6))
    site.run("update-definitions", "--no-rescan")
    (site.databases / "more.ldb").write_text(
        f"Test.Pcre;Engine:81-255,Target:0;0&1;{pattern.hex()};0/finds +this/\n")
    with site.clamd(PCREMaxFileSize="1M"):
        site.update()
        assert subprocess.run(["clamdscan", "--fdpass", "-c", site.root / "clamd.conf",
                               site.store / "over.jpg"], capture_output=True,
                              check=False).returncode == 0, "this is how clamd hides it"
        status, result = site.rescan()
    assert (status, [one["path"] for one in result["infected"]]) == (4, ["at.jpg"])
    assert [one["path"] for one in result["undone"]] == ["over.jpg"]
