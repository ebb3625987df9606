"""Going over a store and opening what is in it, while others do what they like there."""

import os
import random
import resource
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from maintenance.errors import StoreError
from maintenance.store import listing
from maintenance.store import walk as walking
from maintenance.store.identity import key_of, path_of, stamp
from maintenance.store.tree import NotAnImage, Tree, Vanished, excluding
from maintenance.store.walk import DEEPEST, Passed, Unread, meets, walk
from tests.processes import nobody

ROOT = Path(__file__).parent.parent
# Bytes around "/" and the ends of what a name can hold, and names made of them.
NAMES = [b"a", b"a-b", b"a.b", b"a b", b"a\x01", b"A", b"aa", b"a0", b"\xff", b"\xff\xfe", b"\x01",
         b"-h", b"@x", b"a\nb", "é".encode(), b"~", b"!", b".hidden", b"z" * 255, b"\x7f" * 255]


@pytest.fixture
def store(tmp_path):
    place = tmp_path / "store"
    place.mkdir()
    return os.fsencode(place)


@contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def met(store, *arguments):
    with opened(store) as fd:
        return list(walk(fd, *arguments))


def told(store, *arguments):
    """Every key that is met, in order, and as what: an image's stamp, or Passed, or Unread."""
    found = []
    for one in met(store, *arguments):
        if isinstance(one, list):
            found += [(image[0], image[1:5]) for image in one]
        else:
            found.append((one.key, one))
    return found


def images(store, *arguments):
    return [path_of(key) for key, one in told(store, *arguments) if isinstance(one, tuple)]


def write(store, name, content=b"x"):
    path = os.path.join(store, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def grow(rng, place, depth=0):
    """A random tree; the files in it."""
    for name in rng.sample(NAMES, rng.randint(0, 9)):
        path = os.path.join(place, name)
        if depth < 4 and rng.random() < 0.5:
            os.mkdir(path)
            yield from grow(rng, path, depth + 1)
        else:
            with open(path, "wb"):
                yield path


@pytest.mark.parametrize("seed", range(25))
def test_the_walk_meets_every_image_once_in_the_order_of_the_ledger(store, seed):
    files = {os.path.relpath(path, store) for path in grow(random.Random(seed), store)}
    keys = [key for key, _ in told(store)]
    assert keys == sorted(set(keys))
    assert {path_of(key) for key in keys} == files
    assert keys == sorted(map(key_of, files))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_met_is_the_same_however_it_is_cut(store, monkeypatch, seed):
    rng = random.Random(seed)
    for path in list(grow(rng, store)):
        if rng.random() < 0.1:
            os.unlink(path)
            os.symlink("x", path)
    whole = sorted(told(store), key=lambda one: one[0])
    for block, run, page in ((1, 1, 1), (3, 4, 2), (2, 5, 3)):
        monkeypatch.setattr(walking, "BLOCK", block)
        monkeypatch.setattr(listing, "RUN", run)
        monkeypatch.setattr(listing, "PAGE", page)
        found = met(store)
        assert {len(one) for one in found[:-1] if isinstance(one, list)} <= {block}
        cut = sorted(told(store), key=lambda one: one[0])
        assert cut == whole


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 40, 95, 1000])
def test_the_names_in_a_directory_come_sorted_also_when_they_wait_in_a_file(
        store, monkeypatch, count):
    monkeypatch.setattr(listing, "RUN", 10)
    monkeypatch.setattr(listing, "PAGE", 4)
    rng = random.Random(count)
    while len(os.listdir(store)) < count:
        name = b"".join(rng.choices([b"\xff", b"a", b"\n", b"\x01", b"\xc3\xa9", b"z" * 60], k=4))
        write(store, name + b"%d" % rng.randrange(10**6), b"")
    before = len(os.listdir("/proc/self/fd"))
    with opened(store) as fd:
        pages = list(listing.sorted_names(fd))
    assert [name for page in pages for name in page] == sorted(os.listdir(store))
    assert all(pages)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_sorts_before_what_only_begins_like_it(store):
    for name in (b"a/x", b"a-b", b"a", b"a.jpg", b"b", b"a/b/c", b"a/b-"):
        if name != b"a":
            write(store, name)
    assert images(store) == [b"a/b/c", b"a/b-", b"a/x", b"a-b", b"a.jpg", b"b"]
    assert [path_of(key_of(path)) for path in images(store)] == images(store)


def test_identity_comes_with_each_image(store):
    path = write(store, b"a")
    assert met(store) == [[(b"a", *stamp(os.lstat(path)), None)]]
    before = stamp(os.lstat(path))
    os.chmod(path, 0o600 if os.lstat(path).st_mode & 0o077 else 0o644)
    assert stamp(os.lstat(path)) != before


