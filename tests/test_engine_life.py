"""What becomes of a rescan whose engine dies, hangs, or loads something else."""

import json
import os
import signal
import threading
from collections import Counter
from contextlib import suppress

import pytest

from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY
from maintenance.jobs.engines import ENGINES
from maintenance.jobs.inspection import DEADLY
from tests.processes import engines, family, named, opened_by, started
from tests.site import BAD, LATER, body_signature, booked, one_store, verdicts, wait_until

pytestmark = [pytest.mark.server, pytest.mark.once]


def test_an_engine_that_is_killed_in_the_middle_is_followed_by_another(site):
    for one in range(500):
        site.image(f"{one:03}.jpg", BAD if one == 450 else b"%d" % one)
    os.truncate(site.image("100a.jpg"), 95 * 2**20)  # the engine dwells here
    os.truncate(site.image("100b.jpg"), 95 * 2**20)
    site.update()
    with started(site.command("rescan-store", "--json")) as job:
        wait_until(lambda: booked(site) >= 64)
        os.kill(named(family(job.pid), "clamd")[0], signal.SIGKILL)
        out, err = job.communicate(timeout=60)
    result = json.loads(out)
    assert b"Traceback" not in err
    store = one_store(result)
    assert (store["clean"], store["infected"], store["unknown"], store["left"]) == (501, 1, 0, 0)
    assert (store["full"], job.returncode) == (502, 4), "none is counted twice"
    assert b"hung up" in err, "it was killed in the middle"


def poison(site, *names):
    """Images that an engine dwells on; ``poisoned`` makes them deadly."""
    for name in names:
        os.truncate(site.image(name), 40 * 2**20)
    return {str(site.store / name) for name in names}


def poisoned(command, deadly):
    """Run a job whose engines are killed over images; its result, and how many died."""
    dead, outputs = set(), []
    with started(command) as job:
        talk = threading.Thread(target=lambda: outputs.extend(job.communicate(timeout=120)))
        talk.start()
        while talk.is_alive():
            for pid in set(engines(job.pid)) - dead:
                with suppress(FileNotFoundError, ProcessLookupError):
                    if deadly & set(opened_by(pid)):
                        os.kill(pid, signal.SIGKILL)
                        dead.add(pid)
        talk.join()
    assert b"Traceback" not in outputs[1]
    return job.returncode, json.loads(outputs[0]), len(dead)


@pytest.mark.parametrize("names", [("m.jpg",), ("a.jpg", "z.jpg")])
def test_images_that_kill_engines_cost_a_line_each_and_not_the_run(site, names):
    for one in range(300):
        site.image(f"m{one:03}.jpg", BAD if one == 150 else b"%d" % one)
    deadly = poison(site, *names)
    site.update()
    command = site.command("rescan-store", "--json")
    status, result, deaths = poisoned(command, deadly)
    store = one_store(result)
    assert (status, store["clean"], store["infected"], store["left"]) == (4, 299, 1, 0)
    assert [one["path"] for one in result["undone"]] == sorted(names)
    assert all(one["reason"].startswith(DEADLY) for one in result["undone"])
    assert 2 <= deaths <= 2 * len(names)
    status, result, deaths = poisoned(command, deadly)
    assert ([one["path"] for one in result["undone"]], deaths) == (sorted(names), len(names)), (
        "the next run asks about them last, and one at a time")
    assert one_store(result)["full"] == len(names)
    for name in names:
        (site.store / name).unlink()
    assert site.rescan()[1]["undone"] == []


def test_an_engine_that_hangs_over_an_image_is_replaced(site):
    for one in range(70):
        site.image(f"a{one:02}.jpg", b"%d" % one)
    site.image("m.jpg")
    os.truncate(site.store / "m.jpg", 95 * 2**20)
    site.settings["clamav"]["timeout"] = "1s"
    site.write_config()
    site.update()
    with started(site.command("rescan-store", "--json")) as job:
        wait_until(lambda: booked(site) >= 64)
        os.kill(engines(job.pid)[0], signal.SIGSTOP)
        out, err = job.communicate(timeout=60)
    store = one_store(json.loads(out))
    assert b"gave no answer within 1 s" in err
    assert (job.returncode, store["clean"], store["unknown"]) in {(0, 71, 0), (3, 70, 1)}


def test_paths_that_kill_engines_cost_a_line_each_and_not_the_run(site):
    for one in range(80):
        site.image(f"m{one:03}.jpg", b"%d" % one)
    deadly = poison(site, "a.jpg", "z.jpg")
    site.update()
    status, result, deaths = poisoned(
        site.command("rescan-store", site.store, "--json"), deadly)
    store = one_store(result)
    assert (status, store["images"], store["clean"], store["unknown"]) == (3, 82, 80, 2)
    assert sorted(one["path"] for one in result["undone"]) == ["a.jpg", "z.jpg"]
    assert 2 <= deaths <= 4


