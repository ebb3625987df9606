"""What the definitions on disk are: which files count, and whether they stand still."""

import hashlib
import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.clamav.databases import (
    CANARY,
    HEADER,
    SUFFIXES,
    directory,
    header,
    snapshot,
    stamps,
)
from maintenance.errors import ToolError
from maintenance.times import iso
from tests.processes import nobody
from tests.site import body_signature, wait_until

pytestmark = pytest.mark.once


def cvd(version="27000", signatures="2000000", built="07 Nov 2026 08-04 -0400", stime="1794139440"):
    """The header of a signed database."""
    fields = ["ClamAV-VDB", built, version, signatures, "90", "a4ab60ae1c1c4e8f787459102dcfd90b",
              "ttQeKzTSL5iF5", "raynman", stime]
    return ":".join(fields).encode().ljust(HEADER)


def test_an_empty_and_a_missing_directory_hold_nothing(tmp_path):
    assert snapshot(tmp_path).databases == ()
    assert snapshot(tmp_path / "missing").databases == ()


def test_every_database_is_told_by_its_content(tmp_path):
    (tmp_path / "daily.cvd").write_bytes(cvd() + b"content")
    (tmp_path / "own.ndb").write_text("one\ntwo\nthree")
    (tmp_path / "none.hdb").touch()
    daily, none, own = snapshot(tmp_path).databases
    assert (daily.file, daily.name, daily.version, daily.signatures, daily.built) == (
        "daily.cvd", "daily", 27000, 2000000, 1794139440.0)
    assert daily.sha256 == hashlib.sha256(cvd() + b"content").hexdigest()
    assert (own.name, own.version, own.signatures, own.built) == ("own.ndb", None, 3, None)
    assert (none.signatures, none.sha256) == (0, hashlib.sha256(b"").hexdigest())
    assert snapshot(tmp_path).version_of("daily") == 27000
    assert snapshot(tmp_path).version_of("main") is None


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("\n", 1), ("a", 1), ("a\n", 1),
                                             ("a\nb", 2), ("x" * 600 + "\n" + "y" * 2**20, 2)])
def test_lines_are_counted_whatever_the_last_one_ends_with(tmp_path, text, lines):
    (tmp_path / "a.ndb").write_text(text)
    assert snapshot(tmp_path).databases[0].signatures == lines


def test_exactly_what_the_scanner_loads_counts(tmp_path):
    """ClamAV itself decides: each file has a signature for a body of its own."""
    definitions, bodies = tmp_path / "definitions", tmp_path / "bodies"
    definitions.mkdir()
    bodies.mkdir()
    (tmp_path / "elsewhere.ndb").write_text(body_signature("Link", b"body of the link"))
    names = ["plain.ndb", ".hidden.ndb", "tmp.left.ndb", "UPPER.NDB", "two.dots.ndb", ".ndb",
             "a b.ndb", "text.txt", "ndb", "a.ndb.bak", "a.ndbx", ".imagewarden-canary.new"]
    for name in names:
        body = f"body of {name}".encode()
        (definitions / name).write_text(body_signature("Found", body))
        (bodies / name).write_bytes(body)
    (definitions / "link.ndb").symlink_to(tmp_path / "elsewhere.ndb")
    (bodies / "link.ndb").write_bytes(b"body of the link")
    found = subprocess.run(["/usr/bin/clamscan", "-i", "--no-summary", "-d", definitions, bodies],
                           capture_output=True, text=True, timeout=60, check=False).stdout
    loaded = {Path(line.rpartition(": ")[0]).name for line in found.splitlines()}
    assert {"plain.ndb", "link.ndb"} <= loaded
    assert {one.file for one in snapshot(definitions).databases} == loaded


def test_what_is_no_file_and_the_canary_do_not_count(tmp_path):
    (tmp_path / "directory.ndb").mkdir()
    (tmp_path / "dangling.ndb").symlink_to("/nonexistent")
    os.mkfifo(tmp_path / "fifo.ndb")
    (tmp_path / CANARY).write_text("canary")
    (tmp_path / "freshclam.dat").touch()
    assert snapshot(tmp_path).databases == ()


def test_every_kind_of_database_counts(tmp_path):
    for suffix in SUFFIXES - {".cvd", ".cld", ".cud"}:
        (tmp_path / f"a{suffix}").touch()
    assert len(snapshot(tmp_path).databases) == len(SUFFIXES) - 3


