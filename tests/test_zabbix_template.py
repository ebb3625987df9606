"""The template on a real Zabbix: imported by its script, fed by real jobs, its alarms heard."""

import json
import os
import sqlite3
import time
from contextlib import contextmanager

import pytest

from maintenance.monitoring.values import parts
from maintenance.times import epoch
from template.items import ITEMS, KNOWN, MASTERS
from tests.images import jpeg
from tests.site import BAD, wait_until
from tests.watched import PATIENCE, Watched, imported, unlink

pytestmark = [pytest.mark.server, pytest.mark.once]


@pytest.fixture(scope="module")
def silent(zabbix, tmp_path_factory):
    """A host that says something once; its alarm takes a while, so it begins first."""
    watched = Watched(zabbix, "a silent host", tmp_path_factory.mktemp("silent"),
                      {"{$IMAGEWARDEN.NODATA}": "30s", "{$IMAGEWARDEN.RUN.AGE}": "1s",
                       '{$IMAGEWARDEN.RUN.AGE:"definitions"}': "1s"})
    wait_until(lambda: watched.site.run("send-checks").status == 0, PATIENCE)
    return watched


@pytest.fixture(scope="module")
def watched(zabbix, silent, tmp_path_factory):
    """A host that everything was discovered on, and its site; every test leaves it well."""
    watched = Watched(zabbix, "web1.example", tmp_path_factory.mktemp("watched"), {})
    watched.site.image("a.jpg", jpeg())
    watched.run("update-definitions", "--no-rescan")
    watched.discover()
    watched.run("update-definitions", "--no-rescan")
    watched.run("rescan-store")
    watched.run("optimize-images")
    watched.checks("--discovery")
    return watched


def test_every_item_has_a_value_and_none_is_unsupported(watched):
    def lacking():
        watched.checks()
        return [key for key, item in watched.items().items() if item["lastclock"] == "0"]

    wait_until(lambda: not lacking(), PATIENCE)
    watched.wait_for("imagewarden.store.images[uploads]", "1")
    items = watched.items()
    assert {item["error"] for item in items.values()} == {""}
    assert {item["state"] for item in items.values()} == {"0"}
    rules = watched.zabbix.api("discoveryrule.get", hostids=[watched.id],
                               output=["key_", "error", "state"])
    assert {one["key_"]: one["error"] for one in rules} == {
        f"imagewarden.{rule}": "" for rule in ("stores", "databases", "jobs")}
    assert not [key for key in items if "{#" in key]
    assert {f"imagewarden.run[{job}]" for job in KNOWN} <= set(items)
    assert items["imagewarden.database.signatures[test.ndb]"]["lastvalue"] == "1"


def test_an_infection_rings_until_somebody_closes_it(watched):
    path = watched.site.image("bad\n{$X}.jpg", BAD)
    watched.run("rescan-store", status=4)
    watched.wait_for_alarm("found")
    assert watched.problems("found")[0]["name"] == (
        "imagewarden: Store uploads: infected images found: 1: bad\\u{a}{$X}.jpg"
        " (Test.Bad.UNOFFICIAL)")
    watched.checks()
    watched.wait_for("imagewarden.store.infected[uploads]", "1")
    assert not watched.rings("infected"), "one cause, one alarm"
    watched.close("found")
    watched.checks()
    watched.wait_for_alarm("infected")
    unlink(path)
    watched.run("rescan-store")
    watched.checks()
    watched.wait_for("imagewarden.store.infected[uploads]", "0")
    watched.checks()
    assert watched.rings("infected"), "it stays until it is closed by hand"
    watched.close("infected")
    watched.checks()
    assert not watched.rings("found")
    assert not watched.rings("infected")


def test_old_definitions_are_one_alarm_at_a_time(watched):
    with watched.macro(DEFINITIONS_AGE_HIGH="1s", DEFINITIONS_AGE_WARN="1s"):
        wait_until(lambda: watched.checks() and watched.rings("definitions.high"), PATIENCE)
        assert not watched.rings("definitions.warn")
    wait_until(lambda: watched.checks() and not watched.rings("definitions.high"), PATIENCE)
    with watched.macro(DEFINITIONS_AGE_WARN="1s"):
        wait_until(lambda: watched.checks() and watched.rings("definitions.warn"), PATIENCE)
        assert not watched.rings("definitions.high")
    wait_until(lambda: watched.checks() and not watched.rings("definitions.warn"), PATIENCE)