def test_more_deaths_than_a_run_may_cost_leave_the_rest_to_the_next(site):
    names = [f"a{one}.jpg" for one in range(6)]
    deadly = poison(site, *names)
    for one in range(50):
        site.image(f"m{one:03}.jpg", b"%d" % one)
    site.settings["rescan"] = {"in_flight": 1}  # each is met by itself: two deaths each
    site.write_config()
    site.update()
    status, result, deaths = poisoned(site.command("rescan-store", "--json"), deadly)
    store = one_store(result)
    assert (status, deaths) == (3, ENGINES)
    assert store["clean"] + store["unknown"] + store["left"] == 56
    assert store["clean"] == 50, "all else is asked first"
    assert 1 <= store["unknown"] == result["undone_total"]
    while result["undone_total"] < 6:
        before = result["undone_total"]
        status, result, _ = poisoned(site.command("rescan-store", "--json"), deadly)
        assert result["undone_total"] > before, "every run gets on"
    assert (status, one_store(result)["clean"], one_store(result)["left"]) == (3, 50, 0)


def test_a_system_clamd_that_dies_in_the_middle_leaves_the_rest_to_the_next_run(site):
    for one in range(70):
        site.image(f"a{one:02}.jpg", b"%d" % one)
        site.image(f"z{one:02}.jpg", b"%d" % one)
    for one in range(4):
        os.truncate(site.image(f"m{one}.jpg"), 90 * 2**20)  # the engine dwells here
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd() as daemon:
        site.update()
        with started(site.command("rescan-store", "--json")) as job:
            wait_until(lambda: booked(site) >= 64)
            daemon.kill()
            out, err = job.communicate(timeout=60)
        result, store = json.loads(out), one_store(json.loads(out))
        assert (job.returncode, result["outcome"]) == (3, "incomplete"), err
        assert b"Traceback" not in err
        assert store["clean"] + store["unknown"] + store["left"] == 144
        assert store["left"] >= 60
    site.socket.unlink(missing_ok=True)
    with site.clamd():
        status, result = site.rescan()
        assert (status, one_store(result)["clean"]) == (0, 144)
        assert one_store(result)["full"] == 144 - store["clean"]


def test_a_system_clamd_that_an_image_kills_is_not_killed_again(site):
    for one in range(40):
        site.image(f"a{one:02}.jpg", b"%d" % one)
    path, = poison(site, "m.jpg")
    site.settings["clamav"]["engine"] = "system"
    site.settings["rescan"] = {"in_flight": 64}
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd() as daemon:
        site.update()
        with started(site.command("rescan-store", "--json")) as job:
            wait_until(lambda: path in opened_by(daemon.pid))
            daemon.kill()
            out, _ = job.communicate(timeout=60)
    result, store = json.loads(out), one_store(json.loads(out))
    assert (job.returncode, store["clean"] + store["unknown"] + store["left"]) == (3, 41)
    assert store["unknown"] == result["undone_total"] >= 1
    assert "m.jpg" in {one["path"] for one in result["undone"]}
    site.socket.unlink(missing_ok=True)
    with site.clamd():
        assert one_store(site.rescan()[1])["clean"] == 41


def test_a_reload_in_the_middle_of_a_run_is_served_to_its_end(site):
    """Every image has what the later definitions find; some were asked about before."""
    for one in range(200):
        site.image(f"a{one:03}.jpg", LATER + b"%d" % one)
    for one in range(4):
        os.truncate(site.image(f"m{one}.jpg"), 90 * 2**20)  # the engine dwells here
    for one in range(50):
        site.image(f"z{one:03}.jpg", LATER + b"%d" % one)
    site.settings["clamav"]["engine"] = "system"
    site.settings["rescan"] = {"in_flight": 2}
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        with started(site.command("rescan-store", "--json")) as job:
            wait_until(lambda: booked(site) >= 64)
            site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
            site.update()
            assert {row[2:5] for row in verdicts(site)} <= {
                ("clean", None, 1), (None, None, None),
                ("infected", "Test.Later.UNOFFICIAL", 2)}
            out, err = job.communicate(timeout=60)
    result = json.loads(out)
    assert (job.returncode, result["infected_total"], result["definitions"]["generation"]) == (
        4, 250, 2), err
    assert Counter(row[2:5] for row in verdicts(site)) == {
        ("infected", "Test.Later.UNOFFICIAL", 2): 250, ("clean", None, 2): 4}


def test_a_clamd_that_lost_its_definitions_in_the_middle_is_no_success(site):
    for one in range(200):
        site.image(f"a{one:03}.jpg", b"%d" % one)
    for one in range(8):
        os.truncate(site.image(f"m{one}.jpg"), 90 * 2**20)  # the engine dwells here
    site.settings["clamav"]["engine"] = "system"
    site.settings["rescan"] = {"in_flight": 2}
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    with site.clamd():
        site.update()
        with started(site.command("rescan-store", "--json")) as job:
            wait_until(lambda: booked(site) >= 192)
            canary, aside = Canary.read(site.databases), site.root / "aside"
            (site.databases / CANARY).rename(aside)
            Clamd(str(site.socket)).ask("RELOAD")
            wait_until(lambda: not canary.found_by(Clamd(str(site.socket))))
            aside.rename(site.databases / CANARY)
            out, err = job.communicate(timeout=60)
    result = json.loads(out)
    assert (job.returncode, result["outcome"]) == (3, "incomplete"), err
    assert one_store(result)["left"] >= 1
