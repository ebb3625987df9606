"""A clamd that serves others too: proven, reloaded, and never believed blindly."""

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


def test_what_is_over_a_hidden_limit_is_unknown_not_clean(site):
    use_system(site)
    site.image("large.jpg", bytes(3_000_000) + BAD)
    site.image("small.jpg")
    site.run("update-definitions", "--no-rescan")
    with site.clamd(AlertExceedsMax="no", MaxFileSize="1M"):
        site.update()
        status, result = site.rescan()
        assert status == 3
        assert result["limits"] == "hidden"
        assert result["undone"][0]["path"] == "large.jpg"
        assert result["stores"][0]["unknown"] == 1