@contextmanager
def away(path):
    path.rename(path.with_suffix(".away"))
    yield
    path.with_suffix(".away").rename(path)


@pytest.mark.parametrize(("job", "script", "needs", "arguments"), [
    ("definitions", "update-definitions", "feed/test.ndb", ["--no-rescan"]),
    ("rescan", "rescan-store", "store", []), ("optimize", "optimize-images", "store", [])])
def test_a_failed_run_rings_at_once_and_the_next_good_one_ends_it(
        watched, job, script, needs, arguments):
    with away(watched.site.root / needs):
        watched.run(script, *arguments, status=1)
        watched.wait_for_alarm(f"failed[{job}]")
        name = watched.problems(f"failed[{job}]")[0]["name"]
        assert name.startswith(f"imagewarden: Job {job}: the last run failed: "), name
        assert watched.items()[f"imagewarden.failure[{job}]"]["lastvalue"] in name
        assert len(watched.items()[f"imagewarden.failure[{job}]"]["lastvalue"]) > 30
    watched.run(script, *arguments)
    watched.wait_for_silence(f"failed[{job}]")


def test_a_job_that_is_not_run_any_more_rings(watched):
    with watched.macro(RUN_AGE__rescan="1s"):
        wait_until(lambda: watched.checks() and watched.rings("overdue[rescan]"), PATIENCE)
        assert not watched.rings("overdue[definitions]")
    wait_until(lambda: watched.checks() and not watched.rings("overdue[rescan]"), PATIENCE)


def test_images_without_a_verdict_ring_when_it_lasts_and_many_at_once(watched):
    watched.site.settings["clamav"]["max_file_size"] = "10K"
    watched.site.write_config()
    path = watched.site.image("large", bytes(20_000))
    watched.run("rescan-store", status=3)
    watched.checks()
    watched.wait_for("imagewarden.store.unknown[uploads]", "1")
    assert not watched.rings("unknown"), "it has not lasted yet"
    with watched.macro(UNCHECKED_AGE__uploads="1s"):
        wait_until(lambda: watched.checks() and watched.rings("unknown"), PATIENCE)
    assert not watched.rings("undone[rescan]")
    with watched.macro(UNDONE_MAX__rescan="0"):
        wait_until(lambda: watched.run("rescan-store", status=3)
                   and watched.rings("undone[rescan]"), PATIENCE)
    unlink(path)
    del watched.site.settings["clamav"]["max_file_size"]
    watched.site.write_config()
    watched.run("rescan-store")
    watched.checks()
    watched.wait_for_silence("undone[rescan]")
    watched.wait_for_silence("unknown")


def test_images_that_wait_too_long_ring(watched):
    watched.site.write_config(store={"min_age": "1h"})
    path = watched.site.image("young", b"a new one")
    jobs = {"rescan": "rescan-store", "optimize": "optimize-images"}
    try:
        watched.run("rescan-store")
        with watched.macro(UNCHECKED_AGE__uploads="1s"):
            wait_until(lambda: watched.checks() and watched.rings("never"), PATIENCE)
        with watched.macro(LEFT_MAX="0", LEFT_AGE__rescan="1s", LEFT_AGE__optimize="1s"):
            for job, script in jobs.items():
                wait_until(lambda: watched.run(script)  # noqa: B023
                           and watched.rings(f"left[{job}]"), PATIENCE)  # noqa: B023
    finally:
        watched.site.write_config()
        for script in jobs.values():
            watched.run(script)
        unlink(path)
    watched.checks()
    for mark in ("left[rescan]", "left[optimize]", "never"):
        watched.wait_for_silence(mark)


