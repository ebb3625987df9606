"""Hits counted by an application, and flushed into a database, each exactly once."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.hits import line
from maintenance.hits.spool import Spool
from tests.site import wait_until

pytestmark = pytest.mark.once

CHECKOUT = Path(__file__).resolve().parent.parent
APPLICATION = """
import sys, time
sys.path.insert(0, {checkout!r})
from maintenance.hits import count_hit

@count_hit
def view(image):
    return image
"""


def application(site, code, **more):
    """An application's process, with ``view`` to call."""
    text = APPLICATION.format(checkout=str(CHECKOUT)) + code
    return subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, env={
        **os.environ, "IMAGEWARDEN_CONFIG": str(site.config), **more},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def hit(site, code):
    process = application(site, code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def flush(site, status=0):
    ended = site.run("flush-hits", "--json")
    assert ended.status == status, ended
    return ended


def counted(site):
    """What is in the database, without the days."""
    with closing(sqlite3.connect(site.state / "hits.sqlite")) as connection:
        return dict(connection.execute("SELECT image, sum(count) FROM hits GROUP BY image"))


def spooled(site):
    return sorted(path.name for path in (site.state / "spool/hits").iterdir()
                  if path.suffix in {".hits", ".taken"})


@pytest.fixture
def counting(site):
    """A site whose jobs have run once, so that its state is there."""
    flush(site)
    return site


# --- lines

NAMES = st.text(st.characters(codec=None, categories=None), max_size=900)


@given(NAMES.filter(bool), st.binary(max_size=30).map(lambda torn: torn.replace(b"\n", b"")))
def test_any_image_comes_back_from_its_line_and_nothing_before_it_matters(image, torn):
    text = torn + b"2026-11-25" + line.tail(image)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert line.read(text[:-1], 3) == line.Hits(line.kept(image), date(2026, 11, 25), 3)


@given(NAMES.filter(bool))
def test_a_line_cut_short_anywhere_is_no_hit(image):
    text = b"2026-11-25" + line.tail(image)
    for end in range(len(text) - 1):
        assert line.read(text[:end]) is None


@given(NAMES, NAMES)
def test_no_two_images_share_a_name(one, other):
    assert (line.kept(one) == line.kept(other)) == (one == other)
    assert len(line.kept(one).encode()) <= line.LONGEST


def test_long_names_that_differ_in_the_middle_stay_apart():
    one, other = "a" * 1000 + "b" + "a" * 1000, "a" * 1000 + "c" + "a" * 1000
    assert line.kept(one) != line.kept(other)
    assert line.kept(one).startswith("aaa")


@pytest.mark.parametrize("text", [
    b"", b"\t", b"\t\t", b"nonsense", b"2026-11-25\t\t", b"2026-13-25\tx\t", b"20261125ab\tx\t",
    b"2026-W48-3\tx\t", b"2026-11-25\tx", b"x\t2026-11-25\t", b"2026-11-25\t\xff\t",
    b"2026-11-25\t\x1b[2J\t", b"lost\tmany\t", b"lost\t-1\t", b"lost\t1234567890\t",
    b"2026-11-25\t" + b"x" * 761 + b"\t", "٢٠٢٦-11-25\tx\t".encode()])
def test_what_is_no_hit_is_not_read_as_one(text):
    assert line.read(text) is None


# --- the decorator


def test_views_are_counted_by_their_first_argument_and_keep_what_they_are(counting):
    out = hit(counting, """
@count_hit
def show(image, size=1):
    "Shows."
    return image.upper(), size

print(show("a.jpg"), show(image="b.jpg", size=2), show("a.jpg"), show.__name__, show.__doc__)
""")
    assert out == "('A.JPG', 1) ('B.JPG', 2) ('A.JPG', 1) show Shows.\n"
    flush(counting)
    assert counted(counting) == {"a.jpg": 2, "b.jpg": 1}


def test_an_argument_or_a_callable_says_which_image_it_is(counting):
    hit(counting, """
@count_hit(image="name")
def named(request, name="default"): pass
@count_hit(image=lambda environ, start: environ["PATH_INFO"][1:] or None)
def wsgi(environ, start): pass
class Views:
    @count_hit(image="name")
    def method(self, name): pass

named("request", "1"); named("request", name="2"); named("request")
wsgi({"PATH_INFO": "/3"}, None); wsgi({"PATH_INFO": "/"}, None)
Views().method("4"); Views().method(name="5")
""")
    flush(counting)
    assert counted(counting) == dict.fromkeys(["1", "2", "default", "3", "4", "5"], 1)


def test_coroutine_functions_stay_coroutine_functions(counting):
    hit(counting, """
import asyncio, inspect
@count_hit
async def show(image):
    return image
assert inspect.iscoroutinefunction(show)
assert asyncio.run(show("a")) == "a"
""")
    flush(counting)
    assert counted(counting) == {"a": 1}


def test_a_view_without_such_an_argument_is_told_at_once():
    from maintenance.hits import count_hit  # noqa: PLC0415 - it is what is tested

    with pytest.raises(TypeError, match="takes no argument"):
        count_hit(lambda: None)
    with pytest.raises(TypeError, match="has no argument 'name'"):
        count_hit(image="name")(lambda image: None)


def test_any_kind_of_name_is_counted(counting):
    hit(counting, r"""
import pathlib
for name in (17, pathlib.Path("a/b"), b"\xff", "\udcff", "new\nline", "tab\there", "x" * 4096, ""):
    view(name)
""")
    flush(counting)
    assert counted(counting) == {"17": 1, "a/b": 1, r"\xff": 2, r"new\u{a}line": 1,
                                 r"tab\u{9}here": 1, line.kept("x" * 4096): 1}


def test_what_goes_wrong_in_counting_never_reaches_the_view(site):
    site.config.write_text("this is not TOML")
    assert hit(site, """
@count_hit(image=lambda image: 1 / 0)
def worse(image): return image
print(view("a"), worse("b"))
""") == "a b\n"


def test_hits_before_the_spool_is_there_are_counted_as_lost(site):
    process = application(site, """
view("a"); view("b")
sys.stdin.readline()
time.sleep(1.1)
view("c")
""")
    site.settings["hits"] = {"spool": str(site.root / "spool")}
    (site.root / "spool").write_text("in the way")
    site.write_config()
    process.stdin.flush()
    wait_until(lambda: process.poll() is not None or True)
    time.sleep(1)
    (site.root / "spool").unlink()
    (site.root / "spool").mkdir()
    _, err = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, err
    result = flush(site)
    assert (result.json["hits"], result.json["lost"]) == (1, 2)
    assert "2 hits are lost" in result.err


def test_threads_and_forked_children_lose_nothing(counting):
    hit(counting, """
import os, threading
view("before")
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        threads = [threading.Thread(target=lambda: [view("x") for _ in range(1000)])
                   for _ in range(4)]
        for one in threads: one.start()
        for one in threads: one.join()
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
view("after")
""")
    flush(counting)
    assert counted(counting) == {"before": 1, "x": 16000, "after": 1}


def test_a_child_never_writes_into_its_parents_file(counting):
    hit(counting, """
import os
view("parent")
if os.fork() == 0:
    view("child")
    os._exit(0)
os.wait()
""")
    assert len(spooled(counting)) == 2


# --- the spool


def test_a_full_disk_loses_hits_and_says_so_but_never_the_page(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 10**9, lambda: None)
    spool.write("first")
    real, room = os.write, [5, 0, 0]

    def full(fd, text):
        if not room:
            return real(fd, text)
        left = room.pop(0)
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, text[:left])

    monkeypatch.setattr(os, "write", full)
    for name in ("torn", "refused", "refused"):
        spool.write(name)
    spool.write("second")
    lines = [line.read(text) for text in next(tmp_path.iterdir()).read_bytes().split(b"\n")[:-1]]
    assert [(one.image, one.day is None, one.count) for one in lines] == [
        ("first", False, 1), ("", True, 3), ("second", False, 1)]


