"""The quarantine itself: taking, holding, giving back, braking, on real file systems."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from maintenance.errors import FileChanged, QuarantineError
from maintenance.store import moving, quarantine, records, restoring
from maintenance.store.brake import Braked, Intake, brake_of, release
from maintenance.store.intake import Finding, NotTaken
from maintenance.store.quarantine import NotThere, Quarantine
from maintenance.store.tree import NotAnImage, Tree
from tests.processes import Namespace, reachable
from tests.site import wait_until

BAD = b"bad" * 1000
FINDING = Finding("uploads", "Test.Bad", 7)
HOSTILE = [b"a\nb.jpg", b"-h", b"$(touch pwned).jpg", b"\xff\xfe.jpg", b"x: OK", b'"quoted\\.jpg',
           b"\x1b[31mred.jpg", b" spaces  .jpg", b"n" * 255, "ü\u202e.jpg".encode()]


@dataclass(frozen=True)
class Box:
    """A store and its quarantine."""

    store: Path
    place: Path

    def put(self, path: bytes, content: bytes = BAD) -> os.stat_result:
        """Put an image there; what a scan of it would have seen."""
        there = Path(os.fsdecode(os.path.join(os.fsencode(self.store), path)))
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        os.chmod(there, 0o640)
        os.utime(there, ns=(10**18, 10**18 + 5))
        return there.stat()

    def open(self) -> Quarantine:
        return Quarantine.open(self.place, make=True)

    def take(self, path: bytes, info: os.stat_result, finding: Finding = FINDING) -> str:
        with Tree(self.store) as tree, self.open() as quarantine:
            return quarantine.take(tree.parent_of(path), path, info, finding)

    def restore(self, ticket: str, path: bytes) -> list[str]:
        with (Tree(self.store) as tree, self.open() as quarantine,
              restoring.opened(quarantine, ticket) as fd):
            return restoring.restore(quarantine, ticket, fd, tree.parent_of(path),
                                     path.rpartition(b"/")[2])

    def held(self) -> list[str]:
        try:
            with Quarantine.open(self.place, make=False) as quarantine:
                return [one.ticket for one in quarantine.held()]
        except NotThere:
            return []

    def settle(self) -> None:
        with self.open() as quarantine, quarantine.locked():
            pass

    def names(self) -> set[bytes]:
        """Every file in the store, by path."""
        root = os.fsencode(self.store)
        return {os.path.relpath(os.path.join(top, name), root)
                for top, _, files in os.walk(root) for name in files}

    def files(self) -> set[str]:
        """What lies in the quarantine, without the lock."""
        return {path.name for path in self.place.iterdir()} - {"lock"}


@pytest.fixture(params=["same file system", "another"])
def box(request, tmp_path):
    """A box whose quarantine is on the store's file system, and one where it is not."""
    store = tmp_path / "store"
    store.mkdir()
    if request.param == "another":
        with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
            assert os.stat(other).st_dev != store.stat().st_dev
            yield Box(store, Path(other) / "quarantine")
    else:
        yield Box(store, tmp_path / "quarantine")