def test_damaged_images_ring_past_a_macro_only(watched):
    path = watched.site.image("half.png", b"\x89PNG\r\n\x1a\n" + bytes(3000))
    with watched.macro(UNDONE_MAX__optimize="0"):
        watched.run("optimize-images", status=3)
        watched.wait_for_alarm("undone[optimize]")
    unlink(path)
    watched.run("optimize-images")
    watched.wait_for_silence("undone[optimize]")


def test_the_brake_rings_until_it_is_released(watched):
    watched.site.settings["rescan"] = {"action": "quarantine", "quarantine_limit": 1}
    watched.site.write_config()
    for name in ("one.jpg", "two.jpg"):
        watched.site.image(name, BAD)
    watched.run("rescan-store", status=4)
    watched.checks()
    watched.wait_for_alarm("brake")
    assert watched.problems("brake")[0]["name"].endswith(': ["uploads"]')
    for name in ("one.jpg", "two.jpg"):
        (watched.site.store / name).unlink(missing_ok=True)
    watched.site.run("quarantine", "release", "--store", "uploads")
    del watched.site.settings["rescan"]
    watched.site.write_config()
    watched.run("rescan-store")
    watched.checks()
    watched.wait_for_silence("brake")
    watched.wait_for("imagewarden.quarantine.held", "1")
    watched.wait_for("imagewarden.rescan.found[uploads]", "")
    watched.close("found")


def test_a_store_that_shrinks_rings_until_the_next_rescan(watched):
    paths = [watched.site.image(f"many/{at}", b"%d" % at) for at in range(9)]
    watched.run("rescan-store")
    unlink(*paths[:3])
    watched.run("rescan-store")
    watched.checks()
    watched.wait_for_alarm("shrink")
    watched.run("rescan-store")
    watched.checks()
    watched.wait_for_silence("shrink")
    with watched.macro(SHRINK_SHARE__uploads="0.5"):
        unlink(*paths[3:6])
        watched.run("rescan-store")
        watched.checks()
        watched.wait_for("imagewarden.store.images[uploads]", "4")
        assert not watched.rings("shrink"), "the macro has the store's name as its context"
        watched.run("rescan-store")
        watched.checks()


def test_results_that_wait_ring_and_so_do_dropped_ones(watched):
    item = watched.items()["imagewarden.run[rescan]"]["itemid"]
    with watched.macro(OUTBOX_MAX="0"):
        watched.zabbix.api("item.update", itemid=item, status=1)
        watched.zabbix.learn()
        wait_until(lambda: watched.run("rescan-store") and waiting(watched), PATIENCE)
        watched.checks()
        watched.wait_for_alarm("outbox")
        with sqlite3.connect(watched.site.state / "ledger.sqlite") as ledger:
            ledger.execute("UPDATE outbox SET clock = clock - 31 * 86400")
        ledger.close()
        watched.checks()
        watched.wait_for_alarm("dropped")
    watched.zabbix.api("item.update", itemid=item, status=0)
    watched.zabbix.learn()
    watched.checks()
    watched.wait_for_silence("outbox")
    watched.wait_for_silence("dropped")


def waiting(watched):
    return watched.site.run("store-status", "--json").json["outbox"]["waiting"]


def test_uploads_that_are_not_scanned_ring(watched):
    watched.wait_for_alarm("upload.away")
    with watched.site.clamd():
        watched.checks()
        watched.wait_for_silence("upload.away")
    watched.site.settings["upload"] = {"enabled": False}
    watched.site.write_config()
    watched.checks()
    watched.wait_for_alarm("upload.off")
    del watched.site.settings["upload"]
    watched.site.write_config()
    watched.checks()
    watched.wait_for_silence("upload.off")
    with watched.macro(UPLOAD_WANTED="0", UPLOAD_AGE="1s"):
        watched.checks()
        watched.wait_for("imagewarden.upload.engine", "0")
        assert not watched.rings("upload.away")


def test_hits_that_nobody_counts_ring(watched):
    spool = watched.site.state / "spool/hits"
    spool.mkdir(parents=True, exist_ok=True)
    left = spool / f"{'0' * 32}.hits"
    left.write_text("2026-11-25\ta.jpg\t\n")
    os.utime(left, (time.time() - 7200,) * 2)
    watched.checks()
    watched.wait_for_alarm("hits")
    watched.run("flush-hits")
    watched.checks()
    watched.wait_for_silence("hits")


