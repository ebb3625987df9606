"""send-checks and the end of every job, from outside, against peers on loopback."""

import fcntl
import json
import os
import signal
import socket
import sqlite3
import time

import pytest

from tests.processes import hidden, reachable, started
from tests.site import BAD, wait_until
from tests.trappers import Trapper, lacks, refuses_all, takes

pytestmark = [pytest.mark.server, pytest.mark.once]
RULES = ["imagewarden.stores", "imagewarden.databases", "imagewarden.jobs"]
MARGIN = 15.0  # seconds in which a job's own work is done, on a busy machine too


def silence(caller):
    caller.hear()
    caller.wait_for_the_end()


def point_at(site, *addresses, timeout="20s", **more):
    site.settings["zabbix"] = {"servers": list(addresses), "host": "web1", "timeout": timeout,
                               **more}
    site.write_config()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def outbox(site):
    return site.run("store-status", "--json").json["outbox"]


def checks(site, status=0, *arguments):
    ended = site.run("send-checks", "--json", *arguments)
    assert ended.status == status, ended
    return ended.json


def keys(server):
    return [value["key"] for value in server.values]


def test_without_servers_it_says_and_queues_nothing(site):
    ended = site.run("send-checks")
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    assert outbox(site) == {"waiting": 0, "set_aside": 0, "oldest": None}
    assert checks(site)["sent"] == 0


def test_runs_of_a_month_ago_are_forgotten_also_without_servers(site):
    for _ in range(3):
        checks(site)
    with sqlite3.connect(site.state / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE runs SET finished = finished - 31 * 86400 WHERE number < 3")
        ledger.commit()
        checks(site, 0, "--dry-run")
        assert ledger.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        checks(site)
        assert ledger.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    ledger.close()


def test_state_and_discovery_arrive_and_then_its_own_result(site):
    with Trapper(takes) as server:
        point_at(site, server.address)
        site.image("a.jpg")
        ended = site.run("send-checks")
        assert (ended.status, ended.out, ended.err) == (0, "", "")
    assert keys(server) == [*RULES, "imagewarden.state", "imagewarden.run[checks]"]
    assert {value["host"] for value in server.values} == {"web1"}
    state = json.loads(server.values[3]["value"])
    shown = site.run("store-status", "--json").json
    assert state.keys() >= shown.keys() - {"job", "outcome", "seconds"}
    assert state["stores"] == shown["stores"]
    told = json.loads(server.values[4]["value"])
    assert (told["job"], told["outcome"], told["sent"], told["server"]) == (
        "checks", "done", 4, server.address)
    assert outbox(site)["waiting"] == 0


def test_discovery_names_what_there_is_as_the_state_does(site):
    site.update()
    with Trapper(takes) as server:
        point_at(site, server.address)
        site.write_config(store={"name": 'up "loads" \\ é'})
        checks(site)
    told = {value["key"]: json.loads(value["value"]) for value in server.values}
    state = told["imagewarden.state"]
    assert told["imagewarden.stores"] == [{"{#STORE}": 'up "loads" \\ é'}]
    assert told["imagewarden.stores"][0]["{#STORE}"] == state["stores"][0]["name"]
    assert told["imagewarden.databases"] == [{"{#DATABASE}": "test.ndb"}]
    assert told["imagewarden.databases"][0]["{#DATABASE}"] == (
        state["definitions"]["databases"][0]["name"])
    assert told["imagewarden.jobs"] == [{"{#JOB}": job} for job in (
        "definitions", "rescan", "checks")]


def test_discovery_is_sent_when_it_changed_hourly_and_when_asked_to(site):
    def discovered(*arguments):
        before = len(server.requests)
        told = checks(site, 0, *arguments)["discovery"]["outcome"]
        sent = [value["key"] for one in server.requests[before:] for value in one]
        assert ("imagewarden.stores" in sent) is (told == "sent")
        assert told != "sent" or sent[:3] == RULES, "before what it makes items for"
        return told

    with Trapper(takes) as server:
        point_at(site, server.address)
        assert [discovered(), discovered(), discovered("--discovery"), discovered()] == [
            "sent", "current", "sent", "current"]
        site.write_config(store={"name": "other"})
        assert [discovered(), discovered()] == ["sent", "current"]
        an_hour_ago(site)
        assert [discovered(), discovered()] == ["sent", "current"]


def an_hour_ago(site):
    """Let the last discovery be an hour old."""
    with sqlite3.connect(site.state / "ledger.sqlite") as ledger:
        number, text = ledger.execute("SELECT max(number), result FROM runs").fetchone()
        result = json.loads(text)
        result["discovery"]["sent"] = time.strftime("%Y-%m-%dT%H:%M:%SZ",
                                                    time.gmtime(time.time() - 3600))
        ledger.execute("UPDATE runs SET result = ? WHERE number = ?", (json.dumps(result), number))
    ledger.close()


@pytest.mark.parametrize("peer", ["closed", "silent"])
def test_while_zabbix_is_away_it_fails_in_one_line_and_loses_nothing(site, peer):
    with Trapper(silence) as server:
        point_at(site, closed_port() if peer == "closed" else server.address, timeout="1s")
        begun = time.monotonic()
        ended = site.run("send-checks")
        assert time.monotonic() - begun < 1 + MARGIN
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1), ended
    assert "Zabbix" in ended.err
    assert len(server.requests) <= 1, "it is asked once a run"
    told = checks(site, 1)
    assert (told["outcome"], told["waiting"]) == ("failed", 3)
    assert "Zabbix" in told["error"]
    with Trapper(takes) as server:
        point_at(site, server.address)
        assert checks(site)["sent"] == 8
    assert keys(server) == [*RULES, *["imagewarden.state", "imagewarden.run[checks]"] * 3]
    clocks = [value["clock"] for value in server.values[3:]]
    assert clocks == sorted(clocks)
    assert outbox(site) == {"waiting": 0, "set_aside": 0, "oldest": None}