def in_a_child(work) -> int:
    """Do ``work`` in a fork, where an audit hook can do no harm; its status, -9 when killed."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work()
            status = 0
        except (FileChanged, NotTaken):
            status = 3
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at(event: str, words, deed) -> None:
    """Have ``deed`` done once, just before the first ``event`` that names one of ``words``."""
    done = []

    def hook(name, args):
        if name == event and not done and any(
                os.fsencode(str(arg) if not isinstance(arg, bytes) else arg) in words
                for arg in args):
            done.append(True)
            deed()
    sys.addaudithook(hook)


# --- taking and giving back


def test_what_was_taken_is_closed_to_all_and_described(box):
    info = box.put(b"sub/dir/a.jpg")
    ticket = box.take(b"sub/dir/a.jpg", info)
    assert box.names() == set()
    assert box.held() == [ticket]
    image = box.place / f"{ticket}.image"
    assert stat.S_IMODE(image.stat().st_mode) == 0
    assert stat.S_IMODE(box.place.stat().st_mode) == 0o700
    record = json.loads((box.place / f"{ticket}.held").read_text())
    assert bytes.fromhex(record["path"]) == b"sub/dir/a.jpg"
    assert (record["signature"], record["generation"], record["mode"], record["mtime_ns"],
            record["size"], record["inode"], record["uid"]) == (
        "Test.Bad", 7, 0o640, 10**18 + 5, len(BAD), info.st_ino, os.geteuid())
    assert record["sha256"] == hashlib.sha256(BAD).hexdigest()
    assert box.files() == {f"{ticket}.image", f"{ticket}.held"}


def test_restored_it_is_as_it_was(box):
    info = box.put(b"sub/a.jpg")
    ticket = box.take(b"sub/a.jpg", info)
    assert box.restore(ticket, b"sub/a.jpg") == []
    after = (box.store / "sub/a.jpg").stat()
    assert (box.store / "sub/a.jpg").read_bytes() == BAD
    assert (after.st_mode, after.st_mtime_ns, after.st_uid, after.st_gid) == (
        info.st_mode, info.st_mtime_ns, info.st_uid, info.st_gid)
    assert box.held() == []
    assert box.files() == {f"{ticket}.restored"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_goes_in_and_comes_out_as_it_was(box, name):
    path = b"d\nir/" + name
    ticket = box.take(path, box.put(path))
    assert name not in b"".join(os.listdir(os.fsencode(box.place)))
    with box.open() as quarantine:
        assert [one.record.raw for one in quarantine.held()] == [path]
    box.restore(ticket, path)
    assert box.names() == {path}


def test_one_name_twice_is_two_tickets(box):
    tickets = {box.take(b"a.jpg", box.put(b"a.jpg", content)) for content in (b"one", b"two")}
    assert set(box.held()) == tickets
    assert len(tickets) == 2


def test_restoring_never_replaces(box):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    box.put(b"a.jpg", b"a new one")
    with pytest.raises(QuarantineError, match="stands there"):
        box.restore(ticket, b"a.jpg")
    assert (box.store / "a.jpg").read_bytes() == b"a new one"
    assert box.names() == {b"a.jpg"}
    assert box.held() == [ticket]
    assert stat.S_IMODE((box.place / f"{ticket}.image").stat().st_mode) == 0


def test_restoring_replaces_nothing_that_comes_at_the_last_moment(box):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))

    def work():
        at("os.rename", {b"a.jpg"}, lambda: box.put(b"a.jpg", b"a new one"))
        try:
            box.restore(ticket, b"a.jpg")
        except QuarantineError:
            raise NotTaken from None
    assert in_a_child(work) == 3
    assert (box.store / "a.jpg").read_bytes() == b"a new one"
    assert box.held() == [ticket]


def test_a_file_system_that_cannot_rename_that_way_gets_a_link(box, monkeypatch):
    monkeypatch.setattr(moving, "_renameat2", lambda *_: False)
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    box.put(b"a.jpg", b"a new one")
    with pytest.raises(QuarantineError, match="stands there"):
        box.restore(ticket, b"a.jpg")
    (box.store / "a.jpg").unlink()
    box.restore(ticket, b"a.jpg")
    assert (box.store / "a.jpg").read_bytes() == BAD
    assert (box.store / "a.jpg").stat().st_nlink == 1
    assert box.files() == {f"{ticket}.restored"}


def test_what_a_copy_does_not_keep_is_said(box):
    box.put(b"a.jpg")
    os.setxattr(box.store / "a.jpg", "user.note", b"x")
    ticket = box.take(b"a.jpg", (box.store / "a.jpg").stat())
    notes = box.restore(ticket, b"a.jpg")
    if box.place.is_relative_to("/dev/shm"):
        assert notes == ["user.note was not kept"]
    else:
        assert notes == []
        assert os.getxattr(box.store / "a.jpg", "user.note") == b"x"


# --- what changes under our hands


@pytest.mark.parametrize("change", ["swapped", "written", "link", "gone", "fifo"])
def test_what_is_no_longer_what_was_scanned_is_left_alone(box, change):
    info = box.put(b"a.jpg")
    image = box.store / "a.jpg"
    if change == "written":
        image.write_bytes(b"other")
    else:
        image.rename(box.store / "aside")
        if change == "swapped":
            image.write_bytes(BAD)
        elif change == "link":
            image.symlink_to("aside")
        elif change == "fifo":
            os.mkfifo(image)
    before = box.names()
    with pytest.raises(FileChanged):
        box.take(b"a.jpg", info)
    assert box.names() == before
    assert box.files() == set()


@pytest.mark.parametrize("what", ["file", "directory", "symlink"])
def test_what_was_swapped_in_at_the_last_moment_is_put_back(box, what):
    info = box.put(b"a.jpg")

    def swap():
        (box.store / "a.jpg").unlink()
        if what == "file":
            (box.store / "a.jpg").write_bytes(b"precious")
        elif what == "symlink":
            (box.store / "a.jpg").symlink_to("/etc/passwd")
        else:
            (box.store / "a.jpg").mkdir()
            (box.store / "a.jpg/precious").write_bytes(b"")

    def work():
        at("os.rename", {b"a.jpg"}, swap)
        box.take(b"a.jpg", info)
    assert in_a_child(work) == 3
    there = box.store / "a.jpg"
    assert {"file": there.is_file, "symlink": there.is_symlink, "directory": there.is_dir}[what]()
    assert what != "file" or there.read_bytes() == b"precious"
    assert {path.name for path in box.store.iterdir()} == {"a.jpg"}
    assert box.files() == set()


def test_what_was_swapped_in_keeps_its_bytes_even_when_its_name_is_taken_again(box):
    info = box.put(b"a.jpg")
    image = box.store / "a.jpg"

    def swap():
        image.rename(box.store / "scanned")
        image.write_bytes(b"precious")

    def work():
        at("os.rename", {b"a.jpg"}, swap)
        # The second rename is the one that puts back.
        seen = []

        def again(name, args):
            if name == "os.rename" and b"a.jpg" in args:
                seen.append(name)
                if len(seen) == 2:
                    image.write_bytes(b"the third")
        sys.addaudithook(again)
        box.take(b"a.jpg", info)
    assert in_a_child(work) == 3
    assert image.read_bytes() == b"the third"
    assert [path.read_bytes() for path in box.store.glob("recovered-*")] == [b"precious"]
    assert box.files() == set()


def test_a_hard_link_is_refused(box):
    box.put(b"a.jpg")
    os.link(box.store / "a.jpg", box.store / "b.jpg")
    with pytest.raises(NotTaken, match="2 hard links"):
        box.take(b"a.jpg", (box.store / "a.jpg").stat())
    assert box.names() == {b"a.jpg", b"b.jpg"}
    assert box.files() == set()


def test_a_hard_link_made_at_the_last_moment_is_noticed(box):
    info = box.put(b"a.jpg")

    def work():
        at("os.rename", {b"a.jpg"}, lambda: os.link(box.store / "a.jpg", box.store / "b.jpg"))
        box.take(b"a.jpg", info)
    assert in_a_child(work) == 3
    assert box.names() == {b"a.jpg", b"b.jpg"}
    assert (box.store / "a.jpg").read_bytes() == BAD
    assert box.files() == set()


def test_a_directory_that_flips_to_a_link_leads_nowhere(box, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"precious")
    (box.store / "link").symlink_to(outside)
    real, spare, link = (os.fsencode(box.store / name) for name in ("d", "spare", "link"))
    info = box.put(b"d/a.jpg")
    own = os.open(real, os.O_DIRECTORY | os.O_NOFOLLOW)
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            os.rename(real, spare)
            os.rename(link, real)
            os.rename(real, link)
            os.rename(spare, real)
    flipping = threading.Thread(target=flip)
    flipping.start()
    outcomes = set()
    try:
        for _ in range(300):
            try:
                ticket = box.take(b"d/a.jpg", info)
            except (NotAnImage, FileChanged, OSError):
                outcomes.add("left")
                continue
            outcomes.add("taken")
            with box.open() as quarantine:
                assert next(quarantine.held()).record.sha256 == hashlib.sha256(BAD).hexdigest()
                restoring.delete(quarantine, ticket)
            file = os.open("a.jpg", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=own)
            os.write(file, BAD)
            info = os.fstat(file)
            os.close(file)
    finally:
        stop.set()
        flipping.join()
        os.close(own)
    assert (outside / "a.jpg").read_bytes() == b"precious"
    assert outcomes


@pytest.mark.parametrize("change", ["take", "restore", "delete", "release"])
def test_one_change_at_a_time(box, change):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    info = box.put(b"b.jpg")
    before = box.files()
    with (Tree(box.store) as tree, box.open() as quarantine,
          restoring.opened(quarantine, ticket) as fd):
        work = {"take": lambda: quarantine.take(tree.fd, b"b.jpg", info, FINDING),
                "restore": lambda: restoring.restore(quarantine, ticket, fd, tree.fd, b"a.jpg"),
                "delete": lambda: restoring.delete(quarantine, ticket),
                "release": lambda: release(quarantine, "uploads")}[change]
        lock = os.open(box.place / "lock", os.O_RDWR)
        inode = os.fstat(lock).st_ino
        fcntl.flock(lock, fcntl.LOCK_EX)
        changing = threading.Thread(target=work)
        changing.start()
        wait_until(lambda: any("->" in line and f":{inode} " in line for line in
                               Path("/proc/locks").read_text().splitlines()))
        assert box.files() == before
        os.close(lock)
        changing.join()
    assert box.files() != before or change == "release"


# --- the directory


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770])
def test_a_quarantine_that_others_can_enter_is_refused(tmp_path, mode):
    place = tmp_path / "quarantine"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(QuarantineError, match="chmod 0700"):
        Quarantine.open(place, make=True)


def test_a_quarantine_that_is_a_link_or_a_file_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(QuarantineError, match=name):
            Quarantine.open(tmp_path / name, make=True)
    with pytest.raises(NotThere):
        Quarantine.open(tmp_path / "no/such", make=True)


@pytest.mark.may_skip("only root can own things for others")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own things for others")
def test_a_quarantine_of_somebody_else_is_refused_and_ours_is_closed_to_him(tmp_path):
    reachable(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    shutil.chown(theirs, "nobody")
    with pytest.raises(QuarantineError, match="belongs to"):
        Quarantine.open(theirs, make=True)
    box = Box(tmp_path / "store", tmp_path / "quarantine")
    box.store.mkdir()
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    read = subprocess.run(["setpriv", "--reuid=nobody", "--clear-groups", "--regid=nogroup", "cat",
                           box.place / f"{ticket}.image"], capture_output=True, check=False)
    assert (read.returncode, read.stdout) == (1, b"")
    box.place.chmod(0o755)  # even then
    read = subprocess.run(["setpriv", "--reuid=nobody", "--clear-groups", "--regid=nogroup", "cat",
                           box.place / f"{ticket}.image"], capture_output=True, check=False)
    assert (read.returncode, read.stdout) == (1, b"")


@pytest.mark.may_skip("only root has files of others")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of others")
def test_the_owner_is_given_back_by_root(box):
    box.put(b"a.jpg")
    os.chown(box.store / "a.jpg", 65534, 33)
    ticket = box.take(b"a.jpg", (box.store / "a.jpg").stat())
    assert box.restore(ticket, b"a.jpg") == []
    after = (box.store / "a.jpg").stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (65534, 33, 0o640)


TAKE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from maintenance.errors import NoRoom
from maintenance.store.intake import Finding
from maintenance.store.quarantine import Quarantine
from maintenance.store.tree import Tree
from maintenance.store import restoring
store, place = Path(sys.argv[2]), Path(sys.argv[3])
with Tree(store) as tree, Quarantine.open(place, make=False) as quarantine:
    try:
        for ticket in sys.argv[4:]:
            restoring.delete(quarantine, ticket)
        info = (store / "a.jpg").stat()
        print(quarantine.take(tree.parent_of(b"a.jpg"), b"a.jpg", info, Finding("uploads", "X")))
    except NoRoom as error:
        print("full:", error)
"""