def test_a_writer_whose_file_was_taken_over_begins_another(tmp_path):
    spool = Spool(tmp_path, 10**9, lambda: None)
    spool.write("a")
    first = next(tmp_path.iterdir())
    first.rename(first.with_suffix(".taken"))
    deadline = time.monotonic() + 10
    while len(list(tmp_path.iterdir())) == 1:
        assert time.monotonic() < deadline
        spool.write("a")
    assert {path.suffix for path in tmp_path.iterdir()} == {".hits", ".taken"}


def test_the_day_follows_the_clock_in_both_directions(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 10**9, lambda: None)
    days = []
    for day in ("2026-03-01", "2026-02-28", "2031-01-01", "1970-01-02"):
        now = time.mktime(time.strptime(day + " 12:00", "%Y-%m-%d %H:%M"))
        monkeypatch.setattr(time, "time", lambda now=now: now)
        spool.write("x")
        days.append(day)
    text = next(tmp_path.iterdir()).read_text()
    assert [one[:10] for one in text.splitlines()] == days


def test_midnight_is_not_missed_by_a_second(tmp_path, monkeypatch):
    spool = Spool(tmp_path, 10**9, lambda: None)
    midnight = time.mktime(time.strptime("2026-11-26", "%Y-%m-%d"))
    for now in (midnight - 0.4, midnight + 0.001):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        spool.write("x")
    text = next(tmp_path.iterdir()).read_text()
    assert [one[:10] for one in text.splitlines()] == ["2026-11-25", "2026-11-26"]