def test_what_is_too_old_is_dropped_and_said_also_while_zabbix_is_away(site):
    point_at(site, closed_port(), timeout="1s")
    site.run("send-checks")
    with sqlite3.connect(site.state / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE outbox SET clock = clock - 31 * 86400")
    ledger.close()
    ended = site.run("send-checks")
    assert "2 values dropped that Zabbix never took" in ended.err
    assert (ended.status, outbox(site)["waiting"]) == (1, 2)


def test_a_server_that_takes_nothing_is_a_failure_and_nothing_is_lost(site):
    with Trapper(refuses_all) as server:
        point_at(site, server.address)
        ended = site.run("send-checks")
        assert (ended.status, ended.err.count("\n")) == (1, 1)
        assert "imagewarden.state" in ended.err
        assert 'host "web1"' in ended.err
    assert outbox(site)["waiting"] == 2


def test_a_single_missing_item_is_complained_of_once_and_blocks_nothing(site):
    with Trapper(lacks("imagewarden.run[checks]")) as server:
        point_at(site, server.address)
        seen = [site.run("send-checks") for _ in range(3)]
    assert [one.status for one in seen] == [0, 0, 0]
    assert [one.err.count("imagewarden.run[checks]") for one in seen] == [0, 1, 0]
    assert keys(server).count("imagewarden.state") >= 3
    told = outbox(site)
    assert (told["waiting"], told["set_aside"]) == (3, 0)


# --- showing instead of sending


def test_print_shows_everything_and_sends_records_and_queues_nothing(site):
    with Trapper(takes) as server:
        point_at(site, closed_port(), timeout="1s")
        site.update()
        waits = outbox(site)
        assert waits["waiting"] == 1
        point_at(site, server.address)
        ended = site.run("send-checks", "--print")
        assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
        values = ended.json["values"]
        assert [value["key"] for value in values] == [
            *RULES, "imagewarden.run[definitions]", "imagewarden.state"]
        assert all(value["host"] == "web1" and isinstance(value["clock"], int)
                   and json.loads(value["value"]) is not None for value in values)
        both = site.run("send-checks", "--print", "--json")
        assert both.json["job"] == "checks"
        assert len(both.json["values"]) == 5
        assert checks(site, 0, "--dry-run")["waiting"] == 1
        lines = site.run("send-checks", "--print=sender").out.splitlines()
        assert len(lines) == 5
        assert lines[0].startswith('"web1" "imagewarden.stores" ')
        assert outbox(site) == waits
        assert [one["job"] for one in site.run("store-status", "--json").json["jobs"]] == [
            "definitions"]
    assert server.requests == []


def test_print_needs_no_servers_and_no_turn(site):
    site.update()
    with (site.state / "locks/checks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert len(site.run("send-checks", "--print").json["values"]) == 4
        assert site.run("send-checks").status == 75
    assert site.run("send-checks", "--print=xml").status == 2


# --- the end of every job


def test_every_recorded_run_arrives_whole(site):
    site.image("bad.jpg", BAD)
    with Trapper(takes) as server:
        point_at(site, server.address)
        updated = site.update()
        status, scanned = site.rescan()
        assert status == 4
        site.run("scan-upload", site.store / "bad.jpg")
    assert keys(server) == ["imagewarden.run[definitions]", "imagewarden.run[rescan]"]
    assert [json.loads(value["value"]) for value in server.values] == [updated, scanned]


@pytest.mark.parametrize("peer", ["closed", "silent", "takes nothing"])
def test_a_job_has_its_own_status_and_silence_whatever_zabbix_does(site, peer):
    site.image("bad.jpg", BAD)
    site.update()
    with Trapper(refuses_all if peer == "takes nothing" else silence) as server:
        point_at(site, closed_port() if peer == "closed" else server.address, timeout="1s")
        before = site.run("rescan-store", "-q")
        assert before.status == 4
        begun = time.monotonic()
        ended = site.run("rescan-store", "-q")  # no engine: what it takes is Zabbix's part
        assert time.monotonic() - begun < 1 + MARGIN
        assert (ended.status, ended.err) == (4, before.err)
        assert len(server.requests) == {"closed": 0, "silent": 2, "takes nothing": 2}[peer]
    assert "Traceback" not in (site.root / "logs/rescan.log").read_text()
    assert outbox(site)["waiting"] == 2


def test_a_dry_run_and_a_run_that_was_turned_away_send_nothing(site):
    site.update()
    with Trapper(takes) as server:
        point_at(site, server.address)
        assert site.run("rescan-store", "--dry-run").status == 0
        with (site.state / "locks/rescan.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert site.run("rescan-store").status == 75
    assert server.requests == []


def test_a_signal_during_the_handover_ends_it_and_changes_no_status(site):
    site.update()
    with Trapper(silence) as server:
        point_at(site, server.address, timeout="250s")
        with started(site.command("rescan-store", "--json")) as job:
            wait_until(lambda: server.requests)
            assert json.loads(job.stdout.readline())["outcome"] == "done", "shown before"
            job.send_signal(signal.SIGTERM)
            assert job.wait(30) == 0
    assert outbox(site)["waiting"] == 1


def test_a_run_that_is_told_to_stop_does_not_stay_to_send(site):
    site.update()
    with Trapper(silence) as server:
        point_at(site, server.address, timeout="250s")
        with started(site.command("update-definitions", "--jitter", "1000d")) as job:
            lock = site.state / "locks/definitions.lock"
            wait_until(lambda: str(job.pid) in lock.read_text())
            job.send_signal(signal.SIGTERM)
            assert job.wait(30) == 143
    assert server.requests == []
    assert outbox(site)["waiting"] == 1


def test_one_run_sends_at_a_time(site):
    site.update()
    with Trapper(takes) as server:
        point_at(site, server.address, timeout="1s")
        with (site.state / "locks/outbox.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ended = site.run("rescan-store")
            assert (ended.status, ended.err) == (0, "")
            assert (checks(site)["waiting"], site.run("send-checks").err) == (2, "")
            assert server.requests == []
        checks(site)
    assert len(server.values) == 3 + 1 + 2 * 2 + 2


def test_a_sender_killed_before_it_hears_the_answer_loses_nothing_and_doubles_nothing(site):
    site.update()

    def kills(caller):
        caller.hear()
        words = (site.state / "locks/outbox.lock").read_text().split()
        os.kill(int(words[1].rstrip(",")), signal.SIGKILL)

    with Trapper(kills) as server:
        point_at(site, server.address)
        with started(site.command("rescan-store")) as job:
            assert job.wait(60) == -signal.SIGKILL
    with Trapper(takes) as second:
        point_at(site, second.address)
        checks(site)
    assert server.values == second.values[3:4]
    assert keys(server) == ["imagewarden.run[rescan]"]


def test_two_runs_at_once_send_nothing_twice(site):
    site.update()
    with Trapper(takes) as server:
        point_at(site, closed_port(), timeout="1s")
        for _ in range(3):
            site.run("send-checks")
        point_at(site, server.address)
        with started(site.command("send-checks")) as one, \
                started(site.command("rescan-store")) as other:
            assert (one.wait(60), other.wait(60)) == (0, 0)
        checks(site)
    stamps = [(value["key"], value["clock"], value["ns"]) for value in server.values
              if value["key"] not in RULES]
    assert len(stamps) == len(set(stamps))


# --- TLS


def test_with_tls_and_without_its_program_nothing_is_sent_in_plain_text(site):
    key = site.root / "psk"
    key.write_text("ab" * 32)
    with Trapper(takes) as server, hidden("/usr/bin/zabbix_sender") as nowhere:
        point_at(site, server.address, tls="psk", psk_identity="who", psk_file=str(key))
        ended = site.run("send-checks", wrap=nowhere.wrap)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "apt-get install zabbix-sender" in ended.err
    assert server.requests == []


def test_a_secret_identity_that_cannot_be_read_is_78(site):
    point_at(site, closed_port(), tls="psk", psk_identity="@/no/such", psk_file="/no/such")
    for script in ("send-checks", "rescan-store"):
        ended = site.run(script)
        assert (ended.status, ended.err.count("\n")) == (78, 1)
        assert "psk_identity" in ended.err
    assert site.run("store-status").status == 1, "which needs no secret"


@pytest.mark.may_skip("only root has privileges to drop")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_what_is_sent_is_sent_by_the_user_of_the_job(site):
    reachable(site.root)
    site.top["user"] = "www-data"
    with Trapper(takes) as server:
        point_at(site, server.address)
        assert checks(site)["sent"] == 4
        assert (site.state / "locks/outbox.lock").owner() == "www-data"
    assert keys(server)[-1] == "imagewarden.run[checks]"