def test_uploads_without_a_verdict_and_an_old_engine_ring(watched):
    path = watched.site.image("upload.jpg")
    watched.checks()
    watched.wait_for("imagewarden.upload.unknown", "0")
    with watched.macro(UPLOAD_UNKNOWN_MAX="1"):
        for _ in range(2):
            assert watched.site.run("scan-upload", path).status == 3
        watched.checks()
        watched.wait_for("imagewarden.upload.unknown", "2")
        watched.wait_for_alarm("upload.unknown")
    state = json.loads(watched.last("imagewarden.state"))
    state["upload"] |= {"engine": True, "engine_old": True}
    watched.offer("imagewarden.state", json.dumps(state))
    watched.wait_for_alarm("upload.old")
    watched.checks()
    watched.wait_for_silence("upload.old")
    (watched.site.store / "upload.jpg").unlink()


def test_work_without_a_sandbox_rings(watched):
    watched.site.settings["optimize"]["sandbox"] = "off"
    watched.site.write_config()
    watched.run("optimize-images")
    watched.wait_for_alarm("sandbox")
    del watched.site.settings["optimize"]["sandbox"]
    watched.site.write_config()
    watched.run("optimize-images")
    watched.wait_for_silence("sandbox")


def test_checks_that_fail_ring_but_not_for_what_is_over(watched):
    watched.site.settings["zabbix"]["servers"] = ["127.0.0.1:1"]
    watched.site.write_config()
    watched.checks(status=1)
    watched.site.settings["zabbix"]["servers"] = [watched.zabbix.address]
    watched.site.write_config()
    before = time.time()
    watched.checks()
    wait_until(lambda: watched.last("imagewarden.outcome[checks]", before) == "done", PATIENCE)
    trigger = watched.trigger("failed[checks]")["triggerid"]
    assert watched.zabbix.api("event.get", objectids=[trigger]) == []
    with (watched.site.state / "ledger.sqlite").open("r+b") as ledger:
        ledger.write(b"no ledger" * 500)
    watched.checks(status=1)
    watched.wait_for_alarm("failed[checks]")
    watched.checks()
    watched.wait_for_silence("failed[checks]")


# --- what no job of ours would send, but the contract allows


def database(name, built, checked="2026-11-20T00:00:00Z"):
    return {"name": name, "version": None, "signatures": 1, "built": built, "checked": checked}


OLD, NEW = "2021-09-16T12:32:42Z", "2026-11-19T08:00:00Z"


@pytest.mark.parametrize(("databases", "time"), [
    ([database("main.cvd", OLD), database("daily.cld", NEW)], NEW),
    ([database("daily.cvd", OLD), database("bytecode.cvd", NEW)], OLD),
    ([database("main.cvd", OLD), database("own.cvd", NEW)], NEW),
    ([database("a.ndb", None), database("daily.cvd", NEW)], NEW),
    ([database("a.ndb", None, OLD), database("daily.cvd", NEW)], OLD),
    ([database("a.ndb", None)], "2026-11-20T00:00:00Z"),
    ([], None)])
def test_definitions_are_as_old_as_what_should_be_newest(contract, databases, time):
    contract.tell({"definitions": {"generation": 1, "databases": databases}})
    contract.wait_for("imagewarden.definitions.time", str(int(epoch(time)) if time else 0))


@pytest.fixture(scope="module")
def contract(zabbix, silent, tmp_path_factory):
    """A host that is told what the contract says, by hand."""
    return Contract(zabbix, "contract", tmp_path_factory.mktemp("contract"), {})


class Contract(Watched):
    """A host that is sent what no site of ours would send."""

    def tell(self, state, key="imagewarden.state"):
        text = json.dumps(state, ensure_ascii=False)
        wait_until(lambda: self.offer(key, text, ns=time.time_ns() % 10**9) == 1, PATIENCE)


NAMES = ['up "loads" \\ é', "it's", 'both\'"', "$1 {$X}", "[0]", "x'] || @.n==1 || ['"]


