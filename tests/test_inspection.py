"""Images before a real clamd while they change, and while what it has loaded changes."""

import os
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from maintenance.clamav.connection import Clamd
from maintenance.errors import EngineError
from maintenance.jobs.engines import Engine
from maintenance.jobs.inspection import Desk, GenerationMoved, Inspection
from maintenance.jobs.store_scan import StoreScan
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Need
from maintenance.settings import Clamav
from maintenance.shell.progress import Progress
from maintenance.store.identity import READ, stamp
from maintenance.store.tree import NotAnImage, Tree, Vanished
from maintenance.times import Deadline
from maintenance.verdict import Verdict
from tests.site import BAD, Site

pytestmark = pytest.mark.server

SETTINGS = Clamav(max_file_size=1000)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("server"))
    site.update()
    with site.clamd():
        yield Clamd(str(site.socket))


def engine(server, proven=lambda: True, in_flight=4, largest=None):
    return Engine(server, in_flight, largest, False, proven)


def inspect(engine, whats, open_=lambda name: os.open(name, READ), **more):
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


@pytest.mark.parametrize("count", [3, 200])
def test_nothing_is_believed_of_an_engine_that_has_moved_on(tmp_path, server, count):
    names = write(tmp_path, **{f"n{one:03}": b"%d" % one for one in range(count)})
    believed, proofs = [], []

    def proven():
        proofs.append(None)
        return len(proofs) == 2

    inspection = Inspection(engine(server, proven), SETTINGS,
                            Desk(lambda name: os.open(name, READ), believed.extend))
    before, rest = len(os.listdir("/proc/self/fd")), iter(names)
    with pytest.raises(GenerationMoved):
        inspection.run(rest, Progress(), "")
    assert len(os.listdir("/proc/self/fd")) == before
    assert believed == []
    assert sorted([*inspection.unsettled, *rest]) == names, "another engine gets them all"


def test_claims_of_an_engine_that_died_before_its_proof_are_for_another(tmp_path, server):
    names = write(tmp_path, a=b"clean", b=BAD, c=bytes(1001))

    def died():
        raise EngineError("gone")

    believed, inspection = inspect(engine(server, died), names)
    assert [one.what for one in believed] == [names[2]]
    assert sorted(inspection.unsettled) == names[:2]


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
