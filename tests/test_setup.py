"""bin/setup with the real dpkg-query, apt-get, venv and pip.

What is installed and what the package sources hold is theirs to find out, from
databases and indexes made for the test; no network and no root are needed.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from maintenance.errors import ToolError
from maintenance.provision import packages
from maintenance.provision.console import Console
from maintenance.provision.interpreter import Interpreter, choose

pytestmark = [pytest.mark.server, pytest.mark.once]
ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
SYSTEM = choose()
NEEDED = [*packages.RUNTIME, *SYSTEM.venv_package]


@pytest.fixture
def place():
    """A directory that every user can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def checkout(place):
    """A checkout without an environment, whose lock file names one package of our own."""
    copy = place / "a checkout"
    copy.mkdir()
    shutil.copytree(ROOT / "bin", copy / "bin")
    shutil.copytree(ROOT / "maintenance", copy / "maintenance",
                    ignore=shutil.ignore_patterns("__pycache__"))
    lock(copy, "1.0")
    return copy


def lock(checkout, version):
    """Make a wheel called msgspec, which set-up tries an environment with, and lock it."""
    index = checkout.parent / "index"
    index.mkdir(exist_ok=True)
    wheel = index / f"msgspec-{version}-py3-none-any.whl"
    info = f"msgspec-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("msgspec.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA",
                         f"Metadata-Version: 2.1\nName: msgspec\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL",
                         "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (checkout / "requirements.lock").write_text(f"msgspec=={version} --hash=sha256:{digest}\n")


def dpkg(place, installed):
    """Make a database for the real dpkg-query; return the variable that names it."""
    database = place / "dpkg"
    (database / "info").mkdir(parents=True, exist_ok=True)
    (database / "updates").mkdir(exist_ok=True)
    (database / "status").write_text("".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
        f"Maintainer: nobody\nDescription: made for a test\n\n" for name in ["base", *installed]))
    return {"DPKG_ADMINDIR": str(database)}


def setup(checkout, *arguments, environment, user=None):
    """Run bin/setup with an empty environment but for what the test gives."""
    return subprocess.run(
        [checkout / "bin/setup", *arguments], cwd="/", capture_output=True, text=True, check=False,
        env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (checkout.parent / "index").as_uri(),
             "PIP_CONFIG_FILE": "/dev/null", **environment},
        **({} if user is None else {"user": user, "group": user, "extra_groups": ()}))