def test_names_of_any_kind_have_their_own_values(contract):
    contract.tell([{"{#STORE}": name} for name in NAMES], "imagewarden.stores")
    contract.tell([{"{#DATABASE}": name} for name in NAMES], "imagewarden.databases")
    contract.tell([{"{#JOB}": name} for name in [*KNOWN, *NAMES]], "imagewarden.jobs")
    made = 13 * len(NAMES), 3 * len(NAMES), 5 * len(NAMES)
    wait_until(lambda: len(contract.items()) == len(MASTERS) + len(ITEMS) + sum(made), PATIENCE)
    contract.zabbix.learn()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {
        "stores": [{"name": name, "images": 10 + n, "previous_images": None, "unknown": 0,
                    "never": n % 2} for n, name in enumerate(NAMES)],
        "definitions": {"generation": 1, "databases": [
            database(name, None) | {"signatures": 20 + n} for n, name in enumerate(NAMES)]},
        "jobs": [{"job": name, "outcome": "done", "finished": at, "last_success": at}
                 for name in NAMES]}
    run = {"job": "rescan", "outcome": "infected", "infected_total": len(NAMES),
           "stores": [{"name": name, "infected": 1} for name in NAMES],
           "infected": [{"store": name, "path": f"{n}.jpg", "signature": "Bad"}
                        for n, name in enumerate(NAMES)]}

    def values():
        contract.tell(state)
        contract.tell(run, "imagewarden.run[rescan]")
        return contract.items()

    def of(items, kind):
        return {one["lastvalue"] for key, one in items.items()
                if key.startswith(f"imagewarden.{kind}[")}

    every = range(len(NAMES))
    wait_until(lambda: of(values(), "store.images") == {str(10 + n) for n in every}, PATIENCE)
    items = values()
    assert of(items, "database.signatures") == {str(20 + n) for n in every}
    assert of(items, "store.previous_images") == {"0"}
    assert of(items, "store.never_since") == {"0", "1"}, "nobody says since when: always"
    assert of(items, "rescan.found") == {f"1: {n}.jpg (Bad)" for n in every}
    success = str(int(epoch(at)))
    assert [key for key, one in items.items() if key.startswith("imagewarden.last_success[")
            and one["lastvalue"] == success] == [
        key for key in items if key.startswith("imagewarden.last_success[")
        and not any(job in key for job in KNOWN)]
    rules = contract.zabbix.api("discoveryrule.get", hostids=[contract.id], output=["error"])
    assert {one["error"] for one in rules} == {""}
    assert {one["error"] for one in items.values()} == {""}


def test_a_long_state_brings_every_store_its_values(contract):
    names = [f"store {at:03} " + "é" * 200 for at in range(200)]
    rows = [{"name": name, "images": 7, "previous_images": 9, "unknown": 0, "never": 0,
             "more": "x" * 200} for name in names]
    text = json.dumps({"stores": rows, "outbox": {"waiting": 3}}, ensure_ascii=False)
    assert len(text) > 80_000
    made = parts(text, "stores")
    contract.tell([{"{#STORE}": names[0]}, {"{#STORE}": names[-1]}], "imagewarden.stores")
    keys = [f"imagewarden.store.{what}[{name}]" for name in (names[0], names[-1])
            for what in ("images", "previous_images")]
    wait_until(lambda: set(keys) <= set(contract.items()), PATIENCE)
    contract.zabbix.learn()

    def values():
        for part in made:
            contract.tell(json.loads(part))
        items = contract.items()
        return [items[key]["lastvalue"] for key in keys]

    wait_until(lambda: values() == ["7", "9", "7", "9"], PATIENCE)
    contract.wait_for("imagewarden.outbox.waiting", "3")
    last = contract.items()[keys[1]]["itemid"]
    history = contract.zabbix.api("history.get", itemids=[last], history=3, output=["value"])
    assert {one["value"] for one in history} == {"9"}, "no part says anything of others' stores"


@pytest.mark.parametrize(("run", "why"), [
    ({"outcome": "failed", "error": "because"}, "because"),
    ({"outcome": "failed"}, "no reason given"),
    ({"outcome": "incomplete", "error": "x"}, ""), ({}, "")])
