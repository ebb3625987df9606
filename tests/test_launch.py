"""The way from a script in bin/ to its job: real scripts, real environments, real exec."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for path in (ROOT / "bin").iterdir())
SCRIPT = '''\
#!/usr/bin/python3 -I
"""One line saying what it does; see --help."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from maintenance.launch import launch  # noqa: E402

launch("rescan")
'''
# Stands where the shell common to all jobs does, and tells what reached it.
MAIN = """\
import json, os, signal, sys
def main(job):
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    print(json.dumps([job, sys.prefix, sys.argv, sys.path[0], sys.flags.isolated, blocked]))
    return 4
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with nothing in it."""
    place = tmp_path_factory.mktemp("venv") / ".venv"
    venv.create(place, symlinks=True)
    return place


@pytest.fixture
def checkout(tmp_path, environment):
    """A checkout that is set up, with one script; its path has a space in it."""
    place = tmp_path / "a checkout"
    (place / "bin").mkdir(parents=True)
    (place / "maintenance/shell").mkdir(parents=True)
    for name in ("__init__.py", "launch.py"):
        shutil.copy(ROOT / "maintenance" / name, place / "maintenance")
    (place / "maintenance/shell/__init__.py").touch()
    (place / "maintenance/shell/main.py").write_text(MAIN)
    script = place / "bin/rescan-store"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (place / "requirements.lock").write_text("nothing==1\n")
    shutil.copytree(environment, place / ".venv", symlinks=True)
    digest = hashlib.sha256((place / "requirements.lock").read_bytes()).hexdigest()
    (place / ".venv/lock.sha256").write_text(digest + "\n")
    return place


def run(script, *arguments, **how):
    """Run a script the way cron does: from / and with an empty environment."""
    return subprocess.run([script, *arguments], cwd="/", env={}, capture_output=True,
                          text=True, check=False, **how)


def test_the_job_runs_in_the_environment_with_its_arguments_and_status(checkout):
    script = checkout / "bin/rescan-store"
    ran = run(script, "--full", "an image", "ü")
    assert ran.stderr == ""
    assert json.loads(ran.stdout) == [
        "rescan", str(checkout / ".venv"), [str(script), "--full", "an image", "ü"],
        str(checkout), 1, False]
    assert ran.returncode == 4


def test_a_chain_of_symlinks_leads_to_the_checkout(checkout, tmp_path):
    (tmp_path / "one").symlink_to(checkout / "bin/rescan-store")
    (tmp_path / "two").symlink_to("one")
    ran = run(tmp_path / "two")
    assert json.loads(ran.stdout)[2] == [str(checkout / "bin/rescan-store")]


def test_it_runs_from_a_relative_path(checkout):
    ran = subprocess.run(["./rescan-store"], cwd=checkout / "bin", env={}, check=False)
    assert ran.returncode == 4


def test_modules_lying_about_are_not_imported(checkout, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    ran = subprocess.run([checkout / "bin/rescan-store"], cwd=tmp_path, check=False,
                         env={"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert ran.returncode == 4


def one_line(ran):
    """Return the one line that a script which cannot start says."""
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    return ran.stderr


def test_without_set_up_one_line_says_what_to_run(checkout):
    shutil.rmtree(checkout / ".venv")
    assert one_line(run(checkout / "bin/rescan-store")) == (
        f"imagewarden is not set up here: run {checkout}/bin/setup\n")


def test_a_half_made_environment_is_not_set_up(checkout):
    (checkout / ".venv/lock.sha256").unlink()
    assert "not set up here" in one_line(run(checkout / "bin/rescan-store"))


def test_a_changed_lock_file_asks_for_set_up(checkout):
    (checkout / "requirements.lock").write_text("nothing==2\n")
    assert one_line(run(checkout / "bin/rescan-store")) == (
        f"set-up is out of date: run {checkout}/bin/setup\n")


def test_an_interpreter_that_went_away_asks_for_set_up(checkout):
    (checkout / ".venv/bin/python3").unlink()
    (checkout / ".venv/bin/python3").symlink_to("/nonexistent/python3")
    assert "set-up is out of date" in one_line(run(checkout / "bin/rescan-store"))


def test_a_missing_package_asks_for_set_up(checkout):
    (checkout / "maintenance/shell/main.py").write_text("import no_such_package\n")
    assert "set-up is out of date" in one_line(run(checkout / "bin/rescan-store"))


def test_a_missing_module_of_our_own_is_shown_as_the_bug_it_is(checkout):
    (checkout / "maintenance/shell/main.py").write_text("import maintenance.forgotten\n")
    ran = run(checkout / "bin/rescan-store")
    assert ran.returncode == 1
    assert "maintenance.forgotten" in ran.stderr.splitlines()[-1]


def interrupt_myself():
    """Have Ctrl-C pressed before the process has started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_before_the_job_shows_no_traceback(checkout):
    ran = run(checkout / "bin/rescan-store", preexec_fn=interrupt_myself)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_ctrl_c_between_the_two_interpreters_shows_no_traceback(checkout):
    python = checkout / ".venv/bin/python3"
    python.rename(python.with_name("real"))
    python.write_text('#!/bin/sh\nkill -INT $$\nexec "${0%/*}/real" "$@"\n')
    python.chmod(0o755)
    ran = run(checkout / "bin/rescan-store")
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_ctrl_c_while_the_job_is_imported_shows_no_traceback(checkout):
    (checkout / "maintenance/shell/main.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = run(checkout / "bin/rescan-store")
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_thin_and_name_a_module_that_exists(script):
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/python3 -I\n")
    assert len(text.splitlines()) <= 15
    tree = ast.parse(text)
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id == "launch":
            job, *program = map(ast.literal_eval, call.args)
            modules.add(f"maintenance.{program[0]}" if program else f"maintenance.jobs.{job}")
    assert modules
    assert all((ROOT / (module.replace(".", "/") + ".py")).is_file() for module in modules)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_answer_version_and_help_from_anywhere(script):
    for option in ("--version", "--help"):
        ran = run(script, option)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout


def test_what_an_old_python_reads_it_can_read():
    files = [ROOT / "maintenance/__init__.py", ROOT / "maintenance/errors.py",
             ROOT / "maintenance/launch.py", *(ROOT / "maintenance/provision").glob("*.py"),
             *SCRIPTS]
    for file in files:
        ast.parse(file.read_text(), str(file), feature_version=(3, 8))


def test_the_first_pass_imports_little():
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import maintenance.launch; "
            "print(*sys.modules)")
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True,
                         check=True)
    assert not {"subprocess", "pathlib", "typing", "re"} & set(ran.stdout.split())