def test_what_is_no_image_is_passed_by_without_waiting(store):
    write(store, b"image")
    os.symlink("image", os.path.join(store, b"link"))
    os.symlink("/etc", os.path.join(store, b"link to a directory"))
    os.symlink("/nonexistent", os.path.join(store, b"dangling"))
    os.symlink("itself", os.path.join(store, b"itself"))
    os.mkfifo(os.path.join(store, b"fifo"))
    special = {b"link", b"link to a directory", b"dangling", b"itself", b"fifo", b"socket"}
    with socket.socket(socket.AF_UNIX) as link, opened(store) as fd:
        link.bind(f"/proc/self/fd/{fd}/socket")
    if os.geteuid() == 0:
        os.mknod(os.path.join(store, b"device"), stat.S_IFCHR | 0o666, os.makedev(1, 5))
        special.add(b"device")
    assert {one.key for one in met(store) if isinstance(one, Passed)} == special
    assert images(store) == [b"image"]
    with Tree(Path(os.fsdecode(store))) as tree:
        for name in special:
            with pytest.raises(NotAnImage):
                tree.open(name)


def test_names_of_every_kind_can_be_met_and_opened(store):
    for name in NAMES:
        write(store, os.path.join(b"d" * 255, name), name)
    assert sorted(images(store)) == sorted(b"d" * 255 + b"/" + name for name in NAMES)
    with Tree(Path(os.fsdecode(store))) as tree:
        for name in NAMES:
            with os.fdopen(tree.open(b"d" * 255 + b"/" + name), "rb") as stream:
                assert stream.read() == name


def test_our_own_drafts_are_not_images(store):
    write(store, b".imagewarden-0123456789abcdef")
    write(store, b"x.imagewarden-0")
    assert images(store) == [b"x.imagewarden-0"]


def test_nothing_hides_behind_the_name_of_a_draft_for_longer_than_a_day(store, monkeypatch):
    old = write(store, b".imagewarden-shrunk-0123456789abcdef")
    os.utime(old, (1, 1))
    write(store, b".imagewarden-d/.imagewarden-x")
    write(store, b".imagewarden-d/x")
    assert images(store) == [b".imagewarden-d/x"], "only a file can be a draft"
    then = time.time() + 86400 + 60
    monkeypatch.setattr("maintenance.store.walk.time", SimpleNamespace(time=lambda: then))
    assert images(store) == [b".imagewarden-d/.imagewarden-x", b".imagewarden-d/x",
                             b".imagewarden-shrunk-0123456789abcdef"]


def test_what_the_configuration_excludes_is_not_met(store):
    for name in (b"a.tmp", b"a.jpg", b"cache/a.jpg", b"deep/cache/b.jpg", b"deep/c.jpg",
                 b"\xff.tmp", b"\xff.jpg"):
        write(store, name)
    os.symlink("a.jpg", os.path.join(store, b"cache/link"))
    assert images(store, excluding(["*.tmp", "cache/"])) == [b"a.jpg", b"deep/c.jpg", b"\xff.jpg"]
    assert images(store, excluding(["/cache"])) == [
        b"a.jpg", b"a.tmp", b"deep/c.jpg", b"deep/cache/b.jpg", b"\xff.jpg", b"\xff.tmp"]
    assert len(images(store, excluding([]))) == 7
    assert not [one for one in met(store, excluding(["cache/"])) if isinstance(one, Passed)]


def test_an_excluded_directory_is_not_even_opened(store):
    write(store, b"closed/x")
    os.chmod(os.path.join(store, b"closed"), 0)
    os.chmod(store, 0o755)
    with opened(store) as fd, nobody():
        assert list(walk(fd, excluding(["closed/"]))) == []
        assert list(walk(fd, excluding(["/closed"]))) == []
    os.chmod(os.path.join(store, b"closed"), 0o755)


def test_an_unreadable_directory_is_told_and_its_neighbours_are_met(store):
    for name in (b"a/x", b"closed/x", b"listed/x", b"z"):
        write(store, name)
    os.chmod(store, 0o755)
    os.chmod(os.path.join(store, b"closed"), 0)
    os.chmod(os.path.join(store, b"listed"), 0o444)
    with opened(store) as fd, nobody():
        found = list(walk(fd))
    os.chmod(os.path.join(store, b"closed"), 0o755)
    os.chmod(os.path.join(store, b"listed"), 0o755)
    assert [[image[0] for image in one] if isinstance(one, list) else one for one in found] == [
        [b"a\0x"], Unread(b"closed", "Permission denied"),
        Unread(b"listed\0x", "Permission denied"), [b"z"]]