@pytest.mark.parametrize("room", ["none at all", "for the record only"])
def test_without_room_the_original_stays_and_deleting_makes_room(tmp_path, room):
    box = Box(tmp_path / "store", tmp_path / "quarantine")
    box.place.mkdir(mode=0o700)
    box.put(b"a.jpg", os.urandom(200_000))
    argv = [sys.executable, "-c", TAKE, Path(__file__).parents[1], box.store, box.place]
    with Namespace(f"mount -t tmpfs -o mode=700,size=300k tmpfs {box.place}") as disk:
        def ran(*tickets):
            return subprocess.run([*disk.wrap, *argv, *tickets], check=True, capture_output=True,
                                  text=True).stdout.strip()
        first = ran()
        content = os.urandom(190_000)
        box.put(b"a.jpg", content)
        if room == "none at all":
            disk.run(f"dd if=/dev/zero of={box.place}/filler bs=1k 2>&- || :")
        told = ran()
        assert told.startswith("full:"), told
        assert str(box.place) in told
        assert (box.store / "a.jpg").read_bytes() == content
        assert box.names() == {b"a.jpg"}
        left = set(disk.run(f"ls -A {box.place}").split()) - {"lock", "filler"}
        assert left == {f"{first}.held", f"{first}.image"}
        second = ran(first)
        assert second.startswith("0"), second
        assert box.names() == set()


