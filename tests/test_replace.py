"""Replacing an image: the old one, the draft, and what others do meanwhile."""

import errno
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maintenance.errors import FileChanged, NoRoom, StoreError, ToolError
from maintenance.store import replace
from maintenance.store.identity import READ
from maintenance.store.likeness import CannotKeep, refuse
from maintenance.store.replace import Original, drafted, remove_draft, require_room
from tests.processes import ROOT, Namespace, nobody, reachable

CHECKOUT = Path(__file__).parent.parent
OLD, NEW = b"old" * 1000, b"new" * 900


class Scene:
    """An image in a directory, and what is to replace it."""

    def __init__(self, place, name=b"f"):
        self.place, self.name = Path(place), name
        self.path = os.path.join(os.fsencode(place), name)
        with open(self.path, "wb") as stream:
            stream.write(OLD)
        self.directory = os.open(place, os.O_RDONLY)

    def original(self):
        fd = os.open(self.name, READ, dir_fd=self.directory)
        return Original("uploads", self.directory, self.name, fd, os.fstat(fd))

    def replace(self, content=NEW, meanwhile=lambda draft: None):
        source = os.memfd_create("result")
        os.write(source, content)
        original = self.original()
        try:
            with drafted(original, source) as draft:
                meanwhile(draft)
                return draft.publish()
        finally:
            os.close(source)
            os.close(original.fd)

    def left(self):
        return sorted(os.listdir(os.fsencode(self.place)))

    @property
    def content(self):
        with open(self.path, "rb") as stream:
            return stream.read()


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    os.close(made.directory)


