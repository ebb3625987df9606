"""Full disks, engines that die, lie or hang, damage: what is left, and what is said."""

import io
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import threading
import zipfile
import zlib
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import Namespace, hidden, status_of
from tests.site import BAD, LATER, Ended, body_signature

pytestmark = [pytest.mark.server, pytest.mark.once]


def one_line(ended, status=1):
    assert ended.status == status, ended
    assert ended.err.count("\n") == 1, ended.err
    assert "Traceback" not in ended.err
    return ended.err


# --- full disks


@contextmanager
def small_state(site, options):
    """A state on a file system of its own, made by root for us."""
    site.state.mkdir(mode=0o700, exist_ok=True)
    with Namespace(f"mount -t tmpfs -o mode=700,{options} tmpfs {site.state}") as room:
        yield room


@pytest.mark.parametrize("filler", ["dd if=/dev/zero of={0}/filler bs=1k 2>&- || :",
                                    "dd if=/dev/zero of={0}/filler bs=1k 2>&- ||"
                                    " truncate -s -400k {0}/filler",
                                    "i=0; while touch {0}/f$i 2>&-; do i=$((i+1)); done"])
def test_without_room_for_the_state_the_run_fails_and_the_next_one_completes(site, filler):
    for number in range(3000):
        site.image(f"{'long name' * 12}{number}.jpg")
    site.image("bad.jpg", BAD)
    with small_state(site, "size=30m,nr_inodes=100") as room:
        def ran(script, *arguments):
            return site.run(script, "--json", *arguments, wrap=room.wrap)

        assert ran("update-definitions", "--no-rescan").status == 0
        room.run(filler.format(site.state))
        first = ran("rescan-store")
        line = one_line(first)
        assert "ledger" in line or "No space left" in line or "no space left" in line
        assert "unexpected" not in line
        assert first.json["outcome"] == "failed"
        room.run(f"rm -f {site.state}/f[0-9i]*")
        second = ran("rescan-store")
        assert (second.status, second.json["stores"][0]["clean"]) == (4, 3000), second.err
        assert second.json["infected_total"] == 1
        known = ran("store-status").json["stores"][0]
        assert (known["images"], known["clean_current"], known["never"]) == (3001, 3000, 0)


def test_without_room_for_the_definitions_the_old_ones_stay(site):
    site.settings["definitions"]["freshclam_config"] = str(site.root / "once.conf")
    (site.root / "once.conf").write_text("MaxAttempts 1\n")
    site.write_config()
    with small_state(site, "size=30m") as room:
        def ran():
            return site.run("update-definitions", "--no-rescan", "--json", wrap=room.wrap)

        assert ran().json["generation"] == 1
        site.feed("".join(body_signature(f"Test.N{number}", b"text %d" % number * 8)
                          for number in range(30_000)))
        room.run(f"dd if=/dev/zero of={site.state}/filler bs=1k 2>&- ||"
                 f" truncate -s -1M {site.state}/filler")
        full = ran()
        assert full.status == 1
        assert "Traceback" not in full.err
        assert full.json["freshclam"]["outcome"] == "failed"
        room.run(f"rm {site.state}/filler")
        after = ran()
        assert (after.status, after.json["generation"]) == (0, 2), after
        assert after.json["databases"][0]["signatures"] == 30_000


def test_a_log_disk_that_is_full_stops_no_run(site):
    site.image("a.jpg")
    site.update()
    logs = site.root / "logs"
    with Namespace(f"mount -t tmpfs -o size=8k,mode=750 tmpfs {logs}") as room:
        room.run(f"dd if=/dev/zero of={logs}/filler bs=4k 2>&- || :")
        ended = site.run("rescan-store", wrap=room.wrap)
    assert ended == Ended(0, "", "")


# --- engines


def test_without_clamd_a_rescan_fails_in_one_line_and_nothing_is_clean(site):
    site.image("a.jpg")
    site.update()
    with hidden("/usr/sbin/clamd") as nowhere:
        assert "clamd is not installed" in one_line(site.run("rescan-store", wrap=nowhere.wrap))
    assert site.coverage()["clean_current"] == 0


def system(site, timeout="20s"):
    site.settings["clamav"] |= {"engine": "system", "timeout": timeout}
    site.write_config()


