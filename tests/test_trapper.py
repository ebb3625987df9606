"""The sender against peers that a real server cannot be made to be."""

import json
import socket
import struct
import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.errors import MonitoringError
from maintenance.monitoring import trapper
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value, fitted, parts
from maintenance.monitoring.zabbix import Zabbix
from maintenance.settings import Zabbix as Settings
from maintenance.times import Deadline
from maintenance.units import Timeout
from tests.trappers import Trapper, lacks, packet, refuses_all, takes

pytestmark = pytest.mark.once

VALUES = [Value("web1", "imagewarden.state", f'{{"at": {at}}}', 1700000000, at) for at in range(3)]
MARGIN = 10.0  # seconds: for a busy machine; what waits too long waits far longer
FOR_EVER = Deadline(float("inf"))


def offer(address, values=VALUES, timeout=5.0):
    """What ``send`` returns, or the one line it complains in."""
    begun = time.monotonic()
    try:
        return Zabbix(Settings(servers=(address,), timeout=Timeout(timeout))).send(
            values, FOR_EVER)
    except MonitoringError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
        return str(error)
    finally:
        assert time.monotonic() - begun < timeout + MARGIN


def test_what_is_sent_is_what_arrives():
    with Trapper(takes) as server:
        assert offer(server.address) == 3
    assert server.values == [{"host": "web1", "key": "imagewarden.state", "value": one.value,
                              "clock": 1700000000, "ns": one.ns} for one in VALUES]


@pytest.mark.parametrize("text", ['"', "\\", "\n\r\t\0", "é€😀", "\udcff", "\x1b[31m", "x" * 70000])
def test_any_text_arrives(text):
    with Trapper(takes) as server:
        assert offer(server.address, [Value("web1", "k", text, 1, 1)]) == 1
    assert server.values[0]["value"] == text.replace("\udcff", "?")


def test_success_is_judged_by_the_count():
    with Trapper(refuses_all) as server:
        assert offer(server.address) == 0
    with Trapper(lambda caller: caller.answer(len(caller.hear()) - 1, 0)) as server:
        assert offer(server.address) == 2


def says(data):
    def part(caller):
        caller.hear()
        caller.say(data)
    return part


def silence(caller):
    caller.hear()
    caller.wait_for_the_end()


def drip(caller):
    for byte in packet({"response": "success", "info": "processed: 3; failed: 0;"}):
        caller.say(bytes([byte]))
        time.sleep(0.3)


def reset_in_the_answer(caller):
    caller.hear()
    caller.say(b"ZBXD\1")
    caller.reset()