# --- what is on the disk, and in which order


class Recorder:
    """Writes down what is synced, renamed and removed, by short names."""

    def __init__(self, box: Box, monkeypatch) -> None:
        self.done: list[str] = []
        self._box = box
        for name in ("fsync", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))
        monkeypatch.setattr(moving, "rename_new", self._wrapped("rename", moving.rename_new))
        monkeypatch.setattr(restoring, "rename_new", moving.rename_new)

    def _wrapped(self, name, real):
        def call(*args, **how):
            if name == "fsync":
                self.done.append(f"sync {self._place(args[0])}")
            else:
                names = [arg for arg in args if isinstance(arg, str | bytes)]
                self.done.append(f"{name} {' '.join(map(self._short, names))}")
            return real(*args, **how)
        return call

    def _place(self, fd: int) -> str:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return {str(self._box.store): "store", str(self._box.place): "quarantine"}.get(
            path, self._short(path.encode()))

    @staticmethod
    def _short(name: str | bytes) -> str:
        text = os.fsdecode(name).rpartition("/")[2]
        return "aside" if text.startswith(".imagewarden-") else text.partition(".")[2] or text


RECORDED = ["sync taking", "sync quarantine"]
HELD = ["rename taking held", "sync quarantine"]


def test_every_step_of_taking_is_on_disk_before_the_next(box, monkeypatch):
    info = box.put(b"a.jpg")
    seen = Recorder(box, monkeypatch)
    box.take(b"a.jpg", info)
    if box.place.is_relative_to("/dev/shm"):
        assert seen.done == [*RECORDED, "sync part", "rename part image", "sync quarantine",
                             "rename jpg aside", "unlink aside", "sync store", *HELD]
    else:
        assert seen.done == [*RECORDED, "rename jpg image", "sync quarantine", "sync store",
                             *HELD]


