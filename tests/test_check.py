"""What bin/check makes of its tools' answers, and the rule about skipped tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maintenance.errors import ToolError
from maintenance.provision.audit import judge
from maintenance.provision.check import passed, suites
from maintenance.provision.children import Child
from maintenance.provision.suites import Suite
from tests.processes import lives
from tests.site import wait_until

ROOT = Path(__file__).resolve().parents[1]


def report(*packages):
    """Return what pip-audit writes."""
    return json.dumps({"dependencies": packages, "fixes": []})


SOUND = {"name": "sound", "version": "1", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}
HOLED = {"name": "holed", "version": "2", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}


def test_a_known_vulnerability_fails_whatever_else_could_not_be_audited():
    with pytest.raises(ToolError, match=r"holed 2: CVE-1, CVE-2"):
        judge(report(SOUND, UNKNOWN, HOLED))


def test_packages_that_could_not_be_audited_are_counted_and_named():
    assert judge(report(SOUND, SOUND)) == "1 of 1 packages audited"
    assert judge(report(SOUND, UNKNOWN)) == (
        "WARNING: only 1 of 2 packages audited; PyPI does not know the rest: unknown")


@pytest.mark.parametrize("extent", ["fast", "default", "long"])
def test_every_check_by_root_has_an_unprivileged_run_and_one_in_the_c_locale(extent):
    rest, costly, again = suites(extent, root=True)
    assert (rest.unprivileged, costly.unprivileged, again.unprivileged) == (False, False, True)
    assert again.locale == "C"
    assert again.marked == rest.marked
    assert rest.marked == costly.marked.removesuffix("once") + "not once"


@pytest.mark.parametrize("extent", ["fast", "default", "long"])
def test_a_plain_users_only_run_leaves_nothing_to_another(extent):
    (run,) = suites(extent, root=False)
    assert "once" not in run.marked


def test_a_run_beside_the_first_is_shown_when_it_ended_and_fails_by_its_status(tmp_path):
    with (tmp_path / "said").open("w+") as said, (tmp_path / "out").open("w+") as out:
        with Child(["sh", "-c", "echo two tests; exit 3"], said) as child, pytest.raises(
                ToolError, match="tests as nobody, LC_ALL=C failed with status 3"):
            passed(Suite("", "C", unprivileged=True), child, said, out)
        assert (tmp_path / "out").read_text() == "two tests\n"
        with Child(["true"], said) as child:
            passed(Suite(""), child)


def test_a_run_that_is_left_behind_ends(tmp_path):
    with (tmp_path / "said").open("w+") as said:
        with Child(["sh", "-c", "echo $$; exec sleep 60"], said):
            wait_until(lambda: (tmp_path / "said").read_text().endswith("\n"))
        assert not lives(int((tmp_path / "said").read_text()))


RULES = "from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport\n"
TESTS = """
import pytest
def test_passes(): pass
@pytest.mark.may_skip("only root can")
def test_may(): pytest.skip("not root")
@pytest.mark.xfail
def test_expected(): assert False
def test_skips(): pytest.skip("tool missing")
@pytest.mark.skipif(True, reason="never")
def test_never(): pass
"""


@pytest.mark.parametrize(("ci", "outcomes"), [
    ("", {"skipped": 3}), ("true", {"failed": 1, "error": 1, "skipped": 1})])
def test_under_ci_a_skip_is_a_failure_unless_it_is_allowed(tmp_path, ci, outcomes):
    (tmp_path / "conftest.py").write_text(RULES)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = may_skip(reason): allowed\n")
    assert counts(tmp_path, ci) == {"passed": 1, "xfailed": 1} | outcomes


def test_under_ci_a_module_that_skips_itself_fails_the_run(tmp_path):
    (tmp_path / "conftest.py").write_text(RULES)
    (tmp_path / "test_it.py").write_text(
        "import pytest\npytest.importorskip('no_such')\ndef test_it(): pass\n")
    assert counts(tmp_path, "true") == {"error": 1}


def counts(directory, ci):
    """Run pytest there and return the numbers of its closing line."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", directory],
        cwd=directory, env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False)
    closing = ran.stdout.splitlines()[-1].partition(" in ")[0]
    return {what: int(number) for number, what in
            (part.split() for part in closing.split(", "))}
