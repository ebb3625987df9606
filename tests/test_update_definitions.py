"""update-definitions with the real freshclam, against sources that behave and misbehave."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from maintenance.clamav import freshclam
from maintenance.clamav.sources import Sources
from maintenance.errors import ToolError
from tests.feeds import (
    MORE,
    SIGNED,
    content,
    custom,
    definitions,
    needs_signed,
    not_shipped,
    official,
    told,
)
from tests.mirror import serving
from tests.processes import (
    Namespace,
    engines,
    family,
    hidden,
    killed_at_every_step,
    lives,
    named,
    reachable,
    started,
)
from tests.site import BAD, BIN, LATER, body_signature, wait_until
from tests.trappers import Trapper

pytestmark = [pytest.mark.server, pytest.mark.once]

# --- what changed


def test_content_decides_what_changed(site):
    first = definitions(site)
    assert (first["changed"], first["generation"]) == (True, 1)
    assert first["databases"] == [
        {"name": "test.ndb", "from": None, "to": None, "signatures": 1, "built": None}]
    assert (first["freshclam"]["outcome"], first["freshclam"]["status"]) == ("changed", 0)
    assert any("updated" in line for line in first["freshclam"]["last_lines"])
    assert (first["engine"], first["rescan"]) == ("none", "off")
    os.utime(site.root / "feed/test.ndb", (time.time() + 60, time.time() + 60))
    (site.databases / "test.ndb").unlink()  # so that freshclam says "updated" in earnest
    again = definitions(site)
    assert any("updated" in line for line in again["freshclam"]["last_lines"])
    assert (again["changed"], again["generation"]) == (False, 1)
    assert again["freshclam"]["outcome"] == "unchanged"
    site.feed(MORE)
    third = definitions(site)
    assert (third["changed"], third["generation"]) == (True, 2)
    assert third["databases"][0]["signatures"] == 2


def test_databases_are_readable_for_a_clamd_of_another_user(site):
    definitions(site)
    assert (site.databases / "test.ndb").stat().st_mode & 0o777 == 0o644


def test_a_dry_run_fetches_nothing_and_records_nothing(site):
    ended = site.run("update-definitions", "--dry-run")
    assert ended.status == 0
    assert not (site.databases / "test.ndb").exists()
    assert told(site)["jobs"] == []


# --- sources that fail


def test_a_source_that_is_gone_is_a_failure_and_the_old_definitions_stay(site):
    definitions(site)
    (site.root / "feed/test.ndb").unlink()
    ended = site.run("update-definitions", "--no-rescan")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    result = definitions(site, status=1)
    assert (result["outcome"], result["freshclam"]["outcome"]) == ("failed", "failed")
    assert (result["changed"], result["generation"]) == (False, 1)
    assert result["freshclam"]["status"] != 0
    assert (site.databases / "test.ndb").exists()


def test_a_first_download_that_fails_says_so_in_one_line(site):
    (site.root / "feed/test.ndb").unlink()
    ended = site.run("update-definitions")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "freshclam failed" in ended.err


@pytest.mark.parametrize("known", [True, False])
def test_without_freshclam_one_line_says_so(site, known):
    if known:
        definitions(site)
    with hidden("/usr/bin/freshclam") as nowhere:
        ended = site.run("update-definitions", wrap=nowhere.wrap)
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert "freshclam" in ended.err
    assert "not installed" in ended.err


# --- damage


@pytest.mark.parametrize("name", ["daily.cvd", "extra.cvd"])
def test_a_damaged_container_is_named_and_not_booked(site, name):
    definitions(site)
    (site.databases / name).write_bytes(b"ClamAV-VDB:22 Jun 2021 14-58 -0400:1:2:81:X:X:m:1"
                                        .ljust(512) + b"half of it")
    site.settings["definitions"]["custom_urls"] = []
    site.write_config()
    ended = site.run("update-definitions", "--no-rescan", "--json")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert name in ended.err
    assert ended.json["generation"] is None
    assert told(site)["definitions"]["generation"] == 1


# --- another freshclam


@contextmanager
def freshclam_daemon(site, *arguments, url="http://127.0.0.1:9/none.ndb", directory=None,
                     user=None):
    """A freshclam of somebody else, on the site's directory."""
    conf = site.root / "freshclam.conf"
    conf.write_text(f"DatabaseDirectory {directory or site.databases}\n"
                    f"DatabaseOwner {user or whoami()}\n"
                    f"DatabaseMirror 127.0.0.1:9\nDatabaseCustomURL {url}\n"
                    "Foreground yes\n")
    conf.chmod(0o644)
    with subprocess.Popen(["/usr/bin/freshclam", f"--config-file={conf}", "--no-dns",
                           "--update-db=custom", *arguments],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_until(lambda: "freshclam" in Path(f"/proc/{daemon.pid}/comm").read_text())
            yield daemon
        finally:
            daemon.kill()


def whoami():
    return "root" if os.geteuid() == 0 else subprocess.run(
        ["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()


def test_beside_a_daemon_everything_but_freshclam_is_done(site):
    definitions(site)
    site.image("bad.jpg", BAD)
    site.feed(MORE)
    with freshclam_daemon(site, "-d"):
        (site.databases / "test.ndb").write_text(MORE)  # as the daemon would
        result = definitions(site)
        assert (result["freshclam"]["outcome"], result["freshclam"]["status"]) == ("daemon", None)
        assert (result["changed"], result["generation"]) == (True, 2)
        ended = site.run("update-definitions", "--json", "--wait")
        assert (ended.status, ended.json["freshclam"]["outcome"]) == (4, "daemon")


def test_another_freshclam_at_work_holds_the_directory(site):
    definitions(site)
    with serving() as mirror:
        mirror.gate.clear()
        with freshclam_daemon(site, url=f"{mirror.url}/test.ndb") as other:
            wait_until(lambda: mirror.asked)
            ended = site.run("update-definitions", "--json")
            assert (ended.status, ended.json["outcome"], ended.err) == (75, "busy", "")
            assert str(other.pid) in ended.json["error"]
    assert [one["outcome"] for one in told(site)["jobs"]] == ["done"], "75 leaves no result"


def test_a_strangers_process_called_freshclam_is_not_believed(site):
    if os.geteuid() != 0:
        return  # everybody else is root or ourselves
    code = ("import os; os.execv('/usr/bin/python3', ['freshclam', '-c',"
            " 'import time; open(\"/proc/self/comm\", \"w\").write(\"freshclam\"); time.sleep(60)',"
            f" '--datadir={site.databases}', '-d'])")
    with subprocess.Popen(["/usr/bin/python3", "-c", code], user=65534, cwd="/") as stranger:
        try:
            wait_until(lambda: Path(f"/proc/{stranger.pid}/comm").read_text() == "freshclam\n")
            assert definitions(site)["freshclam"]["outcome"] == "changed"
        finally:
            stranger.kill()


# --- a directory that is not ours, or has no room


only_root = [pytest.mark.may_skip("only root can make another user's directory"),
             pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")]
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


@pytest.fixture
def anothers(site):
    """A site of nobody's on databases of clamav's; how nobody runs a job on it."""
    reachable(site.root)
    theirs = site.root / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "test.ndb").write_text(MORE)
    (theirs / "test.ndb").chmod(0o644)
    shutil.chown(theirs, "clamav")
    del site.top["user"]
    site.settings["clamav"]["databases"] = str(theirs)
    site.write_config()
    site.image("bad.jpg", BAD)
    for path in (site.root, *site.root.rglob("*")):
        if theirs not in (path, *path.parents):
            os.chown(path, 65534, 65534)
    return lambda script, *more: site.run(script, "--json", *more, wrap=AS_NOBODY)


class TestAnothers:
    """The database directory belongs to somebody else, and we are not root."""

    pytestmark = only_root

    def test_one_line_says_what_to_do_and_all_but_the_download_is_done(self, site, anothers):
        ended = anothers("update-definitions", "--wait")
        assert (ended.status, ended.json["freshclam"]["outcome"]) == (1, "failed")
        assert (ended.json["changed"], ended.json["generation"]) == (True, 1)
        assert ended.json["rescan"]["infected_total"] == 1
        assert ended.json["error"] == (f"{site.root}/theirs is clamav's: start update-definitions"
                                       " as root, or as that user")

    def test_a_daemon_that_serves_it_has_all_it_takes(self, site, anothers):
        with freshclam_daemon(site, "-d", directory=site.root / "theirs", user="clamav"):
            ended = anothers("update-definitions", "--no-rescan")
            assert (ended.status, ended.err) == (0, "")
            assert ended.json["freshclam"]["outcome"] == "daemon"
            assert ended.json["generation"] == 1


@only_root[0]
@only_root[1]
def test_a_freshclam_dat_that_root_left_is_named_with_the_repair(site):
    theirs = site.root / "theirs"
    theirs.mkdir(mode=0o755)
    reachable(site.root)
    shutil.chown(theirs, "clamav")
    (theirs / "freshclam.dat").write_bytes(bytes(90))
    (theirs / "freshclam.dat").chmod(0o600)
    site.settings["clamav"]["databases"] = str(theirs)
    site.write_config()
    ended = site.run("update-definitions", "--no-rescan")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ended.err.endswith(f"cannot write to {theirs}/freshclam.dat:"
                              f" chown clamav {theirs}/freshclam.dat\n")
    subprocess.run(["chown", "clamav", theirs / "freshclam.dat"], check=True)
    assert definitions(site)["freshclam"]["outcome"] == "changed"


def test_without_room_for_a_download_and_its_test_none_is_begun(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        site.state.mkdir(mode=0o700)
        with Namespace(f"mount -t tmpfs -o mode=700,size=10m tmpfs {site.state}") as room:
            ended = site.run("update-definitions", "--no-rescan", "--json", wrap=room.wrap)
        assert (ended.status, ended.err.count("\n")) == (1, 1), ended
        assert re.search(r"no room for new definitions: \S+/state/databases has \d+ MB free, a"
                         r" download and its test may take 16 MB", ended.err)
        assert (ended.json["freshclam"]["status"], mirror.asked) == (None, [])


def test_a_disk_that_fills_up_all_the_same_damages_nothing(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        site.state.mkdir(mode=0o700)
        with Namespace(f"mount -t tmpfs -o mode=700,size=20m tmpfs {site.state}") as room:
            def ran():
                return site.run("update-definitions", "--no-rescan", "--json", wrap=room.wrap)

            assert ran().json["generation"] == 1
            mirror.files["/test.ndb"] = bytes(30 * 2**20)
            full = ran()
            assert (full.status, full.json["freshclam"]["outcome"]) == (1, "failed"), full
            assert (full.json["changed"], full.json["generation"]) == (False, 1)
            assert room.run(f"ls -A {site.databases}").split() == ["freshclam.dat", "test.ndb"]
            mirror.files["/test.ndb"] = body_signature("Test.New", b"something new").encode()
            assert ran().json["generation"] == 2


# --- the rescan


def test_with_wait_the_rescan_is_part_of_the_result(site):
    site.image("bad.jpg", BAD)
    site.image("a.jpg")
    ended = site.run("update-definitions", "--wait", "--json")
    assert ended.status == 4
    rescan = ended.json["rescan"]
    assert (rescan["job"], rescan["outcome"], rescan["stores"][0]["clean"]) == (
        "rescan", "infected", 1)
    (site.store / "bad.jpg").unlink()
    again = site.run("update-definitions", "--wait", "--json")
    assert (again.status, again.json["rescan"]["outcome"]) == (0, "done"), "--wait always rescans"


def test_the_rescan_finds_a_configuration_that_the_environment_names_relative_to_us(site):
    environment = {"PATH": "/usr/bin:/bin", "IMAGEWARDEN_CONFIG": site.config.name}
    ran = subprocess.run([BIN / "update-definitions", "--wait", "--json"], cwd=site.root,
                         env=environment, check=False, capture_output=True)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(ran.stdout)["rescan"]["outcome"] == "done"


def test_waiting_for_a_rescan_that_may_not_run_is_75(site):
    definitions(site)
    import fcntl  # noqa: PLC0415
    with (site.state / "locks/rescan.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = site.run("update-definitions", "--wait", "--json")
        assert (ended.status, ended.json["rescan"]["outcome"]) == (75, "busy")
        assert definitions(site)["rescan"] == "off"
        assert site.run("update-definitions", "--json").json["rescan"] == "running"


def test_without_wait_the_rescan_is_started_and_finishes_by_itself(site):
    site.image("bad.jpg", BAD)
    ended = site.run("update-definitions", "--json")
    assert (ended.status, ended.json["rescan"]) == (0, "started")
    wait_until(lambda: told(site)["stores"][0]["infected"] == 1)
    wait_until(lambda: any(one["job"] == "rescan" for one in told(site)["jobs"]))
    again = site.run("update-definitions", "--json").json
    assert (again["rescan"], again["changed"]) == ("not needed", False)


def test_a_rescan_that_never_came_to_its_end_is_started_again_without_a_change(site):
    site.image("a.jpg")
    definitions(site)
    ended = site.run("update-definitions", "--json").json
    assert (ended["changed"], ended["rescan"]) == (False, "started")
    wait_until(lambda: any(one["job"] == "rescan" for one in told(site)["jobs"]))


def test_what_comes_during_a_rescan_is_served_by_it_and_not_again(site):
    site.image("later.jpg", LATER)
    definitions(site)
    with started(site.command("rescan-store", "--json")) as rescan:
        first = held(rescan)
        large_database(site)  # so that the next engine takes a moment to load
        ended = site.run("update-definitions", "--json")
        assert (ended.status, ended.json["rescan"], ended.json["generation"]) == (0, "running", 2)
        os.kill(first, signal.SIGCONT)
        second = held(rescan, after=first)
        site.feed(MORE)
        ended = site.run("update-definitions", "--json")
        assert (ended.status, ended.json["rescan"], ended.json["generation"]) == (0, "running", 3)
        os.kill(second, signal.SIGCONT)
        result = json.loads(rescan.communicate(timeout=60)[0])
    assert (result["definitions"]["generation"], result["infected_total"]) == (3, 1)
    assert site.run("update-definitions", "--json").json["rescan"] == "not needed"


def held(rescan, after=None):
    """The rescan's engine, stopped; ``after``: the next one."""
    wait_until(lambda: set(engines(rescan.pid)) - {after})
    engine, = set(engines(rescan.pid)) - {after}
    os.kill(engine, signal.SIGSTOP)
    return engine


def test_what_comes_after_the_last_look_of_a_rescan_is_served_by_the_next_at_once(site):
    """It has announced its end, but still holds the lock: Zabbix keeps it waiting."""
    def hears_and_says_nothing(caller):
        caller.hear()
        caller.wait_for_the_end()

    site.image("later.jpg", LATER)
    definitions(site)
    deaf = site.config.read_text()
    with Trapper(hears_and_says_nothing) as server:
        site.settings["zabbix"] = {"servers": [server.address], "timeout": "5s"}
        site.write_config()
        with started(site.command("rescan-store")) as rescan:
            wait_until(lambda: server.requests)
            site.config.write_text(deaf)
            site.feed(MORE)
            ended = site.run("update-definitions", "--json")
            assert rescan.poll() is None
            assert (ended.json["generation"], ended.json["rescan"]) == (2, "started")
            wait_until(lambda: told(site)["stores"][0]["infected"] == 1)
            assert rescan.wait(10) == 0
    wait_until(lambda: site.run("update-definitions", "--json").json["rescan"] == "not needed")


def test_the_rescan_can_be_switched_off(site):
    site.settings["definitions"]["start_rescan"] = False
    site.write_config()
    assert site.run("update-definitions", "--json").json["rescan"] == "off"
    assert all(one["job"] != "rescan" for one in told(site)["jobs"])


def test_the_jitter_is_waited_before_anything_is_fetched(site):
    with started(site.command("update-definitions", "--jitter", "1000d")) as job:
        wait_until((site.state / "locks/definitions.lock").exists)
        assert not site.databases.exists()
        job.terminate()
        assert job.wait(10) == 143
    assert definitions(site, "--jitter", "0.1s")["changed"] is True


# --- endings


def test_a_stopped_run_takes_its_freshclam_along(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.gate.clear()
        with started(site.command("update-definitions", "--json")) as job:
            wait_until(lambda: named(family(job.pid), "freshclam") and mirror.asked)
            children = family(job.pid)
            job.terminate()
            out, err = job.communicate(timeout=20)
        assert job.returncode == 143
        assert b"Traceback" not in err
        assert json.loads(out)["outcome"] == "failed"
        wait_until(lambda: not any(map(lives, children)), 10)
    assert [one["outcome"] for one in told(site)["jobs"]] == ["failed"]
    assert not list(site.databases.glob("tmp.*"))


@pytest.mark.parametrize(("end", "words"), [
    (signal.SIGKILL, "freshclam failed with status 137: it was killed"),
    (signal.SIGTERM, "freshclam failed with status 143: it was killed"),
    (signal.SIGINT, "freshclam failed: somebody stopped it")])
def test_a_freshclam_that_somebody_ends_is_a_failure_and_leaves_nothing(site, end, words):
    definitions(site)
    checked = told(site)["definitions"]["databases"][0]["checked"]
    theirs = site.databases / "tmp.0123456789"  # of another one, who knows
    theirs.mkdir()
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.gate.clear()
        with started(site.command("update-definitions", "--no-rescan", "--json")) as job:
            wait_until(lambda: mirror.asked)
            os.kill(*named(family(job.pid), "freshclam"), end)
            out, err = job.communicate(timeout=30)
    assert (job.returncode, err.count(b"\n")) == (1, 1)
    assert words in err.decode()
    assert json.loads(out)["freshclam"]["outcome"] == "failed"
    assert told(site)["definitions"]["databases"][0]["checked"] == checked
    assert list(site.databases.glob("tmp.*")) == [theirs]
    theirs.rmdir()
    assert content(site.databases)


def test_what_a_machine_that_died_left_is_gone_after_the_next_run_and_nothing_else(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        mirror.gate.clear()
        site.state.mkdir(mode=0o700)
        site.databases.mkdir()
        theirs = [site.databases / name for name in ("tmp.0123456789", "tmp.abc", "tmp.aaaaaaaaaa")]
        for one in theirs:
            one.mkdir()
        with started(site.command("update-definitions", "--no-rescan")) as job:
            wait_until(lambda: mirror.asked)
            everybody = [job.pid, *family(job.pid)]
            for _ in range(2):  # the first to go would see the others go
                for pid in everybody:
                    os.kill(pid, signal.SIGSTOP)
            for pid in everybody:
                os.kill(pid, signal.SIGKILL)
            job.wait()
        wait_until(lambda: not any(map(lives, everybody)))
        left = {path for path in site.databases.glob("tmp.*") if path not in theirs}
        assert len(left) == 1, "freshclam's own"
        mirror.gate.set()
        late = site.databases / "tmp.ffffffffff"
        late.write_text("no directory")
        assert definitions(site)["freshclam"]["outcome"] == "changed"
    assert set(site.databases.glob("tmp.*")) == {*theirs, late}
    assert not list(site.databases.glob(".imagewarden*"))


def test_while_somebody_else_works_there_nothing_is_cleared_up(site):
    with serving() as mirror, serving() as other:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.gate.clear()
        other.gate.clear()
        with started(site.command("update-definitions", "--no-rescan")) as job:
            wait_until(lambda: mirror.asked)
            ours = set(site.databases.glob("tmp.*"))
            with freshclam_daemon(site, "-d", url=f"{other.url}/none.ndb"):
                wait_until(lambda: other.asked)
                theirs = set(site.databases.glob("tmp.*")) - ours
                os.kill(*named(family(job.pid), "freshclam"), signal.SIGKILL)
                assert job.wait(30) == 1
                assert set(site.databases.glob("tmp.*")) == ours | theirs
                assert theirs
        mirror.gate.set()
        mirror.files["/test.ndb"] = MORE.encode()
        definitions(site)
        assert not ours & set(site.databases.glob("tmp.*"))


def test_a_freshclam_that_takes_too_long_is_ended_and_its_directory_goes(site, monkeypatch):
    monkeypatch.setattr(freshclam, "TIME_LIMIT", 1.0)
    site.databases.mkdir(parents=True)
    with serving() as mirror, tempfile.TemporaryFile() as said:
        mirror.gate.clear()
        sources = Sources.of(False, "localhost", [f"{mirror.url}/test.ndb"], None)
        with pytest.raises(ToolError, match="freshclam: no result after 1 s"):
            freshclam.fetch(sources, site.databases, None, said)
        assert mirror.asked
    assert [path.name for path in site.databases.iterdir()] == ["freshclam.dat"]


def large_database(site):
    (site.databases / "large.hdb").write_text("".join(
        f"{number:032x}:{number + 1}:Test.Large.{number}\n" for number in range(200_000)))


@contextmanager
def waiting_for_a_rescan(site):
    """A run with --wait whose rescan is held in the middle of its work; and all its children."""
    site.image("a.jpg")
    definitions(site)
    large_database(site)
    with started(site.command("update-definitions", "--wait", "--json")) as job:
        wait_until(lambda: engines(job.pid))
        children = family(job.pid)
        os.kill(*engines(job.pid), signal.SIGSTOP)
        assert len(children) >= 4, "the rescan and its engine, each with a keeper"
        yield job, children


def test_a_killed_run_takes_the_rescan_it_waits_for_along(site):
    with waiting_for_a_rescan(site) as (job, children):
        job.kill()
        job.wait()
        wait_until(lambda: not any(map(lives, children)), 10)
    assert {one["job"]: one["outcome"] for one in told(site)["jobs"]} == {
        "definitions": "done", "rescan": "failed"}, "it could even say so"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_stops_the_rescan_it_waits_for_and_records_both(site, end):
    with waiting_for_a_rescan(site) as (job, children):
        job.send_signal(end)
        out, err = job.communicate(timeout=30)
        wait_until(lambda: not any(map(lives, children)), 10)
    assert job.returncode == 128 + end
    assert b"Traceback" not in err
    result = json.loads(out)
    assert (result["outcome"], result["error"]) == ("failed", f"stopped by {end.name}")
    assert (result["rescan"]["job"], result["rescan"]["error"]) == ("rescan", "stopped by SIGTERM")
    assert {one["job"]: one["outcome"] for one in told(site)["jobs"]} == {
        "definitions": "failed", "rescan": "failed"}


def test_killed_at_every_file_operation_the_next_run_comes_to_the_same(site, tmp_path_factory):
    definitions(site)
    site.feed(MORE)
    steps = killed_at_every_step(site, tmp_path_factory.mktemp("copies"), "update-definitions",
                                 "--no-rescan")
    assert len(steps) > 30
    for one in steps:
        assert one["status"] == 0, one
        assert one["result"]["generation"] == 2, one["where"]
        assert one["result"]["databases"][0]["signatures"] == 2, one["where"]
        assert not [name for name in one["left"] if "/tmp." in name or name.endswith(".new")
                    or "/.imagewarden" in name], one


@not_shipped
@needs_signed
@pytest.mark.parametrize("calls", [
    "rename", pytest.param("mkdir,rename,unlink,rmdir,chmod", marks=pytest.mark.long)])
def test_a_freshclam_killed_at_every_step_damages_nothing_and_the_next_run_completes(site, calls):
    """Each of its processes dies at its Nth of these calls, for every N."""
    real, when = site.root / "freshclam.real", site.root / "when"
    shutil.copy("/usr/bin/freshclam", real)
    wrapper = site.root / "wrapper"
    wrapper.write_text(
        f"#!/bin/sh\nread n <{when}\nexec strace -f -qq -o /dev/null -e trace={calls}"
        f" -e inject={calls}:signal=KILL:when=$n {real} \"$@\"\n")
    wrapper.chmod(0o755)
    old, new = ({"daily.cvd": (SIGNED / f"test-{at}.cvd").read_bytes(), "test.ndb": text.encode()}
                for at, text in ((1, body_signature("Test.Old", BAD)), (4, MORE)))
    with serving() as mirror, Namespace(f"mount --bind {wrapper} /usr/bin/freshclam") as room:
        official(site, mirror, "ExcludeDatabase main", "Bytecode no",
                 custom_urls=[f"{mirror.url}/test.ndb"])

        def offer(version, files):
            mirror.publish(SIGNED, "daily", version)
            mirror.files["/test.ndb"] = files["test.ndb"]

        def ran():
            return site.run("update-definitions", "--no-rescan", "--json", wrap=room.wrap)

        seen, step, status = set(), 0, 137
        while status == 137:
            step += 1
            shutil.rmtree(site.state, ignore_errors=True)
            for number, (version, files) in ((9999, (1, old)), (step, (4, new))):
                when.write_text(f"{number}\n")
                offer(version, files)
                ended = ran()
                status = ended.json["freshclam"]["status"]
            left = content(site.databases)
            for name, known in left.items():
                assert known in {old[name], new[name]}, (step, name)
            seen.add(tuple(left[name] == new[name] for name in sorted(old)))
            assert ended.json["changed"] == (left != old)
            when.write_text("9999\n")
            assert ran().status == 0
            assert content(site.databases) == new
        assert step > 4
        assert seen == {(False, False), (True, False), (True, True)}