def test_every_step_of_restoring_is_on_disk_before_the_next(box, monkeypatch):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    seen = Recorder(box, monkeypatch)
    box.restore(ticket, b"a.jpg")
    begun = ["rename held restoring", "sync quarantine"]
    ended = ["sync store", "rename restoring restored", "sync quarantine"]
    if box.place.is_relative_to("/dev/shm"):
        assert seen.done == [*begun, "sync image", "rename image jpg", "sync aside", "sync aside",
                             "rename aside jpg", "sync store", "unlink image", *ended]
    else:
        assert seen.done == [*begun, "sync image", "rename image jpg", *ended]


def test_a_copy_that_is_not_the_original_is_not_believed_and_the_image_stays(box, monkeypatch):
    info = box.put(b"a.jpg")
    if not box.place.is_relative_to("/dev/shm"):
        return

    def spoiled(source: int, target: int) -> int:
        return os.write(target, b"x" * os.fstat(source).st_size)
    monkeypatch.setattr(moving, "pour", spoiled)
    with pytest.raises(FileChanged):
        box.take(b"a.jpg", info)
    assert (box.store / "a.jpg").read_bytes() == BAD
    assert box.names() == {b"a.jpg"}
    assert box.files() == set()


def test_a_ticket_that_exists_already_is_never_written_over(box, monkeypatch):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    (box.place / f"{ticket}.held").rename(box.place / f"{ticket}.taking")
    before = (box.place / f"{ticket}.taking").read_bytes()
    monkeypatch.setattr(records, "new_ticket", lambda: ticket)
    monkeypatch.setattr(quarantine, "settle", lambda here: None)
    info = box.put(b"b.jpg", b"another")
    with pytest.raises(NotTaken, match="exists"):
        box.take(b"b.jpg", info)
    assert (box.place / f"{ticket}.taking").read_bytes() == before
    assert box.names() == {b"b.jpg"}


