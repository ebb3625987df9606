"""A clamd of our own: proven before it is believed, and gone with the job."""

import fcntl
import io
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY, snapshot
from maintenance.clamav.home import PREFIX
from maintenance.clamav.private import ScanOptions, private_engine
from maintenance.clamav.scanner import Question, Scanner
from maintenance.errors import EngineError
from maintenance.verdict import CLEAN, Verdict
from tests.processes import NOBODY, commands, family, lives
from tests.site import BAD, Site, body_signature, wait_until

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent
OPTIONS = ScanOptions(max_file_size=2**20, timeout=20)
JOB = """\
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from maintenance.clamav.databases import snapshot
from maintenance.clamav.private import ScanOptions, private_engine

where = pathlib.Path(sys.argv[2])
print("starting", flush=True)
with private_engine(where, snapshot(where), ScanOptions(2**20, 20)) as clamd:
    print(clamd.address, flush=True)
    time.sleep(300)
"""


@pytest.fixture
def definitions(tmp_path):
    place = tmp_path / "definitions"
    place.mkdir()
    (place / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    return place


@pytest.fixture
def temporary(monkeypatch):
    """The temporary directory of everything in this test; short, for the socket in it."""
    with TemporaryDirectory(prefix="t.a-") as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(place)


def scan(clamd, content):
    fd = os.memfd_create("image")
    try:
        os.write(fd, content)
        return clamd.scan_descriptor(fd, 20)
    finally:
        os.close(fd)


def refusal(definitions):
    """Why no engine is had."""
    content = snapshot(definitions)
    with pytest.raises(EngineError) as raised, private_engine(definitions, content, OPTIONS):
        pytest.fail("it was believed")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_it_scans_with_what_is_on_disk_and_leaves_nothing(definitions, temporary):
    before = set(family(os.getpid()))
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert scan(clamd, BAD).verdict is Verdict.INFECTED
        assert scan(clamd, b"harmless") == CLEAN
        home, = temporary.iterdir()
        assert home.stat().st_mode & 0o777 == 0o700
        with closing(Scanner[int](clamd, 64, 20)) as scanner:
            fds = [os.memfd_create("image") for _ in range(200)]
            answers = list(scanner.scan(Question(fd, fd) for fd in fds))
        for fd in fds:
            os.close(fd)
        assert len(answers) == 200
    assert list(temporary.iterdir()) == []
    assert set(family(os.getpid())) <= before


def test_what_is_inside_of_an_image_is_scanned_beyond_the_size_of_an_image(
        definitions, temporary):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("inside", bytes(3 * OPTIONS.max_file_size) + BAD)
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        found = scan(clamd, b"\xff\xd8\xff\xe0 an image" + archive.getvalue())
        assert found.verdict is Verdict.INFECTED
        assert scan(clamd, bytes(2**20 - len(BAD)) + BAD).verdict is Verdict.INFECTED


def test_signatures_for_unwanted_programs_are_off(definitions, temporary):
    (definitions / "pua.ndu").write_text(body_signature("PUA.Test", b"merely unwanted"))
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert scan(clamd, b"merely unwanted") == CLEAN


def test_what_is_not_in_the_snapshot_is_not_loaded(definitions, temporary):
    content = snapshot(definitions)
    (definitions / "later.ndb").write_text(body_signature("Test.Later", b"came after it"))
    (definitions / CANARY).write_text(Canary.hatch(content).line)
    with private_engine(definitions, content, OPTIONS) as clamd:
        assert scan(clamd, b"came after it") == CLEAN


def test_without_definitions_it_still_has_its_canary(tmp_path, temporary):
    with private_engine(tmp_path, snapshot(tmp_path / "none"), OPTIONS) as clamd:
        assert scan(clamd, b"x") == CLEAN


@pytest.mark.parametrize(("name", "content"), [
    ("broken.ldb", b"not a signature\n"), ("half.ndb", b"Test.Half:0:*:zz\n"),
    ("noise.hdb", os.urandom(1000).replace(b"\n", b"") + b"\n"), ("page.cvd", None)])
def test_a_database_that_does_not_load_is_named(definitions, temporary, name, content):
    if content is None:
        content = (b"ClamAV-VDB:07 Nov 2026 08-04 -0400:1:1:90:a4ab60ae1c1c4e8f787459102dcfd90b:"
                   b"x:y:1794139440").ljust(512) + b"<html>"
    (definitions / name).write_bytes(content)
    assert name in refusal(definitions)
    assert list(temporary.iterdir()) == []


def test_an_empty_database_is_named_or_harmless(definitions, temporary):
    (definitions / "empty.ndb").touch()
    content = snapshot(definitions)
    try:
        with private_engine(definitions, content, OPTIONS) as clamd:
            assert scan(clamd, BAD).verdict is Verdict.INFECTED
    except EngineError as error:
        assert "empty.ndb" in str(error)


def test_a_database_that_vanished_is_no_reason_to_wait_for_ever(definitions, temporary):
    (definitions / "gone.ndb").write_text(body_signature("Test.Gone", b"gone"))
    content = snapshot(definitions)
    (definitions / "gone.ndb").unlink()
    try:
        with private_engine(definitions, content, OPTIONS):
            assert snapshot(definitions).stamps != content.stamps, "by which the caller sees it"
    except EngineError as error:
        assert "gone.ndb" in str(error)


def test_an_engine_without_its_canary_is_refused(definitions, temporary, monkeypatch):
    other = Canary.hatch(snapshot(definitions)).line
    monkeypatch.setattr(Canary, "line", property(lambda _self: other))
    assert "canary" in refusal(definitions)
    assert list(temporary.iterdir()) == []


def test_a_canary_proves_its_own_content_and_nothing_else(tmp_path):
    site = Site(tmp_path)
    site.databases.mkdir(parents=True)
    (site.databases / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    content = snapshot(site.databases)
    canary, stranger = Canary.hatch(content), Canary.hatch(content)
    (site.databases / CANARY).write_text(canary.line)
    assert Canary.read(site.databases) == canary
    with site.clamd():
        clamd = Clamd(str(site.socket))
        assert canary.found_by(clamd)
        assert not stranger.found_by(clamd)
        # The token is there, but under a name that stands for other definitions.
        assert not Canary("0" * 16, canary.token).found_by(clamd)
    assert not canary.found_by(clamd, 1), "nobody is there"
    assert canary.stands_for(content)
    (site.databases / "more.ndb").write_text(body_signature("Test.More", b"more"))
    assert not canary.stands_for(snapshot(site.databases))


@pytest.mark.parametrize("line", ["", "x", "\xff", "a\n" * 9,
                                  "0" * 32 + ":1:Imagewarden.Canary.0.0"])
def test_what_is_no_canary_is_none(tmp_path, line):
    (tmp_path / CANARY).write_bytes(line.encode("latin-1"))
    assert Canary.read(tmp_path) is None
    assert Canary.read(tmp_path / "missing") is None


def test_a_temporary_directory_too_deep_for_a_socket_is_no_obstacle(
        definitions, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr("tempfile.tempdir", None)
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        home = Path(clamd.address).parent
        assert home.stat().st_mode & 0o777 == 0o700
        assert scan(clamd, b"harmless") == CLEAN
    assert not home.exists()
    assert list(deep.iterdir()) == []


def job(definitions):
    process = subprocess.Popen([sys.executable, "-c", JOB, ROOT, definitions],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "starting\n"
    return process


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_job_dies_the_engine_and_its_files_go(definitions, temporary, end):
    process = job(definitions)
    assert Clamd(process.stdout.readline().strip()).answers()
    started = family(process.pid)
    assert len(started) >= 2
    process.send_signal(end)
    process.communicate()
    wait_until(lambda: not any(map(lives, started)) and not list(temporary.iterdir()), 10)


def test_when_the_job_dies_while_the_engine_loads_all_goes_too(definitions, temporary):
    (definitions / "large.hdb").write_text(
        "".join(f"{number:032x}:{number + 1}:Test.Large.{number}\n" for number in range(150_000)))
    process = job(definitions)
    wait_until(lambda: any(str(temporary).encode() in one and b"clamd\0" in one
                           for one in commands()))
    started = family(process.pid)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(lives, started)) and not list(temporary.iterdir()), 10)


def test_an_engine_that_dies_in_the_middle_leaves_nothing_clean(definitions, temporary):
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        engine = [pid for pid in family(os.getpid())
                  if Path(f"/proc/{pid}/comm").read_text() == "clamd\n"]
        os.kill(engine[0], signal.SIGKILL)
        wait_until(lambda: not lives(engine[0]))
        assert scan(clamd, b"harmless").verdict is Verdict.UNKNOWN
    assert list(temporary.iterdir()) == []


# --- directories that killed jobs left

DIES = """\
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from maintenance.clamav.databases import snapshot
from maintenance.clamav.private import ScanOptions, private_engine

where = pathlib.Path(sys.argv[2])
content = snapshot(where)
seen = []
def trap(event, args):
    seen.append(event)
    if event == sys.argv[3] and "tempfile.mkdtemp" in seen:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(trap)
with private_engine(where, content, ScanOptions(2**20, 20)):
    print("alive", flush=True)
"""


@pytest.mark.parametrize("event", ["os.mkdir", "fcntl.flock", "os.symlink", "subprocess.Popen"])
def test_what_a_job_killed_before_its_engine_left_is_gone_with_the_next(
        definitions, temporary, event):
    died = subprocess.run([sys.executable, "-c", DIES, ROOT, definitions, event], check=False,
                          stdout=subprocess.PIPE)
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, b"")
    left = set(temporary.iterdir())
    assert len(left) == (event != "os.mkdir")  # which is heard of before it is done
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert set(temporary.iterdir()) == {Path(clamd.address).parent}
    assert list(temporary.iterdir()) == []


def test_a_living_engine_keeps_its_directory(definitions, temporary):
    process = job(definitions)
    theirs = Clamd(process.stdout.readline().strip())
    try:
        with private_engine(definitions, snapshot(definitions), OPTIONS):
            assert len(list(temporary.iterdir())) == 2
        assert scan(theirs, BAD).verdict is Verdict.INFECTED
        keeper = next(pid for pid in family(process.pid)
                      if not Path(f"/proc/{pid}/comm").read_text().startswith("clamd"))
        os.kill(keeper, signal.SIGSTOP)  # it holds the directory when the job is gone, too
    finally:
        process.kill()
        process.communicate()
    with private_engine(definitions, snapshot(definitions), OPTIONS):
        assert Path(theirs.address).exists()
    os.kill(keeper, signal.SIGCONT)
    wait_until(lambda: not list(temporary.iterdir()), 10)


def test_a_directory_swept_up_before_it_was_held_is_made_again(
        definitions, temporary, monkeypatch):
    made, make = [], tempfile.mkdtemp

    def swept(**how):
        here = make(**how)
        made.append(here)
        if len(made) == 1:  # another job starts right now
            with private_engine(definitions, snapshot(definitions), OPTIONS):
                assert not Path(here).exists()
        return here

    monkeypatch.setattr("tempfile.mkdtemp", swept)
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert scan(clamd, b"harmless") == CLEAN
        assert len(made) == 3


def test_a_directory_swept_up_just_before_it_was_held_is_made_again(
        definitions, temporary, monkeypatch):
    made, lock = [], fcntl.flock

    def swept(fd, operation):
        made.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        if len(made) == 1:
            made[0].rmdir()
        lock(fd, operation)

    monkeypatch.setattr("fcntl.flock", swept)
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert Path(clamd.address).parent == made[1]


def test_a_directory_that_is_being_swept_up_is_left_alone(definitions, temporary, monkeypatch):
    made, make, held = [], tempfile.mkdtemp, []

    def taken(**how):
        made.append(make(**how))
        if len(made) == 1:
            held.append(os.open(made[0], os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return made[-1]

    monkeypatch.setattr("tempfile.mkdtemp", taken)
    with private_engine(definitions, snapshot(definitions), OPTIONS) as clamd:
        assert Path(clamd.address).parent == Path(made[1])
    os.close(held[0])


def test_nothing_but_our_own_directories_is_swept_up(definitions, temporary, tmp_path):
    ours, other = temporary / f"{PREFIX}1-abcdefgh", tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    ours.mkdir()
    (ours / "link").symlink_to(other)
    kept = {temporary / name for name in (
        f"{PREFIX}1-abcdefg1", f"{PREFIX}1-abcdefg2", f"{PREFIX}1-abcdefghi", f"{PREFIX}kept",
        f"x{PREFIX}1-abcdefgh")}
    link, file, *rest = sorted(kept)
    link.symlink_to(other)
    file.touch()
    for one in rest:
        one.mkdir()
    if os.geteuid() == 0:
        stranger = temporary / f"{PREFIX}1-abcdefg3"
        stranger.mkdir()
        os.chown(stranger, NOBODY, NOBODY)
        kept.add(stranger)
    with private_engine(definitions, snapshot(definitions), OPTIONS):
        assert not ours.exists()
    assert set(temporary.iterdir()) == kept
    assert (other / "kept").exists()


def test_no_descriptor_is_left_open_and_clamd_gets_none_of_ours(definitions, temporary):
    before = sorted(os.listdir("/proc/self/fd"))
    with private_engine(definitions, snapshot(definitions), OPTIONS):
        home, = temporary.iterdir()
        engine = next(pid for pid in family(os.getpid())
                      if Path(f"/proc/{pid}/comm").read_text() == "clamd\n")
        open_files = [os.readlink(one) for one in Path(f"/proc/{engine}/fd").iterdir()]
        assert str(home) not in open_files
    assert sorted(os.listdir("/proc/self/fd")) == before