def test_the_order_of_arrival_does_not_matter_but_content_and_names_do(tmp_path):
    prints = set()
    for number, files in enumerate([("a", "b"), ("b", "a")]):
        place = tmp_path / str(number)
        place.mkdir()
        for name in files:
            (place / f"{name}.ndb").write_text(name)
        prints.add(snapshot(place).fingerprint("engine", "options"))
    assert len(prints) == 1
    place = tmp_path / "0"
    os.utime(place / "a.ndb", (1, 1))
    assert snapshot(place).fingerprint("engine", "options") in prints
    for engine, options in (("other", "options"), ("engine", "other")):
        assert snapshot(place).fingerprint(engine, options) not in prints
    (place / "a.ndb").rename(place / "c.ndb")
    assert snapshot(place).fingerprint("engine", "options") not in prints
    (place / "c.ndb").rename(place / "a.ndb")
    (place / "a.ndb").write_text("A")
    assert snapshot(place).fingerprint("engine", "options") not in prints


def test_a_file_that_cannot_be_read_is_named_with_its_repair(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "third\nparty.ndb").touch(0o000)
    where = os.open(tmp_path, os.O_RDONLY)
    try:
        with nobody(), pytest.raises(ToolError) as raised:
            snapshot(Path(f"/proc/self/fd/{where}"))
    finally:
        os.close(where)
    assert "third\\u{a}party.ndb: Permission denied" in str(raised.value)
    assert "0644" in str(raised.value)


def test_a_directory_that_cannot_be_read_is_an_error_not_an_empty_one(tmp_path):
    (tmp_path / "closed").mkdir(0o000)
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="Not a directory"):
        snapshot(tmp_path / "file")
    tmp_path.chmod(0o755)
    where = os.open(tmp_path, os.O_RDONLY)
    try:
        with nobody(), pytest.raises(ToolError, match="closed: Permission denied"):
            snapshot(Path(f"/proc/self/fd/{where}/closed"))
    finally:
        os.close(where)


def test_a_database_that_breaks_when_it_is_read_is_an_error(tmp_path):
    (tmp_path / "broken.ndb").symlink_to("/proc/self/mem")
    with pytest.raises(ToolError, match="broken.ndb: Input/output error"):
        snapshot(tmp_path)


def test_a_snapshot_never_mixes_two_moments(tmp_path):
    """Both files are renamed into place all the time, `a` before `b`."""
    stop, numbers = threading.Event(), {}

    def publish(number):
        content = (f"{number:09d}\n" * 20_000).encode()
        numbers[hashlib.sha256(content).hexdigest()] = number
        for name in ("a.ndb", "b.ndb"):
            (tmp_path / "draft").write_bytes(content)
            (tmp_path / "draft").rename(tmp_path / name)

    def change():
        number = 1
        while not stop.wait(0.005):
            publish(number)
            number += 1

    publish(0)
    thread = threading.Thread(target=change)
    thread.start()
    taken = set()
    try:
        while len(taken) < 20:
            try:
                one, other = snapshot(tmp_path).databases
            except ToolError as error:
                assert "keep changing" in str(error)
                continue
            taken.add(numbers[one.sha256])
            assert numbers[one.sha256] - numbers[other.sha256] in {0, 1}
    finally:
        stop.set()
        thread.join()


def test_a_directory_that_is_only_changing_is_never_taken_for_an_empty_one(tmp_path):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            (tmp_path / "z.ndb").write_text("x")
            (tmp_path / "z.ndb").unlink()

    stay = {f"{number}.ndb" for number in range(300)}  # looked at between its listing and it
    for name in stay:
        (tmp_path / name).touch()
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            assert {stamp[0] for stamp in stamps(tmp_path)} - {"z.ndb"} == stay
    finally:
        stop.set()
        thread.join()


def test_a_growing_file_does_not_stand_still(tmp_path):
    with subprocess.Popen(["sh", "-c", 'while :; do echo line; done >> "$0"', tmp_path / "a.ndb"]
                          ) as writer:
        wait_until((tmp_path / "a.ndb").exists)
        with (tmp_path / "a.ndb").open("a") as stream:
            stream.write("line\n" * 1_000_000)
        try:
            with pytest.raises(ToolError, match="keep changing"):
                for _ in range(50):  # the writer may have had to wait for a while
                    snapshot(tmp_path)
        finally:
            writer.kill()


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**32))
def test_a_header_says_version_signatures_and_build_time(version, signatures, built):
    head = cvd(str(version), str(signatures), stime=str(built))
    assert header(head, Path("daily.cvd")) == (version, signatures, float(built))


