"""maintenance.upload, as an application calls it, against a real clamd."""

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import django.conf
import pytest
from django.core.files.uploadedfile import InMemoryUploadedFile, TemporaryUploadedFile
from werkzeug.datastructures import FileStorage

from maintenance.clamav.connection import Clamd
from maintenance.clamav.session import Session
from maintenance.errors import ConfigError, Exit, ImagewardenError
from maintenance.upload import check, checking, rules
from maintenance.upload import pool as pooling
from maintenance.upload.pool import Pool
from maintenance.upload.source import opened
from tests.processes import ENVIRONMENT
from tests.site import BAD, BIN, answers, wait_until

pytestmark = pytest.mark.server

IMPATIENT = dict.fromkeys(("IdleTimeout", "ReadTimeout", "CommandReadTimeout"), "1")
BURIED = bytes(300_000) + BAD  # beyond one chunk


@pytest.fixture
def app(site, monkeypatch):
    """A site whose configuration this process uses; its clamd is still down."""
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(site.config))
    site.update()
    yield site
    checking._forget()


@pytest.fixture
def guarded(app):
    with app.clamd():
        yield app


def uploads(site, **settings):
    site.settings["upload"] = settings
    site.write_config()


def written(file, content):
    file.write(content)
    return file


def django_temporary(content):
    if not django.conf.settings.configured:
        django.conf.settings.configure()
    file = TemporaryUploadedFile("a.jpg", "image/jpeg", len(content), None)
    file.write(content)
    return file