GOOD = {"response": "success", "info": "processed: 3; failed: 0; total: 3; seconds spent: 0.1"}
PARTS = {
    "silent": (silence, "no answer in time"),
    "one byte now and then": (drip, "no answer in time"),
    "reset at once": (lambda caller: caller.reset(), ""),
    "reset in the answer": (reset_in_the_answer, "reset"),
    "hung up": (lambda caller: caller.hear(), "hung up"),
    "truncated": (says(packet(GOOD)[:-5]), "hung up"),
    "half a header": (says(b"ZBXD\1\5"), "hung up"),
    "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no Zabbix server"),
    "compressed": (says(b"ZBXD\3" + struct.pack("<II", 10, 0) + b"x" * 10), "no Zabbix server"),
    "huge": (says(b"ZBXD\1" + struct.pack("<II", 2**31, 0)), "2147483648 bytes"),
    "no JSON": (says(packet(b"processed: 3;")), "not one of Zabbix"),
    "not UTF-8": (says(packet(b'{"response": "\xff"}')), "not one of Zabbix"),
    "a list": (says(packet([1, 2])), "not one of Zabbix"),
    "nothing": (says(packet(b"")), "not one of Zabbix"),
    "too deep": (says(packet(b"[" * 60000)), "not one of Zabbix"),
    "failed": (says(packet({"response": "failed", "info": "not \x1b allowed\n"})),
               "refuses: not \\u{1b} allowed\\u{a}"),
    "redirect to nowhere": (says(packet({"response": "failed", "redirect": {"address":
                                         "127.0.0.1:1"}})), "refused"),
    "redirect to nonsense": (says(packet({"response": "failed", "redirect": {"address":
                                          "x:y:z\n"}})), "redirects us to x:y:z\\u{a}"),
    "redirect without an address": (says(packet({"response": "failed", "redirect": {}})),
                                    "not one of Zabbix"),
    "redirect that is none": (says(packet({"response": "failed", "redirect": 1})),
                              "not one of Zabbix"),
    "no counts": (says(packet({"response": "success"})), "refuses"),
    "more than there was": (says(packet({**GOOD, "info": "processed: 4; failed: 0"})), "4 of 3"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_hostile_peer_is_one_line_in_time(name):
    part, word = PARTS[name]
    with Trapper(part) as server:
        told = offer(server.address, timeout=1.5)
    assert isinstance(told, str)
    assert server.address in told or "redirect" in name
    assert word in told


def test_a_port_on_which_nobody_listens_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "refused" in offer(f"127.0.0.1:{port}")


def test_a_port_that_swallows_everything_costs_no_more_than_the_timeout():
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for _ in range(3):  # nobody accepts: soon the kernel answers no more
            link = stack.enter_context(socket.socket())
            link.setblocking(False)
            link.connect_ex(listener.getsockname())
        assert "no answer in time" in offer(address, timeout=1.0)


def test_a_name_that_nobody_knows_is_one_line():
    assert "no-such-host.invalid:10051" in offer("no-such-host.invalid", timeout=2.0)


def test_a_resolver_that_does_not_answer_costs_no_more_than_the_timeout(monkeypatch):
    real = socket.getaddrinfo

    def slow(*arguments, **more):
        if more.get("flags"):
            return real(*arguments, **more)
        time.sleep(3)
        raise socket.gaierror("too late to matter")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begun = time.monotonic()
    with pytest.raises(MonitoringError, match="no answer in time"):
        trapper.send(Server("zabbix.example", 10051), VALUES, Deadline.after(0.2))
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("first", ["silent", "failed", "another protocol"])
def test_the_first_server_that_answers_has_it_all(first):
    with Trapper(PARTS[first][0]) as bad, Trapper(takes) as good:
        zabbix = Zabbix(Settings(servers=(bad.address, good.address), timeout=Timeout(6)))
        assert zabbix.send(VALUES, FOR_EVER) == 3
        assert zabbix.send(VALUES[:1], FOR_EVER) == 1
        assert str(zabbix.answered) == good.address
    assert len(bad.requests) == 1, "the second time it is not asked again"
    assert len(good.requests) == 2


def test_a_server_that_takes_nothing_leaves_it_to_one_that_does():
    with Trapper(refuses_all) as bad, Trapper(takes) as good:
        zabbix = Zabbix(Settings(servers=(bad.address, good.address), timeout=Timeout(6)))
        assert [zabbix.send(VALUES, FOR_EVER) for _ in range(2)] == [3, 3]
        assert str(zabbix.answered) == good.address
    assert (len(bad.requests), len(good.requests)) == (1, 2)


def test_what_the_taker_refuses_no_other_server_is_asked_for():
    with Trapper(lacks("missing")) as first, Trapper(takes) as second:
        zabbix = Zabbix(Settings(servers=(first.address, second.address), timeout=Timeout(6)))
        assert zabbix.send(VALUES, FOR_EVER) == 3
        assert zabbix.send([Value("web1", "missing", "x", 1, 1)], FOR_EVER) == 0
        assert str(zabbix.answered) == first.address
    assert second.requests == []


@pytest.mark.parametrize("second", [refuses_all, silence])
def test_where_all_that_answer_take_nothing_the_first_of_them_counts(second):
    with Trapper(refuses_all) as first, Trapper(second) as other:
        zabbix = Zabbix(Settings(servers=(first.address, other.address), timeout=Timeout(2)))
        assert [zabbix.send(VALUES, FOR_EVER) for _ in range(2)] == [0, 0]
        assert str(zabbix.answered) == first.address
    assert second is refuses_all or len(other.requests) == 1, "it is not waited for again"


@pytest.mark.parametrize(("text", "host", "port"), [
    ("zabbix.example", "zabbix.example", 10051), ("10.0.0.1:20000", "10.0.0.1", 20000),
    ("[::1]:10052", "::1", 10052), ("[fe80::1]", "fe80::1", 10051)])
def test_servers_are_read_as_the_configuration_has_them(text, host, port):
    assert Server.parse(text) == Server(host, port)
    assert Server.parse(str(Server(host, port))) == Server(host, port)


# --- proxies that send us on


def redirects(to):
    """A proxy of a group in which another one serves this host."""
    def part(caller):
        caller.hear()
        caller.say(packet({"response": "failed", "redirect": {
            "revision": 4, "address": to() if callable(to) else to}}))
    return part


def test_a_proxy_that_sends_us_to_another_one_is_followed():
    with Trapper(takes) as right, Trapper(redirects(right.address)) as wrong:
        zabbix = Zabbix(Settings(servers=(wrong.address,), timeout=Timeout(6)))
        assert [zabbix.send(VALUES, FOR_EVER) for _ in range(2)] == [3, 3]
    assert right.requests == wrong.requests
    assert len(right.values) == 6


def test_proxies_that_send_us_round_are_left_in_time():
    with Trapper(redirects(lambda: server.address)) as server:
        assert "in a circle" in offer(server.address)
    assert len(server.requests) == 4


def test_all_proxies_together_have_the_timeout():
    with Trapper(silence) as second, Trapper(redirects(second.address)) as first:
        assert offer(first.address, timeout=1.5) == f"Zabbix: {second.address}: no answer in time"


# --- what is too long


def result(infected, undone, error="", nested=0):
    return {"job": "rescan", "infected": [{"path": "é" * 20, "at": at} for at in range(infected)],
            "infected_total": infected, "undone": [{"path": "x" * 50}] * undone,
            "undone_total": undone, "error": error,
            "rescan": {"undone": [{"path": "y" * 50}] * nested, "undone_total": nested}}


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_a_long_value_loses_entries_of_lists_and_nothing_else(infected, undone, nested):
    whole = result(infected, undone, nested=nested)
    text = json.dumps(whole, ensure_ascii=False)
    short = fitted(text)
    assert len(short) <= 65535
    if len(text) <= 65535:
        assert short == text
        return
    assert len(short) > 65535 * 0.8, "not shorter than it need be"
    told = json.loads(short)
    assert told.pop("truncated") is True
    for lists, full in ((told, whole), (told["rescan"], whole["rescan"])):
        for name in ("infected", "undone"):
            if name in full:
                assert lists[name] == full[name][:len(lists[name])]
                lists[name] = full[name]
    assert told == whole


def test_samples_go_before_what_has_items_of_its_own():
    rows = [{"name": f"store {at}", "images": at} for at in range(500)]
    whole = {"undone": ["x" * 90] * 1000, "stores": rows, "rescan": {"stores": rows},
             "undone_total": 1000}
    told = json.loads(fitted(json.dumps(whole)))
    assert told["stores"] == told["rescan"]["stores"] == rows
    assert 0 < len(told["undone"]) < 1000
    whole["stores"] = rows * 10
    told = json.loads(short := fitted(json.dumps(whole)))
    assert len(short) <= 65535
    assert (told["undone"], told["undone_total"], told["truncated"]) == ([], 1000, True)
    assert told["stores"] == (rows * 10)[:len(told["stores"])] != []


@given(st.integers(0, 900), st.integers(0, 400))
def test_a_long_state_goes_in_parts_and_loses_nothing(count, size):
    whole = {"stores": [{"name": f"{at}" + "é" * size} for at in range(count)],
             "databases": [1, 2], "outbox": {"waiting": 7}}
    text = json.dumps(whole, ensure_ascii=False)
    made = parts(text, "stores")
    assert all(len(one) <= 65535 for one in made)
    assert (made == [text]) is (len(text) <= 65535)
    told = [json.loads(one) for one in made]
    assert [row for one in told for row in one.pop("stores")] == whole.pop("stores")
    for one in told:
        assert one.pop("truncated", False) is (len(made) > 1)
        assert one == whole
    assert len(made) <= 1 + 2 * len(text) // 60_000


def test_a_state_that_no_parts_make_short_is_shortened():
    text = json.dumps({"stores": [], "databases": ["x" * 100] * 1000})
    [only] = parts(text, "stores")
    assert len(only) <= 65535
    assert json.loads(only)["truncated"] is True
    [only] = parts(json.dumps({"stores": ["x" * 70000]}), "stores")
    assert len(only) <= 65535


def test_a_text_that_alone_is_too_long_still_leaves_valid_json():
    told = json.loads(short := fitted(json.dumps(result(5, 5, error="z" * 70000))))
    assert len(short) <= 65535
    assert (told["truncated"], told["infected_total"]) == (True, 5)
    assert told["error"].startswith("zzz")


def test_characters_are_counted_not_bytes():
    text = json.dumps({"a": ["€" * 60000]}, ensure_ascii=False)
    assert fitted(text) == text
