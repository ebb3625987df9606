"""Evidence made of new signatures, and what keeps an engine from loading: without a clamd."""

import gzip
import io
import os
import subprocess
import tarfile

import pytest

from maintenance.clamav import bodies, databases
from maintenance.clamav.blame import unloadable, unreadable
from maintenance.clamav.bodies import Body
from maintenance.clamav.probe import CHOICE, Probe
from maintenance.errors import ToolError
from maintenance.verdict import CLEAN, Answer, Verdict
from tests.processes import reachable


@pytest.mark.parametrize(("line", "text"), [
    (b"Test.A:0:*:6162636465666768\n", b"abcdefgh"), (b"Test.A:0:0:6162636465666768", b"abcdefgh"),
    (b"Test.A:0:*:616263646566676A\r\n", b"abcdefgj"),
    (b"Test.A:0:*:61626364656667\n", None), (b"Test.A:1:*:6162636465666768\n", None),
    (b"Test.A:0:10:6162636465666768\n", None), (b"Test.A:0:EOF-8:6162636465666768\n", None),
    (b"Test.A:0:*:61626364??666768\n", None), (b"Test.A:0:*:6162636465666768{2}00\n", None),
    (b"Test.A:0:*:6162636465666768:51\n", None), (b"PUA.A:0:*:6162636465666768\n", None),
    (b"#Test.A:0:*:6162636465666768\n", b"abcdefgh"), (b"A B:0:*:6162636465666768\n", None),
    (b"Test.A:0:*:616263646566676\n", None), (b"\n", None),
    (b"Test.A:0:*:" + b"61" * 4097, None)])
def test_only_what_says_itself_what_it_matches_is_a_body(line, text):
    found = Body.of("x.ndb", line)
    assert (None if found is None else found.text) == text


def container(*members, packed=True):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    head = b"ClamAV-VDB:22 Jun 2021 14-58 -0400:7:1:81:X:X:m:1".ljust(512)
    return head + (gzip.compress(raw.getvalue()) if packed else raw.getvalue())


ONE, OTHER = b"Test.One:0:*:6162636465666768\n", b"Test.Other:0:*:7172737475767778\n"


def test_bodies_are_found_in_plain_files_and_in_containers(tmp_path):
    (tmp_path / "plain.ndb").write_bytes(ONE + b"Wild:0:*:6162??64\n" + OTHER)
    (tmp_path / "other.hdb").write_bytes(ONE)
    members = (("COPYING", ONE), ("daily.ndb", ONE), ("daily.ldb", OTHER))
    (tmp_path / "daily.cvd").write_bytes(container(*members))
    (tmp_path / "main.cld").write_bytes(container(("main.ndb", OTHER), packed=False))
    found = bodies.bodies(tmp_path, databases.snapshot(tmp_path))
    assert [(one.file, one.signature) for one in found] == [
        ("daily.cvd", "Test.One"), ("main.cld", "Test.Other"), ("plain.ndb", "Test.One"),
        ("plain.ndb", "Test.Other")]


def test_a_container_that_is_cut_short_is_named(tmp_path):
    (tmp_path / "daily.cvd").write_bytes(container(("daily.ndb", ONE * 1000))[:560])
    content = databases.snapshot(tmp_path)
    with pytest.raises(ToolError, match=r"daily\.cvd"):
        list(bodies.bodies(tmp_path, content))


def test_what_was_met_is_remembered_by_database_name_and_text(tmp_path):
    assert bodies.remembered(tmp_path) is None
    bodies.remember(tmp_path, [Body("daily.cvd", "A", b"text"), Body("x.ndb", "A", b"text")])
    known = bodies.remembered(tmp_path)
    assert known is not None
    assert Body("daily.cld", "A", b"text").mark in known, "a .cld replaces its .cvd"
    for other in (Body("main.cvd", "A", b"text"), Body("daily.cvd", "B", b"text"),
                  Body("daily.cvd", "A", b"texts")):
        assert other.mark not in known
    (tmp_path / bodies.NOTE).write_bytes(b"half")
    assert bodies.remembered(tmp_path) is None


class Engine:
    """Finds names in texts as it is told."""

    def __init__(self, **found):
        self.found = found

    def scan_stream(self, chunks, timeout):
        name = self.found.get(b"".join(chunks).decode())
        return Answer(Verdict.INFECTED, name) if name else CLEAN