@pytest.mark.parametrize(("text", "epoch"), [
    ("07 Nov 2026 08-04 -0400", 1794053040.0), ("07 Nov 2026 08-04 +0000", 1794038640.0),
    ("7 Nov 2026 08-04-33 +0130", 1794033240.0), ("nonsense", None), ("", None)])
def test_a_header_without_a_number_for_the_time_is_read_by_its_text(text, epoch):
    for stime in ("", "   "):
        assert header(cvd(built=text, stime=stime), Path("a.cvd"))[2] == epoch


def test_times_in_headers_can_be_shown():
    for head in (cvd(stime="0"), cvd(stime="9999999999"), cvd(built="99 Dec 9999 99-99 -9999",
                                                              stime="")):
        try:
            assert iso(header(head, Path("a.cvd"))[2])
        except ToolError:
            continue


mutations = st.lists(st.tuples(st.integers(0, HEADER - 1), st.integers(0, 255)), max_size=8)


@given(mutations, st.integers(0, HEADER))
def test_a_damaged_header_is_read_or_refused_but_never_a_crash(changes, length):
    head = bytearray(cvd())
    for at, byte in changes:
        head[at] = byte
    try:
        version, signatures, built = header(bytes(head[:length]), Path("a.cvd"))
    except ToolError:
        return
    assert 0 <= version <= 10**10
    assert 0 <= signatures <= 10**10
    iso(built)


@pytest.mark.parametrize("head", [
    b"", b"ClamAV-VDB", b"ClamAV-VDB:::::::::", cvd()[:30], b"x" * HEADER, b"\0" * HEADER,
    cvd(version="-1"), cvd(version="1_0"), cvd(version=" 1"), cvd(signatures="x"),
    cvd(version="9" * 40), cvd(stime="9" * 400), cvd(stime="99999999999999"), cvd(stime="x"),
    cvd().replace(b"ClamAV-VDB", b"ClamAV-VDC"), b"<html>403 Forbidden</html>"])
def test_what_is_no_header_is_refused_with_name_and_repair(tmp_path, head):
    (tmp_path / "daily.cvd").write_bytes(head)
    with pytest.raises(ToolError, match=r"daily\.cvd: damaged.*remove it and run update-defin"):
        snapshot(tmp_path)


@pytest.mark.parametrize(("files", "built"), [
    ({"daily.cvd": 20, "main.cvd": 10, "bytecode.cvd": 30}, 20), ({"main.cvd": 10}, 10),
    ({"main.cvd": 10, "bytecode.cvd": 30}, 30), ({"daily.cvd": 20, "daily.cld": 25}, 25),
    ({}, None)])
def test_their_age_is_that_of_daily_where_there_is_one(tmp_path, files, built):
    (tmp_path / "own.ndb").write_text("Own")
    for name, stime in files.items():
        (tmp_path / name).write_bytes(cvd(stime=str(stime)))
    assert snapshot(tmp_path).built == built


@pytest.mark.parametrize(("files", "stale"), [
    ({"daily.cvd": "1", "daily.cld": "2"}, "daily.cvd"),
    ({"daily.cvd": "2", "daily.cld": "1"}, "daily.cld"),
    ({"daily.cvd": "2", "daily.cld": "2"}, "daily.cld"),
    ({"daily.cvd": "1", "main.cld": "1"}, None)])
def test_of_two_with_one_name_the_older_is_stale_and_of_equals_the_one_freshclam_passes_over(
        tmp_path, files, stale):
    (tmp_path / "daily.ndb").write_text("Own")
    for name, version in files.items():
        (tmp_path / name).write_bytes(cvd(version=version))
    found = [(old.file, new.file) for old, new in snapshot(tmp_path).doubles()]
    assert found == ([] if stale is None else [(stale, *set(files) - {stale})])


def test_a_configured_directory_counts_before_any_other(tmp_path):
    assert directory(tmp_path, Path("/own")) == tmp_path
    assert directory(None, Path("/own")) in {Path("/own"), Path("/var/lib/clamav")}
