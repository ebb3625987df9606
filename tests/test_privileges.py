"""Started by root, a job becomes its user before it reads anything. Only root can try."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import ENVIRONMENT, engines, reachable, started, status_of
from tests.site import BAD, BIN, wait_until
from tests.trappers import Trapper, takes

pytestmark = [pytest.mark.server, pytest.mark.may_skip("only root has privileges to drop"),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")]
USER = "www-data"


@pytest.fixture
def theirs(site):
    """A site whose jobs work as USER; its state and logs are still to be made."""
    reachable(site.root)
    site.top["user"] = USER
    site.write_config()
    return site


def owner(path):
    return pwd.getpwuid(path.stat().st_uid).pw_name


def ids(pid):
    status = status_of(pid)
    return status["Uid"].split(), status["Gid"].split(), status["Groups"].split()


def expected():
    entry = pwd.getpwnam(USER)
    groups = os.getgrouplist(USER, entry.pw_gid)
    return [str(entry.pw_uid)] * 4, [str(entry.pw_gid)] * 4, sorted(map(str, groups), key=int)


def test_a_running_job_and_its_engine_are_the_user_for_good(theirs):
    theirs.update()
    with started(theirs.command("rescan-store", "-")) as job:
        wait_until(lambda: engines(job.pid))
        for pid in (job.pid, *engines(job.pid)):
            assert ids(pid) == expected()
            assert int(status_of(pid)["CapEff"], 16) == 0
            assert int(status_of(pid)["CapPrm"], 16) == 0
        job.stdin.close()
        assert job.wait(30) == 0


def test_state_and_logs_are_made_for_the_user(theirs):
    theirs.image("bad.jpg", BAD)
    assert theirs.run("update-definitions", "--wait").status == 4
    made = [theirs.state, *theirs.state.rglob("*"), theirs.root / "logs",
            *(theirs.root / "logs").iterdir()]
    assert {owner(path) for path in made} == {USER}
    assert theirs.state.stat().st_mode & 0o777 == 0o700
    assert not [path for path in theirs.state.rglob("*") if path.stat().st_mode & 0o022]


def test_what_only_root_could_read_is_not_read(theirs):
    theirs.image("secret.jpg", BAD)
    (theirs.store / "secret.jpg").chmod(0o600)
    theirs.image("open.jpg")
    (theirs.store / "open.jpg").chmod(0o644)
    theirs.update()
    status, result = theirs.rescan()
    assert (status, result["infected_total"], result["stores"][0]["clean"]) == (3, 0, 1)
    assert result["undone"][0]["path"] == "secret.jpg"
    assert theirs.rescan(theirs.store / "secret.jpg")[0] == 3
    assert theirs.run("scan-upload", theirs.store / "secret.jpg").status == 1


@pytest.mark.parametrize("script", ["rescan-store", "update-definitions"])
def test_a_run_that_fails_before_it_becomes_the_user_leaves_nothing_of_roots(theirs, script):
    job = {"rescan-store": "rescan", "update-definitions": "definitions"}[script]
    (theirs.root / "logs").mkdir(mode=0o750)
    shutil.chown(theirs.root / "logs", USER)
    (theirs.root / f"logs/{job}.log").symlink_to("/etc/passwd")
    assert theirs.run(script).status == 1
    assert {owner(path) for path in theirs.state.rglob("*")} <= {USER}
    (theirs.root / f"logs/{job}.log").unlink()
    assert theirs.update()["outcome"] == "done"


def test_a_run_stopped_while_it_is_still_root_leaves_nothing_of_roots(theirs):
    with started(theirs.command("update-definitions", "--jitter", "1000d")) as job:
        lock = theirs.state / "locks/definitions.lock"
        wait_until(lambda: lock.exists() and str(job.pid) in lock.read_text())
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == 143
    assert (theirs.state / "ledger.sqlite").exists()
    assert {owner(path) for path in theirs.state.rglob("*")} == {USER}
    assert theirs.update()["outcome"] == "done"


def test_links_planted_by_the_user_lead_root_nowhere(theirs):
    target = theirs.root / "roots"
    target.write_text("roots")
    target.chmod(0o600)
    theirs.update()
    for place in (theirs.state / "locks/rescan.lock", theirs.root / "logs/rescan.log"):
        place.unlink(missing_ok=True)
        place.symlink_to(target)
        assert theirs.run("rescan-store").status == 1
        place.unlink()
    assert (target.read_text(), owner(target)) == ("roots", "root")


def test_freshclam_and_the_canary_work_as_the_owner_of_the_database_directory(theirs):
    directory = theirs.root / "databases"
    directory.mkdir(mode=0o755)
    shutil.chown(directory, "clamav")
    theirs.settings["clamav"] |= {"databases": str(directory), "engine": "system"}
    theirs.write_config()
    theirs.run("update-definitions", "--no-rescan")
    with theirs.clamd(DatabaseDirectory=str(directory)):
        assert theirs.update()["engine"] == "reloaded"
        assert {path.name for path in directory.iterdir()} >= {
            "test.ndb", "imagewarden-canary.hdb"}
        for path in directory.iterdir():
            assert owner(path) == "clamav"
        for name in ("test.ndb", "imagewarden-canary.hdb"):
            assert (directory / name).stat().st_mode & 0o777 == 0o644
        theirs.image("bad.jpg", BAD)
        (theirs.store / "bad.jpg").chmod(0o644)
        assert theirs.rescan()[0] == 4


def test_a_checkout_that_only_root_can_enter_works_after_the_drop(theirs, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    checkout = closed / "checkout"
    root = BIN.parent
    checkout.mkdir()
    for part in ("bin", "maintenance"):
        shutil.copytree(root / part, checkout / part,
                        ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "requirements.lock", checkout)
    subprocess.run(["cp", "-a", root / ".venv", checkout / ".venv"], check=True)
    theirs.image("bad.jpg", BAD)
    (theirs.store / "bad.jpg").chmod(0o644)
    with Trapper(takes) as server:
        theirs.settings["zabbix"] = {"servers": [f"localhost:{server.port}"]}
        theirs.write_config()
        for script, arguments, status in (
                ("update-definitions", ["--wait"], 4), ("rescan-store", ["--full"], 4),
                ("send-checks", [], 0), ("store-status", [], 0), ("doctor", [], 0),
                ("show-config", [], 0), ("scan-upload", [theirs.store / "bad.jpg"], 3)):
            ran = subprocess.run(
                [checkout / "bin" / script, *arguments, "--config", theirs.config],
                cwd="/", env=ENVIRONMENT, capture_output=True, check=False)
            assert ran.returncode == status, (script, ran)
            assert b"Traceback" not in ran.stderr
    assert [value["key"].partition("[")[2] for value in server.values] == [
        "rescan]", "definitions]", "rescan]", "", "", "", "", "checks]",
        "", "", "", ""]  # the last by doctor, to see whether they are taken


@pytest.mark.parametrize("fault", ["not root's", "in a directory of others"])
def test_a_configuration_that_others_could_change_is_not_roots(theirs, fault):
    if fault == "not root's":
        shutil.chown(theirs.config, USER)
    else:
        theirs.root.chmod(0o777)
    ended = theirs.run("rescan-store")
    assert (ended.status, ended.err.count("\n")) == (78, 1)
    assert not theirs.state.exists()
    assert Path(theirs.store).is_dir()