def probe(content, *told):
    return Probe.of(content, [Body(file, name, text.encode()) for file, name, text in told])


@pytest.fixture
def content(tmp_path):
    """Some databases."""
    (tmp_path / "x.ndb").write_bytes(ONE)
    return databases.snapshot(tmp_path)


def test_of_every_file_something_must_be_found(content):
    made = probe(content, ("a.ndb", "A", "a"), ("a.ndb", "B", "b"), ("b.ndb", "C", "c"))
    assert made.found_by(Engine(b="B", c="C.UNOFFICIAL"))
    assert not made.found_by(Engine(a="A", b="B"))
    assert not made.found_by(Engine(a="A", c="Another"))
    assert not made.found_by(Engine())


def test_a_text_that_something_else_is_found_in_is_not_asked_about(content):
    made = probe(content, ("a.ndb", "A", "a"), ("a.ndb", "B", "b"), ("b.ndb", "C", "c"))
    left = made.askable(Engine(a="Old", c="C"))
    assert [one.signature for one in left.bodies] == ["B", "C"]
    assert made.askable(Engine(a="Old", b="Old", c="Old")) is None


def test_a_few_of_every_file_are_enough(content):
    told = [(file, f"S{number}", "t") for file in ("a.ndb", "b.ndb") for number in range(50)]
    assert len(probe(content, *told).bodies) == 2 * CHOICE
    assert probe(content) is None


def test_a_probe_is_noted_for_its_databases_and_no_others(content, tmp_path):
    assert Probe.read(tmp_path) is None
    made = probe(content, ("a.ndb", "A", "a\x00"))
    made.write(tmp_path)
    assert Probe.read(tmp_path) == made
    assert made.stands_for(content)
    (tmp_path / "more.ndb").write_bytes(OTHER)
    assert not made.stands_for(databases.snapshot(tmp_path))
    for damage in ("", "{", "[]", '{"content": 1}',
                   '{"content": "x", "bodies": [["a", "b", "zz"]]}'):
        (tmp_path / "probe.json").write_text(damage)
        assert Probe.read(tmp_path) is None


# --- what keeps an engine from loading


@pytest.mark.parametrize(("name", "text"), [
    ("bad.ndb", "no signature\n"), ("bad.ldb", "no signature\n"), ("bad.hdb", "zz\n"),
    ("empty.ndb", ""), ("bad.fp", "x\n"), ("bad.ign2", "\n\n"),
    ("bad.cdb", "x\n"), ("bad.ftm", "x\n")])
def test_a_file_that_does_not_load_is_named(tmp_path, name, text):
    (tmp_path / "good.ndb").write_bytes(ONE)
    assert unloadable(tmp_path, databases.snapshot(tmp_path)) is None
    (tmp_path / name).write_text(text)
    assert unloadable(tmp_path, databases.snapshot(tmp_path)) == (
        f"it cannot load {name}; repair or remove that file")


def test_what_a_process_may_not_read_is_named_with_the_repair(tmp_path):
    if os.geteuid() != 0:
        return  # only root can start somebody else's
    place = tmp_path / "db"
    place.mkdir(mode=0o755)
    reachable(place)
    (place / "x.ndb").write_bytes(ONE)
    (place / "x.ndb").chmod(0o644)
    content = databases.snapshot(place)
    with subprocess.Popen(["/usr/bin/sleep", "60"], user=65534, group=65534,
                          extra_groups=[12]) as sleeper:
        try:
            def says():
                return unreadable(place, content, sleeper.pid)

            assert says() is None
            assert unreadable(place, content, os.getpid()) is None
            (place / "x.ndb").chmod(0o640)
            assert says() == f"nobody cannot read {place}/x.ndb: chmod a+r {place}/x.ndb"
            os.chown(place / "x.ndb", 0, 12)
            assert says() is None, "by its group"
            os.chown(place / "x.ndb", 65534, 0)
            assert says() is None, "as its owner"
            place.chmod(0o711)
            assert says() == f"nobody cannot read {place}: chmod a+rx {place}"
            place.chmod(0o755)
            tmp_path.chmod(0o700)
            assert says() == f"nobody cannot read {tmp_path}: chmod a+x {tmp_path}"
        finally:
            sleeper.kill()
    assert unreadable(place, content, sleeper.pid) is None
