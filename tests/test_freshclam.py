"""What freshclam is given, what stands before it, and what it leaves: without running it."""

import os
import struct
import sys
import time
from pathlib import Path

import pytest

from maintenance import memory
from maintenance.clamav import freshclam, housekeeping, preflight
from maintenance.clamav.caretaker import Caretaker, Refusal
from maintenance.clamav.sources import Sources
from maintenance.errors import ToolError
from tests.processes import nobody

pytestmark = pytest.mark.once  # what others fetch into the system's directory is seen by all

HERE = Path("/var/lib/clamav")


def sources(*lines, official=True, mirror="database.clamav.net", urls=(), place=None):
    """Sources with a freshclam.conf of these lines, if there are any."""
    if lines:
        (place / "base.conf").write_text("\n".join(lines) + "\n")
    return Sources.of(official, mirror, urls, place / "base.conf" if lines else None)


# --- its configuration


def test_of_a_given_configuration_only_what_is_not_ours_to_decide_is_kept(tmp_path):
    made = sources(
        "# HTTPProxyServer commented", "  HTTPProxyServer\thttp://proxy  ", "HTTPProxyPort 3128",
        'HTTPProxyPassword "with blanks # and this"', "DatabaseDirectory /elsewhere",
        "NotifyClamd /etc/clamav/clamd.conf", "OnUpdateExecute rm -rf /", "TestDatabases no",
        "DatabaseMirror db.local.clamav.net", "PrivateMirror http://private",
        'DatabaseCustomURL "http://a/one.ndb"', "", "x", "ReceiveTimeout 0",
        urls=["http://a/two.ndb", "http://a/one.ndb"], place=tmp_path)
    assert made.configuration(HERE).splitlines() == [
        'DatabaseDirectory "/var/lib/clamav"', "DatabaseOwner root", "TestDatabases yes",
        "ReceiveTimeout 300", "HTTPProxyServer http://proxy", "HTTPProxyPort 3128",
        'HTTPProxyPassword "with blanks # and this"', "x ", "ReceiveTimeout 0",
        "DatabaseMirror db.local.clamav.net", "PrivateMirror http://private",
        "DatabaseCustomURL http://a/one.ndb", "DatabaseCustomURL http://a/two.ndb"]


def test_without_one_the_mirror_and_the_urls_are_all():
    made = sources(mirror="http://mirror:8080", urls=["file:///srv/a.ndb"])
    assert made.configuration(HERE).splitlines()[4:] == [
        "DatabaseMirror http://mirror:8080", "DatabaseCustomURL file:///srv/a.ndb"]


@pytest.mark.parametrize(("lines", "official", "wanted"), [
    ((), True, ["daily", "main", "bytecode"]), ((), False, []),
    (("Bytecode no",), True, ["daily", "main"]), (("Bytecode yes",), True,
                                                  ["daily", "main", "bytecode"]),
    (("ExcludeDatabase main", "ExtraDatabase test", "ExtraDatabase unheard-of"), True,
     ["daily", "bytecode", "test"]),
    (("ExtraDatabase test",), False, []),
])
def test_databases_are_asked_for_by_name(tmp_path, lines, official, wanted):
    made = sources(*lines, official=official, urls=["http://a/b.ndb"], place=tmp_path)
    assert [word.removeprefix("--update-db=") for word in made.arguments()
            if word.startswith("--update-db=")] == [*wanted, "custom"]
    bare = sources(*lines, official=official, place=tmp_path)
    assert bare.none == (not wanted)
    assert "--update-db=custom" not in bare.arguments()


@pytest.mark.parametrize(("lines", "mirror", "official", "dns"), [
    ((), "database.clamav.net", True, True), ((), "database.clamav.net", False, False),
    ((), "http://127.0.0.1:80", True, False), ((), "mirror.lan", True, False),
    (("DatabaseMirror db.local.clamav.net", "DatabaseMirror database.clamav.net"), "x", True,
     True),
    (("DatabaseMirror mirror.lan", "DatabaseMirror database.clamav.net"), "x", True, False),
    (("PrivateMirror http://private",), "database.clamav.net", True, False),
])
def test_only_the_official_network_is_asked_by_dns(tmp_path, lines, mirror, official, dns):
    made = sources(*lines, mirror=mirror, official=official, place=tmp_path)
    assert ("--no-dns" not in made.arguments()) == dns


