"""The benchmark of rescans, run with numbers that tell nothing, so that it cannot rot."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maintenance.errors import ImagewardenError, ToolError
from tests.benchmarks import report, scanning, signatures, stores
from tests.benchmarks.command import main
from tests.benchmarks.host import Host
from tests.benchmarks.scale import Scale, check
from tests.benchmarks.scanning import FIND, NO_CHANGE, OURS, PEER, SERIAL, Disagreement, Heat
from tests.benchmarks.timing import Run, percentile, timed
from tests.benchmarks.uploads import Uploads, Wait
from tests.processes import ENVIRONMENT, family, hidden, lives, started
from tests.site import wait_until

pytestmark = pytest.mark.once

SCRIPT = Path(__file__).resolve().parent / "benchmarks/rescan.py"
SMALL = ("--signatures", "100", "--rounds", "1", "--megabytes", "2")


def command(place, *arguments):
    """The script, which is to work in ``place`` and leave nothing there."""
    place.mkdir()
    return [sys.executable, SCRIPT, *SMALL, "--dir", place, *arguments]


def measured(tmp_path, *arguments, wrap=()):
    """What the script printed, and its raw figures."""
    figures = tmp_path / "figures.json"
    done = subprocess.run([*wrap, *command(tmp_path / "place", "--json", figures, *arguments)],
                          cwd="/", env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "place").iterdir()) == []
    return done.stdout, json.loads(figures.read_text())


@pytest.mark.server
def test_all_that_scan_the_store_find_the_images_planted_in_it(tmp_path):
    table, (heats,) = measured(tmp_path, "--images", "20")
    assert [heat["name"] for heat in heats] == [
        "clamdscan --multiscan --fdpass", "rescan-store --full", "serial INSTREAM",
        "find -printf", "rescan-store, no change"]
    assert {name for heat in heats[:3] for name in heat["hits"].values()} == {
        f"Benchmark.Planted.{kind}.UNOFFICIAL" for kind in ("Hdb", "Hsb", "Ndb", "Ldb")}
    assert all(len(heat["hits"]) == 4 and heat["clamd_cpu"] > 0 for heat in heats[:3])
    assert len({heat["clamd"] for heat in heats[:3]}) == 3  # a new one's cache is cold
    assert "of clamdscan's speed (to reach: at least 0.95)" in table
    assert "times find" in table


@pytest.mark.server
def test_the_walk_at_scale_ends_with_every_image_current(tmp_path):
    table, figures = measured(tmp_path, "--tiny", "--images", "300")
    (last,) = figures["no_change"]
    assert json.loads(last["out"])["stores"][0]["current"] == 300
    assert json.loads(figures["first_walk"]["out"])["stores"][0]["left"] == 300
    assert figures["ledger"] > 300 * 50
    assert "(to reach: at most 3)" in table


@pytest.mark.server
def test_the_same_uploads_are_timed_with_and_without_a_rescan(tmp_path):
    table, figures = measured(tmp_path, "--uploads", "--images", "60", "--megabytes", "8",
                              "--samples", "3")
    for waits in figures["idle"], figures["beside"]:
        assert len(waits) == 3
        assert all(wait["script"] > wait["request"] > 0 for wait in waits)
    assert "p95" in table


@pytest.mark.server
@pytest.mark.parametrize(("end", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_it_nothing_is_left(tmp_path, end, status):
    place = tmp_path / "place"
    with started(command(place, "--images", "20")) as script:
        while b"round 1" not in script.stderr.readline():
            assert script.poll() is None
        running = family(script.pid)
        script.send_signal(end)
        assert script.wait(30) == status
        wait_until(lambda: not any(place.iterdir()) and not any(map(lives, running)))


def test_a_program_that_is_missing_is_named_in_one_line(tmp_path):
    with hidden("/usr/bin/clamdscan") as host:
        done = subprocess.run([*host.wrap, *command(tmp_path / "place")], env=ENVIRONMENT,
                              capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "clamdscan" in done.stderr


@pytest.mark.server
def test_a_planted_image_that_is_not_found_fails_the_benchmark(tmp_path, monkeypatch, capsys):
    make = signatures.make
    monkeypatch.setattr(signatures, "make", lambda directory, count, planted:
                        make(directory, count, planted[1:]))
    assert main([*SMALL, "--images", "20", "--no-serial", "--dir", str(tmp_path)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "planted was" in line]
    assert [line.split(" found ")[0] for line in lines] == [
        f"rescan.py: {name}" for name in (PEER, OURS)]


def test_a_store_is_the_same_each_time_and_no_two_images_are_alike(tmp_path):
    planted = [stores.make(tmp_path / name, 40, 2_000_000) for name in "ab"]
    first, second = ({path.relative_to(place): path.read_bytes()
                      for path in place.rglob("*") if path.is_file()}
                     for place in (tmp_path / "a", tmp_path / "b"))
    assert first == second
    assert planted[0] == planted[1]
    assert len(set(first.values())) == 40
    assert 1_500_000 < sum(map(len, first.values())) < 2_500_000


def test_what_a_program_started_counts_and_what_started_it_does_not():
    spends = "import time; held = b'x' * 40_000_000\nwhile time.process_time() < .2: pass"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spends!r}])"
    ours = b"x" * 100_000_000
    child = timed([sys.executable, "-c", starts])
    assert child.cpu >= 0.2
    assert 40_000_000 < child.memory < len(ours)


def test_a_status_that_is_not_good_is_told_with_what_the_program_said():
    assert timed(["sh", "-c", "echo so; exit 4"], good=(0, 4)).out == b"so\n"
    with pytest.raises(ToolError, match="sh: status 3: not so"):
        timed(["sh", "-c", "echo not so >&2; exit 3"])


def test_a_percentile_is_one_of_the_values():
    assert [percentile(range(100, 0, -1), percent) for percent in (50, 95, 100)] == [50, 95, 100]
    assert percentile([7.0], 95) == 7.0


# --- what is made of the figures


def run(wall=1.0, cpu=1.0, memory=50 * 2**20, out=b""):
    return Run(0, wall, cpu, memory, out)


def heat(name, wall, cpu=1.0, clamd_cpu=100.0):
    scans = name in {PEER, OURS}
    return Heat(name, run(wall, cpu), 1 if scans else None, clamd_cpu if scans else 0.0,
                0, {} if scans else None)


def test_a_rescan_that_leaves_images_out_is_no_result(tmp_path):
    (ours,) = (one for one in scanning.contenders(Host(tmp_path), 5)
               if one.name == OURS)

    def found(full, unknown):
        return ours.found(json.dumps({"stores": [{"full": full, "unknown": unknown}],
                                      "infected": []}).encode())

    assert found(5, 0) == {}
    for full, unknown in ((4, 0), (5, 1)):
        with pytest.raises(Disagreement, match=f"scanned {full} of 5 images and has {unknown}"):
            found(full, unknown)


@pytest.mark.parametrize(("images", "current", "full"), [(4, 4, 0), (5, 4, 0), (5, 5, 1)])
def test_a_walk_that_was_not_of_the_whole_store_without_a_change_is_no_result(
        images, current, full):
    def ended(*numbers):
        store = dict(zip(("images", "current", "full"), numbers, strict=True))
        return run(out=json.dumps({"stores": [store]}).encode())

    check(ended(5, 5, 0), 5, current=5)
    with pytest.raises(ImagewardenError, match=f"saw {images} images, {current} of them current"):
        check(ended(images, current, full), 5, current=5)


def test_those_that_scan_take_turns_at_going_first(monkeypatch, tmp_path):
    monkeypatch.setattr(scanning, "_heat", lambda _, one: one.name)
    names = scanning.compete(Host(tmp_path), scanning.contenders(Host(tmp_path), 5), 3,
                             lambda _: None)
    assert [order[:3] for order in names] == [[PEER, OURS, SERIAL], [OURS, SERIAL, PEER],
                                              [SERIAL, PEER, OURS]]
    assert {tuple(order[3:]) for order in names} == {(FIND, NO_CHANGE)}


@pytest.mark.parametrize(("wall", "speed"), [(20.0, "0.500 of clamdscan's speed (to reach: at least"
                                              " 0.95): MISSED"),
                                             (10.5, "0.952 of clamdscan's speed (to reach: at least"
                                              " 0.95): reached")])
def test_speed_is_the_median_of_the_rounds_against_the_peer_in_the_same_round(wall, speed):
    rounds = [[heat(PEER, peer), heat(OURS, ours, cpu=6.0), heat(FIND, 2.0), heat(NO_CHANGE, 3.0)]
              for peer, ours in ((10.0, wall), (100.0, 10 * wall), (10.0, 1000.0))]
    lines = "\n".join(report.full_scan(rounds, 100))
    assert speed in lines
    assert "our CPU seconds: 6.0% of clamd's (to reach: at most 5%): MISSED" in lines
    assert "no change: 1.5 times find" in lines


def test_uploads_are_compared_by_their_95th_percentile():
    idle = [Wait(script=0.2, request=0.1)] * 94 + [Wait(script=0.5, request=0.2)] * 6
    beside = [Wait(script=0.4, request=0.1)] * 94 + [Wait(script=1.4, request=0.8)] * 6
    lines = "\n".join(report.uploads(Uploads(idle, beside)))
    assert ("scan-upload, whole process, p95: 2.80 times as long beside a rescan (to reach: at most"
            " 3): reached") in lines
    assert ("FILDES request, p95: 4.00 times as long beside a rescan (to reach: at most"
            " 3): MISSED") in lines


@pytest.mark.parametrize(("wall", "memory", "judged"), [
    (6.0, 119, "no change: 3.00 times find, by CPU seconds 4.00 (to reach: at most 3): reached\n"
               "our memory: 119 MB (to reach: below 120): reached"),
    (6.2, 120, "no change: 3.10 times find, by CPU seconds 4.00 (to reach: at most 3): MISSED\n"
               "our memory: 120 MB (to reach: below 120): MISSED")])
def test_the_walk_is_compared_with_find_and_its_memory_with_the_limit(wall, memory, judged):
    measured = Scale(run(memory=memory * 2**20), [run(2.0)] * 3, [run(wall, cpu=4.0)] * 3, [run()],
                     ledger=5000)
    lines = "\n".join(report.scale(measured, 100))
    assert judged in lines
    assert "50 bytes an image" in lines
