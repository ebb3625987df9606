"""What uploads leave in their spool, and what send-checks and store-status make of it."""

import io
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from maintenance import config as configuration
from maintenance.errors import Exit, ImagewardenError
from maintenance.jobs import upload_counts
from maintenance.jobs.upload_counts import fold, told
from maintenance.ledger.ledger import Ledger
from maintenance.settings import UploadSettings
from maintenance.upload import check, checking, tallying
from maintenance.upload.judging import UploadVerdict
from maintenance.upload.tallying import Tallied, read, tally
from tests.processes import ENVIRONMENT
from tests.site import BAD, BIN
from tests.test_upload import uploads

pytestmark = pytest.mark.server

NOW = 1_795_000_000
CLEAN = UploadVerdict("clean", accepted=True, status=Exit.DONE, seconds=0.02)


@pytest.fixture
def place(site, monkeypatch):
    """A site with an open ledger, and this process as its application."""
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(site.config))
    site.state.mkdir(0o700)
    yield site
    checking._forget()


@pytest.fixture
def ledger(place):
    with Ledger.open(place.state) as opened:
        yield opened


def settings(site):
    return configuration.load_part(str(site.config), (), UploadSettings)


def folded(site, ledger, now=None):
    return fold(configuration.load(str(site.config)), ledger.uploads, now or time.time())


def counts(ledger, now=None):
    known = told(ledger.uploads, now or time.time())
    return {kind: count for kind, count in known["counts"].items() if count}, known["reasons"]


def spool(site):
    return site.state / "spool/upload"


def lines(*of):
    return b"".join(Tallied(*one).line for one in of)


def put(site, content, name=None):
    """Write a file of the spool as an application would."""
    tallying.make(settings(site))
    path = spool(site) / (name or f"{os.geteuid()}.uploads")
    with path.open("ab") as file:
        file.write(content)
    return path


def test_every_verdict_is_counted_with_its_cause(site):
    site.update()
    site.image("bad.jpg", BAD)
    large, clean = site.image("large.jpg", bytes(2000)), site.image("a.jpg")
    bad = site.store / "bad.jpg"
    site.run("scan-upload", clean)
    uploads(site, when_unavailable="accept")
    site.run("scan-upload", clean)
    uploads(site, max_size="1K")
    with site.clamd():
        for path in (clean, clean, bad, large):
            site.run("scan-upload", path)
        uploads(site, observe=True)
        site.run("scan-upload", bad)
    uploads(site, enabled=False)
    site.run("scan-upload", bad)
    before = site.run("store-status", "--json").json["upload"]
    assert (before["last_ok"], set(before["counts"].values()), before["seconds"]) == (
        None, {0}, {"p50": None, "p95": None, "p99": None})
    assert site.run("send-checks", "--json").json["uploads"] == {
        "uploads": 8, "set_aside": 0, "undone": []}
    state = site.run("store-status", "--json").json["upload"]
    assert state["enabled"] is False
    assert state["counts"] == {"clean": 2, "infected": 2, "unknown": 2, "off": 1, "refused": 1,
                               "accepted": 1, "observed": 1}
    assert state["reasons"] == {"away": 2, "size": 1}
    assert 0 < state["seconds"]["p50"] <= state["seconds"]["p95"] <= state["seconds"]["p99"] < 20
    assert abs(time.time() - time.mktime(time.strptime(
        state["last_ok"] + " UTC", "%Y-%m-%dT%H:%M:%SZ %Z")) + time.timezone) < 60
    assert site.run("send-checks", "--json").json["uploads"]["uploads"] == 0
    assert site.run("store-status", "--json").json["upload"]["counts"] == state["counts"]


def test_what_check_says_is_counted_too(place, ledger):
    check(io.BytesIO(b"x"))
    uploads(place, enabled=False)
    check(io.BytesIO(b"x"))
    folded(place, ledger)
    assert counts(ledger) == ({"unknown": 1, "off": 1}, {"away": 1})