def test_a_system_clamd_that_is_not_there_is_one_line(site):
    site.image("a.jpg")
    site.update()
    system(site)
    assert str(site.socket) in one_line(site.run("rescan-store"))
    assert site.coverage()["clean_current"] == 0


def test_a_system_clamd_that_hangs_is_unavailable_after_seconds(site):
    site.image("a.jpg")
    site.update()
    system(site)
    with site.clamd() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        ended = site.run("rescan-store", "--json", timeout=40)
        assert "no answer within 5 s" in one_line(ended)
        assert ended.json["canary"] is None
        daemon.send_signal(signal.SIGCONT)


class Impostor:
    """Passes a clamd's words on, until a scan is asked for: then it does its worst.

    For what the real one cannot be made to do at the right moment.
    """

    def __init__(self, site, deed):
        self.deed, self.real = deed, site.root / "real.sock"
        site.socket.rename(self.real)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(site.socket))
        self._listener.listen(20)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            link.settimeout(30)
            self._threads.append(threading.Thread(target=self._serve, args=(link,)))
            self._threads[-1].start()

    def _serve(self, link):
        with link:
            order = link.recv(65536)
            if not order:  # somebody only wanted to know who listens
                return
            if order.startswith(b"zIDSESSION"):
                with suppress(OSError):  # the job may have given up first
                    self.deed(link)
                return
            with socket.socket(socket.AF_UNIX) as behind:
                behind.settimeout(30)
                behind.connect(str(self.real))
                behind.sendall(order)
                while order.startswith(b"zINSTREAM") and not order.endswith(bytes(4)):
                    order = b"zINSTREAM" + link.recv(65536)
                    behind.sendall(order[9:])
                while reply := behind.recv(65536):
                    link.sendall(reply)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(40)


def never(link):
    while link.recv(65536):
        pass


def hangs_up(link):
    link.recv(10)


def half_a_reply(link):
    link.recv(10)
    link.sendall(b"1: fd[9]: O")


def nonsense(link):
    link.recv(10)
    link.sendall(b"\xff\x1b[31m OK\0")


@pytest.mark.parametrize("deed", [never, hangs_up, half_a_reply, nonsense])
def test_an_engine_that_breaks_its_word_leaves_everything_unknown(site, deed):
    site.image("a.jpg")
    site.image("bad.jpg", BAD)
    site.update()
    system(site, "1s")
    with site.clamd():
        site.update()
        impostor = Impostor(site, deed)
        try:
            ended = site.run("rescan-store", "--action", "quarantine", "--json", timeout=60)
        finally:
            impostor.close()
        assert ended.status == 3, ended
        assert {path.name for path in site.store.iterdir()} == {"a.jpg", "bad.jpg"}
        store = ended.json["stores"][0]
        assert (store["clean"], store["infected"], store["unknown"]) == (0, 0, 2)
        log = (site.root / "logs/rescan.log").read_text(encoding="utf-8")
        assert all(line.isprintable() for line in (ended.err + log).split("\n"))
    site.socket.unlink(missing_ok=True)


# --- limits


def test_an_image_with_more_inside_than_is_scanned_is_unknown_and_stays(site):
    for name, depth in (("shallow.png", 3), ("deep.png", 25)):  # deeper than clamd goes
        inside = BAD
        for _ in range(depth):
            packer = zlib.compressobj(wbits=31, strategy=zlib.Z_FIXED)  # nothing stays readable
            inside = packer.compress(inside) + packer.flush()
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr("inside.gz", inside)
        site.image(name, png() + archive.getvalue())
    site.image("a.png", png())
    site.update()
    for paths in ((), (site.store,)):
        status, result = site.rescan("--action", "quarantine", *paths)
        assert (status, [one["path"] for one in result["infected"]]) == (
            (3, []) if paths else (4, ["shallow.png"]))
        assert [one["path"] for one in result["undone"]] == ["deep.png"]
        assert "Limits.Exceeded" in result["undone"][0]["reason"]
    assert {path.name for path in site.store.iterdir()} == {"a.png", "deep.png"}


