"""The delivery of the outbox: complete, in order, and blocked by nothing."""

import time
from itertools import pairwise

import pytest

from maintenance.errors import MonitoringError
from maintenance.ledger.ledger import Ledger, Run
from maintenance.monitoring import delivery
from maintenance.monitoring.delivery import DAY, Delivery
from maintenance.monitoring.zabbix import Zabbix
from maintenance.settings import Zabbix as Settings
from maintenance.times import Deadline
from maintenance.units import Timeout
from tests.trappers import Trapper, lacks, refuses_all, takes

pytestmark = pytest.mark.once


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path) as opened:
        yield opened


def put(ledger, *keys, age=0.0, value="{}"):
    for key in keys:
        ledger.outbox.put(key, value, time.time() - age, keep=10**6)


def delivered(ledger, server, seconds=60.0, *, bounded=False):
    zabbix = Zabbix(Settings(servers=(server.address,), timeout=Timeout(20)))
    done = Delivery(ledger.outbox, zabbix, "web1", Deadline.after(seconds))
    if bounded:
        done.bound()
    done.run()
    return done


def waiting(ledger):
    return [row.key for row in ledger.outbox.waiting(0, 10**6)]


def test_what_was_taken_is_gone_and_went_oldest_first(ledger):
    for at in range(600):
        put(ledger, "abc"[at % 3], value=f'{{"at": {at}}}')
    with Trapper(takes) as server:
        done = delivered(ledger, server)
    assert [value["value"] for value in server.values] == [f'{{"at": {at}}}' for at in range(600)]
    assert (done.sent, waiting(ledger)) == (600, [])
    assert [len(one) for one in server.requests] == [250, 250, 100]


def test_a_request_is_not_huge(ledger):
    put(ledger, *"a" * 40, value='{"a": "%s"}' % ("x" * 60000))
    with Trapper(takes) as server:
        delivered(ledger, server)
    assert max(sum(len(value["value"]) for value in one) for one in server.requests) < 600_000
    assert len(server.values) == 40


def test_values_of_one_moment_have_nanoseconds_of_their_own_and_in_order(ledger):
    now = time.time()
    for _ in range(300):
        ledger.outbox.put("a", "{}", now, 1000)
    with Trapper(takes) as server:
        delivered(ledger, server)
    stamps = [(value["clock"], value["ns"]) for value in server.values]
    assert all(one < other for one, other in pairwise(stamps))
    assert {clock for clock, _ in stamps} == {int(now)}


def test_no_clock_is_in_the_future(ledger):
    put(ledger, "a", age=-3600)
    with Trapper(takes) as server:
        delivered(ledger, server)
    assert server.values[0]["clock"] <= time.time()


def test_an_answer_that_is_lost_has_the_same_value_sent_again_not_another(ledger):
    put(ledger, "a", "b")

    def vanishes(caller):
        caller.hear()
        caller.reset()

    with Trapper(vanishes) as server, pytest.raises(MonitoringError):
        delivered(ledger, server)
    assert waiting(ledger) == ["a", "b"]
    with Trapper(takes) as second:
        delivered(ledger, second)
    assert second.values == server.values
    assert waiting(ledger) == []


@pytest.mark.parametrize("age", [0, 3 * DAY])
def test_an_item_that_is_missing_holds_up_no_other_and_loses_nothing(ledger, age):
    for _ in range(400):
        put(ledger, "missing", "there", age=age)
    with Trapper(lacks("missing")) as server:
        done = delivered(ledger, server)
        assert len(server.requests) <= 8
    assert (done.sent, done.set_aside) == (400, 0)
    assert set(done.refused) == {"missing"}
    assert waiting(ledger) == ["missing"] * 400
    with Trapper(takes) as server:
        delivered(ledger, server)
    assert waiting(ledger) == []
    stamps = [(value["clock"], value["ns"]) for value in server.values]
    assert stamps == sorted(stamps)


def test_success_that_took_nothing_loses_nothing(ledger):
    put(ledger, "a", "b", "c")
    with Trapper(refuses_all) as server:
        done = delivered(ledger, server)
    assert (done.sent, done.refused.total(), waiting(ledger)) == (0, 3, ["a", "b", "c"])