def test_the_spool_is_for_a_group_and_holds_a_file_for_each_user(place):
    old = os.umask(0o077)
    try:
        tally(settings(place), CLEAN)
    finally:
        os.umask(old)
    assert stat.S_IMODE(spool(place).stat().st_mode) == 0o2770
    [file] = spool(place).iterdir()
    assert file.name == f"{os.geteuid()}.uploads"
    assert all(len(line) <= 512 for line in file.read_bytes().splitlines())


@pytest.mark.parametrize("hindrance", ["missing", "read-only", "link", "fifo", "full"])
def test_a_verdict_stands_when_it_cannot_be_counted(place, tmp_path, hindrance):
    chosen = settings(place)
    file = spool(place) / f"{os.geteuid()}.uploads"
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    if hindrance == "missing":
        place.state.rmdir()
    elif hindrance == "read-only":
        spool(place).parent.write_text("no directory")
    else:
        tallying.make(chosen)
        if hindrance == "link":
            file.symlink_to(victim)
        elif hindrance == "fifo":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/full")
    tally(chosen, CLEAN)
    assert victim.read_bytes() == b""


def test_what_comes_while_a_file_is_taken_over_is_not_lost(place, ledger):
    chosen = settings(place)
    tally(chosen, CLEAN)
    file = spool(place) / f"{os.geteuid()}.uploads"
    fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    assert tallying.hold(fd)
    folded(place, ledger)  # and somebody still holds what was taken over
    tally(chosen, CLEAN)
    os.write(fd, Tallied(int(time.time()), "infected", "", 1, "").line)
    os.close(fd)
    folded(place, ledger)
    folded(place, ledger)
    assert counts(ledger)[0] == {"clean": 2, "infected": 1}
    assert not [one for one in spool(place).iterdir() if one.suffix in {".uploads", ".taken"}]


def test_a_file_removed_just_before_it_is_held_gets_no_line(place, ledger, monkeypatch):
    chosen, real = settings(place), tallying.hold

    def late(fd):
        monkeypatch.setattr(tallying, "hold", real)
        folded(place, ledger)
        return real(fd)

    monkeypatch.setattr(tallying, "hold", late)
    tally(chosen, CLEAN)
    folded(place, ledger)
    assert counts(ledger)[0] == {"clean": 1}


def test_half_a_line_costs_no_other(place, ledger):
    path = put(place, lines((NOW, "clean", "", 1, ""))[:-4])
    with path.open("ab") as file:
        file.write(lines((NOW, "infected", "", 1, "")))
    assert folded(place, ledger).set_aside == 1
    assert counts(ledger)[0] == {"infected": 1}


def test_what_is_still_being_written_is_counted_when_it_is_whole(place, ledger):
    whole = lines((NOW, "clean", "", 1, ""))
    path = put(place, whole + whole[:-1])
    with path.open("ab") as file:
        assert tallying.hold(file.fileno())
        folded(place, ledger)
        assert counts(ledger)[0] == {"clean": 1}
        file.write(b"\n")
    folded(place, ledger)
    assert counts(ledger)[0] == {"clean": 2}


HOSTILE = [
    b"x", b"\xff" * 700, b"1\tclean\t\t1", b"1\tclean\t\t1\t\t", b"1\tevil\t\t1\t",
    b"1\tclean\tevil\t1\t", b"-1\tclean\t\t1\t", b"1\tclean\t\t1e9\t", b"1\tclean\t\t1\tevil",
    b"9" * 12 + b"\tclean\t\t1\t", "1\tclean\t\t\u0661\t".encode(), b"1\tclean\t\t99999999999\t"]


def test_a_hostile_line_counts_nothing_and_is_set_aside(place, ledger):
    for line in HOSTILE:
        assert read(line) is None, line
    put(place, b"\n".join([*HOSTILE, b""]) + lines((NOW, "clean", "", 1, "")))
    result = folded(place, ledger)
    assert (result.uploads, result.set_aside) == (1, len(HOSTILE))
    assert counts(ledger) == ({"clean": 1}, {})
    text = (spool(place) / "set-aside.txt").read_text()
    assert len(text.splitlines()) == len(HOSTILE)
    ended = place.run("send-checks")
    assert (ended.status, ended.err) == (0, "")