KINDS = {
    "bytes in memory": io.BytesIO,
    "spooled, in memory": lambda content: written(
        tempfile.SpooledTemporaryFile(max_size=2**20), content),  # noqa: SIM115
    "spooled, on disk": lambda content: written(
        tempfile.SpooledTemporaryFile(max_size=1), content),  # noqa: SIM115
    "temporary": lambda content: written(tempfile.TemporaryFile(), content),  # noqa: SIM115
    "named": lambda content: written(tempfile.NamedTemporaryFile(), content),  # noqa: SIM115
    "werkzeug, in memory": lambda content: FileStorage(io.BytesIO(content)),
    "werkzeug, on disk": lambda content: FileStorage(
        written(tempfile.TemporaryFile(), content), "a.jpg"),  # noqa: SIM115
    "werkzeug, spooled": lambda content: FileStorage(
        written(tempfile.SpooledTemporaryFile(max_size=2**20), content), "a.jpg"),  # noqa: SIM115
    "django, in memory": lambda content: InMemoryUploadedFile(
        io.BytesIO(content), None, "a.jpg", "image/jpeg", len(content), None),
    "django, on disk": django_temporary,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_scanned_whole_and_stays_where_it_stood(guarded, kind):
    for content, expected in ((BURIED, "infected"), (b"clean enough", "clean"), (b"", "clean")):
        file = KINDS[kind](content)
        file.seek(len(content) // 2)
        assert check(file).verdict == expected
        assert file.tell() == len(content) // 2
        file.close()


def test_what_python_has_not_written_yet_is_scanned_too(guarded):
    with tempfile.TemporaryFile() as file:
        file.write(BAD)
        assert check(file).verdict == "infected"


def test_a_forked_child_begins_without_its_parent_s_locks_and_sessions(guarded):
    pool, bad = Pool(), guarded.image("bad.jpg", BAD)
    ask(pool, guarded, bad)
    [kept] = pool._idle
    pool._turn.acquire()
    for _ in range(pooling.MOST):
        pool._room.acquire()
    pool.forget()
    assert (pool._idle, kept.session.link.fileno()) == ([], -1)
    assert ask(pool, guarded, bad) == "infected"
    pool.forget()


def test_a_spooled_file_is_not_written_to_the_disk_for_it(guarded):
    with tempfile.SpooledTemporaryFile(max_size=2**20) as file:
        file.write(BAD)
        assert check(file).verdict == "infected"
        assert not file._rolled


@pytest.mark.parametrize("kind", ["spooled, on disk", "werkzeug, on disk", "django, on disk"])
def test_what_is_on_disk_goes_by_its_descriptor(guarded, kind):
    file = KINDS[kind](BURIED)
    with opened(file, 2**20) as source:
        assert source.fd is not None
    file.close()


def test_paths_and_descriptors_and_pipes(guarded):
    path = guarded.image(b"a\n\xff.jpg", BAD)
    for given in (path, os.fsdecode(path)):
        verdict = check(given)
        assert (verdict.verdict, verdict.accepted, verdict.status, verdict.signature) == (
            "infected", False, Exit.INFECTED, "Test.Bad.UNOFFICIAL")
    with open(path, "rb") as file:
        file.read(10)
        assert check(file.fileno()).verdict == "infected"
    read, write = os.pipe()
    os.write(write, BAD)
    os.close(write)
    with open(read, "rb") as pipe:
        assert check(pipe).verdict == "infected"


def test_what_is_no_upload_raises(guarded, tmp_path):
    for path in (tmp_path, tmp_path / "missing", "a\0b"):
        with pytest.raises(ImagewardenError):
            check(path)
    with pytest.raises(ImagewardenError, match="descriptor 987654"):
        check(987654)
    for no_file in (None, True, object()):
        with pytest.raises(TypeError, match="an upload is"):
            check(no_file)
    with pytest.raises(TypeError, match="text"):
        check(io.StringIO("text"))
    assert check(guarded.image("a.jpg")).verdict == "clean"


def test_over_the_greatest_size_it_is_refused(guarded):
    uploads(guarded, max_size="1K")
    path = guarded.image("large.jpg", bytes(1025))
    read, write = os.pipe()
    os.write(write, bytes(1025))
    os.close(write)
    with open(path, "rb") as file, open(read, "rb") as pipe:
        for large in (path, file, pipe, io.BytesIO(bytes(1025))):
            verdict = check(large)
            assert (verdict.verdict, verdict.accepted, verdict.status) == (
                "unknown", False, Exit.REFUSED)
            assert "upload.max_size (1K)" in verdict.reason
    assert check(io.BytesIO(bytes(1024))).verdict == "clean"


def test_the_form_is_told_the_rules(app):
    uploads(app, max_size="3M", types=["jpeg", "png"], max_pixels="2M")
    told = rules()
    assert (told.max_size, told.types, told.max_pixels, told.accept) == (
        3 * 2**20, ("jpeg", "png"), 2 * 2**20, "image/jpeg,image/png")
    app.settings["clamav"]["max_file_size"] = "1M"
    app.write_config()
    assert rules().max_size == 2**20


def test_the_switch_and_the_settings_are_those_of_the_moment(guarded):
    bad = guarded.image("bad.jpg", BAD)
    for enabled, expected in ((True, "infected"), (False, "off"), (True, "infected")):
        uploads(guarded, enabled=enabled)
        verdict = check(bad)
        assert (verdict.verdict, verdict.accepted) == (expected, expected == "off")
    uploads(guarded, observe=True)
    verdict = check(bad)
    assert (verdict.verdict, verdict.accepted, verdict.status) == ("infected", True, Exit.DONE)


@pytest.mark.parametrize("spoilt", ["", "state = ", "[upload\n", 'state = "/x"\n[upload]\nx = 1'])
def test_a_file_that_cannot_be_used_leaves_the_last_good_settings(guarded, spoilt):
    bad = guarded.image("bad.jpg", BAD)
    uploads(guarded, observe=True)
    assert check(bad).accepted
    good = guarded.config.read_text()
    guarded.config.write_text(spoilt)
    verdict = check(bad)
    assert (verdict.verdict, verdict.accepted) == ("infected", True)
    guarded.config.unlink()
    assert check(bad).accepted
    guarded.config.write_text(good.replace("observe = true", "observe = false"))
    guarded.config.chmod(0o644)
    assert not check(bad).accepted


def test_without_any_good_settings_there_is_no_verdict(tmp_path, monkeypatch):
    config = tmp_path / "config.toml"
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(config))
    for text in (None, "state ="):
        if text is not None:
            config.write_text(text)
        verdict = check(io.BytesIO(b"x"))
        assert (verdict.verdict, verdict.accepted, verdict.status) == (
            "unknown", False, Exit.INCOMPLETE)
        assert str(config) in verdict.reason
        with pytest.raises(ConfigError):
            rules()


def test_without_a_clamd_it_is_as_the_configuration_says(app):
    verdict = check(app.image("a.jpg"))
    assert (verdict.verdict, verdict.accepted, verdict.status, verdict.cause) == (
        "unknown", False, Exit.INCOMPLETE, "away")
    assert str(app.socket) in verdict.reason
    uploads(app, when_unavailable="accept")
    verdict = check(app.image("a.jpg"))
    assert (verdict.verdict, verdict.accepted, verdict.status) == ("unknown", True, Exit.DONE)


def test_a_clamd_that_hangs_costs_no_more_than_the_timeout(app):
    path = app.image("bad.jpg", BAD)
    with app.clamd() as daemon:
        assert check(path).verdict == "infected"  # and a session is kept
        daemon.send_signal(signal.SIGSTOP)
        for _ in range(2):
            begun = time.monotonic()
            verdict = check(path, timeout=0.3)
            assert time.monotonic() - begun < 8
            assert (verdict.verdict, verdict.cause) == ("unknown", "timeout")
        daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: answers(app.socket))
        assert check(path).verdict == "infected"


def test_a_clamd_that_was_restarted_is_found_again(app):
    bad, good = app.image("bad.jpg", BAD), app.image("a.jpg")
    for _ in range(2):
        with app.clamd():
            for _ in range(3):
                assert [check(bad).verdict, check(good).verdict] == ["infected", "clean"]
        assert check(bad).verdict == "unknown"