def test_threads_that_change_files_never_write_into_a_strangers(tmp_path):
    spool = Spool(tmp_path / "spool", 10**9, lambda: None)
    (tmp_path / "spool").mkdir()
    stranger = tmp_path / "stranger"
    stop = threading.Event()

    def write():
        while not stop.is_set():
            spool.write("x")
            spool._until = 0.0  # look every time

    threads = [threading.Thread(target=write) for _ in range(3)]
    for one in threads:
        one.start()
    for _ in range(300):
        for path in (tmp_path / "spool").iterdir():
            path.unlink()
        with stranger.open("ab"):
            pass
    stop.set()
    for one in threads:
        one.join()
    assert stranger.stat().st_size == 0


def test_many_hits_start_a_flush_early(counting):
    counting.settings["hits"] = {"spool_max": 100}
    counting.write_config()
    python = Path(sys.prefix, "bin", "python3")
    assert python.exists()
    hit(counting, f"""
sys.path.insert(0, {str(CHECKOUT)!r})
import maintenance.hits.counting as counting
counting.FLUSH = "import sys; sys.path.insert(0, {str(CHECKOUT)!r});" + counting.FLUSH
for _ in range(101): view("x")
time.sleep(1.1)
view("x")
counting._COUNTER._flush.wait()
""")
    assert counted(counting)["x"] >= 101


# --- flushing


