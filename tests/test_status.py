"""What store-status, doctor and show-config tell, held against what was done."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing

import pytest

from maintenance.clamav.clamd_conf import ClamdConf
from maintenance.clamav.connection import Clamd
from maintenance.clamav.system import SystemEngine
from maintenance.jobs.examinations_clamd import unproven
from tests.processes import Namespace, engines, hidden, started, status_of
from tests.site import BAD, BIN, LATER, body_signature, wait_until
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


def test_the_table_says_the_same_as_the_object_in_a_form_for_people(site):
    site.image("a.jpg")
    site.image("bad.jpg", BAD + bytes(3000))
    site.update()
    site.rescan()
    with closing(sqlite3.connect(site.state / "ledger.sqlite")) as ledger:
        ledger.execute("UPDATE images SET checked = checked - 40 * 86400, bytes_saved = 1234567"
                       " WHERE verdict = 'clean'")
        ledger.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
                       " i < 12345) INSERT INTO images (store, key, inode, size, mtime_ns,"
                       " ctime_ns) SELECT 'uploads', CAST('n' || i AS BLOB), i, 0, 0, 0 FROM n")
        ledger.commit()
    store = state(site)["stores"][0]
    assert (store["images"], store["never"], store["bytes_saved"]) == (12347, 12345, 1234567)
    coverage, room, databases, runs = tables(site.run("store-status").out)
    since = f"{store['oldest_check'][:10]} {store['oldest_check'][11:16]} (40 days ago)"
    assert coverage == [["uploads", "12,347", "1", "0", "0", "1", "12,345", since]]
    assert room == [["uploads", "3.0K", "1.2M", "0"]]
    assert databases[0][:4] == ["test.ndb", "-", "1", "-"]
    assert [row[:2] for row in runs] == [["definitions", "done"], ["rescan", "infected"]]
    assert all(row[3].endswith("min ago)") for row in runs)


def tables(out):
    """The tables in a text, each as its rows of cells."""
    found, ruled = [], False
    for line in out.splitlines():
        cells = re.split("  +", line.strip())
        if set(line) == {"-", " "}:
            ruled = True
            found.append([])
        elif ruled and len(cells) >= 4:
            found[-1].append(cells)
        else:
            ruled = False
    return found


def test_three_stores_with_odd_names_are_told_apart_and_none_breaks_the_table(site):
    names = ['b\u00e4der "q" \\x', "photos  of \u7167\u7247", "n" * 64]
    text = site.config.read_text()
    for at, name in enumerate(names):
        (site.root / f"s{at}").mkdir()
        text = text.replace("[[store]]", f"[[store]]\nname = {json.dumps(name)}\n"
                            f'path = "{site.root}/s{at}"\n[[store]]', 1)
    site.config.write_text(text)
    site.image(b"x\xff\n\x1b[31m.jpg", BAD)
    (site.databases).mkdir(parents=True)
    (site.databases / "e\x1b[31m\nvil.ndb").write_text(body_signature("Test.Bad", BAD))
    status, result = site.rescan()
    assert status == 4
    assert {one["name"] for one in result["stores"]} == {"uploads", *names}
    ended = site.run("store-status")
    assert all(line.isprintable() for line in ended.out.splitlines())
    assert all(ended.out.count(name) >= 2 for name in names)
    assert "e\\u{1b}[31m\\u{a}vil.ndb" in ended.out
    assert "infected: uploads: x\\xff\\u{a}\\u{1b}[31m.jpg (Test.Bad.UNOFFICIAL)" in ended.out


def test_what_is_infected_or_unknown_is_named_and_why_a_run_failed(site):
    site.settings["clamav"]["max_file_size"] = "1K"
    site.write_config()
    for number in range(12):
        site.image(f"bad{number:02}.jpg", BAD)
    site.image("large.jpg", bytes(2000))
    site.update()
    site.rescan()
    site.store.rename(site.root / "away")
    assert site.rescan()[0] == 1
    lines = site.run("store-status").out.splitlines()
    assert lines.count("infected: uploads: bad09.jpg (Test.Bad.UNOFFICIAL)") == 1
    assert not any("bad10" in line for line in lines)
    assert "infected: uploads: and more, in the log of rescan-store" in lines
    assert any(line.startswith("unknown: uploads: large.jpg (larger than") for line in lines)
    assert f'rescan: store "uploads": {site.store}: not there' in lines
    assert "named" not in state(site)
    assert "errors" not in state(site), "what is for people is not sent"


def test_in_the_middle_of_a_rescan_what_is_booked_counts_and_the_rest_is_never_checked(site):
    for number in range(100):
        site.image(f"{number:03}.jpg", b"%d" % number)
    for number in range(8):
        os.truncate(site.image(f"z{number}.jpg"), 90 * 2**20)  # the engine dwells here
    site.update()
    with started(site.command("rescan-store")) as job:
        wait_until(lambda: site.coverage()["clean_current"] >= 64)
        os.kill(engines(job.pid)[0], signal.SIGSTOP)
        store = site.coverage()
        assert store["images"] == 108
        assert store["never"] == 108 - store["clean_current"] > 0
        assert site.run("store-status").status == 0
        job.kill()


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


def test_a_missing_image_tool_is_named_with_what_works_in_its_place(site):
    site.update()
    seen = findings(site, 0)
    assert [seen[f"{kind} tool"]["detail"] for kind in ("png", "jpeg")] == ["oxipng", "mozjpeg"]
    [package] = (BIN.parent / ".venv/lib").glob("python3.*/site-packages/oxipng_pybind-*.dist-info")
    with Namespace(f"mount -t tmpfs tmpfs {package}") as without:
        found = findings(site, 0, without.wrap)["png tool"]
    assert (found["state"], found["repair"]) == ("warning", "bin/setup")
    assert found["detail"] == "oxipng-pybind is not installed: optipng works in its place"
    site.settings["optimize"] = {"png": "optipng"}
    site.write_config()
    with hidden("/usr/bin/optipng") as without:
        found = findings(site, 1, without.wrap)["png tool"]
    assert (found["state"], found["detail"]) == ("failed", "optipng is not installed")


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


STOCK = {"AlertExceedsMax": "no", "MaxFileSize": "25M", "MaxScanSize": "100M",
         "PCREMaxFileSize": "25M", "StreamMaxLength": "25M"}  # as Debian sets clamd up


@pytest.mark.parametrize(("options", "lines"), [
    (STOCK, "AlertExceedsMax yes, MaxFileSize 100M, PCREMaxFileSize 100M"),
    ({"MaxScanSize": "50M"}, "MaxScanSize 400M"), ({"PCREMaxFileSize": "0"}, None)])
def test_what_a_system_clamd_would_hide_is_told_with_the_lines_that_heal_it(site, options, lines):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd(**options):
        site.update()
        seen = findings(site, 0)
        assert seen["engine"]["state"] == "ok"
        assert ("limits" in seen) == (lines is not None)
        if lines is None:
            return
        assert seen["limits"]["state"] == "warning"
        assert seen["limits"]["repair"] == (f"put into {site.root}/clamd.conf, instead of what it"
                                            f" says: {lines}; then restart clamd")
        assert ("calls clean" in seen["limits"]["detail"]) == ("Alert" in lines)
    with site.clamd(**options | dict(line.split() for line in lines.split(", "))):
        assert "limits" not in findings(site, 0)


def test_a_clamd_whose_limits_nobody_can_read_counts_as_one_that_hides_them(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.image("at.jpg")
    os.truncate(site.store / "at.jpg", 25 * 2**20)
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        (site.root / "clamd.conf").unlink()
        assert "25M and more count as unknown" in findings(site, 0)["limits"]["detail"]
        status, result = site.rescan()
        assert (status, result["limits"], result["stores"][0]["unknown"]) == (3, "hidden", 1)


def test_uploads_that_are_larger_than_what_their_clamd_takes_are_told(site):
    site.update()
    with site.clamd(StreamMaxLength="1M"):
        seen = findings(site, 0)["upload limits"]
        assert "from stdin" in seen["detail"]
        assert "StreamMaxLength 20M;" in seen["repair"]
    with site.clamd(AlertExceedsMax="no", MaxFileSize="1M"):
        assert "AlertExceedsMax yes, MaxFileSize 20M;" in (
            findings(site, 0)["upload limits"]["repair"])
    (site.root / "etc").mkdir()
    port = free_port()
    site.settings["clamav"]["socket"] = f"tcp://127.0.0.1:{port}"
    site.write_config()
    for listens in (port, port + 1):  # the second: what runs there is set up by another file
        (site.root / "etc/clamd.conf").write_text(
            f"TCPSocket {listens}\nTCPAddr 127.0.0.1\nStreamMaxLength 1M\n")
        with (Namespace(f"mount --bind {site.root}/etc /etc/clamav") as room,
              site.clamd(TCPSocket=str(port), TCPAddr="127.0.0.1")):
            seen = findings(site, 0, room.wrap)
        assert ("upload limits" in seen) == (listens == port), seen
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    with site.clamd(TCPSocket=str(port), TCPAddr="127.0.0.1"):
        assert "needs a local clamd" in findings(site, 1)["engine"]["detail"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_reload_for_which_there_is_no_memory_is_told_before_it_breaks(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    for options in ({}, {"ConcurrentDatabaseReload": "no"}):
        with site.clamd(**options) as daemon:
            site.update()
            assert "reload" not in findings(site, 0)
            size = int(status_of(daemon.pid)["VmSize"].split()[0]) * 1024
            subprocess.run(["prlimit", "--pid", str(daemon.pid), f"--as={size + 2**20}"],
                           check=True)
            seen = findings(site, 0)
            assert ("reload" in seen) == (not options), "it is on by default"
            if not options:
                assert seen["reload"]["state"] == "warning"
                assert "ConcurrentDatabaseReload no" in seen["reload"]["repair"]


def test_a_clamd_that_loads_official_databases_only_can_prove_nothing():
    found = SystemEngine(Clamd("/no/such"), ClamdConf({"OfficialDatabaseOnly": "yes"}))
    assert "OfficialDatabaseOnly no" in unproven(found).repair
    found = SystemEngine(Clamd("/no/such"), ClamdConf({}))
    assert unproven(found).repair == "update-definitions"


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