# --- killed


def killed_at_every_step(prepare, work, check) -> int:
    """Kill ``work`` at one audited operation after the other; how many there were."""
    for step in range(1, 200):
        given = prepare()

        def dying(given=given, step=step):
            seen = 0

            def trap(event, _args):
                nonlocal seen
                if event.startswith("os.") or event == "open":
                    seen += 1
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(trap)
            work(given)
        status = in_a_child(dying)
        assert status in {0, -signal.SIGKILL}
        check(given)
        if status == 0:
            return step
    raise AssertionError("it never ends")


def fresh(box):
    """Empty both and put an image there."""
    for place in (box.store, box.place):
        shutil.rmtree(place, ignore_errors=True)
    box.store.mkdir()
    return box.put(b"d/a.jpg")


def test_killed_at_every_step_of_taking_the_file_is_here_or_there(box):
    outcomes = set()

    def check(_info):
        there = box.names()
        before = len(there & {b"d/a.jpg"}) + len(box.held())
        assert before >= 1, "neither"
        box.settle()
        assert box.names() <= {b"d/a.jpg"}
        held = box.held()
        assert len(box.names()) + len(held) == 1, "settled, it is in one place"
        if held:
            assert stat.S_IMODE((box.place / f"{held[0]}.image").stat().st_mode) == 0
            assert box.files() == {f"{held[0]}.image", f"{held[0]}.held"}
            box.restore(held[0], b"d/a.jpg")
        else:
            assert box.files() == set()
        assert (box.store / "d/a.jpg").read_bytes() == BAD
        outcomes.add(bool(held))
    steps = killed_at_every_step(lambda: fresh(box), lambda info: box.take(b"d/a.jpg", info), check)
    assert steps > 12
    assert outcomes == {True, False}


@pytest.mark.parametrize("linked", [False, True])
def test_killed_at_every_step_of_restoring_the_file_is_here_or_there(box, monkeypatch, linked):
    if linked:
        monkeypatch.setattr(moving, "_renameat2", lambda *_: False)
    outcomes = set()

    def check(ticket):
        before = len(box.names() & {b"d/a.jpg"}) + len(box.held())
        assert before >= 1, "neither"
        box.settle()
        assert box.names() <= {b"d/a.jpg"}
        held, there = box.held(), box.names()
        assert held or there
        if there:
            info = (box.store / "d/a.jpg").stat()
            assert (box.store / "d/a.jpg").read_bytes() == BAD
            assert (stat.S_IMODE(info.st_mode), info.st_mtime_ns) == (0o640, 10**18 + 5)
        if held:
            assert stat.S_IMODE((box.place / f"{held[0]}.image").stat().st_mode) == 0
        outcomes.add((bool(held), bool(there)))
    steps = killed_at_every_step(lambda: box.take(b"d/a.jpg", fresh(box)),
                                 lambda ticket: box.restore(ticket, b"d/a.jpg"), check)
    assert steps > 10
    assert {(True, False), (False, True)} <= outcomes
    assert box.place.is_relative_to("/dev/shm") or (True, True) not in outcomes


def test_killed_at_every_step_of_deleting_it_is_held_or_gone(box):
    def delete(ticket):
        with box.open() as quarantine:
            restoring.delete(quarantine, ticket)

    def check(ticket):
        box.settle()
        assert box.files() in ({f"{ticket}.image", f"{ticket}.held"}, {f"{ticket}.deleted"})
    assert killed_at_every_step(lambda: box.take(b"d/a.jpg", fresh(box)), delete, check) > 5


