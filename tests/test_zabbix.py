"""Against a real Zabbix server: what it has in its history is what counts."""

import json
import random
import socket
import subprocess
import time
from itertools import count

import pytest

from maintenance.ledger.ledger import Ledger, Run
from maintenance.monitoring import trapper
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value
from maintenance.times import DAY, Deadline
from tests.site import BAD, body_signature, wait_until
from tests.zabbix import as_plain_user
from tests.zabbix_proxy import proxy

pytestmark = [pytest.mark.server, pytest.mark.once]
STATE, RESCAN, CHECKS = ("imagewarden.state", "imagewarden.run[rescan]", "imagewarden.run[checks]")
HOSTILE = 'Te"st.\\Bad\'$(id)\\n%s{#STORE}{$X}<b>'
NOW = int(time.time())  # its API shows no history of years ago
_numbers = count(1)


class Host:
    """A host of its own for one test."""

    def __init__(self, zabbix):
        self.zabbix = zabbix
        self.name = f'web {next(_numbers)}.example'
        self.id = zabbix.make_host(self.name)
        self.items = {}

    def make(self, *keys):
        for key in keys:
            self.items[key] = self.zabbix.make_item(self.id, key)
        for key in keys:
            wait_until(lambda: self.offer(key, "probe", 1) == 1)  # noqa: B023

    def offer(self, key, value, clock, ns=0):
        """Send one value at once; 1 when it was taken."""
        return trapper.send(Server("127.0.0.1", self.zabbix.port),
                            [Value(self.name, key, value, clock, ns)], Deadline.after(20))

    def history(self, key, count):
        """The newest values of an item as soon as there are ``count`` of them."""
        def found():
            return [one for one in self.zabbix.history(self.items[key]) if one["value"] != "probe"]

        wait_until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@pytest.fixture
def host(zabbix):
    return Host(zabbix)


@pytest.fixture
def sending(site, zabbix, host):
    """A site that sends to the real server."""
    site.settings["zabbix"] = {"servers": [zabbix.address], "host": host.name, "timeout": "20s"}
    site.write_config()
    return site


def checks(site, status=0):
    ended = site.run("send-checks", "--json")
    assert ended.status == status, ended
    return ended.json


def test_a_run_arrives_whole_whatever_names_it_found(sending, host):
    sending.feed(body_signature(HOSTILE, BAD))
    sending.image('ba"d\n\\x: OK\x1b[31m{#STORE}.jpg', BAD)
    sending.image(b"\xff\xfe.jpg", BAD)
    host.make(RESCAN)
    sending.update()
    begun = int(time.time())
    status, result = sending.rescan()
    assert status == 4
    assert HOSTILE in result["infected"][0]["signature"]
    [value] = host.history(RESCAN, 1)
    assert json.loads(value["value"]) == result
    assert begun <= int(value["clock"]) <= time.time()
    assert 0 < int(value["ns"]) < 100, "the number of its row"


def test_what_was_collected_while_the_server_was_down_arrives_complete_and_in_order(
        sending, zabbix, host):
    host.make(STATE, CHECKS, RESCAN)
    sending.update()
    zabbix.stop_server()
    try:
        told = [checks(sending, 1) for _ in range(2)]
        told.append(sending.rescan()[1])
        assert sending.rescan()[0] == 0
    finally:
        zabbix.start_server()
    assert checks(sending)["waiting"] == 1, "the run of an item that the host does not have"
    runs = [json.loads(value["value"]) for value in host.history(CHECKS, 3)]
    assert runs[:2] == told[:2]
    assert runs[2]["outcome"] == "done"
    assert json.loads(host.history(RESCAN, 2)[0]["value"]) == told[2]
    states = [json.loads(value["value"]) for value in host.history(STATE, 3)]
    assert [one["outbox"]["waiting"] for one in states] == [1, 3, 7]