def test_what_is_still_written_to_is_counted_and_stays(counting):
    process = application(counting, """
view("a")
print("ready", flush=True)
sys.stdin.readline()
view("a")
""")
    assert process.stdout.readline() == "ready\n"
    assert flush(counting).json["waiting"] == 1
    assert flush(counting).json["hits"] == 0
    assert counted(counting) == {"a": 1}
    process.communicate("\n", timeout=60)
    assert flush(counting).json["hits"] == 1
    assert counted(counting) == {"a": 2}
    assert spooled(counting) == []
    with closing(sqlite3.connect(counting.state / "hits.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM imagewarden_spools").fetchone() == (0,)


def test_hostile_lines_and_files_are_set_aside_and_named(counting):
    spool = counting.state / "spool/hits"
    names = [f"{number:032x}" for number in range(5)]
    (spool / f"{names[0]}.hits").write_bytes(
        b"2026-11-25\tgood\t\n\x1b]0;evil\x07\n2026-11-25\tgood\t\n" + b"x" * (5 * 2**20)
        + b"\n2026-11-25\tgood\t\n2026-11-25\tcut sho")
    (spool / f"{names[1]}.hits").symlink_to("/etc/passwd")
    os.mkfifo(spool / f"{names[2]}.hits")
    (spool / f"{names[3]}.hits").mkdir()
    (spool / "somebody's notes.txt").write_text("2026-11-25\tbad\t\n")
    ended = flush(counting, 3)
    assert counted(counting) == {"good": 3}
    assert ended.json["set_aside"] == 3
    assert len(ended.json["undone"]) == 3
    assert "3 lines of the spool are no hits" in ended.err
    assert "\x1b" not in ended.err + (spool / "set-aside.txt").read_text()
    assert spooled(counting) == [f"{name}.taken" for name in names[1:4]]


def test_a_database_that_is_away_leaves_the_spool_and_says_so(counting):
    hit(counting, "view('a')")
    counting.settings["hits"] = {"database": f"sqlite:///{counting.root}/no/such/place"}
    counting.write_config()
    ended = flush(counting, 1)
    assert ended.err.count("\n") == 1
    assert "unable to open database file" in ended.err
    assert ended.json["error"] in ended.err
    counting.settings["hits"] = {}
    counting.write_config()
    assert flush(counting).json["hits"] == 1


@pytest.mark.parametrize(("made", "said"), [
    ("CREATE TABLE hits (image TEXT, day DATE, PRIMARY KEY (image, day))", "count"),
    ("CREATE TABLE hits (image TEXT PRIMARY KEY, day DATE, count BIGINT)", "primary key"),
])
def test_a_table_of_another_shape_is_left_alone(counting, made, said):
    hit(counting, "view('a')")
    (counting.state / "hits.sqlite").unlink()
    with closing(sqlite3.connect(counting.state / "hits.sqlite")) as connection:
        connection.execute(made)
    ended = flush(counting, 1)
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert len(spooled(counting)) == 1


@pytest.mark.parametrize(("url", "said"), [
    ("nosuch://host/db", "not a database URL"), ("oracle://host/db", "is not installed")])
def test_a_database_that_we_cannot_speak_to_is_one_line(counting, url, said):
    counting.settings["hits"] = {"database": url}
    counting.write_config()
    ended = counting.run("flush-hits", "--json")
    assert ended.status in {1, 78}
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_a_password_reaches_no_message(counting):
    counting.settings["hits"] = {"database": "postgresql://me:secret@127.0.0.1:1/db"}
    counting.write_config()
    ended = flush(counting, 1)
    assert "secret" not in ended.err + ended.out
    assert "127.0.0.1" in ended.err


def test_a_spool_that_everybody_may_write_to_is_refused(counting):
    (counting.state / "spool/hits").chmod(0o777)
    assert "everybody can write to it" in flush(counting, 1).err


def test_a_dry_run_counts_nothing(counting):
    hit(counting, "view('a')")
    before = spooled(counting)
    assert counting.run("flush-hits", "--dry-run").status == 0
    assert spooled(counting) == before
    assert counted(counting) == {}


def test_two_spools_in_one_database_know_nothing_of_each_other(counting, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        counting.settings["hits"] = {"spool": str(tmp_path / name)}
        counting.write_config()
        hit(counting, "view('a')")
        flush(counting)
    assert counted(counting) == {"a": 2}


def test_immediate_hits_are_there_at_once_and_wait_in_the_spool_when_they_cannot_be(counting):
    counting.settings["hits"] = {"mode": "immediate"}
    counting.write_config()
    hit(counting, """
import os
for _ in range(3): view("a")
if os.fork() == 0:
    view("b"); os._exit(0)
os.wait()
""")
    assert counted(counting) == {"a": 3, "b": 1}
    counting.settings["hits"]["database"] = "postgresql://nobody@127.0.0.1:1/none"
    counting.write_config()
    hit(counting, "view('c'); view('c')")
    counting.settings["hits"] = {}
    counting.write_config()
    assert flush(counting).json["hits"] == 2
    assert counted(counting) == {"a": 3, "b": 1, "c": 2}


def test_doctor_knows_the_spool_and_the_database(counting):
    def row():
        out = counting.run("doctor", "--json").json["checks"]
        return next(one for one in out if one["check"] == "hits")

    assert row()["state"] == "ok"
    counting.settings["hits"] = {"database": "postgresql://me:secret@127.0.0.1:1/db"}
    counting.write_config()
    found = row()
    assert found["state"] == "failed"
    assert "secret" not in found["detail"]


def test_the_state_tells_since_when_hits_wait(counting):
    def state():
        return counting.run("store-status", "--json").json["hits"]

    assert state() == {"total": 0, "spool_bytes": 0, "waiting_since": None}
    hit(counting, "view('a'); view('b')")
    waits = state()
    jobs = counting.run("store-status", "--json").json["jobs"]
    assert waits["spool_bytes"] > 0
    assert waits["waiting_since"] == next(one["finished"] for one in jobs if one["job"] == "hits")
    flush(counting)
    assert state() == {"total": 2, "spool_bytes": 0, "waiting_since": None}


def test_before_the_first_flush_hits_wait_since_they_came(site):
    site.update()
    spool = site.state / "spool/hits"
    spool.mkdir(parents=True)
    (spool / f"{'0' * 32}.hits").write_text("2026-11-25\ta\t\n")
    os.utime(spool / f"{'0' * 32}.hits", (10**9, 10**9))
    assert site.run("store-status", "--json").json["hits"] == {
        "total": None, "spool_bytes": 14, "waiting_since": "2001-09-09T01:46:40Z"}


def test_the_most_seen_images_are_named_when_somebody_asks(counting):
    hit(counting, "[view(name) for name in 'cabaab']")
    flush(counting)
    ended = counting.run("store-status", "--top", "2", "--json")
    assert ended.json["top"] == [{"image": "a", "hits": 3}, {"image": "b", "hits": 2}]
    assert "most seen images" in counting.run("store-status", "--top=2").out
    assert "top" not in counting.run("store-status", "--json").json
    assert counting.run("store-status", "--top", "0").status == 2
    counting.settings["hits"] = {"database": "postgresql://me:secret@127.0.0.1:1/db"}
    counting.write_config()
    away = counting.run("store-status", "--top", "1")
    assert (away.status, away.err.count("\n")) == (1, 1)
    assert "secret" not in away.err
    assert "uploads" in away.out, "the rest is shown all the same"