def test_a_stranger_that_a_killed_run_had_moved_goes_back(box):
    info = box.put(b"a.jpg")

    def swap():
        (box.store / "a.jpg").unlink()
        (box.store / "a.jpg").write_bytes(b"precious")

    def work():
        at("os.rename", {b"a.jpg"}, swap)
        renames = []

        def die(name, args):
            if name == "os.rename" and b"a.jpg" in args:
                renames.append(name)
                if len(renames) == 2:  # before it is put back
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(die)
        box.take(b"a.jpg", info)
    assert in_a_child(work) == -signal.SIGKILL
    assert not (box.store / "a.jpg").exists()
    box.settle()
    assert (box.store / "a.jpg").read_bytes() == b"precious"
    assert box.files() == set()


# --- records


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"store": 1}', "\x00\xff"])
def test_a_damaged_record_is_one_line_and_hides_no_other(box, damage):
    first, second = (box.take(name, box.put(name)) for name in (b"a.jpg", b"b.jpg"))
    (box.place / f"{first}.held").write_text(damage)
    assert box.held() == [second]
    with box.open() as quarantine:
        (line,) = quarantine.damaged()
        assert line.startswith(first)
        assert line.isprintable()
        with pytest.raises(QuarantineError, match="damaged"), restoring.opened(quarantine, first):
            pass
        restoring.delete(quarantine, first)
        assert list(quarantine.damaged()) == []
    assert f"{first}.image" not in box.files()


def test_a_path_that_is_not_hex_is_a_damaged_record(box):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    file = box.place / f"{ticket}.held"
    file.write_text(json.dumps({**json.loads(file.read_text()), "path": "no hex"}))
    with box.open() as quarantine:
        assert next(quarantine.damaged()).startswith(ticket)


def test_a_ticket_is_no_path(box):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    shutil.copy(box.place / f"{ticket}.held", box.place.parent / "x.held")
    (box.place.parent / "x.image").write_text("")
    with box.open() as quarantine:
        for wrong in ("../x", f"{box.place.parent}/x"):
            with pytest.raises(QuarantineError, match="no such ticket"):
                restoring.delete(quarantine, wrong)
    assert (box.place.parent / "x.image").exists()


def test_a_file_that_somebody_removed_is_told(box):
    ticket = box.take(b"a.jpg", box.put(b"a.jpg"))
    (box.place / f"{ticket}.image").unlink()
    assert box.held() == []
    with box.open() as quarantine:
        assert list(quarantine.damaged()) == [f"{ticket}: its file is missing"]


# --- brake


@pytest.fixture
def near(tmp_path):
    """A box on one file system."""
    box = Box(tmp_path / "store", tmp_path / "quarantine")
    box.store.mkdir()
    return box


def run(box, names, limit, most=10**9, finding=FINDING):
    """One run that finds ``names``; what became of each."""
    results = []
    with Tree(box.store) as tree, box.open() as quarantine:
        intake = Intake(quarantine, limit, most)
        for name in names:
            info = box.put(name)
            try:
                intake.take(tree.parent_of(name), name, info, finding)
                results.append("taken")
            except Braked:
                results.append("brake")
            except NotTaken as error:
                results.append(str(error))
    return results


def braked(box, store="uploads"):
    with box.open() as quarantine:
        return brake_of(quarantine, store).on


def test_the_limit_of_a_run_puts_the_brake_on_until_it_is_released(near):
    with Tree(near.store) as tree, near.open() as quarantine:
        intake = Intake(quarantine, 2, 10**9)
        for number in range(4):
            name, finding = b"%d" % number, replace(FINDING, signature=f"Test.N{number}")
            info = near.put(name)
            if number < 2:
                intake.take(tree.parent_of(name), name, info, finding)
            else:
                with pytest.raises(Braked):
                    intake.take(tree.parent_of(name), name, info, finding)
    assert braked(near)
    assert run(near, [b"x"], 100, finding=replace(FINDING, signature="Test.Other")) == ["brake"]
    assert run(near, [b"x"], 100, finding=replace(FINDING, store="other")) == ["taken"]
    with near.open() as quarantine:
        assert release(quarantine, "uploads")
        assert not release(quarantine, "uploads")
    assert run(near, [b"x"], 100) == ["taken"]


