"""What store-status, doctor and show-config tell, held against what was done."""

import json
import os
import socket

import pytest

from tests.processes import Namespace, hidden
from tests.site import BAD, LATER, body_signature
from tests.trappers import Trapper, lacks, refuses_all, takes

pytestmark = pytest.mark.server


def state(site, *arguments):
    ended = site.run("store-status", "--json", *arguments)
    assert ended.status == 0, ended
    return ended.json


def findings(site, status, wrap=()):
    """What doctor says, by check."""
    ended = site.run("doctor", "--json", wrap=wrap)
    assert ended.status == status, ended
    return {one["check"]: one for one in ended.json["checks"]}


def test_before_the_first_job_one_line_says_which_one_to_run(site):
    ended = site.run("store-status")
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "update-definitions" in ended.err
    assert not site.state.exists()


def test_an_unknown_store_is_wrong_usage_at_any_time(site):
    for _ in range(2):
        ended = site.run("store-status", "--store", "nope", "--json")
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
        site.update()


def test_before_the_first_rescan_nothing_counts_as_clean(site):
    site.image("a.jpg")
    site.update()
    store = state(site)["stores"][0]
    assert (store["images"], store["clean_current"], store["oldest_check"]) == (0, 0, None)


def test_coverage_follows_every_step(site):
    site.settings["clamav"]["max_file_size"] = "1K"
    site.write_config()
    site.image("a.jpg")
    site.image("later.jpg", LATER)
    site.image("bad.jpg", BAD)
    site.image("large.jpg", bytes(2000))
    site.update()
    site.rescan()
    told = state(site)
    store = told["stores"][0]
    assert [store[key] for key in ("images", "clean_current", "clean_older", "unknown",
                                   "infected", "never")] == [4, 2, 0, 1, 1, 0]
    assert store["bytes"] == 2000 + len(b"clean enough") + len(LATER) + len(BAD)
    assert store["oldest_check"].endswith("Z")
    assert told["definitions"]["generation"] == 1
    assert [(one["job"], one["outcome"]) for one in told["jobs"]] == [
        ("definitions", "done"), ("rescan", "infected")]
    assert told["outbox"] == {"waiting": 0, "set_aside": 0, "oldest": None}
    site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
    site.update()
    store = state(site)["stores"][0]
    assert (store["clean_current"], store["clean_older"], store["infected"]) == (0, 2, 1)
    site.rescan()
    store = state(site)["stores"][0]
    assert (store["clean_current"], store["clean_older"], store["infected"]) == (1, 0, 2)


def test_the_images_of_the_rescan_before_are_told(site):
    paths = [site.image(f"{at}.jpg") for at in range(4)]
    site.update()
    site.rescan()
    assert state(site)["stores"][0]["previous_images"] is None
    os.unlink(paths[0])
    site.rescan()
    site.rescan(paths[1])  # which says nothing of the whole store
    store = state(site)["stores"][0]
    assert (store["images"], store["previous_images"]) == (3, 4)


def test_a_failed_run_keeps_the_time_of_the_last_success(site):
    site.update()
    success = state(site)["jobs"][0]["last_success"]
    (site.root / "feed/test.ndb").unlink()
    assert site.run("update-definitions", "--no-rescan").status == 1
    job = state(site)["jobs"][0]
    assert (job["outcome"], job["last_success"]) == ("failed", success)


def test_the_table_says_the_same_as_the_object(site):
    site.image("a.jpg")
    site.update()
    site.rescan()
    lines = site.run("store-status").out.splitlines()
    row = next(line for line in lines if line.startswith("uploads"))
    store = state(site)["stores"][0]
    assert row.split() == ["uploads", *(str(store[key]) for key in (
        "images", "clean_current", "clean_older", "unknown", "infected", "quarantined",
        "never", "oldest_check"))]
    assert any(line.startswith("test.ndb") for line in lines)
    assert any(line.startswith("rescan") and "done" in line for line in lines)


def test_one_store_may_be_asked_for(site):
    site.update()
    text = site.config.read_text()
    site.config.write_text(text.replace(
        "[[store]]", f'[[store]]\nname = "other"\npath = "{site.root}/feed"\n[[store]]'))
    assert [one["name"] for one in state(site)["stores"]] == ["other", "uploads"]
    assert [one["name"] for one in state(site, "--store", "other")["stores"]] == ["other"]


# --- doctor


def test_a_healthy_site_is_green(site):
    site.update()
    with site.clamd():
        seen = findings(site, 0)
    assert {one["state"] for one in seen.values()} == {"ok"}, seen
    assert "ok" in site.run("doctor").out