def test_a_day_without_the_server_arrives_run_by_run_with_the_time_of_each(
        sending, zabbix, host):
    """What the jobs of a day leave in the outbox, and some tries to send it."""
    host.make(STATE, CHECKS, RESCAN)
    sending.update()  # makes the ledger
    begun = NOW - DAY
    told = {STATE: [], CHECKS: [], RESCAN: []}
    zabbix.stop_server()
    try:
        with Ledger.open(sending.state) as ledger:
            for minute in range(0, 24 * 60, 5):
                at = begun + minute * 60 + minute % 7 / 10
                job = "rescan" if minute % 60 == 0 else "checks"
                result = {"job": job, "outcome": "failed", "at": minute, "name": HOSTILE}
                ledger.record_run(Run(job, at - 1, at, "failed", 1, result, None), send=True)
                told[RESCAN if job == "rescan" else CHECKS].append((int(at), result))
                ledger.outbox.put(STATE, json.dumps({"at": minute}), at, keep=10**6)
                told[STATE].append((int(at), {"at": minute}))
        for _ in range(5):
            assert checks(sending, 1)["server"] is None
    finally:
        zabbix.start_server()
    assert checks(sending)["sent"] >= 24 * 12 * 2
    for key, own in ((STATE, 6), (CHECKS, 6), (RESCAN, 0)):  # what send-checks itself added
        found = [(int(one["clock"]), json.loads(one["value"]))
                 for one in host.history(key, len(told[key]) + own)]
        assert found[:len(told[key])] == told[key], "in order, each with its time, none twice"


@pytest.mark.long
def test_ten_thousand_results_arrive_complete_and_in_order(sending, zabbix, host):
    host.make(STATE, CHECKS, RESCAN)
    sending.update()
    with Ledger.open(sending.state) as ledger:
        for at in range(10_000):
            ledger.record_run(Run("rescan", NOW, NOW - 10_000 + at, "done", 0,
                                  {"at": at, "text": HOSTILE * 20}, None), send=True)
    told = checks(sending)
    assert (told["sent"], told["waiting"]) == (10_001, 1), "the run of an item that is missing"
    wait_until(lambda: zabbix.sql("SELECT count(*) FROM history_text WHERE itemid ="
                                  f" {host.items[RESCAN]} AND clock > 1").strip() == "10000")
    rows = zabbix.sql("SELECT clock, value FROM history_text WHERE itemid ="
                      f" {host.items[RESCAN]} AND clock > 1 ORDER BY clock, ns").splitlines()
    seen = [line.split("|", 1) for line in rows]
    assert [int(clock) for clock, _ in seen] == [NOW - 10_000 + at for at in range(10_000)]
    assert [json.loads(value)["at"] for _, value in seen] == [*range(10_000)]


def test_a_host_that_zabbix_does_not_know_is_one_line_and_nothing_is_lost(sending, zabbix, host):
    host.make(STATE, CHECKS)
    sending.settings["zabbix"]["host"] = "nobody.example"
    sending.write_config()
    ended = sending.run("send-checks")
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert 'refuses values of host "nobody.example"' in ended.err
    sending.settings["zabbix"]["host"] = host.name
    sending.write_config()
    assert checks(sending)["sent"] == 3
    assert len(host.history(STATE, 2)) == 2


def test_what_a_disabled_host_refuses_arrives_when_it_is_enabled(sending, zabbix, host):
    host.make(STATE, CHECKS)
    zabbix.api("host.update", hostid=host.id, status=1)
    zabbix.learn()
    wait_until(lambda: host.offer(STATE, "probe", 1) == 0)
    assert "linked to it?" in sending.run("send-checks").err
    doctor = sending.run("doctor", "--json").json["checks"]
    [found] = [one["detail"] for one in doctor if one["check"] == "zabbix"]
    assert "takes 0 of 4" in found
    zabbix.api("host.update", hostid=host.id, status=0)
    zabbix.learn()
    wait_until(lambda: host.offer(STATE, "probe", 1) == 1)
    checks(sending)
    host.history(STATE, 2)
    host.history(CHECKS, 2)


def test_a_value_waits_for_its_item_and_others_pass(sending, host):
    host.make(STATE, CHECKS)
    sending.update()
    status, result = sending.rescan()
    assert status == 0
    told = checks(sending)
    assert told["refused"] == {RESCAN: 1, "imagewarden.run[definitions]": 1}
    host.history(STATE, 1)
    host.history(CHECKS, 1)
    host.items[RESCAN] = host.zabbix.make_item(host.id, RESCAN)
    wait_until(lambda: checks(sending)["waiting"] == 1)
    [value] = host.history(RESCAN, 1)
    assert json.loads(value["value"]) == result


def test_a_long_result_is_valid_json_in_the_history(sending, host):
    host.make(RESCAN)
    sending.settings["clamav"]["max_file_size"] = "1K"
    sending.write_config()
    for at in range(700):
        sending.image(f"{at:03}-{'é' * 90}.jpg", bytes(2000))
    sending.update()
    status, result = sending.rescan()
    assert (status, len(result["undone"])) == (3, 700)
    [value] = host.history(RESCAN, 1)
    told = json.loads(value["value"])
    assert 50_000 < len(value["value"]) <= 65_535
    assert (told["truncated"], told["undone_total"]) == (True, 700)
    assert told["undone"] == result["undone"][:len(told["undone"])]
    assert told["stores"] == result["stores"]


