"""Numbers, sizes and times as people read them."""

import pytest

from maintenance.jobs.coverage import table
from maintenance.times import ago, epoch
from maintenance.units import roughly

THEN = "2026-11-21T01:00:03Z"


@pytest.mark.parametrize(("seconds", "said"), [
    (0, "0 min ago"), (59, "0 min ago"), (60, "1 min ago"), (7199, "119 min ago"),
    (7200, "2 h ago"), (2 * 86400 - 1, "47 h ago"), (2 * 86400, "2 days ago"),
    (400 * 86400, "400 days ago"), (-1, "in the future")])
def test_a_time_says_how_long_ago_it_was(seconds, said):
    assert ago(THEN, epoch(THEN) + seconds) == f"2026-11-21 01:00 ({said})"


@pytest.mark.parametrize(("number", "said"), [
    (0, "0"), (1023, "1023"), (1024, "1.0K"), (10 * 1024 - 1, "10.0K"), (10 * 1024, "10K"),
    (340 * 2**30, "340G"), (3 * 2**39, "1.5T")])
def test_a_size_is_as_precise_as_it_is_of_use(number, said):
    assert roughly(number) == said


def test_a_table_groups_counts_but_no_versions_and_aligns_numbers_on_the_right():
    rows = [{"name": "daily", "version": 27815, "signatures": 2077234, "built": None},
            {"name": "x.ndb", "version": None, "signatures": 5, "built": None}]
    lines = table(rows, {"name": "database", "version": "version", "signatures": "signatures",
                         "built": "built"}).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["daily", "27815", "2,077,234", "-"], ["x.ndb", "-", "5", "-"]]
    assert lines[2].index("2,077,234") + 9 == lines[3].index(" 5 ") + 2