@pytest.mark.parametrize(("program", "package"), [
    ("/usr/sbin/clamd", "clamav-daemon"), ("/usr/bin/freshclam", "clamav-freshclam"),
    ("/usr/bin/sigtool", "clamav")])
def test_a_missing_program_is_named_with_its_package(site, program, package):
    site.update()
    with hidden(program) as nowhere:
        seen = findings(site, 1, nowhere.wrap)[program.rpartition("/")[2]]
    assert (seen["state"], seen["repair"]) == ("failed", f"apt-get install {package}")


def test_each_broken_thing_is_found(site):
    seen = findings(site, 1)
    assert (seen["definitions"]["state"], seen["definitions"]["repair"]) == (
        "failed", "update-definitions")
    assert seen["uploads"]["state"] == "warning"
    site.update()
    assert findings(site, 0)["definitions"]["state"] == "ok"
    site.write_config(store={"marker": ".mounted"})
    assert "marker" in findings(site, 1)["store uploads"]["detail"]
    site.write_config(store={"path": "/no/such"})
    assert findings(site, 1)["store uploads"]["state"] == "failed"
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    assert findings(site, 1)["engine"]["state"] == "failed"
    with site.clamd():
        assert "update-definitions" in findings(site, 1)["engine"]["repair"]
        site.update()
        assert findings(site, 0)["engine"]["state"] == "ok"
    with site.clamd(AlertExceedsMax="no"):
        assert "AlertExceedsMax" in findings(site, 0)["engine"]["repair"]


@pytest.mark.parametrize(("wish", "with_it", "without"), [
    ("auto", "ok", "warning"), ("required", "ok", "failed"), ("off", "warning", "warning")])
def test_doctor_tries_the_cage_for_images(site, wish, with_it, without):
    site.settings["optimize"] = {"sandbox": wish}
    site.write_config()
    site.update()
    assert findings(site, 0)["sandbox"]["state"] == with_it
    with hidden("/usr/bin/bwrap") as nowhere:
        seen = findings(site, 1 if without == "failed" else 0, nowhere.wrap)["sandbox"]
    assert (seen["state"], bool(seen["repair"])) == (without, True)


@pytest.mark.parametrize(("peer", "state", "words"), [
    (takes, "ok", "takes what we send"), (refuses_all, "warning", 'takes 0 of 4 values of host "w'),
    (lacks("imagewarden.state"), "warning", "takes 3 of 4")])
def test_doctor_tells_whether_zabbix_takes_what_we_send(site, peer, state, words):
    with Trapper(peer) as server:
        site.settings["zabbix"] = {"servers": [server.address], "host": "web1"}
        site.write_config()
        assert findings(site, 1)["zabbix"]["detail"].endswith(" answers"), "there is nothing yet"
        assert server.values == []
        site.update()
        found = findings(site, 0)["zabbix"]
    assert (found["state"], words in found["detail"]) == (state, True), found
    assert ("linked to the template" in (found["repair"] or "")) is (state == "warning")
    assert [value["key"] for value in server.values[-4:]] == [
        "imagewarden.stores", "imagewarden.databases", "imagewarden.jobs", "imagewarden.state"]
    assert json.loads(server.values[-1]["value"])["stores"][0]["name"] == "uploads"


def test_doctor_asks_zabbix(site):
    assert findings(site, 1)["zabbix"]["detail"].startswith("off")
    site.update()
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    site.settings["zabbix"] = {"servers": [address]}
    site.write_config()
    assert findings(site, 0)["zabbix"]["state"] == "warning"
    site.settings["zabbix"] |= {"tls": "psk", "psk_identity": "who", "psk_file": "/no/such"}
    site.write_config()
    assert "/no/such" in findings(site, 1)["zabbix"]["detail"]
    with hidden("/usr/bin/zabbix_sender") as nowhere:
        found = findings(site, 1, nowhere.wrap)["zabbix"]
    assert found["repair"].startswith("apt-get install zabbix-sender")


def test_a_state_that_is_a_file_and_a_damaged_ledger_are_found(site):
    site.update()
    (site.state / "ledger.sqlite").write_bytes(b"nothing of a database" * 500)
    seen = findings(site, 1) if site.run("doctor").status else findings(site, 0)
    assert "ledger" in seen
    site.top["state"] = str(site.root / "file")
    (site.root / "file").write_text("")
    text = site.config.read_text().replace(str(site.state), str(site.root / "file"))
    site.config.write_text(text)
    assert findings(site, 1)["state"]["state"] == "failed"