def test_a_value_sent_twice_is_kept_once(host):
    host.make(STATE)
    assert [host.offer(STATE, "{}", NOW, 7) for _ in range(2)] == [1, 1]
    assert host.offer(STATE, "{}", NOW, 8) == 1
    assert [value["ns"] for value in host.history(STATE, 2)] == ["7", "8"]


def test_what_print_shows_for_zabbix_sender_is_what_arrives(sending, zabbix, host):
    sending.feed(body_signature(HOSTILE, BAD))
    sending.image('ba"d\n\\x.jpg', BAD)
    host.make(STATE, RESCAN)
    sending.update()
    sending.settings["zabbix"]["servers"] = ["127.0.0.1:1"]
    sending.write_config()
    result = sending.rescan()[1]
    shown = sending.run("send-checks", "--print").json["values"]
    lines = sending.run("send-checks", "--print=sender").out
    done = subprocess.run(["zabbix_sender", "-z", "127.0.0.1", "-p", str(zabbix.port), "-T", "-N",
                           "-i", "-"], input=lines.encode(), capture_output=True, check=False)
    assert b"processed: 2" in done.stdout
    [value] = host.history(RESCAN, 1)
    assert json.loads(value["value"]) == result
    [value] = host.history(STATE, 1)
    assert json.loads(value["value"])["stores"] == json.loads(shown[-1]["value"])["stores"]


PIECES = ['"', "\\", "\n", "\\n", " ", "\t", "a", "é", "😀", "-", "{$X}", "%s", "\x7f", "\u2028"]


def test_random_texts_survive_zabbix_senders_format(zabbix, host, tmp_path):
    host.make(STATE)
    chance = random.Random(7)
    texts = ["".join(chance.choices(PIECES, k=chance.randrange(1, 9))) for _ in range(500)]
    lines = [Value(host.name, STATE, text, NOW, ns).line() for ns, text in enumerate(texts, 1)]
    (tmp_path / "values").write_text("".join(f"{line}\n" for line in lines))
    subprocess.run(["zabbix_sender", "-z", "127.0.0.1", "-p", str(zabbix.port), "-T", "-N", "-i",
                    tmp_path / "values"], check=True, capture_output=True)
    assert [one["value"] for one in host.history(STATE, 500)] == texts


@pytest.mark.parametrize("text", [
    '"', "\\", '\\"', "\\n", "a\nb", "\\\\n\n", "tab\there", " leading", "é€😀", "{#X}", "$1",
    "x" * 65_535])
def test_any_text_survives_zabbix_senders_format(zabbix, host, tmp_path, text):
    host.make(STATE)
    line = Value(host.name, STATE, text, NOW, 5).line()
    assert "\n" not in line
    (tmp_path / "values").write_text(line + "\n")
    subprocess.run(["zabbix_sender", "-z", "127.0.0.1", "-p", str(zabbix.port), "-T", "-N", "-i",
                    tmp_path / "values"], check=True, capture_output=True)
    [value] = host.history(STATE, 1)
    assert (value["value"], value["clock"], value["ns"]) == (text, str(NOW), "5")


def test_discovery_makes_the_items_that_runs_then_arrive_in(sending, zabbix, host):
    rule = zabbix.make_rule(host.id, "imagewarden.jobs")
    zabbix.api("itemprototype.create", hostid=host.id, ruleid=rule, name="Run of {#JOB}",
               key_="imagewarden.run[{#JOB}]", type=2, value_type=4)
    zabbix.learn()

    def items():
        return {one["key_"]: one["itemid"] for one in zabbix.api(
            "item.get", hostids=[host.id], output=["key_"])}

    wait_until(lambda: sending.run("send-checks") and items())
    assert set(items()) == {CHECKS, RESCAN, "imagewarden.run[definitions]"}
    zabbix.learn()
    host.items = items()
    wait_until(lambda: sending.run("send-checks") and zabbix.history(host.items[CHECKS]), 60)
    assert json.loads(zabbix.history(host.items[CHECKS])[0]["value"])["job"] == "checks"


# --- a proxy in between