def test_why_a_run_failed_is_one_text(contract, run, why):
    contract.tell({"job": "optimize", **run}, "imagewarden.run[optimize]")
    contract.wait_for("imagewarden.failure[optimize]", why)


def test_a_run_without_members_leaves_the_values_that_there_were(contract):
    contract.tell({"job": "optimize", "outcome": "done", "seconds": 1.5, "bytes_saved": -5,
                   "stores": [{"shrunk": 2}, {"shrunk": 3}]}, "imagewarden.run[optimize]")
    contract.wait_for("imagewarden.optimize.shrunk", "5")
    contract.tell({"job": "optimize", "outcome": "closed", "seconds": 2.5, "stores": []},
                  "imagewarden.run[optimize]")
    contract.wait_for("imagewarden.seconds[optimize]", "2.5")
    items = contract.items()
    assert items["imagewarden.optimize.shrunk"]["lastvalue"] == "5"
    assert items["imagewarden.optimize.saved"]["lastvalue"] == "-5"
    assert {one["error"] for one in items.values()} == {""}


def test_a_second_import_changes_nothing_and_keeps_history(watched):
    zabbix = watched.zabbix

    def everything():
        each = {kind: zabbix.api(f"{kind}.get", hostids=[watched.id], output="extend")
                for kind in ("item", "trigger", "graph", "discoveryrule", "itemprototype")}
        volatile = ("last", "prev", "value", "state", "error", "templateid")
        return {kind: sorted(sorted((name, str(value)) for name, value in one.items()
                                     if not name.startswith(volatile)) for one in found)
                for kind, found in each.items()}

    before, template = everything(), zabbix.exported("imagewarden")
    item = watched.items()["imagewarden.state"]["itemid"]
    first = zabbix.history(item)[0]
    assert imported(zabbix).returncode == 0
    assert everything() == before
    assert zabbix.exported("imagewarden") == template
    assert zabbix.history(item)[0] == first


def test_every_widget_shows_something(watched):
    zabbix = watched.zabbix
    template = zabbix.api("template.get", filter={"host": ["imagewarden"]})[0]["templateid"]
    pages = zabbix.api("templatedashboard.get", templateids=[template], selectPages="extend")
    assert len(pages) == 3
    items = watched.items()
    kept = {item["templateid"]: item for item in items.values()}
    graphs = zabbix.api("graph.get", hostids=[watched.id], output=["name", "templateid"],
                        selectItems=["itemid"], selectGraphDiscovery=["parent_graphid"])
    prototypes = {one["graphid"]: one["templateid"] for one in zabbix.api(
        "graphprototype.get", hostids=[watched.id], output=["templateid"])}
    values = {item["itemid"]: item["lastclock"] != "0" for item in items.values()}
    seen = 0
    for page in pages:
        for widget in page["pages"][0]["widgets"]:
            fields = {one["name"].split(".")[0]: one["value"] for one in widget["fields"]}
            if "itemid" in fields:
                assert values[kept[fields["itemid"]]["itemid"]], widget
            else:
                shown = [one for one in graphs if fields["graphid"] in {
                    one["templateid"],
                    prototypes.get((one["graphDiscovery"] or {}).get("parent_graphid"))}]
                assert shown, widget
                assert all(values[item["itemid"]] for one in shown for item in one["items"])
            seen += 1
    assert seen == 14


def test_a_host_that_says_nothing_rings_and_so_do_jobs_that_never_ran(silent):
    silent.wait_for_alarm("nodata")
    wait_until(lambda: silent.checks() and not silent.rings("nodata"), PATIENCE)
    wait_until(lambda: silent.checks() and silent.rings("overdue[rescan]"), PATIENCE)
    assert silent.rings("overdue[definitions]")
    assert not silent.rings("overdue[optimize]"), "it is not missed before it ever ran"


def test_no_alarm_is_beyond_evaluation(watched):
    found = watched.zabbix.api("trigger.get", hostids=[watched.id], output=["error"])
    assert {one["error"] for one in found} == {""}