def test_a_release_in_the_middle_of_a_run_gives_that_run_no_more(near):
    with Tree(near.store) as tree, near.open() as quarantine:
        intake, results = Intake(quarantine, 2, 10**9), []
        for name in (b"a", b"b", b"c", b"d"):
            release(quarantine, "uploads")
            try:
                intake.take(tree.parent_of(name), name, near.put(name), FINDING)
                results.append("taken")
            except Braked as error:
                assert "quarantine release" not in str(error), "that was done already"
                results.append("brake")
    assert results == ["taken", "taken", "brake", "brake"]
    assert not braked(near)
    assert run(near, [b"c"], 2) == ["taken"], "the next run may"


@pytest.mark.parametrize("fate", ["held", "deleted", "restored"])
def test_a_signature_is_counted_over_a_day_whatever_became_of_its_files(near, fate):
    ticket = near.take(b"a", near.put(b"a"))
    if fate == "deleted":
        with near.open() as quarantine:
            restoring.delete(quarantine, ticket)
    elif fate == "restored":
        near.restore(ticket, b"a")
    assert run(near, [b"x"], 3, finding=replace(FINDING, signature="Test.Other")) == ["taken"]
    assert run(near, [b"b", b"c"], 3) == ["taken", "taken"]
    assert braked(near)
    with near.open() as quarantine:
        assert "Test.Bad" in brake_of(quarantine, "uploads").why
        release(quarantine, "uploads")
    assert run(near, [b"d"], 3) == ["taken"], "what was before the release counts no more"


def aged(box, ticket, hours):
    """Make it look as if a ticket were that old."""
    then = time.time() - hours * 3600
    older = f"{int(then * 1e9):020d}{ticket[20:]}"
    for path in box.place.glob(f"{ticket}.*"):
        if path.suffix != ".image":
            path.write_text(json.dumps({**json.loads(path.read_text()), "taken": then}))
        path.rename(box.place / path.name.replace(ticket, older))
    return older


def test_after_a_day_it_counts_no_more_and_its_last_trace_goes(near):
    first = aged(near, near.take(b"a", near.put(b"a")), 25)
    second = near.take(b"b", near.put(b"b"))
    with near.open() as quarantine:
        restoring.delete(quarantine, second)
    second = aged(near, second, 25)
    third = near.take(b"c", near.put(b"c"))
    with near.open() as quarantine:
        restoring.delete(quarantine, third)
    third = aged(near, third, 23)
    assert run(near, [b"d"], 2) == ["taken"]
    assert braked(near), "the third and this one"
    assert f"{first}.held" in near.files()
    assert f"{second}.deleted" not in near.files()
    assert f"{third}.deleted" in near.files()


def test_another_store_with_the_same_quarantine_counts_for_itself(near):
    assert run(near, [b"a", b"b"], 3, finding=replace(FINDING, store="other")) == ["taken"] * 2
    assert run(near, [b"c", b"d"], 3) == ["taken"] * 2
    assert not braked(near)
    assert not braked(near, "other")


def test_a_lowered_limit_holds_from_the_next_image_on(near):
    assert run(near, [b"a", b"b"], 100) == ["taken"] * 2
    assert run(near, [b"c"], 2) == ["brake"]
    assert run(near, [b"c"], 0, finding=replace(FINDING, store="other")) == ["brake"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"uploads": 3}'])
def test_a_brake_that_nobody_can_read_is_on(near, damage):
    near.settle()
    (near.place / "brake.json").write_bytes(damage)
    assert run(near, [b"a"], 20) == ["brake"]
    with near.open() as quarantine:
        assert release(quarantine, "uploads")
    assert run(near, [b"a"], 20) == ["taken"]


def test_beyond_the_most_bytes_images_are_left_and_the_brake_is_not_on(near):
    first, second = run(near, [b"a", b"b"], 20, most=len(BAD) * 2 - 1)
    assert first == "taken"
    assert "quarantine_max" in second
    assert not braked(near)
    assert near.names() == {b"b"}


@pytest.mark.may_skip("root may do anything")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_what_cannot_be_moved_stays_with_the_reason(box):
    info = box.put(b"d/a.jpg")
    (box.store / "d").chmod(0o500)
    try:
        with pytest.raises(NotTaken, match="Permission denied"):
            box.take(b"d/a.jpg", info)
    finally:
        (box.store / "d").chmod(0o700)
    assert box.names() == {b"d/a.jpg"}
    assert box.files() == set()