def test_a_clamd_that_looks_elsewhere_than_our_definitions_go_is_found(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    elsewhere = site.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    with site.clamd(DatabaseDirectory=str(elsewhere)):
        seen = findings(site, 1)["databases"]
        assert (seen["state"], seen["repair"]) == ("failed", f'clamav.databases = "{elsewhere}"')
        assert str(site.databases) in seen["detail"]
        (site.root / "way").symlink_to(elsewhere)
        site.settings["clamav"]["databases"] = str(site.root / "way")
        site.write_config()
        assert "databases" not in findings(site, 1), "only a canary is missing"
        del site.settings["clamav"]["databases"]
        site.settings["clamav"]["engine"] = "private"  # and uploads ask the other one
        site.write_config()
        assert findings(site, 0)["databases"]["state"] == "warning"


@pytest.mark.parametrize("conf", [
    "LocalSocket {socket}\n", "LocalSocket {socket}\nDatabaseDirectory /var/lib/clamav/\n",
    "LocalSocket {socket}\nDatabaseDirectory /var/lib/clamav\nDatabaseDirectory {databases}\n"])
def test_definitions_where_the_packaged_clamd_would_never_look_are_found(site, conf):
    site.update()
    (site.root / "etc").mkdir()
    (site.root / "etc/clamd.conf").write_text(
        conf.format(socket=site.socket, databases=site.databases))
    (site.root / "lib").mkdir()
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    with Namespace(f"mount --bind {site.root}/etc /etc/clamav"
                   f" && mount --bind {site.root}/lib /var/lib/clamav") as room:
        seen = findings(site, 1, room.wrap)["databases"]
    assert (seen["state"], seen["repair"]) == ("failed", 'clamav.databases = "/var/lib/clamav"')


def test_what_is_only_called_like_a_database_is_found(site):
    site.update()
    (site.databases / "sub.NDB").mkdir()
    os.mkfifo(site.databases / "pipe.hdb")
    (site.databases / "gone.ldb").symlink_to("/no/such")
    (site.databases / "link.ndb").symlink_to("test.ndb")
    (site.databases / "fine").mkdir()
    seen = findings(site, 0)["databases"]
    assert seen["state"] == "warning", "a private engine loads but what we know to be a file"
    assert ": gone.ldb, pipe.hdb, sub.NDB in" in seen["detail"]
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    assert findings(site, 1)["databases"]["state"] == "failed"


def test_too_little_memory_for_a_private_engine_is_found_and_a_rescan_fails_in_one_line(site):
    site.image("a.jpg")
    site.update()
    (site.root / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable: 26000 kB\n")
    with Namespace(f"mount --bind {site.root}/meminfo /proc/meminfo") as room:
        seen = findings(site, 1, room.wrap)["engine"]
        assert (seen["state"], "26 MB, 25 MB are" in seen["detail"]) == ("failed", True), seen
        ended = site.run("rescan-store", "--json", wrap=room.wrap)
        assert (ended.status, ended.err.count("\n")) == (1, 1), ended
        assert "not enough memory" in ended.json["error"]
        assert ended.json["stores"][0]["left"] == 1
    (site.root / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable: 27000 kB\n")
    with Namespace(f"mount --bind {site.root}/meminfo /proc/meminfo") as room:
        assert site.run("rescan-store", wrap=room.wrap).status == 0


@pytest.mark.may_skip("root may write everywhere")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_that_is_not_ours_is_found(site):
    site.update()
    site.state.chmod(0o500)
    try:
        assert findings(site, 1)["state"]["state"] == "failed"
    finally:
        site.state.chmod(0o700)


# --- show-config


def test_secrets_are_masked_wherever_they_stand(site):
    secret = site.root / "secret"
    secret.write_text("mysql://me:hidden0@db/x\n")
    secret.chmod(0o600)
    site.settings["definitions"]["custom_urls"] = ["https://me:hidden1@mirror/test.ndb?key=hidden2"]
    site.settings["hits"] = {"database": f"@{secret}"}
    site.settings["zabbix"] = {"psk_identity": "hidden3"}
    site.settings["notify"] = {"purge_url": "https://cdn/purge/{path}?token=hidden4"}
    site.write_config()
    for arguments in ((), ("--json",), ("-v",)):
        ended = site.run("show-config", *arguments)
        assert (ended.status, "hidden" in ended.out + ended.err) == (0, False)
        assert "***" in ended.out
        assert f"@{secret}" in ended.out
    assert site.run("show-config", "--check").out == ""