def dislikes(text):
    def part(caller):
        values = caller.hear()
        good = sum(text not in value["value"] for value in values)
        caller.answer(good, len(values) - good)
    return part


@pytest.mark.parametrize(("age", "aside"), [(3600, 0), (1.5 * DAY, 1)])
def test_the_one_bad_value_is_found_and_after_a_day_set_aside(ledger, age, aside):
    put(ledger, *"ab" * 50, age=age)
    put(ledger, "a", age=age, value='{"bad": 1}')
    put(ledger, *"ab" * 50, age=age)
    with Trapper(dislikes("bad")) as server:
        done = delivered(ledger, server)
        assert len(server.requests) < 40
    assert (done.sent, done.set_aside) == (200, aside)
    assert waiting(ledger) == [] if aside else ["a"]
    assert ledger.outbox_state()[:2] == (1 - aside, aside)
    assert done.refused.total() == 1 - aside


def test_a_full_request_of_bad_values_does_not_hold_up_the_good_ones_of_their_item(ledger):
    put(ledger, *"a" * 260, value='{"bad": 1}')
    put(ledger, *"a" * 20)
    with Trapper(dislikes("bad")) as server:
        done = delivered(ledger, server)
    assert done.sent == 20
    assert waiting(ledger) == ["a"] * 260


def test_an_item_that_came_into_being_meanwhile_gets_its_old_values_too(ledger, monkeypatch):
    monkeypatch.setattr(delivery, "REQUEST", 2)
    put(ledger, *"aaaa", age=2 * DAY)

    def soon_knows_it(caller):
        values = caller.hear()
        caller.answer(0 if len(server.requests) == 1 else len(values), 0)

    with Trapper(soon_knows_it) as server:
        done = delivered(ledger, server)
    assert (done.sent, done.set_aside, done.refused.total()) == (4, 0, 0)
    assert waiting(ledger) == []


def test_what_is_too_old_or_too_much_is_dropped(ledger, monkeypatch):
    put(ledger, "older than most", "a", "b", age=DAY)
    put(ledger, "old", age=31 * DAY)  # its clock was set back
    monkeypatch.setattr(delivery, "MOST", 3)
    with Trapper(takes) as server:
        done = delivered(ledger, server, bounded=True)
    assert (done.dropped, [value["key"] for value in server.values]) == (2, ["a", "b"])


def test_who_only_hands_over_drops_nothing(ledger):
    put(ledger, "old", age=31 * DAY)
    with Trapper(takes) as server:
        assert delivered(ledger, server).dropped == 0
    assert [value["key"] for value in server.values] == ["old"]


def test_of_one_item_only_the_newest_go_on_waiting(ledger):
    put(ledger, "run")
    for at in range(5):
        ledger.outbox.put("state", f'{{"at": {at}}}', time.time(), keep=3)
    rows = ledger.outbox.waiting(0, 100)
    assert [row.value for row in rows] == ["{}", '{"at": 2}', '{"at": 3}', '{"at": 4}']


def test_when_time_is_up_the_rest_goes_on_waiting(ledger):
    put(ledger, *"a" * 600)

    def takes_one_request(caller):
        values = caller.hear()
        if server.requests.index(values) == 0:
            caller.answer(len(values), 0)
        else:
            caller.wait_for_the_end()

    with Trapper(takes_one_request) as server:
        done = delivered(ledger, server, seconds=3)
    assert (done.sent, len(waiting(ledger))) == (250, 350)


def test_runs_are_forgotten_but_for_what_is_still_asked_about(ledger):
    now = time.time()

    def ran(job, days, status, generation=None):
        ledger.record_run(Run(job, now - days * DAY, now - days * DAY, "x", status,
                              {"stores": [], "days": days}, generation), send=False)

    for days in (90, 80, 70, 60):
        ran("rescan", days, 0, generation=days)
    ran("rescan", 50, 1)
    ran("checks", 40, 0)
    ran("checks", 39, 0)
    ran("checks", 1, 0)
    before = ledger.last_runs(), ledger.last_rescan(), ledger.last_result("checks")
    ledger.forget_runs(now - 30 * DAY)
    assert (ledger.last_runs(), ledger.last_rescan(), ledger.last_result("checks")) == before
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 3