def test_a_time_that_lies_is_put_right(place, ledger):
    put(place, lines((0, "clean", "", 1, ""), (99_999_999_999, "infected", "", 1, "")))
    folded(place, ledger)
    known = told(ledger.uploads, time.time())
    assert known["last_ok"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_what_is_no_file_of_its_user_is_refused_and_gone(place, ledger, tmp_path):
    tallying.make(settings(place))
    victim = tmp_path / "victim"
    victim.write_bytes(lines((NOW, "infected", "", 1, "")))
    (spool(place) / "1.uploads").symlink_to(victim)
    os.mkfifo(spool(place) / "2.uploads")
    put(place, victim.read_bytes(), "4294967294.uploads")  # not that user's
    (spool(place) / "99999999999.uploads").write_bytes(victim.read_bytes())
    (spool(place) / "x.uploads").write_bytes(victim.read_bytes())
    assert len(folded(place, ledger).undone) == 3
    assert folded(place, ledger).undone == []
    assert counts(ledger)[0] == {}
    assert victim.exists()


def test_a_huge_file_is_counted_in_several_runs(place, ledger, monkeypatch):
    monkeypatch.setattr("maintenance.taking.PIECE", 1000)
    monkeypatch.setattr(upload_counts, "MOST_PIECES", 2)
    put(place, lines(*[(NOW, "clean", "", 1, "")] * 200))
    seen = []
    while not seen or seen[-1]:
        seen.append(folded(place, ledger).uploads)
    assert (sum(seen), max(seen) < 100) == (200, True)
    assert counts(ledger)[0] == {"clean": 200}


def test_a_spool_that_everybody_can_write_to_is_refused(place):
    tallying.make(settings(place))
    spool(place).chmod(0o777)
    ended = place.run("send-checks", "--json")
    assert (ended.status, "chmod o-w" in ended.json["error"]) == (1, True)


def test_old_hours_become_one_and_no_count_is_lost(place, ledger):
    for days in (0, 29, 31, 60):
        now = NOW - days * 86400
        put(place, lines((int(now), "clean", "", 1000, "")))
        folded(place, ledger, now)
    folded(place, ledger, NOW)
    assert counts(ledger, NOW)[0] == {"clean": 4}
    with closing(sqlite3.connect(place.state / "ledger.sqlite")) as connection:
        hours = connection.execute("SELECT hour, count FROM uploads WHERE kind = 'clean'"
                                   " ORDER BY hour").fetchall()
    assert [count for _, count in hours] == [2, 1, 1]
    assert hours[0][0] == 0
    assert told(ledger.uploads, NOW)["last_ok"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW))


def test_the_times_are_those_of_the_last_day_and_near_enough(place, ledger):
    times = [(NOW, "clean", "", 1000 * number, "") for number in range(1, 101)]
    old = (int(NOW - 2 * 86400), "clean", "", 10**9, "")
    nobody = (NOW, "unknown", "away", 10**9, "")
    put(place, lines(old, nobody, *times))
    folded(place, ledger, NOW)
    seconds = told(ledger.uploads, NOW)["seconds"]
    assert seconds == pytest.approx({"p50": 0.05, "p95": 0.095, "p99": 0.099}, rel=0.03)


FOLDING = f"""
import os, signal, sys, time
sys.path.insert(0, {str(BIN.parent)!r})
from pathlib import Path
from maintenance import config
from maintenance.jobs.upload_counts import fold
from maintenance.ledger.ledger import Ledger
settings, calls, last = config.load(sys.argv[1]), 0, int(sys.argv[2])
with Ledger.open(settings.state) as ledger:
    def counted(event, arguments):
        global calls
        if event in ("os.rename", "os.remove", "open", "os.listdir"):
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
    sys.addaudithook(counted)
    add = ledger.uploads.add
    def deadly(*arguments):
        counted("open", ())
        add(*arguments)
        counted("open", ())
    ledger.uploads.add = deadly
    fold(settings, ledger.uploads, time.time())
print("ended")
"""