@pytest.mark.may_skip("needs Debian's archive: the proxy's package excludes the server's")
def test_a_proxy_passes_on_what_it_takes_each_with_its_own_time(
        sending, zabbix, host, tmp_path_factory):
    host.make(STATE, CHECKS, RESCAN)
    sending.update()
    with proxy(zabbix, "between", tmp_path_factory.mktemp("proxy")) as (address, monitor):
        monitor(host.id)
        wait_until(lambda: host.offer(STATE, "probe", 1) == 0)  # the server leaves it to the proxy
        sending.settings["zabbix"]["servers"] = [zabbix.address]
        sending.write_config()
        told = [checks(sending, 1) for _ in range(2)]
        told.append(sending.rescan()[1])
        sending.settings["zabbix"]["servers"] = [zabbix.address, address]
        sending.write_config()
        wait_until(lambda: sending.run("send-checks").status == 0, 60)
        done = checks(sending)
        assert (done["server"], done["waiting"]) == (address, 1), "of the definitions: no item"
        assert json.loads(host.history(RESCAN, 1)[0]["value"]) == told[2]
        wait_until(lambda: len(zabbix.history(host.items[CHECKS])) > 3)
        runs = [json.loads(one["value"]) for one in zabbix.history(host.items[CHECKS])]
        assert runs[:2] == told[:2]
        stamps = [(one["clock"], one["ns"]) for one in zabbix.history(host.items[CHECKS])]
        assert len(set(stamps)) == len(stamps)


# --- TLS


@pytest.fixture
def secured(sending, zabbix, host):
    """A site and a host that accept each other by a pre-shared key only."""
    key = sending.root / "psk"
    key.write_text("0123456789abcdef" * 4 + "\n")
    key.chmod(0o600)
    host.make(STATE, CHECKS)
    zabbix.api("host.update", hostid=host.id, tls_accept=2, tls_psk_identity=f"id of {host.name}",
               tls_psk="0123456789abcdef" * 4)
    zabbix.learn()
    wait_until(lambda: host.offer(STATE, "probe", 1) == 0)  # plain text is refused from now on
    sending.settings["zabbix"] |= {"tls": "psk", "psk_identity": f"id of {host.name}",
                                   "psk_file": str(key)}
    sending.write_config()
    return sending


def test_values_go_through_tls_and_the_identity_through_no_command_line(secured, host):
    seen = secured.run("send-checks", wrap=["strace", "-f", "-s", "4096", "-e", "trace=execve",
                                            "-o", secured.root / "calls"])
    assert (seen.status, "discovery" in seen.err) == (0, True), seen  # it has no rules
    host.history(STATE, 1)
    assert json.loads(host.history(CHECKS, 1)[0]["value"])["sent"] == 1
    calls = (secured.root / "calls").read_text()
    assert "zabbix_sender" in calls
    assert f"id of {host.name}" not in calls


def test_a_wrong_key_is_one_line_and_nothing_is_lost(secured, host):
    (secured.root / "psk").write_text("f" * 64 + "\n")
    ended = secured.run("send-checks")
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert "zabbix_sender: Unable to connect" in ended.err
    assert secured.run("store-status", "--json").json["outbox"]["waiting"] == 2
    host.history(STATE, 0)


def test_certificates_do_as_well(sending, zabbix, host):
    host.make(STATE, CHECKS)
    zabbix.api("host.update", hostid=host.id, tls_accept=4)
    zabbix.learn()
    wait_until(lambda: host.offer(STATE, "probe", 1) == 0)
    own = {}
    for setting, name in (("ca_file", "ca.pem"), ("cert_file", "sender.pem"),
                          ("key_file", "sender.key")):
        content = subprocess.run([*as_plain_user(), "cat", zabbix.place / name], check=True,
                                 capture_output=True).stdout
        (sending.root / name).write_bytes(content)
        own[setting] = str(sending.root / name)
    sending.settings["zabbix"] |= {"tls": "cert", **own}
    sending.write_config()
    assert checks(sending)["refused_items"] == ["discovery"]
    host.history(STATE, 1)
    (sending.root / "sender.key").write_text("no key")
    assert "private key" in checks(sending, 1)["error"]


def test_tls_costs_no_more_than_the_timeout(secured):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        secured.settings["zabbix"] |= {"timeout": "1s",
                                       "servers": [f"127.0.0.1:{silent.getsockname()[1]}"]}
        secured.write_config()
        begun = time.monotonic()
        ended = secured.run("send-checks")
        assert time.monotonic() - begun < 16
    assert (ended.status, ended.err.count("\n")) == (1, 1)
