"""run-schedule: jobs as children, none lost. When they are due: test_timetable."""

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from maintenance.errors import ToolError
from maintenance.jobs.run_schedule import SCRIPTS, ScheduleReport, Troupe
from maintenance.settings import Schedule
from tests.processes import ROOT, family, lives, parents, reachable, started, status_of
from tests.site import BIN, wait_until

pytestmark = pytest.mark.once

QUIET = "exit 0"
# Both end at SIGTERM only, or not even then; what they say is in the file of their name.
WAITS = 'trap "echo term >>$0.said; exit 143" TERM; echo up >>$0.said; while :; do sleep 0.05; done'
DEAF = 'trap "" TERM; echo up >>$0.said; while :; do sleep 0.05; done'
LEAVES = ("setsid sh -c 'trap \"echo term >>$0.said; exit\" TERM; echo up $$ >>$0.said;"
          " while :; do sleep 0.05; done' $0 & exit 3")


class Stage:
    """A copy of run-schedule among scripts that do as they are told."""

    def __init__(self, site, **scripts):
        self.site, self.bin = site, site.root / "stage/bin"
        self.bin.mkdir(parents=True)
        (self.bin.parent / "maintenance").symlink_to(BIN.parent / "maintenance")
        shutil.copy(BIN / "run-schedule", self.bin)
        for job, script in SCRIPTS.items():
            self.write(script, scripts.get(job, QUIET))
        site.settings["schedule"] = dict.fromkeys(SCRIPTS, "every 1h")
        site.write_config()

    def write(self, script, lines):
        (self.bin / script).write_text(f"#!/bin/sh\n{lines}\n")
        (self.bin / script).chmod(0o755)

    def said(self, job):
        try:
            return (self.bin / f"{SCRIPTS[job]}.said").read_text().split()
        except FileNotFoundError:
            return []

    def argv(self, *words):
        return [self.bin / "run-schedule", *words, "--config", self.site.config]

    def until_up(self, *jobs):
        wait_until(lambda: all("up" in self.said(job) for job in jobs))

    def running(self, *jobs):
        """Processes that carry the name of these jobs' scripts (none: of any)."""
        names = [os.fsencode(self.bin / SCRIPTS[job]) for job in jobs or SCRIPTS]
        found = []
        for pid in parents():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if any(name in words for name in names) and lives(pid):
                found.append(pid)
        return found


@pytest.fixture
def stage(site):
    made = []

    def make(**scripts):
        made.append(Stage(site, **scripts))
        return made[-1]

    yield make
    for one in made:
        for pid in one.running():
            os.kill(pid, signal.SIGKILL)


