"""A clamd that serves others too: proven, reloaded, and never believed blindly."""

import subprocess

import pytest

from tests.site import BAD, LATER, body_signature

pytestmark = pytest.mark.server


def use_system(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()


def test_an_update_is_proven_to_be_loaded_and_a_rescan_books_it(site):
    use_system(site)
    site.image("bad.jpg", BAD)
    site.image("later.jpg", LATER)
    first = site.run("update-definitions", "--no-rescan", "--json")
    assert first.status == 1, "nothing answers at the socket yet"
    assert first.json["engine"] == "unproven"
    with site.clamd():
        assert site.update()["engine"] == "reloaded"
        status, result = site.rescan()
        assert (status, result["infected_total"]) == (4, 1)
        site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
        assert site.update()["engine"] == "reloaded"
        status, result = site.rescan()
        assert (status, result["infected_total"]) == (4, 2)


def test_an_engine_that_has_not_loaded_what_is_on_disk_is_not_used(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        (site.databases / "more.ndb").write_text(body_signature("Test.More", b"by hand copied"))
        ended = site.run("rescan-store", "--json")
        assert ended.status == 1
        assert "not proven" in ended.json["error"]
        assert ended.json["stores"][0]["clean"] == 0
        assert site.update()["engine"] == "reloaded"
        assert site.rescan()[0] == 0


def test_a_reload_that_fails_is_an_alarm_and_nothing_is_booked(site):
    use_system(site)
    site.image("a.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(ConcurrentDatabaseReload="yes"):
        site.update()
        (site.databases / "broken.ldb").write_text("not a signature\n")
        ended = site.run("update-definitions", "--no-rescan", "--json", timeout=120)
        assert (ended.status, ended.json["engine"]) == (1, "unproven")
        assert site.rescan()[0] == 1
        assert site.coverage()["clean_current"] == 0


@pytest.mark.parametrize("alert", ["no", "yes"])
def test_what_is_over_a_limit_of_the_engine_is_unknown_and_stays_whatever_the_action(site, alert):
    use_system(site)
    for name, size in (("at", 2**20), ("over", 2**20 + 1), ("twice", 2**21)):
        site.image(f"{name}.jpg", bytes(size - len(BAD)) + BAD)
    site.image("below.jpg", bytes(2**20 - 1 - len(BAD)) + BAD)
    site.image("small.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(AlertExceedsMax=alert, MaxFileSize="1M"):
        site.update()
        for paths in ((), (site.store,)):
            status, result = site.rescan("--action", "quarantine", *paths)
            assert status == (3 if paths else 4)
            assert result.get("limits") == ("hidden" if alert == "no" else None)
            taken = {"below.jpg"} if alert == "no" else {"below.jpg", "at.jpg"}
            assert {one["path"] for one in result["infected"]} == (set() if paths else taken)
            left = {"at.jpg", "over.jpg", "twice.jpg"} - taken
            assert {one["path"] for one in result["undone"]} == left
            assert {path.name for path in site.store.iterdir()} == left | {"small.jpg"}
    known = site.coverage()
    assert (known["unknown"], known["clean_current"], known["infected"]) == (len(left), 1, 0)


def test_an_image_on_which_some_signatures_are_not_tried_is_unknown_though_clamd_says_ok(site):
    use_system(site)
    pattern = b"only a regular expression finds"
    for name, size in (("at", 2**20), ("over", 2**20 + 1)):
        site.image(f"{name}.jpg", pattern + b"  this" + bytes(size - len(pattern) - 6))
    site.run("update-definitions", "--no-rescan")
    (site.databases / "more.ldb").write_text(
        f"Test.Pcre;Engine:81-255,Target:0;0&1;{pattern.hex()};0/finds +this/\n")
    with site.clamd(PCREMaxFileSize="1M"):
        site.update()
        assert subprocess.run(["clamdscan", "--fdpass", "-c", site.root / "clamd.conf",
                               site.store / "over.jpg"], capture_output=True,
                              check=False).returncode == 0, "this is how clamd hides it"
        status, result = site.rescan()
    assert (status, [one["path"] for one in result["infected"]]) == (4, ["at.jpg"])
    assert [one["path"] for one in result["undone"]] == ["over.jpg"]