def tree(directory):
    """Return everything in a directory, but what Python itself caches."""
    return {(str(path), path.stat().st_mtime_ns) for path in directory.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_a_plain_user_is_given_one_line_to_ask_an_administrator_for(checkout, place):
    user = NOBODY if os.geteuid() == 0 else None
    ran = setup(checkout, environment=dpkg(place, ["optipng"]), user=user)
    lacking = " ".join(name for name in NEEDED if name != "optipng")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.endswith(f"sudo apt-get install --no-install-recommends {lacking}\n")
    assert not (checkout / ".venv").exists()


def test_half_configured_counts_as_missing(place, monkeypatch):
    monkeypatch.setenv(*dpkg(place, ["clamav", "optipng"]).popitem())
    status = place / "dpkg/status"
    status.write_text(status.read_text().replace("ok installed", "ok half-configured", 2))
    assert packages.missing(["clamav", "optipng"]) == ["clamav"]


def test_a_package_that_apt_does_not_know_goes_by_its_older_name(place, monkeypatch):
    monkeypatch.setenv(*dpkg(place, ["clamav"]).popitem())
    for name in ("no-such-package", "optipng"):
        monkeypatch.setitem(packages.BEFORE, name, "clamav")
    assert packages.missing(["no-such-package", "optipng"]) == ["optipng"]
    assert packages.command(["no-such-package", "optipng"]).endswith(" clamav optipng")


def test_a_dry_run_says_what_it_would_do_and_does_nothing(checkout, place):
    installed = NEEDED[:-1] if os.geteuid() == 0 else NEEDED
    before, environment = tree(place), dpkg(place, installed)
    before |= tree(place / "dpkg")
    ran = setup(checkout, "--dry-run", environment=environment)
    assert ran.returncode == 0
    assert f"would make {checkout}/.venv with {SYSTEM.path}" in ran.stderr
    assert (f"would run: {packages.command(NEEDED[-1:])}" in ran.stderr) == (os.geteuid() == 0)
    assert tree(place) == before


def test_set_up_builds_once_and_repairs_what_is_broken(checkout, place):
    environment, venv = dpkg(place, NEEDED), checkout / ".venv"

    def changed():
        ran = setup(checkout, "--json", environment=environment)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert (venv / "lock.sha256").read_text().strip() == hashlib.sha256(
            (checkout / "requirements.lock").read_bytes()).hexdigest()
        return json.loads(ran.stdout)["changed"]

    before = os.umask(0o077)
    try:
        assert changed()
    finally:
        os.umask(before)
    module = next(venv.glob("lib/python3*/site-packages/msgspec.py"))
    for path in (venv, venv / "lock.sha256", module):
        assert path.stat().st_mode & stat.S_IROTH
    assert not changed()
    (venv / "bin/python3").unlink()
    (venv / "bin/python3").symlink_to("/nonexistent/python3")
    assert changed()
    (venv / "lock.sha256").unlink()  # killed before it was done
    (venv / "left-over").touch()
    lock(checkout, "2.0")
    assert changed()
    assert not (venv / "left-over").exists()
    assert not changed()


def test_without_a_network_it_fails_with_pips_own_words_and_no_stamp(checkout, place):
    shutil.rmtree(place / "index")
    ran = setup(checkout, environment=dpkg(place, NEEDED) | {
        "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("setup: python3 failed with status 1; all of it is in ")
    assert "No matching distribution found for msgspec==1.0" in ran.stderr
    assert not (checkout / ".venv/lock.sha256").exists()


def test_a_package_that_is_not_the_locked_one_is_refused(checkout, place):
    wheel = next((place / "index").iterdir())
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("planted.py", "")
    ran = setup(checkout, environment=dpkg(place, NEEDED))
    assert ran.returncode == 1
    assert "DO NOT MATCH THE HASHES" in ran.stderr


def test_a_requested_python_that_is_too_old_is_one_line(checkout, place):
    old = place / "python3.9"
    old.write_text("#!/bin/sh\necho 3 9\n")
    old.chmod(0o755)
    ran = setup(checkout, "--python", old, environment=dpkg(place, NEEDED))
    assert ran.returncode == 1
    assert ran.stderr == f"setup: {old} is Python 3.9; needed is 3.11 or newer\n"


def test_a_wrong_option_is_a_usage_error(checkout, place):
    assert setup(checkout, "--dry", environment=dpkg(place, NEEDED)).returncode == 2


def test_a_python_in_somebodys_home_is_not_for_every_user(place):
    home = place / "home"
    home.mkdir(mode=0o700)
    (home / "python3").symlink_to(sys.executable)
    (home / "copy").write_text("")
    (home / "copy").chmod(0o755)
    assert not Interpreter(str(home / "copy"), (3, 11)).shared
    home.chmod(0o755)
    assert Interpreter(str(home / "copy"), (3, 11)).shared


# --- real apt-get, with package sources that hold nothing


@pytest.fixture
def apt(place, monkeypatch):
    """An apt with directories of its own; returns a function that adds settings."""
    configuration = place / "apt.conf"
    for directory in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial",
                      "cache/archives/partial"):
        (place / directory).mkdir(parents=True)
    monkeypatch.setenv(*dpkg(place, []).popitem())
    monkeypatch.setenv("APT_CONFIG", str(configuration))

    def configure(*settings):
        configuration.write_text("\n".join([
            f'Dir::Etc "{place}/etc";', f'Dir::State "{place}/state";',
            f'Dir::State::status "{place}/dpkg/status";', f'Dir::Cache "{place}/cache";',
            'Debug::NoLocking "1";', 'APT::Sandbox::User "";', *settings, ""]))

    configure()
    return configure


def test_no_service_may_start_while_apt_works_and_a_failing_apt_leaves_nothing(apt, place):
    policy, seen = place / "policy-rc.d", place / "seen"
    apt(f'APT::Update::Pre-Invoke {{"{policy} clamav-daemon start; echo $? > {seen}";}};')
    with pytest.raises(ToolError, match="Unable to locate package no-such-package"):
        packages.install(["no-such-package"], Console("setup", log=place / "log"), policy)
    assert seen.read_text() == "101\n"
    assert not policy.exists()


def test_a_policy_of_the_system_itself_stays(apt, place):
    policy = place / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    with pytest.raises(ToolError):
        packages.install(["no-such-package"], Console("setup", log=place / "log"), policy)
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


DRIVER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from maintenance.provision import packages
from maintenance.provision.children import stoppable
from maintenance.provision.console import Console
with stoppable():
    packages.install(["x"], Console("setup", log=Path(sys.argv[2], "log")),
                     Path(sys.argv[2], "policy-rc.d"))
"""


@pytest.fixture
def installing(apt, place):
    """An installation that hangs in apt-get, and the process id of what hangs."""
    apt(f'APT::Update::Pre-Invoke {{"echo $$ > {place}/hung; exec sleep 300";}};')
    process = subprocess.Popen([sys.executable, "-I", "-c", DRIVER, ROOT, place])
    hung = place / "hung"
    wait_for(lambda: hung.exists() and hung.read_text().endswith("\n"))
    yield process, int(hung.read_text())
    process.kill()
    process.wait()


def wait_for(condition, seconds=10.0):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def dead(process):
    """Tell whether a process is gone, or only waits for its parent to notice."""
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it went while we read
        return True


@pytest.mark.parametrize("signal", [2, 15])
def test_stopped_it_takes_apt_and_the_policy_with_it(installing, place, signal):
    process, hung = installing
    assert (place / "policy-rc.d").exists()
    process.send_signal(signal)
    assert process.wait(10) == 128 + signal
    assert not (place / "policy-rc.d").exists()
    wait_for(lambda: dead(hung))


IMPATIENT = """
import os, signal, sys; sys.path.insert(0, sys.argv[1])
from maintenance.provision.children import stoppable
with stoppable():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        print("cleaned up")
"""


def test_a_second_ctrl_c_does_not_cut_the_clean_up_short():
    ran = subprocess.run([sys.executable, "-I", "-c", IMPATIENT, ROOT], capture_output=True,
                         text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "cleaned up\n", "")


def test_killed_outright_its_policy_forbids_nothing_and_the_next_run_removes_it(
        installing, apt, place):
    process, hung = installing
    policy = place / "policy-rc.d"
    assert subprocess.run([policy], check=False).returncode == 101
    process.kill()
    process.wait()
    wait_for(lambda: dead(hung))
    assert subprocess.run([policy], check=False).returncode == 0
    with packages.no_service_starts(policy):
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()