@pytest.mark.parametrize("url", [
    "http://a/list", "http://a/list.txt", "http://a/x.ndb.gz", "http://a/x.ndb?key=1",
    "https://a/"])
def test_a_url_that_would_be_stored_under_another_name_is_unusable(url):
    made = sources(urls=[url, "http://a/GOOD.NDB", "https://a/get?file=c.cvd"])
    (bad, why), = made.unusable()
    assert bad == url
    assert "which clamd does not load" in why
    assert made.without([bad]).urls == ["http://a/GOOD.NDB", "https://a/get?file=c.cvd"]


def test_two_urls_that_would_be_stored_under_one_name_are_both_unusable():
    made = sources(urls=["http://a/x.ndb", "http://b/x.ndb", "http://b/y.ndb"])
    assert [url for url, _ in made.unusable()] == ["http://a/x.ndb", "http://b/x.ndb"]


def test_a_given_configuration_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ToolError, match=r"freshclam_config: .*/none: No such file"):
        Sources.of(True, "x", [], tmp_path / "none")


def test_what_it_said_comes_in_lines_fit_to_print_and_without_secrets():
    secret = "https://me:hunter2@a/get/0123456789abcdef0123456789/x.ndb"
    query = "https://a/get?token=s3cret&file=x.ndb"
    said = (f"ERROR: Can't download x.ndb from {secret}\n\n"
            f"10%\r20%\rTesting /db/tmp.1/get?token=s3cret&file=x.ndb\n"
            f"GET http://u:p4ss@mirror/daily.cvd\n\x1b[31mred \xff\n").encode("latin-1")
    made = Sources.of(True, "http://u:p4ss@mirror", [secret, query], None)
    lines = freshclam.lines(said, made)
    assert lines == [
        "ERROR: Can't download x.ndb from https://me:***@a/get/***/x.ndb", "10%", "20%",
        "Testing /db/tmp.1/get?token=***&file=***", "GET http://u:***@mirror/daily.cvd",
        "\\u{1b}[31mred \\\\xff"]
    assert freshclam.refuser(lines) == "https://me:***@a/get/***/x.ndb"
    assert freshclam.refuser(lines[1:]) is None


# --- before it is started


@pytest.fixture
def place(tmp_path):
    """A database directory of whoever asks."""
    made = tmp_path / "db"
    made.mkdir()
    made.chmod(0o755)
    return made


def sized(place, **sizes):
    for name, size in sizes.items():
        with (place / name.replace("_", ".")).open("wb") as file:
            file.truncate(size)


def test_where_nothing_is_in_the_way_it_is_started(place):
    assert preflight.hindrance(place, official=False) is None
    assert preflight.hindrance(place, official=True) is None


@pytest.mark.parametrize(("sizes", "official", "needed"), [
    ({}, False, 16), ({}, True, 512), ({"main_cvd": 10 * 2**20}, True, 80),
    ({"main_cld": 10 * 2**20}, True, 20), ({"main_cvd": 1, "daily_cld": 90 * 2**20}, True, 180),
    ({"own_ndb": 40 * 2**20}, False, 80), ({"daily_cvd": 200 * 2**20}, True, 1600)])
def test_it_wants_room_for_a_download_and_its_test(place, monkeypatch, sizes, official, needed):
    sized(place, **sizes)
    free = needed * 2**20
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage(free))
    assert preflight.hindrance(place, official) is None
    free -= 1
    why = preflight.hindrance(place, official)
    assert why is not None
    assert why.startswith(f"no room for new definitions: {place} has ")
    assert why.endswith(f"may take {needed} MB")


class Usage:
    def __init__(self, free):
        self.free = free


@pytest.mark.parametrize(("sizes", "official", "needed"), [
    ({}, False, 17), ({}, True, 17 + 768), ({"main_cvd": 100 * 2**20}, True, 527),
    ({"main_cld": 100 * 2**20}, True, 167),
    ({"a_ndb": 10 * 2**20, "b_hdb": 20 * 2**20}, False, 47)])
