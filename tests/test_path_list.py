"""The paths that an admin gives: sorted, each once, from however long a stdin."""

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from maintenance.errors import UsageError
from maintenance.jobs import path_list
from maintenance.jobs.path_list import PathList
from tests.processes import Namespace

ROOT = Path(__file__).parent.parent
LIST = ("import sys; sys.path.insert(0, sys.argv[1])\n"
        "from maintenance.jobs.path_list import PathList\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(one.split()[1] for one in lines if one.startswith('VmHWM')))\n"
        "before = peak()\n"
        "found = PathList(sys.argv[2:])\n"
        "count = sum(1 for _ in found)\n"
        "assert count == sum(1 for _ in found)\n"
        "print(count, peak() - before)")


@pytest.fixture
def stdin(monkeypatch):
    """A function that puts bytes on our stdin, in a pipe."""
    opened = []

    def put(content):
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        opened.append(io.TextIOWrapper(os.fdopen(reading, "rb")))
        monkeypatch.setattr(sys, "stdin", opened[-1])
    yield put
    for stream in opened:
        stream.close()


def test_what_is_met_at_or_below_another_path_comes_once(tmp_path):
    for name in ("a-b", "a/b/c", "a.d", "z"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    given = [f"{tmp_path}/{name}" for name in (
        "z", "a/b/c", "a.d", "a/../a/b", "link/c", "a", "a", "a-b", "z/")]
    assert list(PathList(given)) == [f"{tmp_path}/{name}" for name in ("a", "a-b", "a.d", "z")]
    missing = f"{tmp_path}/a/b/none"  # no walk meets it, and it is to be told
    assert list(PathList([missing, *given]))[:3] == [
        f"{tmp_path}/a", missing, f"{tmp_path}/a-b"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_given_all_is_covered_and_nothing_twice(tmp_path, seed):
    dice = random.Random(seed)
    names = ["a", "b", "a b", "a-", "a\n", "\udcff", "c"]
    given = [os.path.join(tmp_path, *dice.choices(names, k=dice.randint(1, 4)))
             for _ in range(dice.randint(1, 30))]
    found = list(PathList(given))
    assert set(found) <= set(given)
    assert len(set(found)) == len(found)
    for path in given:
        assert sum((path + "/").startswith(one + "/") for one in found) == 1


@pytest.mark.may_skip("needs a mount of our own")
def test_a_mount_below_a_path_is_a_path_of_its_own_and_its_neighbours_are_not(tmp_path):
    for name in ("m/x", "n"):
        (tmp_path / name).mkdir(parents=True)
    with Namespace(f"mount -t tmpfs tmpfs {tmp_path}/m && mkdir {tmp_path}/m/x"
                   f" {tmp_path}/m/y") as room:
        code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
                "from maintenance.jobs.path_list import PathList\n"
                "print(*(one.removeprefix(sys.argv[2]) for one in PathList(sys.argv[2:])))")
        shown = subprocess.run(
            [*room.wrap, sys.executable, "-c", code, ROOT, tmp_path, tmp_path / "m/x",
             tmp_path / "m/y", tmp_path / "n"],
            check=True, capture_output=True, text=True).stdout
        assert shown.split() == ["/m/x", "/m/y"]


@pytest.mark.parametrize(("content", "names"), [
    (b"", []), (b"\0", []), (b"\0\0/b\0", ["/b"]), (b"/a", ["/a"]), (b"/a\0/b", ["/a", "/b"]),
    (b"/b\0/a\0/b\0", ["/a", "/b"]), (b"/a\nb\0", ["/a\nb"]), (b"/\xff\0", ["/\udcff"])])
def test_names_on_stdin_end_with_nul_and_the_last_one_need_not(stdin, content, names):
    stdin(content)
    assert list(PathList(["-"])) == names


def test_names_that_are_cut_anywhere_by_a_pipe_are_whole(stdin, monkeypatch):
    monkeypatch.setattr(path_list, "CHUNK", 3)
    stdin(b"/one/name\0/a\0/another\xc3\xa4\0/last")
    assert list(PathList(["-"])) == ["/a", "/anotherä", "/last", "/one/name"]


@pytest.mark.parametrize("content", [b"/a\n/b\n", b"/a\n", b"/" + b"x" * 2**17])
def test_names_that_do_not_end_with_nul_are_wrong_usage(stdin, monkeypatch, content):
    monkeypatch.setattr(path_list, "LONGEST", 2**15)
    stdin(content[:60000])
    with pytest.raises(UsageError, match="find -print0"):
        list(PathList(["-"]))


def test_one_name_with_a_newline_is_that_file(tmp_path, stdin):
    path = tmp_path / "a\nb"
    path.write_text("")
    stdin(os.fsencode(path))
    assert list(PathList(["-"])) == [str(path)]


def test_no_path_and_no_stdin_are_wrong_usage(monkeypatch):
    with pytest.raises(UsageError, match="empty"):
        list(PathList(["/a", ""]))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="closed"):
        list(PathList(["-"]))


def test_memory_does_not_grow_with_the_names_on_stdin():
    """Held once, these names alone would be 10 MB."""
    names = b"".join(b"/none/%06d%s.jpg\0" % (one * 7919 % 40_000, b"n" * 240)
                     for one in range(40_000))
    shown = subprocess.run([sys.executable, "-c", LIST, ROOT, "-"], input=names, check=True,
                           capture_output=True).stdout
    count, grown = map(int, shown.split())
    assert count == 40_000
    assert grown < 6_000  # kB