def end(process, number=signal.SIGTERM):
    """Send the signal; status, stdout, stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def ours(err):
    """The lines of run-schedule; a shell may say that what it waited for was killed."""
    return [line for line in err.splitlines() if line not in {"Terminated", "Killed"}]


def test_every_job_that_has_a_script_is_known():
    there = {"definitions": "update-definitions", "rescan": "rescan-store",
             "optimize": "optimize-images", "checks": "send-checks", "hits": "flush-hits"}
    assert set(there) == {field.name for field in msgspec.structs.fields(Schedule)}
    assert {job: script for job, script in there.items()
            if (BIN / script).exists()} == SCRIPTS


@pytest.mark.server
def test_a_new_container_gets_definitions_and_a_scan_and_ends_in_good_order(site):
    site.image("a.jpg")
    with started(site.command("run-schedule", "--json")) as process:
        wait_until(lambda: process.poll() is not None or (
            site.state.exists() and site.coverage()["clean_current"] == 1), 90)
        status, out, err = end(process)
    result = json.loads(out)
    assert (status, err) == (143, "run-schedule: stopped by SIGTERM\n")
    assert result["job"] == "schedule"
    assert [(one["job"], one["started"]) for one in result["runs"]] == [
        ("definitions", 1), ("checks", 1), ("hits", 1)]
    assert result["runs"][0]["last_status"] == 0
    jobs = {one["job"]: one for one in site.run("store-status", "--json").json["jobs"]}
    assert {name: one["outcome"] for name, one in jobs.items()} == {
        "definitions": "done", "rescan": "done", "checks": "done", "hits": "done"}
    assert not (site.root / "logs/schedule.log").exists()


def test_a_jobs_status_is_a_result_and_told_the_others_go_on(stage):
    there = stage(definitions="echo out; echo words >&2; exit 4", rescan=WAITS)
    with started(there.argv()) as process:
        assert process.stderr.readline() == b"words\n"
        assert process.stderr.readline() == b"run-schedule: definitions ended with status 4\n"
        there.until_up("rescan")
        assert process.poll() is None
        status, out, _ = end(process)
    assert (status, out) == (143, "")


def test_what_ends_well_or_found_another_at_work_is_not_spoken_of(stage):
    there = stage(definitions="echo up >>$0.said; exit 75", rescan="echo up >>$0.said")
    with started(there.argv("--json")) as process:
        there.until_up("definitions", "rescan")
        time.sleep(0.5)
        status, out, err = end(process, signal.SIGINT)
    assert (status, err) == (130, "run-schedule: stopped by SIGINT\n")
    ended = {one["job"]: one["last_status"] for one in json.loads(out)["runs"]}
    assert (ended["definitions"], ended["rescan"]) == (75, 0)


def test_a_job_gets_configuration_time_zone_and_loudness_and_no_secrets(stage, monkeypatch):
    there = stage(definitions='echo "$@" >$0.said; env >>$0.said; echo up >>$0.said')
    relative = os.path.relpath(there.site.config, "/")
    argv = [there.bin / "run-schedule", "-v", "--log-format", "json", "--config", relative]
    environment = {"PATH": "/usr/bin:/bin", "TZ": "Europe/Berlin", "TOKEN": "secret"}
    with subprocess.Popen(argv, cwd="/", env=environment, stderr=subprocess.PIPE) as process:
        there.until_up("definitions")
        process.terminate()
        lines = process.stderr.read().splitlines()
    said = (there.bin / "update-definitions.said").read_text()
    assert said.startswith("--json --log-format json --verbose --config "
                           f"{there.site.config}\n")
    assert "\nTZ=Europe/Berlin\n" in said
    assert "LC_ALL=C.UTF-8\n" in said
    assert "secret" not in said
    assert "definitions starts" in [json.loads(line)["message"] for line in lines]


def test_a_configuration_that_the_environment_names_relative_to_us_is_the_jobs_too(stage):
    there = stage(definitions='echo "$@" >$0.said; echo up >>$0.said')
    environment = {"PATH": "/usr/bin:/bin", "IMAGEWARDEN_CONFIG": there.site.config.name}
    with subprocess.Popen([there.bin / "run-schedule"], cwd=there.site.root,
                          env=environment) as process:
        there.until_up("definitions")
        process.terminate()
    assert there.said("definitions")[-3:] == ["--config", str(there.site.config), "up"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_end_it_tells_its_jobs_and_waits_for_them(stage, number):
    there = stage(definitions=WAITS, rescan=WAITS)
    with started(there.argv()) as process:
        there.until_up("definitions", "rescan")
        status, _, _ = end(process, number)
    assert status == 128 + number
    assert there.said("definitions") == there.said("rescan") == ["up", "term"]
    assert not there.running()


@pytest.mark.server
def test_a_job_that_does_not_listen_is_not_waited_for_for_ever(stage):
    there = stage(definitions=DEAF, rescan=DEAF)
    with started(there.argv()) as process:
        there.until_up("definitions", "rescan")
        begun = time.monotonic()
        assert end(process)[0] == 143
        assert time.monotonic() - begun < 10, "one after the other"
    assert not there.running()


@pytest.mark.server
def test_killed_outright_its_jobs_are_gone_within_ten_seconds(stage):
    there = stage(definitions=DEAF, rescan=LEAVES)
    with started(there.argv()) as process:
        there.until_up("definitions", "rescan")
        children = family(process.pid)
        process.kill()
        wait_until(lambda: not there.running() and not any(map(lives, children)), 10)


def test_what_a_job_leaves_running_goes_on_and_ends_with_us(stage):
    there = stage(definitions=LEAVES, rescan=WAITS)
    with started(there.argv()) as process:
        assert process.stderr.readline() == b"run-schedule: definitions ended with status 3\n"
        there.until_up("definitions", "rescan")
        time.sleep(1.5)  # rounds in which it might be cleared away
        assert lives(int(there.said("definitions")[1]))
        assert end(process)[0] == 143
    assert there.said("definitions")[2:] == ["term"]
    assert not there.running()


@pytest.mark.parametrize("fault", ["no such interpreter", "missing", "not executable"])
def test_a_script_that_cannot_be_started_ends_everything(stage, fault):
    there = stage(definitions=WAITS)
    script = there.bin / "rescan-store"
    if fault == "missing":
        script.unlink()
    elif fault == "not executable":
        script.chmod(0o644)
    else:
        script.write_text("#!/no/such/interpreter\n")
    ran = subprocess.run(there.argv(), capture_output=True, timeout=60, check=False)
    assert ran.returncode == 1
    *_, last = ran.stderr.decode().splitlines()
    assert last == (f"run-schedule: rescan: {script} " + (
        "cannot be started" if fault == "no such interpreter"
        else "is not there or cannot be started"))
    assert not there.running()


@pytest.mark.server
@pytest.mark.parametrize("victim", ["a job's", "a rescan's"])
def test_a_keeper_that_is_killed_ends_everything(stage, victim):
    there = stage(definitions=LEAVES if victim == "a rescan's" else DEAF, rescan=WAITS)
    with started(there.argv()) as process:
        there.until_up("definitions", "rescan")
        if victim == "a rescan's":
            assert process.stderr.readline().endswith(b"definitions ended with status 3\n")
        keepers = [pid for pid, parent in parents().items() if parent == process.pid]
        his = next(pid for pid in keepers if any(
            b"update-definitions" in Path(f"/proc/{child}/cmdline").read_bytes()
            for child in family(pid)))
        os.kill(his, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
    (line,) = ours(err.decode())
    assert f"(pid {his})" in line
    assert not there.running()


def test_an_error_of_its_own_ends_everything_with_one_line(stage):
    there = stage(definitions=WAITS, rescan=WAITS)
    broken = ("import sys; sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]\n"
              "from maintenance.jobs.timetable import Timetable\n"
              "from maintenance.shell.main import main\n"
              "import pathlib; tick = Timetable.tick\n"
              "def fails(self):\n"
              "    tick(self)\n"
              "    if len(list(pathlib.Path(sys.argv[0]).parent.glob('*.said'))) == 2:\n"
              "        raise RuntimeError('the clock stands still')\n"
              "Timetable.tick = fails\n"
              "sys.exit(main('run_schedule'))\n")
    python = BIN.parent / ".venv/bin/python3"
    ran = subprocess.run([python, "-Ic", broken, BIN.parent, *there.argv()], capture_output=True,
                         timeout=60, check=False, text=True)
    assert ran.returncode == 1
    assert ours(ran.stderr) == ["run-schedule: unexpected error: RuntimeError: the clock stands"
                                " still (its traceback: in the log, or with -v)"]
    assert there.said("definitions")[-1] == "term"
    assert not there.running()


def test_a_second_one_stands_back(stage):
    there = stage(definitions=WAITS)
    with started(there.argv()) as process:
        there.until_up("definitions")
        second = subprocess.run(there.argv("--json"), capture_output=True, timeout=60, check=False)
        assert (second.returncode, second.stderr) == (75, b"")
        assert json.loads(second.stdout)["outcome"] == "busy"
        end(process)
    assert there.said("definitions") == ["up", "term"]


def test_dry_run_starts_nothing(stage):
    there = stage(definitions=WAITS)
    there.site.settings["schedule"]["rescan"] = "05:30"
    there.site.write_config()
    ran = subprocess.run(there.argv("--dry-run"), capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0
    assert b"would start definitions every 1h\n" in ran.stderr
    assert b"would start rescan 05:30\n" in ran.stderr
    assert there.said("definitions") == []


@pytest.mark.may_skip("needs namespaces")
def test_as_the_first_process_of_a_container_it_reaps_every_zombie(stage):
    there = stage(definitions=WAITS)
    unshare = ["unshare", "-pf", "--kill-child", *([] if ROOT else [
        "-U", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"])]
    if subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("no PID namespaces here")
    with started([*unshare, *there.argv()]) as process:
        there.until_up("definitions")
        first = next(pid for pid, parent in parents().items() if parent == process.pid)
        enter = ["nsenter", "-t", str(first), "-p", *([] if ROOT else [
            "-U", "--preserve-credentials"])]
        gate = there.bin / "gate"
        orphan = f"while [ ! -e {gate} ]; do sleep 0.05; done &"
        subprocess.run([*enter, "sh", "-c", orphan * 3], check=True, timeout=30)
        wait_until(lambda: list(parents().values()).count(first) == 3 + 1)
        gate.touch()
        wait_until(lambda: list(parents().values()).count(first) == 1)
        os.kill(first, signal.SIGTERM)
        process.wait(30)
    assert there.said("definitions") == ["up", "term"]


def troupe_of(there, caplog):
    options = argparse.Namespace(log_format="text", verbose=False, quiet=False)
    context = SimpleNamespace(options=options, log=logging.getLogger("tested"),
                              script=there.bin / "run-schedule", config_path=None)
    return Troupe(context, ScheduleReport())


def test_a_job_that_still_runs_at_its_next_time_is_left_alone_and_that_is_said_once(
        stage, caplog):
    there = stage(definitions="echo up >>$0.said; while [ ! -e $0.end ]; do sleep 0.05; done")
    troupe = troupe_of(there, caplog)
    try:
        for _ in range(3):
            troupe.start("definitions")
        there.until_up("definitions")
        assert there.said("definitions") == ["up"]
        assert caplog.messages == ["definitions still runs at its next time: left alone"]
        (there.bin / "update-definitions.end").touch()
        wait_until(lambda: troupe.wait(0.1) or not troupe._running)
        (there.bin / "update-definitions.end").unlink()
        troupe.start("definitions")
        troupe.start("definitions")
        assert len(caplog.messages) == 2, "once in each of its runs"
    finally:
        troupe.close()


def test_a_child_that_cannot_be_reaped_is_a_failure(stage, caplog):
    there = stage(definitions=WAITS)
    troupe = troupe_of(there, caplog)
    troupe.start("definitions")
    there.until_up("definitions")
    os.kill(troupe._running["definitions"].pid, signal.SIGKILL)
    with pytest.raises(ToolError, match="definitions: its keeper"):
        troupe.wait(30)
    troupe.close()
    wait_until(lambda: not there.running())


@pytest.mark.server
@pytest.mark.may_skip("only root has privileges to drop")
@pytest.mark.skipif(not ROOT, reason="only root has privileges to drop")
def test_started_by_root_it_stays_root_and_all_that_is_written_is_the_users(site):
    reachable(site.root)
    site.top["user"] = "www-data"
    site.write_config()
    site.image("a.jpg")
    (site.store / "a.jpg").chmod(0o644)
    with started(site.command("run-schedule")) as process:
        wait_until(lambda: process.poll() is not None or (
            site.state.exists() and site.coverage()["clean_current"] == 1), 90)
        assert status_of(process.pid)["Uid"].split() == ["0"] * 4
        assert end(process)[0] == 143
    owners = {path.owner() for path in (site.state, *site.state.rglob("*"),
                                        *(site.root / "logs").iterdir())}
    assert owners == {"www-data"}