def test_it_wants_memory_for_the_test_swap_included(place, monkeypatch, sizes, official, needed):
    sized(place, **sizes)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage(2**50))
    monkeypatch.setattr(memory, "available", lambda: (needed - 10) * 2**20)
    monkeypatch.setattr(memory, "swap", lambda: 10 * 2**20)
    assert preflight.hindrance(place, official) is None
    monkeypatch.setattr(memory, "swap", lambda: 10 * 2**20 - 1)
    assert preflight.hindrance(place, official) == (
        f"not enough memory to test new definitions: they want {needed} MB,"
        f" {needed - 1} MB are available")


def test_a_directory_or_a_memory_that_it_cannot_write_to_is_named(place):
    place.parent.chmod(0o755)
    for above in place.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o055)
    (place / "freshclam.dat").write_bytes(bytes(90))
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        (place / "freshclam.dat").chmod(0o600)
    else:
        (place / "freshclam.dat").chmod(0o400)
    with nobody():
        why = preflight.hindrance(place, official=False)
        assert why is not None
        assert why.endswith(f"chown nobody {place}/freshclam.dat")
    place.chmod(0o555)
    with nobody():
        why = preflight.hindrance(place, official=False)
    assert why == f"freshclam runs as nobody, who cannot write to {place}"


# --- in the directory


@pytest.fixture
def caretaker(place):
    """The child that works in the directory, as ourselves."""
    made = Caretaker(place, None)
    yield made
    made.close()


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_only_what_came_after_a_start_that_had_no_end_is_cleared_up(place, caretaker):
    (place / "tmp.0000000000").mkdir()
    assert caretaker.prepare([]) is None
    (place / "tmp.1111111111/deep").mkdir(parents=True)
    (place / "tmp.1111111111/deep/file").write_bytes(b"half a download")
    for name in ("tmp.111111111", "tmp.1111111111x", "tmp.ABCDEF0123", "xtmp.1111111111"):
        (place / name).mkdir()
    (place / "tmp.2222222222").write_bytes(b"no directory")
    (place / "tmp.3333333333").symlink_to(place / "tmp.0000000000")
    before = names(place)
    second = Caretaker(place, None)  # of the next run: this one was killed
    assert second.prepare([]) is None
    assert names(place) == [name for name in before if name != "tmp.1111111111"]
    assert second.conclude(killed=False) is None
    assert not [name for name in names(place) if name.startswith(".")]
    (place / "tmp.4444444444").mkdir()
    assert second.prepare([]) is None, "after an end nothing is ours"
    assert "tmp.4444444444" in names(place)
    (place / "tmp.5555555555").mkdir()
    assert second.conclude(killed=True) is None
    assert [name for name in names(place) if name.startswith("tmp.4")] == ["tmp.4444444444"]
    assert "tmp.5555555555" not in names(place)
    assert not [name for name in names(place) if name.startswith(".")]
    second.close()


def test_a_directory_of_another_user_is_never_cleared_up(place, caretaker):
    if os.geteuid() != 0:
        return  # nobody else's can be made
    assert caretaker.prepare([]) is None
    (place / "tmp.1111111111").mkdir()
    os.chown(place / "tmp.1111111111", 65534, 65534)
    assert caretaker.conclude(killed=True) is None
    assert (place / "tmp.1111111111").exists()


@pytest.mark.parametrize("content", [b"other", b"longer than before", b""])
def test_a_copy_that_differs_from_its_source_is_made_older(place, tmp_path, caretaker, content):
    source = tmp_path / "x.ndb"
    source.write_bytes(content)
    (place / "x.ndb").write_bytes(b"equal")
    (tmp_path / "same.ndb").write_bytes(b"same")
    (place / "same.ndb").write_bytes(b"same")
    before = (place / "same.ndb").stat().st_mtime_ns
    assert caretaker.prepare([str(source), str(tmp_path / "same.ndb"), "/none.ndb",
                              str(tmp_path / "new.ndb")]) is None
    assert (place / "x.ndb").stat().st_mtime == 0
    assert (place / "x.ndb").read_bytes() == b"equal"
    assert (place / "same.ndb").stat().st_mtime_ns == before