def png():
    """The smallest PNG."""
    def chunk(name, data):
        return (struct.pack("!I", len(data)) + name + data
                + struct.pack("!I", zlib.crc32(name + data)))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack("!2I5B", 1, 1, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b""))


def test_an_upload_longer_than_clamd_takes_in_a_stream_gets_a_clear_answer(site):
    site.update()
    with site.clamd(StreamMaxLength="1M"):
        for size in (2 * 2**20, 19 * 2**20, 2 * 2**20):
            ended = site.run("scan-upload", "-", "--json", stdin=bytes(size))
            assert (ended.status, ended.json["verdict"]) == (3, "unknown")
            assert "StreamMaxLength" in ended.json["reason"]
        assert site.run("scan-upload", "-", stdin=bytes(2**20)).status == 0
        assert site.run("scan-upload", "-", stdin=BAD).status == 4


# --- a reload for which there is no memory


@pytest.mark.long
@pytest.mark.parametrize("concurrent", ["yes", "no"])
def test_a_reload_that_memory_breaks_is_an_alarm_and_nothing_is_booked(site, concurrent):
    site.image("a.jpg")
    site.image("later.jpg", LATER)
    system(site)
    site.run("update-definitions", "--no-rescan")
    with site.clamd(ConcurrentDatabaseReload=concurrent) as daemon:
        site.update()
        assert site.rescan()[0] == 0
        size = int(status_of(daemon.pid)["VmSize"].split()[0]) * 1024
        subprocess.run(["prlimit", "--pid", str(daemon.pid), f"--as={size + 8 * 2**20}"],
                       check=True)
        site.feed(body_signature("Test.Later", LATER) + "".join(
            f"Test.N{number}:0:*:{os.urandom(20).hex()}\n" for number in range(200_000)))
        ended = site.run("update-definitions", "--no-rescan", "--json", timeout=200)
        assert (ended.status, ended.json["engine"]) == (1, "unproven"), ended
        assert "Traceback" not in ended.err
        status, result = site.rescan("--action", "quarantine")
        assert (status, result["infected"], result["stores"][0]["clean_current"]) == (1, [], 0)
        assert result["stores"][0]["clean_older"] == 2
        assert site.run("doctor").status == 1
    site.socket.unlink(missing_ok=True)
    with site.clamd():
        site.update()
        status, result = site.rescan()
        assert (status, result["infected_total"]) == (4, 1)


# --- damage


def test_damaged_definitions_are_named_by_file(site):
    site.image("a.jpg")
    site.update()
    (site.databases / "broken.ldb").write_text("this is no signature\n")
    line = one_line(site.run("rescan-store"))
    assert "broken.ldb" in line
    assert site.coverage()["clean_current"] == 0
    (site.databases / "broken.ldb").unlink()
    assert site.rescan()[0] == 0


@pytest.mark.parametrize("damage", ["garbage", "cut", "empty"])
def test_a_damaged_ledger_is_moved_aside_once_and_rebuilt(site, damage):
    site.image("bad.jpg", BAD)
    site.update()
    site.rescan()
    ledger = site.state / "ledger.sqlite"
    for suffix in ("-wal", "-shm"):
        Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    content = ledger.read_bytes()
    ledger.write_bytes({"garbage": os.urandom(len(content)), "cut": content[:len(content) // 2],
                        "empty": b""}[damage])
    ended = site.run("rescan-store", "--json")
    assert ended.json["infected_total"] == 1
    if damage == "empty":  # to SQLite, a new one
        assert ended.status == 4
        return
    assert ended.status == 1
    assert "moved to" in ended.err.splitlines()[0]
    assert len(list(site.state.glob("ledger.sqlite.damaged-*"))) == 1
    status, result = site.rescan()
    assert (status, result["stores"][0]["current"]) == (4, 1)


def test_a_ledger_of_a_newer_version_is_left_untouched(site):
    site.image("a.jpg")
    site.update()
    ledger = site.state / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA user_version=999")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = ledger.read_bytes()
    for script in ("rescan-store", "update-definitions"):
        assert "newer" in one_line(site.run(script))
    assert "newer" in one_line(site.run("store-status"))
    assert ledger.read_bytes() == before
    assert json.loads(site.run("rescan-store", "--json").out)["outcome"] == "failed"