def test_a_store_that_cannot_be_listed_is_unread_as_a_whole(store):
    write(store, b"a")
    os.chmod(store, 0)
    fd = os.open(store, os.O_RDONLY | os.O_DIRECTORY) if os.geteuid() == 0 else None
    if fd is None:
        os.chmod(store, 0o300)
        fd = os.open(store, os.O_PATH | os.O_DIRECTORY)
    try:
        with nobody():
            found = list(walk(fd))
    finally:
        os.close(fd)
        os.chmod(store, 0o755)
    assert [type(one) for one in found] == [Unread] * len(found)
    assert found[0].key == b"" or found[0].key == b"a"


MOUNTED = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from maintenance.store.tree import NotAnImage, Tree
from maintenance.store.walk import walk
os.umask(0o022)
Path(sys.argv[2], "sub/inside").write_text("x")
with Tree(Path(sys.argv[2])) as tree:
    print([[image[0] for image in one] if isinstance(one, list) else (one.key, one.reason[:20])
           for one in walk(tree.fd)])
    for path in (b"sub/inside", b"other/x"):
        try:
            tree.open(path)
            print("opened")
        except NotAnImage as error:
            print(error)
"""


def test_another_file_system_mounted_inside_is_told_and_not_entered(store):
    for name in (b"a", b"other/x", b"sub/below"):
        write(store, name)
    lines = subprocess.run(
        ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c",
         'mount -t tmpfs none "$1/sub" && exec "$0" -c "$2" "$3" "$1"',
         sys.executable, store, MOUNTED, ROOT],
        stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert lines == [
        "[[b'a', b'other\\x00x'], (b'sub', 'another file system ')]",
        "another file system is mounted on its way", "opened"]


def test_a_directory_flipped_to_a_link_never_leads_outside(store, tmp_path):
    outside = os.fsencode(tmp_path / "outside")
    for name in (b"secret.jpg", b"deep/secret.jpg", b"image.jpg"):
        write(outside, name, b"SECRET")
    for name in (b"d/image.jpg", b"d/deep/image.jpg", b"a", b"z"):
        write(store, name, b"image")
    door, aside = os.path.join(store, b"d"), os.path.join(store, b"d-aside")
    stop, flips = threading.Event(), 0

    def flip():
        nonlocal flips
        while not stop.is_set():
            os.rename(door, aside)
            os.symlink(outside, door)
            os.unlink(door)
            os.rename(aside, door)
            flips += 1

    thread = threading.Thread(target=flip)
    thread.start()
    read, seen = set(), set()
    try:
        with Tree(Path(os.fsdecode(store))) as tree:
            while flips < 3000 and thread.is_alive():
                for one in walk(tree.fd):
                    seen |= ({path_of(image[0]) for image in one} if isinstance(one, list)
                             else {path_of(one.key)})
                for path in (b"d/image.jpg", b"d/secret.jpg", b"d/deep/secret.jpg",
                             b"d/deep/image.jpg", b"a"):
                    with suppress(Vanished, NotAnImage), os.fdopen(tree.open(path), "rb") as stream:
                        read.add(stream.read())
    finally:
        stop.set()
        thread.join()
    assert read == {b"image"}
    assert {b"a", b"z"} <= seen
    assert not [path for path in seen if b"secret" in path]


def test_a_file_flipped_to_a_link_is_never_followed(store, tmp_path):
    secret = write(os.fsencode(tmp_path), b"secret", b"SECRET")
    image = write(store, b"image", b"image")
    link, draft = os.path.join(store, b".l"), os.path.join(store, b".f")
    stop, flips = threading.Event(), 0

    def flip():
        nonlocal flips
        while not stop.is_set():
            os.symlink(secret, link)
            os.replace(link, image)
            write(store, b".f", b"image")
            os.replace(draft, image)
            flips += 1

    thread = threading.Thread(target=flip)
    thread.start()
    read = set()
    try:
        with Tree(Path(os.fsdecode(store))) as tree:
            while flips < 1500 and thread.is_alive():
                with suppress(NotAnImage), os.fdopen(tree.open(b"image"), "rb") as stream:
                    read.add(stream.read())
    finally:
        stop.set()
        thread.join()
    assert read == {b"image"}


@pytest.mark.parametrize("path", [b"link", b"dir-link/x", b"d/dir-link/x", b"d/../../outside",
                                  b"../outside", b"d/..", b"..", b"/etc/passwd", b"//x", b"",
                                  b"d//x", b"d/", b"d", b"a/x", b"./a", b"d/./x"])
def test_no_path_is_opened_that_the_walk_cannot_have_met(store, tmp_path, path):
    outside = write(os.fsencode(tmp_path), b"outside", b"SECRET")
    for name in (b"a", b"x", b"d/x"):
        write(store, name)
    os.symlink(outside, os.path.join(store, b"link"))
    os.symlink(tmp_path, os.path.join(store, b"dir-link"))
    os.symlink(store, os.path.join(store, b"d/dir-link"))
    before = len(os.listdir("/proc/self/fd"))
    with Tree(Path(os.fsdecode(store))) as tree:
        for _ in range(3):
            with pytest.raises((NotAnImage, Vanished)):
                tree.open(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_not_there_any_more_has_vanished(store):
    write(store, b"d/x")
    with Tree(Path(os.fsdecode(store))) as tree:
        os.close(tree.open(b"d/x"))
        for path in (b"gone", b"gone/x", b"d/gone", b"d/gone/x"):
            with pytest.raises(Vanished):
                tree.open(path)


def test_a_store_is_opened_where_its_own_path_leads_once(store, tmp_path):
    write(store, b"a", b"first")
    (tmp_path / "link").symlink_to(os.fsdecode(store))
    with Tree(tmp_path / "link") as tree:
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("/etc")
        assert [image[0] for block in walk(tree.fd) for image in block] == [b"a"]
        os.close(tree.open(b"a"))
        assert tree.holds("a")
        assert not tree.holds("b")


@pytest.mark.parametrize(("make", "why"), [
    (lambda path: None, "not there"), (lambda path: path.touch(), "not a directory"),
    (lambda path: os.mkfifo(path), "not a directory"),
    (lambda path: path.symlink_to(path), "not a directory")])
def test_a_store_that_is_none_is_an_error(tmp_path, make, why):
    make(tmp_path / "store")
    with pytest.raises(StoreError, match=why):
        Tree(tmp_path / "store")


@pytest.mark.parametrize("descriptors", [256, 4096])
def test_a_tree_deeper_than_any_path_is_walked_or_told(store, descriptors):
    """Deeper than PATH_MAX allows to name, than Python recurses, than descriptors last."""
    fd = os.open(store, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir(b"d", dir_fd=fd)
        below = os.open(b"d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(os.open(b"x", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.close(fd)
        fd = below
    os.close(fd)
    write(store, b"z")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], descriptors), limit[1]))
    try:
        found = told(store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        subprocess.run(["rm", "-rf", os.path.join(store, b"d")], check=True)
    keys = [key for key, _ in found]
    assert keys == sorted(keys)
    assert isinstance(found[-1][1], tuple)
    assert keys[-1] == b"z"
    unread = [one for _, one in found if isinstance(one, Unread)]
    assert len(unread) == 1
    assert unread[0].reason == f"more than {DEEPEST} directories deep"
    assert len(found) > DEEPEST


@pytest.mark.parametrize("patterns", [(), ("cache/**",), ("cache/",), ("*.tmp", "!keep.tmp"),
                                      ("/a", "!a/b/keep"), ("a/*", "!a/b"), ("b",)])
def test_it_can_be_told_of_any_file_whether_a_walk_comes_to_it(store, patterns):
    names = [b"cache/x", b"cache/y/z", b"a/b/keep", b"a/b/c/d", b"a/x", b"b", b"x.tmp",
             b"keep.tmp", b"d/keep.tmp", b".imagewarden-0", b"d/.imagewarden-1/x", b"d/b/x"]
    for name in names:
        write(store, name)
    excluded = excluding(patterns)
    assert [name for name in sorted(names, key=key_of) if meets(name, excluded)] == images(
        store, excluded)


def test_no_descriptor_is_left_when_a_walk_is_given_up(store, monkeypatch):
    monkeypatch.setattr(walking, "BLOCK", 1)
    monkeypatch.setattr(listing, "RUN", 1)
    for name in (b"a/b/c/x", b"a/b/y", b"a/z"):
        write(store, name)
    before = len(os.listdir("/proc/self/fd"))
    with opened(store) as fd:
        going = walk(fd)
        next(going)
        going.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_walk_survives_a_tree_that_others_change(store):
    rng, stop = random.Random(1), threading.Event()
    write(store, b"stays")

    def churn():
        while not stop.is_set():
            path = os.path.join(store, rng.choice(NAMES), rng.choice(NAMES))
            with suppress(OSError):
                write(store, path)
            with suppress(OSError):
                os.unlink(os.path.join(store, rng.choice(NAMES), rng.choice(NAMES)))
            with suppress(OSError):
                os.rmdir(os.path.join(store, rng.choice(NAMES)))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(150):
            keys = [key for key, _ in told(store)]
            assert keys == sorted(set(keys))
            assert b"stays" in keys
    finally:
        stop.set()
        thread.join()