def count_sessions(monkeypatch):
    opened_ones = []
    real = Session.__init__

    def counted(self, *arguments):
        opened_ones.append(self)
        real(self, *arguments)

    monkeypatch.setattr(Session, "__init__", counted)
    return opened_ones


def ask(pool, site, path, timeout=20.0):
    with opened(path, 2**20) as source:
        return pool.ask(Clamd(str(site.socket)), source, timeout).answer.verdict


def test_one_session_serves_upload_after_upload(guarded, monkeypatch):
    sessions = count_sessions(monkeypatch)
    pool = Pool()
    bad = guarded.image("bad.jpg", BAD)
    assert {ask(pool, guarded, bad) for _ in range(20)} == {"infected"}
    assert len(sessions) == 1
    pool.forget()


def test_a_session_that_would_be_ended_for_its_silence_is_kept_alive_by_pings(app, monkeypatch):
    sessions = count_sessions(monkeypatch)
    monkeypatch.setattr("maintenance.clamav.session.KEEP_ALIVE", 0.0)
    monkeypatch.setattr(pooling, "TIDY", 0.0)
    bad = app.image("bad.jpg", BAD)
    with app.clamd(**IMPATIENT):
        pool = Pool()
        ask(pool, app, bad)
        for _ in range(30):  # tidying is what every upload does
            threading.Event().wait(0.1)
            with pool._turn:
                pool._tidy(Clamd(str(app.socket)), time.monotonic())
        assert len(pool._idle) == 1
        assert ask(pool, app, bad) == "infected"
        assert len(sessions) == 1
        pool.forget()


def test_a_session_that_clamd_has_ended_costs_no_verdict(app):
    bad = app.image("bad.jpg", BAD)
    with app.clamd(**IMPATIENT):
        pool = Pool()
        ask(pool, app, bad)
        link = pool._idle[0].session.link
        link.settimeout(60)
        link.recv(1, socket.MSG_PEEK)  # clamd's last words
        link.setblocking(False)
        assert ask(pool, app, bad) == "infected"
        pool.forget()


def test_a_session_that_nobody_uses_is_closed(guarded, monkeypatch):
    monkeypatch.setattr(pooling, "KEPT", 0.0)
    monkeypatch.setattr(pooling, "TIDY", 0.0)
    sessions = count_sessions(monkeypatch)
    pool = Pool()
    for _ in range(3):
        ask(pool, guarded, guarded.image("bad.jpg", BAD))
    assert len(sessions) == 3
    assert [one.link.fileno() for one in sessions[:2]] == [-1, -1]
    pool.forget()


def test_more_uploads_than_sessions_take_turns(guarded, monkeypatch):
    monkeypatch.setattr(pooling, "MOST", 2)
    sessions = count_sessions(monkeypatch)
    pool = Pool()
    bad = guarded.image("bad.jpg", BAD)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: ask(pool, guarded, bad), range(60)))
    assert set(found) == {"infected"}
    assert len(sessions) <= 2
    assert pool._room._value == 2
    with pool._room, pool._room:
        assert ask(pool, guarded, bad, timeout=0.05) == "unknown"
    pool.forget()


def test_a_stream_over_clamds_limit_is_no_verdict_and_costs_no_later_one(app):
    with app.clamd(StreamMaxLength="1M"):
        verdict = check(io.BytesIO(bytes(3_000_000)))
        assert (verdict.verdict, verdict.cause) == ("unknown", "limit")
        assert checking._POOL._idle == []
        assert check(io.BytesIO(BAD)).verdict == "infected"


def test_a_file_that_breaks_off_is_no_verdict_and_costs_no_later_one(guarded):
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls > 3:
                raise OSError(5, "Input/output error")
            return b"x" * 1000

    verdict = check(Broken())
    assert (verdict.verdict, verdict.accepted) == ("unknown", False)
    assert "Input/output error" in verdict.reason
    assert checking._POOL._idle == []
    assert check(io.BytesIO(BAD)).verdict == "infected"


FORKING = f"""
import io, os, sys, threading
sys.path.insert(0, {str(BIN.parent)!r})
from maintenance.upload import check
BAD = {BAD!r}

def mixed(times=30):
    for number in range(times):
        content = BAD if number % 3 == 0 else b"clean enough"
        expected = "infected" if number % 3 == 0 else "clean"
        verdict = check(io.BytesIO(content))
        assert verdict.verdict == expected, verdict

busy = [threading.Thread(target=mixed) for _ in range(4)]
mixed(2)
for one in busy: one.start()
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            mixed()
            status = 0
        finally:
            os._exit(status)
    children.append(pid)
for one in busy: one.join()
mixed(2)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
"""


def test_children_forked_under_load_have_sessions_of_their_own(guarded):
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, timeout=120,
                          env={**ENVIRONMENT, "IMAGEWARDEN_CONFIG": str(guarded.config)},
                          check=False)
    assert (done.returncode, done.stderr) == (0, b"")
