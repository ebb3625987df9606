"""Rules for every test of this directory."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.site import Site
from tests.zabbix import Zabbix

# On a busy machine an example may take a second: that says nothing about the code.
settings.register_profile("patient", deadline=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

CI = bool(os.environ.get("CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a skipped test is a failed one: there everything it needs has to be there."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if CI and skipped and item.get_closest_marker("may_skip") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Hold a module that skips itself to the same rule."""
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a small site of our own, with its definitions still to be fetched."""
    return Site(tmp_path)


@pytest.fixture(scope="session")
def zabbix() -> Iterator[Zabbix]:
    """Return a real Zabbix, the same for all tests: ten seconds to start."""
    with Zabbix() as running:
        yield running