def test_a_link_in_the_directory_is_not_followed(place, tmp_path, caretaker):
    target = tmp_path / "target"
    target.write_bytes(b"roots")
    target.chmod(0o600)
    before = target.stat()
    (tmp_path / "x.ndb").write_bytes(b"source")
    (place / "x.ndb").symlink_to(target)
    (place / ".imagewarden-freshclam.new").symlink_to(target)
    (place / ".imagewarden-canary.new").symlink_to(target)
    assert caretaker.prepare([str(tmp_path / "x.ndb")]) is None
    assert caretaker.write_canary("a canary") is None
    assert caretaker.open_up() is None
    assert target.stat() == before
    assert target.read_bytes() == b"roots"


def test_a_deed_that_fails_says_why_and_whether_it_will_ever_work(place, caretaker):
    place.rename(place.with_name("gone"))
    assert caretaker.write_canary("x") == Refusal(f"{place}: No such file or directory", False)
    place.with_name("gone").rename(place)
    place.chmod(0o555)
    if os.geteuid() != 0:
        assert caretaker.write_canary("x") == Refusal(f"{place}: Permission denied", True)


@pytest.mark.parametrize(("content", "hours"), [
    (b"", None), (bytes(68), None), (bytes(90), None), (bytes(61) + b"\xff" * 29, None),
    (bytes(61) + b"\xff" * 7 + b"\x7f" + bytes(21), "ages"), ("in an hour", 1),
    ("an hour ago", None)])
def test_a_cool_down_is_read_from_freshclams_memory(place, caretaker, content, hours):
    now = time.time()
    if isinstance(content, str):
        at = now + (3600 if content == "in an hour" else -3600)
        content = bytes(61) + struct.pack("<q", int(at)) + bytes(21)
    (place / "freshclam.dat").write_bytes(content)
    until = freshclam.cool_down(place)
    assert caretaker.cooling() == (hours is not None)
    if hours == "ages":
        assert until == housekeeping.LAST
    else:
        assert (until and round((until - now) / 3600)) == hours


def test_a_memory_that_is_no_file_is_none(place, caretaker):
    assert freshclam.cool_down(place) is None
    os.mkfifo(place / "freshclam.dat")
    assert freshclam.cool_down(place) is None
    assert not caretaker.cooling()
    assert freshclam.cool_down(place / "none") is None


@pytest.mark.parametrize("deed", ["canary", "mark"])
def test_a_caretaker_killed_at_every_step_leaves_a_whole_file_and_the_next_one_completes(
        place, deed):
    """Its note of what is not ours, half written, would make it ours."""
    name = {"canary": "imagewarden-canary.hdb", "mark": ".imagewarden-freshclam"}[deed]
    texts, step, status = set(), 0, -9
    while status == -9:
        step += 1
        for left in place.iterdir():
            left.unlink() if left.is_file() else left.rmdir()
        assert dies(place, deed, b"old", 0) == 0
        (place / "tmp.1111111111").mkdir()
        status = dies(place, deed, b"new", step)
        texts.add((place / name).read_bytes())
        assert dies(place, deed, b"new", 0) == 0
        assert sorted(path.name for path in place.iterdir()) == sorted([name, "tmp.1111111111"])
    assert step > 3
    assert texts == ({b"old", b"new"} if deed == "canary" else {b"", b"tmp.1111111111"})


def dies(place, deed, text, step):
    """Do it in a child that is killed at its ``step``th file operation; its status."""
    pid = os.fork()
    if pid == 0:
        fd, seen = os.open(place, os.O_DIRECTORY), 0

        def hook(event, _):
            nonlocal seen
            seen += event == "open" or event.startswith("os.")
            if seen == step:
                os.kill(os.getpid(), 9)

        if step:
            sys.addaudithook(hook)
        if deed == "canary":
            housekeeping.put_canary(fd, text)
        else:
            housekeeping.mark(fd)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
