"""update-definitions with the real freshclam, against sources that behave and misbehave."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.feeds import MORE, custom, definitions, told
from tests.mirror import serving
from tests.processes import (
    engines,
    family,
    hidden,
    killed_at_every_step,
    lives,
    named,
    started,
)
from tests.site import BAD, BIN, wait_until

pytestmark = pytest.mark.server

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
def freshclam_daemon(site, *arguments):
    conf = site.root / "freshclam.conf"
    conf.write_text(f"DatabaseDirectory {site.databases}\nDatabaseOwner {whoami()}\n"
                    f"DatabaseMirror 127.0.0.1:9\nDatabaseCustomURL file://{site.root}/feed/none\n"
                    f"UpdateLogFile {site.root}/freshclam.log\nPidFile {site.root}/fc.pid\n"
                    "Foreground yes\n")
    conf.chmod(0o644)
    with subprocess.Popen(["/usr/bin/freshclam", f"--config-file={conf}", "--no-dns", *arguments],
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
    with freshclam_daemon(site) as other:
        other.send_signal(signal.SIGSTOP)
        if other.poll() is None:
            ended = site.run("update-definitions", "--json")
            assert (ended.status, ended.json["outcome"], ended.err) == (75, "busy", "")
            assert str(other.pid) in ended.json["error"]


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


@contextmanager
def waiting_for_a_rescan(site):
    """A run with --wait whose rescan is held in the middle of its work; and all its children."""
    site.image("a.jpg")
    definitions(site)
    (site.databases / "large.hdb").write_text("".join(
        f"{number:032x}:{number + 1}:Test.Large.{number}\n" for number in range(200_000)))
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
        assert not [name for name in one["left"] if "/tmp." in name or name.endswith(".new")], one
