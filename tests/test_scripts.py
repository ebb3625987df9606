"""Every job's script from outside: command line, environment, output, log, lock, faults."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import ENVIRONMENT, on_terminal, started
from tests.site import BIN, body_signature, wait_until

JOBS = sorted(path.name for path in BIN.iterdir()
              if re.search(r'launch\("(?!demo|run_schedule)\w+"\)', path.read_text()))
ENDING = [job for job in JOBS if job != "serve-scans"]  # by themselves
RECORDING = [job for job in JOBS
             if job in {"rescan-store", "update-definitions", "optimize-images", "send-checks"}]


def arguments(site, script):
    """What a script must be given at least."""
    return {"scan-upload": [site.store / "a"], "quarantine": ["list"]}.get(script, [])


def switched_off(site):
    """A site with a file, no image by its name, on which every script ends well."""
    site.settings["upload"] = {"enabled": False}
    site.settings["optimize"] = {"window": ""}
    site.write_config()
    site.image("a")
    site.update()
    return site


def one_line(ended, status):
    """The one line of a script that could not work; no traceback, nothing on stdout."""
    assert (ended.status, ended.out) == (status, ""), ended
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


def test_all_jobs_were_found():
    assert {"rescan-store", "update-definitions", "scan-upload", "store-status", "show-config",
            "doctor", "optimize-images"} <= set(JOBS)
    assert all(len((BIN / job).read_text().splitlines()) <= 15 for job in JOBS)


@pytest.mark.parametrize("script", JOBS)
def test_the_command_line_explains_itself(site, script):
    told = site.run(script, "--help")
    assert (told.status, told.err) == (0, "")
    for option in ("--config", "--version", "--json", "--log-format", "-v", "-q", "usage:"):
        assert option in told.out
    assert re.fullmatch(r"imagewarden \d\S*\n", site.run(script, "--version").out)
    wrongs = [["--no-such"]] if script not in {"rescan-store", "optimize-images"} else [
        ["--no-such"], ["--log-format", "xml"], ["-v", "-q"], ["--js"], ["--time-limit", "x"],
        ["--time-limit=-1h"], ["--store"]]
    for wrong in wrongs:
        ended = site.run(script, *arguments(site, script), *wrong)
        assert (ended.status, ended.out) == (2, ""), wrong
        assert "usage:" in ended.err
        assert "Traceback" not in ended.err
    assert not site.state.exists(), "nothing of this may leave a trace"


@pytest.mark.parametrize("script", RECORDING)
def test_what_changes_something_takes_dry_run(site, script):
    assert "--dry-run" in site.run(script, "--help").out


@pytest.mark.parametrize("script", ENDING)
def test_from_root_through_a_symlink_with_no_environment_it_works(site, tmp_path, script):
    switched_off(site)
    link = tmp_path / "link to it"
    link.symlink_to(BIN / script)
    ran = subprocess.run(["env", "-i", link, *arguments(site, script), "--json", "-q",
                          "--config", site.config], cwd="/", capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert json.loads(ran.stdout)["outcome"] == "done"


def test_options_may_stand_before_between_and_after_arguments(site):
    site.image("a.jpg")
    site.update()
    a, b = site.store / "a.jpg", site.image("b.jpg")
    config = ["--config", site.config]
    for line in (["--json", *config, a, b], [a, "--json", b, *config], [a, b, *config, "--json"]):
        ran = subprocess.run([BIN / "rescan-store", *line], cwd="/", capture_output=True,
                             check=True, env=ENVIRONMENT)
        assert json.loads(ran.stdout)["stores"][0]["clean"] == 2
    for line in (["--timeout", "3s", a], [a, "--timeout", "3s"]):
        assert site.run("scan-upload", *line).status == 3


@pytest.mark.parametrize("script", ENDING)
def test_json_is_one_object_and_nothing_else_on_stdout(site, script):
    switched_off(site)
    ended = site.run(script, *arguments(site, script), "--json", "-v")
    assert (ended.status, ended.out.count("\n")) == (0, 1)
    assert {"job", "outcome", "started", "seconds", "host"} <= set(ended.json)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended.json["started"])


@pytest.mark.parametrize("script", ["rescan-store", "update-definitions", "scan-upload",
                                    "optimize-images"])
def test_success_is_silent_without_a_terminal(site, script):
    switched_off(site)
    ended = site.run(script, *arguments(site, script))
    assert ended == type(ended)(0, "", "")


def test_a_terminal_gets_a_bar_and_a_summary(site):
    site.image("a.jpg")
    site.update()
    status, shown = on_terminal(site.command("rescan-store"))
    assert status == 0
    assert "uploads: walk: " in shown
    assert re.search(r"uploads: +\d+%", shown), shown
    assert "uploads: 1 images, 1 scanned" in shown
    status, shown = on_terminal(site.command("rescan-store", "--json"))
    assert json.loads(shown)["outcome"] == "done"
    status, shown = on_terminal(site.command("update-definitions"))
    assert (status, "freshclam: unchanged" in shown) == (0, True), shown


def test_quiet_on_a_terminal_shows_no_bar(site):
    site.image("a.jpg")
    site.update()
    _, shown = on_terminal(site.command("rescan-store", "-q"))
    assert "it/s" not in shown
    assert "%|" not in shown


# --- configuration


@pytest.mark.parametrize(("script", "fault"), [
    *((script, "unknown") for script in JOBS),
    *(("rescan-store", fault) for fault in ("missing", "writable", "broken", "directory"))])
def test_an_unusable_configuration_is_one_line_and_78(site, script, fault):
    site.image("a.jpg")
    if fault == "missing":
        site.config.unlink()
    elif fault == "writable":
        site.config.chmod(0o666)
    elif fault == "unknown":
        site.config.write_text(site.config.read_text().replace(
            "[clamav]", "[clamav]\nsoket = 1"))
    elif fault == "broken":
        site.config.write_text("state = \n")
    else:
        site.config.unlink()
        site.config.mkdir()
    line = one_line(site.run(script, *arguments(site, script), "--json"), 78)
    assert str(site.config) in line or "soket" in line
    assert not site.state.exists()


def test_an_upload_does_not_care_for_sections_that_are_not_its_own(site):
    site.config.write_text(site.config.read_text() + "soket = 1\n")  # the last: [definitions]
    assert site.run("rescan-store").status == 78
    assert site.run("scan-upload", site.image("a.jpg")).status == 3


@pytest.mark.may_skip("only root has to name a user")
@pytest.mark.skipif(os.geteuid() != 0, reason="root must name a user")
@pytest.mark.parametrize("user", ["", "no-such-user"])
def test_root_without_a_user_to_become_is_78(site, user):
    site.top = {"user": user} if user else {}
    site.write_config()
    assert "user" in one_line(site.run("rescan-store"), 78)


def test_the_configuration_may_come_from_the_environment(site):
    ran = subprocess.run([BIN / "show-config"], cwd="/", check=True, capture_output=True,
                         env={**ENVIRONMENT, "IMAGEWARDEN_CONFIG": str(site.config)})
    assert str(site.state).encode() in ran.stdout


def test_from_a_directory_that_was_deleted_it_works(site, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    argv = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone,
            *site.command("update-definitions", "--no-rescan")]
    ran = subprocess.run(argv, check=False, capture_output=True, env=ENVIRONMENT)
    assert (ran.returncode, ran.stderr) == (0, b"")


# --- state, log, lock


@pytest.mark.parametrize("script", RECORDING)
@pytest.mark.parametrize("place", ["state", "logs"])
def test_a_file_where_a_directory_should_be_is_one_line(site, script, place):
    (site.root / place).write_text("in the way")
    assert str(site.root / place) in one_line(site.run(script), 1)
    assert (site.root / place).read_text() == "in the way"


@pytest.mark.parametrize("script", RECORDING)
@pytest.mark.parametrize("place", ["log", "lock", "dangling log"])
def test_a_symlink_as_log_or_lock_is_refused_and_its_target_untouched(site, script, place):
    job = {"rescan-store": "rescan", "update-definitions": "definitions",
           "optimize-images": "optimize", "send-checks": "checks"}[script]
    target = site.root / "precious"
    if place != "dangling log":
        target.write_text("precious")
    where = (site.state / "locks" / f"{job}.lock" if place == "lock"
             else site.root / "logs" / f"{job}.log")
    for directory in (site.state, where.parent):
        directory.mkdir(exist_ok=True, mode=0o700)
    where.symlink_to(target)
    assert str(where) in one_line(site.run(script), 1)
    assert target.read_text() == "precious" if place != "dangling log" else not target.exists()


def test_the_log_is_kept_in_a_file_of_the_job_and_made_private(site):
    site.image("a.jpg")
    site.update()
    site.rescan()
    for job in ("definitions", "rescan"):
        log = site.root / "logs" / f"{job}.log"
        assert re.search(r"^\d{4}-\S+Z INFO \[\d+\] done, status 0", log.read_text(), re.M)
        assert log.stat().st_mode & 0o137 == 0
    assert site.state.stat().st_mode & 0o777 == 0o700
    assert (site.root / "logs").stat().st_mode & 0o777 == 0o750


def test_a_running_job_follows_its_log_across_a_rotation(site):
    site.update()
    log = site.root / "logs/rescan.log"
    with started(site.command("rescan-store", "-")) as job:  # waits for its stdin
        wait_until(log.exists)
        log.rename(site.root / "logs/rescan.log.1")
        job.stdin.close()
        assert job.wait(30) == 0
    assert "done, status 0" in log.read_text()


def test_a_log_that_becomes_a_link_or_cannot_be_written_does_not_stop_the_run(site):
    site.update()
    log = site.root / "logs/rescan.log"
    target = site.root / "precious"
    with started(site.command("rescan-store", "-")) as job:
        wait_until(log.exists)
        log.unlink()
        log.symlink_to(target)
        job.stdin.close()
        assert job.wait(30) == 0, job.stderr.read()
        assert job.stderr.read() == b""
    assert not target.exists()


def test_log_lines_as_json_parse(site):
    site.image("a.jpg")
    site.update()
    site.config.write_text(site.config.read_text().replace(str(site.store), "/no/such/store"))
    ended = site.run("rescan-store", "--log-format", "json", "-v")
    assert ended.status == 1
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert any(line["level"] == "error" and "/no/such/store" in line["message"] for line in lines)
    for line in (site.root / "logs/rescan.log").read_text().splitlines():
        assert {"time", "level", "message"} <= set(json.loads(line))


def test_the_second_run_is_turned_away_until_the_first_one_died(site):
    site.update()
    with started(site.command("update-definitions", "--jitter", "1000d")) as first:
        wait_until(lambda: b"pid" in lock(site).read_bytes()
                   and str(first.pid).encode() in lock(site).read_bytes())
        before = runs(site)
        assert site.run("update-definitions") == type(site.run("store-status"))(75, "", "")
        busy = site.run("update-definitions", "--json")
        assert (busy.status, busy.json["outcome"], busy.err) == (75, "busy", "")
        assert str(first.pid) in busy.json["error"]
        assert runs(site) == before, "75 writes no result"
        status, shown = on_terminal(site.command("update-definitions"))
        assert (status, str(first.pid) in shown) == (75, True)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert site.update()["outcome"] == "done"
    assert lock(site).exists()


def lock(site):
    return site.state / "locks/definitions.lock"


def runs(site):
    return site.run("store-status", "--json").json["jobs"]


def test_jobs_of_different_names_may_overlap(site):
    site.image("a.jpg")
    site.update()
    with started(site.command("update-definitions", "--jitter", "1000d")) as first:
        wait_until(lambda: str(first.pid).encode() in lock(site).read_bytes())
        assert site.rescan()[0] == 0


def test_a_stopped_run_is_recorded_and_frees_its_lock(site):
    site.update()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with started(site.command("update-definitions", "--jitter", "1000d", "--json")) as job:
            wait_until(lambda: str(job.pid).encode() in lock(site).read_bytes())  # noqa: B023
            job.send_signal(number)
            out, err = job.communicate(timeout=20)
        assert job.returncode == 128 + number
        assert json.loads(out)["outcome"] == "failed"
        assert number.name in err.decode()
        assert b"Traceback" not in err
        assert runs(site)[0]["outcome"] == "failed"
    assert site.update()["outcome"] == "done"


def test_a_reader_that_goes_away_is_no_failure(site):
    site.feed(body_signature("Test.Bad", b"anything else at all"))
    ran = subprocess.run(["sh", "-c", '"$@" | true', "sh", *site.command("show-config")],
                         cwd="/", capture_output=True, check=False, env=ENVIRONMENT)
    assert b"Traceback" not in ran.stderr
    assert ran.stderr == b""


def test_an_unexpected_error_is_one_line_with_its_traceback_in_the_log(site, tmp_path):
    site.update()
    (Path(site.state) / "ledger.sqlite").unlink()
    for suffix in ("-wal", "-shm"):
        Path(f"{site.state}/ledger.sqlite{suffix}").unlink(missing_ok=True)
    (site.state / "ledger.sqlite").mkdir()  # something nobody wrote a message for
    ended = site.run("rescan-store")
    assert ended.status == 1
    assert "Traceback" not in ended.err