def test_killed_anywhere_each_line_counts_exactly_once(place):
    step, total, ended = 0, 0, False
    while not ended:
        put(place, lines(*[(int(time.time()), "clean", "", 1, "")] * 7))
        total += 7
        done = subprocess.run([sys.executable, "-c", FOLDING, place.config, str(step)],
                              capture_output=True, timeout=60, env=ENVIRONMENT, check=False)
        ended = done.stdout == b"ended\n"
        assert ended or done.returncode == -signal.SIGKILL, done
        step += 1
    with Ledger.open(place.state) as ledger:
        folded(place, ledger)
        assert counts(ledger)[0] == {"clean": total}
    assert step > 5


def test_writers_and_folders_at_once_lose_and_double_nothing(place, ledger):
    chosen, done = settings(place), threading.Event()
    tallying.make(chosen)

    def write():
        for _ in range(500):
            tally(chosen, CLEAN)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for one in threads:
        one.start()
    while any(one.is_alive() for one in threads) or not done.is_set():
        if not any(one.is_alive() for one in threads):
            done.set()
        folded(place, ledger)
    assert counts(ledger)[0] == {"clean": 2000}


# --- the engine's age


def versions(path, *replies):
    """A clamd that says nothing but its version: a real one's definitions are never that old."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve():
        for reply in replies:
            with suppress(OSError), server.accept()[0] as link:
                link.recv(100)
                link.sendall(reply + b"\0")
        server.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("said", "old"), [
    (b"ClamAV 1.4.6/27000/Sat Nov 14 08:00:00 2026", True),
    (b"ClamAV 1.4.6/27000/Sat Nov 14 08:00:02 2026", False),
    (b"ClamAV 1.4.6", None), (b"ClamAV 1.4.6/27000/never", None)])
def test_an_engine_older_than_the_definitions_by_more_than_fail_age_is_told(site, said, old):
    site.update()
    with closing(sqlite3.connect(site.state / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE generations SET databases = json_set(databases, '$[0].built',"
                           " '2026-11-21T08:00:01Z')")
    server = versions(site.socket, said, said)
    state = site.run("store-status", "--json").json["upload"]
    assert (state["engine"], state["engine_old"]) == (True, old)
    assert ("fail_age" in site.run("store-status").out) is bool(old)
    server.join(30)


def test_a_directory_in_the_way_is_told_and_holds_nothing_up(place, ledger):
    tallying.make(settings(place))
    (spool(place) / "5.uploads").mkdir()
    put(place, lines((NOW, "clean", "", 1, "")))
    result = folded(place, ledger)
    assert (len(result.undone), result.uploads) == (1, 1)


def test_a_spool_of_its_own_is_used_where_one_is_set(site):
    site.update()
    own = site.root / "counts"
    own.mkdir()
    uploads(site, spool=str(own))
    site.run("scan-upload", site.image("a.jpg"))
    assert [one.suffix for one in own.iterdir()] == [".uploads"]
    assert site.run("send-checks", "--json").json["uploads"]["uploads"] == 1
    assert not (site.state / "spool").exists()


def test_a_refused_upload_is_counted_under_its_rule(place, ledger):
    refused = replace(CLEAN, verdict="unknown", accepted=False, status=Exit.REFUSED)
    for cause in ("type", "pixels", "frames"):
        tally(settings(place), replace(refused, cause=cause))
    folded(place, ledger)
    assert counts(ledger) == ({"refused": 3}, {"type": 1, "pixels": 1, "frames": 1})
    with pytest.raises(ImagewardenError):
        fold(configuration.parse('state = "/nonexistent/x"\n[[store]]\nname = "a"\npath = "/a"'),
             ledger.uploads, NOW)
