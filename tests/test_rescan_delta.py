"""rescan-store after an update: unchanged images meet only what is new, with the same hits."""

import re
import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from maintenance.jobs.full_scans import ROUND, coming_round
from maintenance.ledger.rows import ImageRow
from maintenance.times import DAY
from maintenance.verdict import Verdict
from tests.processes import killed_at_every_step
from tests.site import BAD, LATER, body_signature, one_store, verdicts

pytestmark = [pytest.mark.server, pytest.mark.once]

OLD = body_signature("Test.Bad", BAD)
NEW = OLD + body_signature("Test.Later", LATER)


@pytest.fixture
def checked(site):
    """A site whose images were checked by the older definitions."""
    site.image("a.jpg")
    site.image("sub/later.jpg", b"before " + LATER)
    site.update()
    assert site.rescan()[0] == 0
    return site


def counts(result):
    store = one_store(result)
    return store["full"], store["delta"], store["current"], store["left"]


def found(result):
    return {one["path"]: one["signature"] for one in result["infected"]}


def update(site, lines=NEW):
    site.feed(lines)
    return site.update()


def full_checked(site, days):
    """Let the last full scan of every image be so long ago."""
    with closing(sqlite3.connect(site.state / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE images SET full_checked = full_checked - 86400 * ?", (days,))
        ledger.commit()


def test_what_was_clean_meets_only_what_is_new(checked):
    generation = update(checked)["generation"]
    checked.image("new.jpg", BAD)
    status, result = checked.rescan()
    assert (status, counts(result), result["canary"]) == (4, (1, 2, 0, 0), True)
    assert found(result) == {"new.jpg": "Test.Bad.UNOFFICIAL",
                             "sub/later.jpg": "Test.Later.UNOFFICIAL"}
    assert result["full_reasons"] == {"new or changed": 1}
    assert {row[4] for row in verdicts(checked)} == {generation}
    assert counts(checked.rescan()[1]) == (0, 0, 3, 0)


def test_without_anything_new_no_engine_is_started_at_all(checked):
    update(checked)
    checked.rescan()
    (checked.store / "sub/later.jpg").unlink()
    checked.rescan()
    update(checked, OLD)
    status, result = checked.rescan()
    assert (status, counts(result), result["canary"]) == (0, (0, 1, 0, 0), None)
    assert (result["full_reasons"], result["bytes"]) == ({}, 0)


def test_what_is_infected_is_so_still_by_its_signature_and_else_is_asked_in_full(checked):
    update(checked)
    checked.rescan()
    update(checked, NEW + body_signature("Test.More", LATER * 2))
    status, result = checked.rescan()
    assert (status, counts(result)) == (4, (0, 2, 0, 0))
    assert found(result) == {"sub/later.jpg": "Test.Later.UNOFFICIAL"}
    update(checked, OLD)
    status, result = checked.rescan()
    assert (status, counts(result)) == (0, (1, 1, 0, 0))
    assert result["full_reasons"] == {"infected before": 1}


def test_an_image_that_changed_is_scanned_in_full_also_when_it_changes_after_the_walk(checked):
    checked.image("a.jpg", BAD)
    update(checked)
    status, result = checked.rescan()
    assert (status, counts(result)) == (4, (1, 1, 0, 0))
    assert found(result)["a.jpg"] == "Test.Bad.UNOFFICIAL"


def test_images_of_several_generations_each_meet_what_is_new_to_them(checked):
    update(checked)
    third = NEW + body_signature("Test.Third", b"clean enough")
    assert checked.rescan(checked.store / "sub/later.jpg")[0] == 4
    update(checked, third)
    ended = checked.run("rescan-store", "--json", "-v")
    assert counts(ended.json) == (0, 2, 0, 0)
    assert found(ended.json) == {"a.jpg": "Test.Third.UNOFFICIAL",
                                 "sub/later.jpg": "Test.Later.UNOFFICIAL"}
    assert re.findall(r"since generation (\d) (\d) signatures are new", ended.err) == [
        ("2", "1"), ("1", "2")]


def test_an_exception_that_ended_needs_a_full_scan_and_one_that_is_new_does_not(checked):
    quiet = checked.databases / "ours.ign2"
    quiet.write_text("Test.Later\n")
    update(checked)
    status, result = checked.rescan()
    assert (status, counts(result)) == (0, (0, 2, 0, 0)), "excepted as a full scan would"
    quiet.unlink()
    checked.update()
    status, result = checked.rescan()
    assert (status, counts(result)) == (4, (2, 0, 0, 0))
    assert result["full_reasons"] == {"an exception ended (.ign2)": 2}


def test_full_means_everything(checked):
    update(checked)
    _, result = checked.rescan("--full")
    assert (counts(result), result["full_reasons"]) == ((2, 0, 0, 0), {"asked for (--full)": 2})


@pytest.mark.parametrize("damage", ["gone", "cut", "salted"])
def test_without_the_facts_of_then_everything_is_scanned_in_full(checked, damage):
    facts = checked.state / "facts"
    if damage == "gone":
        shutil.rmtree(facts)
    for path in facts.glob("*"):
        content = path.read_bytes()
        path.write_bytes(content[:-3] if damage == "cut" else content[:20] + b"\0" + content[21:])
    update(checked)
    status, result = checked.rescan()
    assert (status, counts(result)) == (4, (2, 0, 0, 0))
    assert result["full_reasons"] == {"the facts about its definitions are gone": 2}
    update(checked, NEW + "Test.More:0:*:00112233445566778899aabb\n")
    assert counts(checked.rescan()[1]) == (0, 2, 0, 0), "they are there again"


def test_a_bad_third_party_file_fails_the_run_by_name_and_nothing_becomes_clean(checked):
    before = verdicts(checked)
    (checked.databases / "third.ldb").write_text("Test.Broken;Engine:81-255,Target:0;0&1;zz\n")
    ended = checked.run("rescan-store", "--json")
    assert (ended.status, counts(ended.json)) == (1, (0, 0, 0, 2))
    assert "third.ldb" in ended.json["error"], ended
    assert verdicts(checked) == before


def test_facts_are_kept_for_generations_in_use_only(checked):
    update(checked)
    checked.rescan()
    update(checked, NEW + body_signature("Test.More", LATER * 2))
    checked.rescan()
    checked.rescan("--full")
    update(checked, NEW + body_signature("Test.Most", LATER * 3))
    checked.rescan()
    assert len(list((checked.state / "facts").glob("*.facts"))) == 1


# --- full scans that come round


def test_every_image_meets_all_definitions_before_the_time_is_up(checked):
    full_checked(checked, 31)
    status, result = checked.rescan()
    assert (status, counts(result)) == (0, (2, 0, 0, 0))
    assert result["full_reasons"] == {ROUND: 2}
    assert counts(checked.rescan()[1]) == (0, 0, 2, 0), "once"
    full_checked(checked, 31)
    update(checked)
    status, result = checked.rescan()
    assert (status, counts(result), result["full_reasons"]) == (4, (2, 0, 0, 0), {ROUND: 2})


def test_a_delta_scan_is_no_full_one(checked):
    full_checked(checked, 10)
    update(checked)
    assert counts(checked.rescan()[1]) == (0, 2, 0, 0)
    full_checked(checked, 21)
    assert counts(checked.rescan()[1])[0] == 1, "the infected one is due by other rules"


def test_outside_its_window_what_is_clean_has_time_and_what_is_new_has_not(checked):
    hour = time.localtime().tm_hour
    checked.settings["rescan"] = {"window": f"{(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00"}
    checked.write_config()
    shutil.rmtree(checked.state / "facts")
    full_checked(checked, 31)
    update(checked)
    checked.image("new.jpg", BAD)
    status, result = checked.rescan()
    assert (status, counts(result)) == (4, (1, 0, 0, 2))
    assert found(result) == {"new.jpg": "Test.Bad.UNOFFICIAL"}
    _, result = checked.rescan()
    assert (counts(result), result["canary"]) == ((0, 0, 1, 2), None), "and starts no engine"
    checked.settings["rescan"] = {"window": f"{hour:02}:00-{(hour + 2) % 24:02}:00"}
    checked.write_config()
    assert counts(checked.rescan()[1]) == (2, 0, 1, 0)


def row(inode, size, full):
    return ImageRow(b"a", (inode, size, 0, 0), Verdict.CLEAN, None, None, 1, full, full,
                    missing=False)


@pytest.mark.parametrize("every", [3600.0, 2 * DAY, 30 * DAY])
def test_full_scans_come_round_in_time_and_not_all_in_one_night(every):
    now = time.time()
    images = [(100_000 + 7 * one, 40_000 + 977 * one) for one in range(2000)]
    rolling = coming_round(every, now)
    due = [sum(rolling.has_come(row(*image, rolling.today - age * rolling.span))
               for image in images) for age in (0.5, 0.6, 0.75, 0.9, 1.0)]
    assert (due[0], due[-1]) == (0, 2000)
    assert [round(one / 2000, 1) for one in due] == [0, 0.2, 0.5, 0.8, 1]
    assert all(rolling.has_come(row(*image, now - every)) for image in images)
    assert rolling.has_come(row(1, 1, None)), "as ledgers of before have it"
    assert coming_round(0, now) is None


# --- other engines, and ends


def test_beside_a_clamd_of_the_system_a_small_one_of_ours_is_asked(checked):
    checked.settings["clamav"]["engine"] = "system"
    checked.write_config()
    with checked.clamd():
        checked.update()
        assert counts(checked.rescan()[1]) == (2, 0, 0, 0), "another engine"
        update(checked)
        status, result = checked.rescan()
        assert (status, counts(result)) == (4, (0, 2, 0, 0))
        assert found(result) == {"sub/later.jpg": "Test.Later.UNOFFICIAL"}
    with checked.clamd(DetectPUA="yes"):
        update(checked, NEW + body_signature("Test.More", LATER * 2))
        status, result = checked.rescan()
        assert (status, result["full_reasons"]) == (4, {
            "the system's clamd has DetectPUA on": 1, "infected before": 1})


def test_the_time_that_was_saved_is_told(checked):
    for number in range(100):
        checked.image(f"{number}.jpg", b"%d" % number)
    assert checked.rescan()[1]["seconds_saved"] is None
    update(checked)
    _, result = checked.rescan()
    assert counts(result) == (0, 102, 0, 0)
    assert result["seconds_delta"] > 0
    assert isinstance(result["seconds_saved"], float)


@pytest.mark.long
def test_killed_at_every_file_operation_the_next_run_comes_to_the_same(site, tmp_path_factory):
    site.image("a.jpg")
    site.image("later.jpg", LATER)
    site.update()
    site.rescan()
    update(site)
    steps = killed_at_every_step(site, tmp_path_factory.mktemp("copies"), "rescan-store")
    assert len(steps) > 40
    for one in steps:
        assert (one["status"], found(one["result"])) == (
            4, {"later.jpg": "Test.Later.UNOFFICIAL"}), one["where"]