def test_everything_but_the_content_stays(scene):
    os.chmod(scene.path, 0o6751)
    os.utime(scene.path, ns=(10**18 + 1, 10**18 + 3))
    before = os.stat(scene.path)
    new = scene.replace()
    after = os.stat(scene.path)
    assert scene.content == NEW
    assert scene.left() == [b"f"]
    for fact in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_atime_ns"):
        assert getattr(after, fact) == getattr(before, fact)
    assert new == (after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    assert after.st_ino != before.st_ino


@pytest.mark.parametrize("name", [b"n" * 255, b"\xff\n", b"-h"])
def test_any_name_can_be_replaced(tmp_path, name):
    scene = Scene(tmp_path, name)
    scene.replace()
    assert (scene.content, scene.left()) == (NEW, [name])
    os.close(scene.directory)


def same_size(path):
    before = os.stat(path)
    with open(path, "r+b") as stream:
        stream.write(b"OLD")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchanged(path):
    Path(os.fsdecode(path) + ".new").write_bytes(OLD)
    shutil.copystat(path, os.fsdecode(path) + ".new")
    os.rename(os.fsdecode(path) + ".new", path)


def linked(path):
    os.link(path, path + b".link")


def to_a_symlink(path):
    os.rename(path, path + b".real")
    os.symlink(path + b".real", path)


@pytest.mark.parametrize("deed", [
    same_size, exchanged, linked, to_a_symlink, os.unlink,
    lambda path: os.chmod(path, 0o600), lambda path: os.truncate(path, 5)])
def test_an_image_that_is_not_the_same_any_more_stays_as_others_made_it(scene, deed):
    made = []

    def meanwhile(_draft):
        time.sleep(0.02)  # longer than a tick of the clock that ctimes are taken from
        deed(scene.path)
        made.append((scene.left(), os.path.lexists(scene.path) and os.lstat(scene.path)))

    with pytest.raises(FileChanged):
        scene.replace(meanwhile=meanwhile)
    left, info = made[0]
    assert [name for name in left if not name.startswith(b".imagewarden-")] == scene.left()
    assert (os.path.lexists(scene.path) and os.lstat(scene.path).st_ctime_ns) == (
        info and info.st_ctime_ns)


@pytest.mark.parametrize("content", [b"", OLD, OLD + b"x"])
def test_only_something_smaller_and_never_nothing_takes_its_place(scene, content):
    with pytest.raises(ToolError):
        scene.replace(content)
    assert (scene.content, scene.left()) == (OLD, [b"f"])


def test_what_goes_wrong_before_it_is_published_leaves_no_draft(scene):
    def fail(_draft):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.replace(meanwhile=fail)
    assert (scene.content, scene.left()) == (OLD, [b"f"])


def test_the_draft_can_be_read_and_not_written_while_it_is_scanned(scene):
    def scanned(draft):
        assert os.pread(draft.fd, len(NEW) + 1, 0) == NEW
        with pytest.raises(OSError) as refused:
            os.write(draft.fd, b"x")
        assert refused.value.errno == errno.EBADF

    scene.replace(meanwhile=scanned)


def test_hard_links_and_other_peoples_images_are_refused(scene):
    os.link(scene.path, scene.path + b"2")
    with pytest.raises(CannotKeep, match="hard link"):
        refuse(os.stat(scene.path))
    os.unlink(scene.path + b"2")
    refuse(os.stat(scene.path))


def test_an_image_of_another_owner_is_refused(scene):
    somebody = list(os.stat(scene.path))
    somebody[stat.ST_UID] = 12345
    with nobody(), pytest.raises(CannotKeep, match="another owner"):
        refuse(os.stat_result(somebody))


# --- attributes


def attributes(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError:
        pytest.skip(f"no {name} on this file system")


ACL = bytes.fromhex("02000000" "01000600ffffffff" "02000400a0860100" "04000400ffffffff"
                    "10000400ffffffff" "20000400ffffffff")  # user 100000 may read


@pytest.mark.may_skip("not every file system has them")
def test_attributes_and_acls_are_kept(scene):
    attributes(scene.path, "user.caption", b"a view")
    attributes(scene.path, "system.posix_acl_access", ACL)
    scene.replace()
    assert os.getxattr(scene.path, "user.caption") == b"a view"
    assert os.getxattr(scene.path, "system.posix_acl_access") == ACL
    assert scene.content == NEW


@pytest.mark.may_skip("not every file system has them")
def test_an_acl_that_its_directory_would_hand_down_is_not_added(scene):
    attributes(scene.place, "system.posix_acl_default", ACL)
    before = os.stat(scene.path)
    scene.replace()
    assert os.listxattr(scene.path) == []
    assert os.stat(scene.path).st_mode == before.st_mode


def only_root(test):
    skip = pytest.mark.skipif(not ROOT, reason="only root can make it so")
    return pytest.mark.may_skip("not everybody is root")(skip(test))


@only_root
def test_an_attribute_that_cannot_be_kept_keeps_the_image(scene):
    os.chown(scene.path, 65534, 0)
    os.chmod(scene.place, 0o777)
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
    os.setxattr(scene.path, "security.capability", capability)
    with nobody(), pytest.raises(CannotKeep, match="attribute"):
        scene.replace()
    assert (scene.content, scene.left()) == (OLD, [b"f"])


@only_root
def test_a_group_that_cannot_be_kept_keeps_the_image(scene):
    os.chown(scene.path, 65534, 12345)
    os.chmod(scene.place, 0o777)
    with nobody(), pytest.raises(CannotKeep, match="group"):
        scene.replace()
    assert (scene.content, scene.left()) == (OLD, [b"f"])


@only_root
@pytest.mark.parametrize("flag", ["i", "a", "d"])
def test_what_chattr_set_is_kept_or_the_image_is(scene, flag):
    if shutil.which("chattr") is None or subprocess.run(
            ["chattr", f"+{flag}", scene.path], check=False).returncode:
        pytest.skip("no chattr on this file system")
    try:
        with pytest.raises(CannotKeep, match="chattr"):
            scene.replace()
        assert (scene.content, scene.left()) == (OLD, [b"f"])
    finally:
        subprocess.run(["chattr", f"-{flag}", scene.path], check=True)


@only_root
def test_a_directory_that_is_closed_to_us_keeps_the_image(scene):
    os.chown(scene.path, 65534, 65534)
    reachable(Path(os.fsdecode(scene.place)))
    with nobody(), pytest.raises(CannotKeep):
        scene.replace()
    assert scene.content == OLD


# --- room


REPLACE = f"""
import os, sys
sys.path.insert(0, {str(CHECKOUT)!r})
from maintenance.errors import *
from tests.test_replace import Scene
"""


def in_a_store(mounts, code, place):
    with Namespace(mounts) as made:
        return subprocess.run([*made.wrap, sys.executable, "-c", REPLACE + code, place],
                              stdout=subprocess.PIPE, text=True, check=True).stdout


def test_a_full_disk_ends_the_run_and_the_image_is_whole(tmp_path):
    code = """
scene = Scene(sys.argv[1])
big = b"x" * 200_000
with open(scene.path, "wb") as stream:
    stream.write(big)
try:
    scene.replace(big[1:])
except NoRoom as error:
    print(error)
print(len(scene.content), scene.left())
"""
    told = in_a_store(f"mount -t tmpfs -o size=300k,mode=777 tmpfs {tmp_path}", code, tmp_path)
    assert told == "store \"uploads\": No space left on device\n200000 [b'f']\n"


def test_a_disk_without_inodes_ends_the_run(tmp_path):
    code = """
scene = Scene(sys.argv[1])
try:
    scene.replace()
except NoRoom as error:
    print(error)
print(len(scene.content), scene.left())
"""
    told = in_a_store(f"mount -t tmpfs -o nr_inodes=2,mode=777 tmpfs {tmp_path}", code, tmp_path)
    assert told == "store \"uploads\": No space left on device\n3000 [b'f']\n"


CALLS = ("open", "write", "fchown", "listxattr", "setxattr", "fchmod", "utime", "fsync", "rename")


@pytest.mark.may_skip("not every file system has attributes")
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
def test_whichever_call_finds_no_room_ends_the_run_and_the_image_is_whole(
        scene, monkeypatch, fault):
    attributes(scene.path, "user.caption", b"a view")
    reals, left = {name: getattr(os, name) for name in CALLS}, [0]

    def failing(name):
        def call(*arguments, **more):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(fault, os.strerror(fault))
            return reals[name](*arguments, **more)
        return call

    contents = []
    for step in range(1, 60):
        with monkeypatch.context() as patched:
            original, source = scene.original(), os.memfd_create("result")
            reals["write"](source, NEW)
            for name in CALLS:
                patched.setattr(os, name, failing(name))
            left[0] = step
            try:
                with drafted(original, source) as draft:
                    draft.publish()
                break
            except NoRoom as error:
                assert str(error) == f'store "uploads": {os.strerror(fault)}'
            finally:
                os.close(original.fd)
                os.close(source)
        contents.append(scene.content)
        assert scene.left() == [b"f"]
        Path(os.fsdecode(scene.path)).write_bytes(OLD)
    # Only when the name is given and cannot be pushed to disk any more is it the new one.
    assert contents == [OLD] * (len(contents) - 1) + [NEW]
    assert len(contents) > 8
    assert (scene.content, scene.left()) == (NEW, [b"f"])


def test_room_is_twice_the_image_and_some_more(tmp_path):
    code = """
from maintenance.store.replace import require_room
for size in (2**20, 3 * 2**20):
    try:
        require_room(sys.argv[1], size, "here")
        print("room")
    except NoRoom as error:
        print(error)
"""
    told = in_a_store(f"mount -t tmpfs -o size=20m,mode=777 tmpfs {tmp_path}", code, tmp_path)
    assert told.splitlines()[0] == "room"
    assert told.splitlines()[1].startswith("here: 20 MB free, too little")
    require_room(str(tmp_path), 1, "here")


def test_a_store_that_became_read_only_is_told_as_such(scene, monkeypatch):
    def denied(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(replace, "_opened", denied)
    with pytest.raises(StoreError, match="uploads.*Read-only"):
        scene.replace()


# --- what is on disk when


def test_the_draft_is_on_disk_before_it_takes_the_name_and_the_name_after(scene, monkeypatch):
    done = []

    def told(name, real):
        def call(*arguments, **more):
            done.append((name, stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
                         if name == "fsync" else None))
            return real(*arguments, **more)
        return call

    for name in ("fsync", "rename", "utime"):
        monkeypatch.setattr(os, name, told(name, getattr(os, name)))
    scene.replace()
    assert done == [("utime", None), ("fsync", False), ("rename", None), ("fsync", True)]


def test_a_leftover_is_removed_only_when_it_is_ours_and_nobody_holds_it(scene):
    name = b".imagewarden-shrunk-0123456789abcdef"

    def meanwhile(draft):
        remove_draft(scene.directory, draft.name)
        assert draft.name in scene.left(), "it lives"

    scene.replace(meanwhile=meanwhile)
    for other in (b".imagewarden-shrunk-", name + b"0", b".imagewarden-0123456789abcdef"):
        with open(os.path.join(os.fsencode(scene.place), other), "wb"):
            pass
        remove_draft(scene.directory, other)
        assert other in scene.left()
    with open(os.path.join(os.fsencode(scene.place), name), "wb"):
        pass
    remove_draft(scene.directory, name)
    assert name not in scene.left()
    os.symlink(b"f", name, dir_fd=scene.directory)
    remove_draft(scene.directory, name)
    assert name in scene.left()
