"""Images before a real clamd while they change, and while what it has loaded changes."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from maintenance.clamav import proof as proofs
from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY, snapshot
from maintenance.clamav.proof import Proof
from maintenance.jobs import slices
from maintenance.jobs.delta_scan import DeltaScan
from maintenance.jobs.engines import Engine
from maintenance.jobs.inspection import DEADLY, Desk, Inspection
from maintenance.jobs.slices import GenerationMoved
from maintenance.jobs.store_scan import StoreScan
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Asked, Need
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import READ, stamp
from maintenance.store.tree import NotAnImage, Tree, Vanished
from maintenance.times import Deadline
from maintenance.verdict import CLEAN, Verdict
from maintenance.window import Window
from tests.peers import Peer
from tests.site import BAD, LATER, Site, body_signature, wait_until

pytestmark = [pytest.mark.server, pytest.mark.once]

SETTINGS = Clamav(max_file_size=1000)
STRANGE = Canary("0" * 16, "0" * 32)  # no engine has it


@contextmanager
def serving(root, **options):
    """A site with a real clamd, and what proves that it has loaded what is there."""
    site = Site(root)
    site.databases.mkdir(parents=True)
    (site.databases / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    with site.clamd(**options) as daemon:
        yield site, Proof(Clamd(str(site.socket)), load_canary(site), None), daemon


def load_canary(site):
    """Have a clamd load what is there, with a canary that proves it."""
    canary = Canary.hatch(snapshot(site.databases))
    (site.databases / CANARY).write_text(canary.line)
    clamd = Clamd(str(site.socket))
    assert clamd.ask("RELOAD") == "RELOADING"
    wait_until(lambda: canary.found_by(clamd))
    return canary


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server")) as (_, proof, _):
        yield proof


@pytest.fixture
def server(proof):
    return proof.clamd


def engine(server, proof=None, in_flight=4, largest=None):
    return Engine(server, in_flight, largest, False, proof)


def opened(name):
    return os.open(name, READ)


def inspect(engine, whats, open_=opened, **more):
    """Run an inspection; what is believed, and the inspection itself."""
    believed = []
    inspection = Inspection(engine, SETTINGS, Desk(open_, believed.extend, **more))
    lost = inspection.run(whats, Progress(), "")
    assert lost is None
    return believed, inspection


def write(place, **files):
    for name, content in files.items():
        (place / name).write_bytes(content)
    return [str(place / name) for name in files]


@pytest.mark.parametrize(("times", "verdict"), [(1, Verdict.INFECTED), (2, Verdict.UNKNOWN)])
def test_what_changes_while_it_is_scanned_is_asked_about_once_again(tmp_path, server, times,
                                                                    verdict):
    name, quiet = write(tmp_path, name=b"clean", quiet=b"clean")
    asked = Counter()

    def change(what, info):  # its identity is known already, its answer is not
        asked[what] += 1
        if what == name and asked[what] <= times:
            Path(what).write_bytes(BAD + bytes(asked[what]))
        return False

    believed, inspection = inspect(engine(server), [name, quiet], wait=change)
    said = {one.what: one.answer for one in believed}
    assert len(believed) == len(said) == 2
    assert said[name].verdict is verdict
    assert (said[name].reason is None) == (times == 1)
    assert said[quiet].verdict is Verdict.CLEAN
    assert (asked[name], asked[quiet], inspection.unsettled) == (2, 1, [])


def test_what_an_engine_would_not_scan_whole_is_unknown_and_not_asked(tmp_path, server):
    names = write(tmp_path, a=bytes(1000), b=bytes(1001), c=bytes(99), d=bytes(100))
    believed, _ = inspect(engine(server), names)
    assert [one.asked for one in sorted(believed, key=lambda one: one.what)] == [
        True, False, True, True]
    believed, _ = inspect(engine(server, largest=100), names[2:])
    reasons = {one.what: one.answer.reason for one in believed}
    assert reasons[names[2]] is None
    assert "MaxFileSize is 100" in reasons[names[3]]


def test_what_cannot_be_opened_is_unknown_and_what_is_gone_is_told(tmp_path, server):
    def open_(name):
        raise Vanished if name == "gone" else NotAnImage("a door")

    gone = []
    believed, _ = inspect(engine(server), ["gone", "door"], open_, vanished=gone.append)
    assert gone == ["gone"]
    assert [(one.what, one.answer.reason, one.info) for one in believed] == [
        ("door", "a door", None)]


@pytest.mark.parametrize("count", [3, 200, 500])
def test_what_is_proven_is_believed_and_counted_once(tmp_path, proof, count, monkeypatch):
    monkeypatch.setattr(slices, "BATCH", 8)
    names = write(tmp_path, **{f"n{one:03}": b"%d" % one for one in range(count)})
    batches = []
    inspection = Inspection(engine(proof.clamd, proof), SETTINGS, Desk(opened, batches.append))
    assert inspection.run(names, Progress(), "") is None
    assert sorted(one.what for batch in batches for one in batch) == names
    assert {one.answer.verdict for batch in batches for one in batch} == {Verdict.CLEAN}
    assert count < 500 or len(batches) > 1, "slice by slice"


@pytest.mark.parametrize("count", [3, 200])
def test_nothing_is_believed_of_an_engine_that_has_moved_on(tmp_path, proof, count):
    names = write(tmp_path, **{f"n{one:03}": b"%d" % one for one in range(count)})
    believed = []
    inspection = Inspection(engine(proof.clamd, replace(proof, evidence=STRANGE)), SETTINGS,
                            Desk(opened, believed.extend))
    before, rest = len(os.listdir("/proc/self/fd")), iter(names)
    with pytest.raises(GenerationMoved):
        inspection.run(rest, Progress(), "")
    assert len(os.listdir("/proc/self/fd")) == before
    assert believed == []
    assert sorted([*inspection.unsettled, *rest]) == names, "another engine gets them all"


def test_nothing_is_believed_of_an_engine_with_another_version(tmp_path, proof, monkeypatch):
    monkeypatch.setattr(proofs, "agrees", lambda version, daily: (
        versions.append(version), False)[1])
    versions, names = [], write(tmp_path, **{f"n{one:03}": b"" for one in range(200)})
    with pytest.raises(GenerationMoved):
        inspect(engine(proof.clamd, proof), names)
    assert versions[0].startswith("ClamAV 1.")


@pytest.mark.parametrize(("daily", "version", "expected"), [
    (None, "ClamAV 1.4.6", True), (7, "ClamAV 1.4.6", True),
    (7, "ClamAV 1.4.6/7/Mon Nov 23 08:30:00 2026", True),
    (8, "ClamAV 1.4.6/7/Mon Nov 23 08:30:00 2026", False),
    (7, "ClamAV 1.4.6/4294967295/Thu Jan  1 00:00:00 1970", False),
    (None, "COMMAND UNAVAILABLE", False), (None, "", False)])
def test_a_version_agrees_when_it_is_one_and_names_the_daily_definitions(
        daily, version, expected):
    assert proofs.agrees(version, daily) is expected


@pytest.mark.parametrize("later", ["added", "removed"])
def test_a_reload_in_the_middle_costs_a_slice_and_books_nothing_wrong(tmp_path, later):
    """Of 600 images a later signature hits every one; half are asked about after the reload."""
    with serving(tmp_path) as (site, _, _):
        feed = site.databases / "later.ndb"
        if later == "removed":
            feed.write_text(body_signature("Test.Later", LATER))
        proof = Proof(Clamd(str(site.socket)), load_canary(site), None)
        names = write(site.store, **{f"n{one:03}": LATER + b"%d" % one for one in range(600)})

        def reloading():
            for one, name in enumerate(names):
                if one == 300:
                    if later == "added":
                        feed.write_text(body_signature("Test.Later", LATER))
                    else:
                        feed.unlink()
                    load_canary(site)
                yield name

        believed, rest = [], reloading()
        inspection = Inspection(engine(proof.clamd, proof, 16), SETTINGS,
                                Desk(opened, believed.extend))
        with pytest.raises(GenerationMoved):
            inspection.run(rest, Progress(), "")
    right = Verdict.CLEAN if later == "added" else Verdict.INFECTED
    assert {one.answer.verdict for one in believed} == {right}
    assert len(believed) >= 300 - 3 * slices.BATCH, "no more than what was not proven yet"
    assert len(believed) + len(inspection.unsettled) + len(list(rest)) == 600
    assert len({*(one.what for one in believed), *inspection.unsettled}) >= 300


def test_claims_of_an_engine_that_died_before_its_proof_are_for_another(tmp_path, server, proof):
    names = write(tmp_path, a=b"clean", b=BAD, c=bytes(1001))
    dead = replace(proof, clamd=Clamd("/nonexistent"))
    believed, inspection = inspect(engine(server, dead), names)
    assert [one.what for one in believed] == [names[2]]
    assert sorted(inspection.unsettled) == names[:2]


def test_an_engine_that_cannot_be_proven_any_more_is_lost(tmp_path, server, proof):
    names = write(tmp_path, **{f"n{one:03}": b"%d" % one for one in range(200)})
    believed, rest = [], iter(names)
    inspection = Inspection(engine(server, replace(proof, clamd=Clamd("/nonexistent"))),
                            SETTINGS, Desk(opened, believed.extend))
    before = len(os.listdir("/proc/self/fd"))
    assert "takes no session" in inspection.run(rest, Progress(), "")
    assert len(os.listdir("/proc/self/fd")) == before
    assert believed == []
    assert sorted([*inspection.unsettled, *rest]) == names


def test_a_proof_that_is_never_answered_is_none(tmp_path, monkeypatch, server, proof):
    monkeypatch.setattr(slices, "GRACE", 0.0)
    names = cycle(write(tmp_path, a=b"clean", b=b"clean, too"))
    with Peer(tmp_path / "s", lambda talk: talk.drain()):
        silent = replace(proof, clamd=Clamd(str(tmp_path / "s")))
        inspection = Inspection(engine(server, silent), Clamav(timeout=0.2),
                                Desk(opened, lambda batch: None))
        assert "no answer within 0.2 s" in inspection.run(names, Progress(), "")


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_what_was_in_flight_when_an_engine_died_is_suspect_or_unknown(tmp_path, own, alone):
    with serving(tmp_path) as (site, proof, daemon):
        names = write(site.store, **{f"n{one:02}": b"%d" % one for one in range(40)})

        def dying():
            yield from names[:20]
            daemon.send_signal(signal.SIGSTOP)
            threading.Timer(0.5, daemon.kill).start()
            yield from names[20:]

        believed, rest = [], dying()
        inspection = Inspection(engine(proof.clamd, None if own else proof), SETTINGS,
                                Desk(opened, believed.extend), alone=alone)
        lost = inspection.run(rest, Progress(), "")
    assert "hung up" in lost
    said = {one.what: one.answer for one in believed}
    unknown = {what for what, answer in said.items() if answer.verdict is Verdict.UNKNOWN}
    suspects = inspection.suspects
    everything = [*said, *suspects, *inspection.unsettled, *rest]
    assert sorted(everything) == names, "each is in one place"
    if own and not alone:
        assert (names[20] in suspects, unknown) == (True, set())
        assert set(said) >= set(names[:16])
    else:
        assert (names[20] in unknown, suspects) == (True, [])
        assert said[names[20]].reason.startswith(DEADLY) is alone
    assert alone is (len(suspects or unknown) == 1)
    if not own:
        assert set(inspection.unsettled) >= set(names[:16]), "nobody can say what it had loaded"


@contextmanager
def row(tmp_path, name, **changed):
    """A store with one image, and its row in a ledger."""
    with Ledger.open(tmp_path) as ledger:
        images = ledger.images("s")
        inode, size, mtime, ctime = stamp(os.stat(tmp_path / name))
        images.record_seen([(name.encode(), inode, size, mtime, changed.get("ctime", ctime),
                             None)])
        yield images


def test_an_image_that_was_written_again_since_the_walk_waits_and_the_ledger_knows(tmp_path,
                                                                                   server):
    write(tmp_path, a=BAD)
    with row(tmp_path, "a", ctime=10**9) as images, Tree(tmp_path) as tree:
        need = Need(1, os.stat(tmp_path / "a").st_ctime - 1, min_age=3600.0)
        assert (images.count_due(need), images.count_young(need)) == (1, 0)
        scan = StoreScan(tree, images, need, engine(server), SETTINGS, Deadline.after(0),
                         lambda *_: None)
        assert scan.run(Progress(), "s") is None
        assert (scan.scanned, scan.unasked, images.find(b"a").verdict) == (0, 0, None)
        assert (images.count_due(need), images.count_young(need)) == (1, 1)


def test_an_image_that_went_since_the_walk_is_missing_and_no_longer_due(tmp_path, server):
    write(tmp_path, a=BAD)
    with row(tmp_path, "a") as images, Tree(tmp_path) as tree:
        (tmp_path / "a").unlink()
        scan = StoreScan(tree, images, Need(1, 1.0), engine(server), SETTINGS, Deadline.after(0),
                         lambda *_: None)
        assert scan.run(Progress(), "s") is None
        assert (scan.scanned, scan.vanished) == (0, 1)
        assert (images.count_due(Need(1, 1.0)), images.coverage(1).missing) == (0, 1)


@pytest.mark.parametrize("changed", [False, True])
def test_what_changed_since_the_walk_is_left_to_a_full_scan(tmp_path, server, changed):
    write(tmp_path, a=b"clean")
    with row(tmp_path, "a") as images, Tree(tmp_path) as tree:
        images.record_answers([Asked(b"a", images.find(b"a").stamp, CLEAN)], 1)
        if changed:
            write(tmp_path, a=b"not what it was")
        need = Need(2, time.time() + 1)
        scan = DeltaScan(tree, images, need, 1, None, SETTINGS, Deadline.after(0), lambda *_: None)
        assert scan.run(engine(server), Progress(), "s") is None
        found = images.find(b"a")
        assert (scan.brought, found.verdict, found.generation) == (
            (0, None, None) if changed else (1, Verdict.CLEAN, 2))
        assert images.count_due(need) == changed


def test_what_went_since_the_walk_is_missing_for_a_delta_scan_too(tmp_path, server):
    write(tmp_path, a=b"clean")
    with row(tmp_path, "a") as images, Tree(tmp_path) as tree:
        images.record_answers([Asked(b"a", images.find(b"a").stamp, CLEAN)], 1)
        (tmp_path / "a").unlink()
        scan = DeltaScan(tree, images, Need(2, time.time() + 1), 1, None, SETTINGS,
                         Deadline.after(0), lambda *_: None)
        assert scan.run(engine(server), Progress(), "s") is None
        assert (scan.brought, scan.vanished, images.coverage(2).missing) == (0, 1, 1)


@pytest.mark.parametrize(("window", "full", "asked"), [
    ("", False, 1), ("closed", False, 0), ("closed", True, 1)])
def test_a_window_that_closes_in_the_middle_leaves_what_is_clean(tmp_path, server, window, full,
                                                                asked):
    hour = time.localtime().tm_hour
    closed = f"{(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00"
    write(tmp_path, a=b"clean")
    with row(tmp_path, "a") as images, Tree(tmp_path) as tree:
        images.record_answers([Asked(b"a", images.find(b"a").stamp, CLEAN)], 1)
        scan = StoreScan(tree, images, Need(2, time.time() + 1, full=full), engine(server),
                         SETTINGS, Deadline.after(0), lambda *_: None,
                         window=Window(closed if window else ""))
        assert scan.run(Progress(), "s") is None
        assert scan.scanned == asked
