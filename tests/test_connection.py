"""One question to clamd at a time, the real one and some that are none."""

import os
import signal
import struct
import time
from contextlib import contextmanager

import pytest

from maintenance.clamav import connection as module
from maintenance.clamav import protocol
from maintenance.clamav.connection import Clamd, pid_of
from maintenance.errors import EngineError
from maintenance.verdict import CLEAN, Verdict
from tests.peers import Peer
from tests.site import BAD, Site, body_signature, free_port

pytestmark = [pytest.mark.server, pytest.mark.once]


@contextmanager
def started(root, **options):
    site = Site(root)
    site.databases.mkdir(parents=True)
    (site.databases / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    with site.clamd(**options) as daemon:
        yield site, daemon


def pieces(path):
    """A file as a stream is sent."""
    with path.open("rb") as stream:
        while chunk := stream.read(protocol.CHUNK):
            yield chunk


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The two addresses of a real clamd that takes streams of 1 MB."""
    port = free_port()
    with started(tmp_path_factory.mktemp("host"), StreamMaxLength="1M", MaxFileSize="1M",
                 TCPSocket=str(port), TCPAddr="127.0.0.1") as (site, daemon):
        yield {"unix": str(site.socket), "tcp": f"tcp://127.0.0.1:{port}", "pid": daemon.pid}


@pytest.fixture(params=["unix", "tcp"])
def clamd(request, addresses):
    return Clamd(addresses[request.param])


@pytest.fixture
def local(addresses):
    return Clamd(addresses["unix"])


def scan(clamd, content, timeout=30):
    fd = os.memfd_create("image")
    try:
        os.write(fd, content)
        return clamd.scan_descriptor(fd, timeout)
    finally:
        os.close(fd)


def test_a_real_clamd_answers(clamd):
    assert clamd.answers()
    assert clamd.version().startswith("ClamAV 1.")
    assert clamd.ask("PING") == "PONG"


def test_a_signature_is_found_in_a_file_and_its_neighbour_is_clean(local):
    assert scan(local, BAD).verdict is Verdict.INFECTED
    assert scan(local, BAD).signature.startswith("Test.Bad")
    assert scan(local, b"harmless") == CLEAN
    assert scan(local, b"") == CLEAN


def test_a_file_is_scanned_from_its_start_wherever_we_have_read_to(local, tmp_path):
    (tmp_path / "bad").write_bytes(BAD)
    with (tmp_path / "bad").open("rb") as stream:
        stream.read()
        assert local.scan_descriptor(stream.fileno(), 30).verdict is Verdict.INFECTED


def test_a_signature_is_found_in_a_stream_across_its_chunks(clamd):
    assert clamd.scan_stream([BAD], 30).verdict is Verdict.INFECTED
    assert clamd.scan_stream([b"x" * 100, BAD[:20], BAD[20:], b"y"], 30).verdict is Verdict.INFECTED
    assert clamd.scan_stream([b"harmless"], 30) == CLEAN


def test_a_file_is_read_in_pieces(local, tmp_path):
    content = bytes(200_000) + BAD
    (tmp_path / "a").write_bytes(content)
    chunks = list(pieces(tmp_path / "a"))
    assert b"".join(chunks) == content
    assert len(chunks) > 1
    assert local.scan_stream(pieces(tmp_path / "a"), 30).verdict is Verdict.INFECTED


def test_a_file_over_the_limit_is_unknown(local):
    found = scan(local, bytes(2_000_000) + BAD)
    assert found.verdict is Verdict.UNKNOWN
    assert "MaxFileSize" in found.reason


@pytest.mark.parametrize("megabytes", [2, 20])
def test_a_stream_over_the_limit_gets_a_clear_answer(clamd, megabytes):
    for _ in range(10):
        found = clamd.scan_stream([bytes(65536)] * 16 * megabytes, 30)
        assert found.verdict is Verdict.UNKNOWN
        assert found.reason == "larger than clamd's StreamMaxLength"
    assert clamd.answers(), "and it serves the next one"


def test_what_cannot_be_scanned_is_unknown(local, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert local.scan_descriptor(fd, 30).verdict is Verdict.UNKNOWN
    finally:
        os.close(fd)
    assert local.scan_descriptor(fd, 30).verdict is Verdict.UNKNOWN, "it is closed"


def test_the_process_behind_a_socket_is_known(addresses, local):
    with local.connect(5) as link:
        assert pid_of(link) == addresses["pid"]


def test_a_chunk_source_that_fails_is_unknown(local):
    def broken():
        yield b"begin"
        raise OSError(5, "Input/output error")

    found = local.scan_stream(broken(), 30)
    assert found.verdict is Verdict.UNKNOWN
    assert "Input/output error" in found.reason


def test_a_stopped_clamd_is_unavailable_within_its_time(tmp_path):
    with started(tmp_path) as (site, daemon):
        clamd = Clamd(str(site.socket))
        daemon.send_signal(signal.SIGSTOP)
        assert not clamd.answers(0.5)
        with pytest.raises(EngineError, match=r"gave no answer within 0\.5 s"):
            clamd.version(0.5)
        for found in (scan(clamd, BAD, 0.5), clamd.scan_stream([BAD] * 10_000, 0.5)):
            assert found.verdict is Verdict.UNKNOWN
            assert "within 0.5 s" in found.reason
        daemon.send_signal(signal.SIGCONT)
        assert clamd.answers()


def test_a_killed_clamd_is_unavailable(tmp_path):
    with started(tmp_path) as (site, daemon):
        daemon.kill()
        daemon.wait()
        clamd = Clamd(str(site.socket))
        assert not clamd.answers()
        assert scan(clamd, BAD).verdict is Verdict.UNKNOWN
        assert "refused" in clamd.scan_stream([BAD], 5).reason


def test_an_engine_that_a_failed_reload_took_away_is_not_usable(tmp_path):
    with started(tmp_path, ConcurrentDatabaseReload="no") as (site, _):
        clamd = Clamd(str(site.socket))
        (site.databases / "broken.ldb").write_text("not a signature\n")
        assert clamd.ask("RELOAD") == "RELOADING"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                clamd.version()
            except EngineError as error:
                assert "no usable engine" in str(error)
                break
            time.sleep(0.05)
        else:
            pytest.fail("it is still believed")
        assert clamd.answers(), "PONG proves nothing"
        assert scan(clamd, BAD).verdict is not Verdict.CLEAN


@pytest.mark.parametrize("address", [
    "/nonexistent/clamd.sock", "/dev/null", "/" + "x" * 200, "tcp://127.0.0.1:1",
    "tcp://no.such.host.invalid:3310"])
def test_where_nobody_listens_the_reason_names_the_address(address):
    clamd = Clamd(address)
    assert not clamd.answers(5)
    with pytest.raises(EngineError) as raised:
        clamd.version(5)
    assert address in str(raised.value)
    assert "\n" not in str(raised.value)
    assert clamd.scan_stream([b"x"], 5).verdict is Verdict.UNKNOWN


@contextmanager
def peer(path, part):
    with Peer(path, part):
        yield Clamd(str(path))


def test_a_silent_peer_runs_out_of_time(tmp_path):
    with peer(tmp_path / "s", lambda talk: talk.drain()) as clamd:
        assert not clamd.answers(0.3)
        assert "within 0.3 s" in scan(clamd, b"x", 0.3).reason
        assert "within 0.3 s" in clamd.scan_stream([b"x"], 0.3).reason


def test_a_peer_that_drips_does_not_stretch_the_time(tmp_path):
    def drip(talk):
        while True:
            talk.say(b"x")
            time.sleep(0.1)

    with peer(tmp_path / "s", drip) as clamd:
        begun = time.monotonic()
        assert "within 1 s" in scan(clamd, b"x", 1).reason
        assert "within 1 s" in clamd.scan_stream([b"x"], 1).reason
        assert time.monotonic() - begun < 20


def test_a_sender_that_drips_does_not_stretch_the_time(local):
    def slowly():
        while True:
            yield b"x"
            time.sleep(0.1)

    assert "within 1 s" in local.scan_stream(slowly(), 1).reason


def test_a_peer_that_floods_is_not_heard_to_the_end(tmp_path):
    def flood(talk):
        while True:
            talk.say(b"x" * 65536)

    with peer(tmp_path / "s", flood) as clamd:
        assert "hung up" in scan(clamd, b"x", 60).reason
        assert not clamd.answers(60)


@pytest.mark.parametrize("said", [b"", b"fd[9]: OK", b"fd[9]: O", b"stream: OK", b"stream: OK\n"])
def test_a_reply_that_breaks_off_is_not_clean(tmp_path, said):
    def part(talk):
        talk.hear()
        talk.say(said)

    with peer(tmp_path / "s", part) as clamd:
        assert scan(clamd, b"x").verdict is Verdict.UNKNOWN
        assert clamd.scan_stream([b"x"], 5).verdict is Verdict.UNKNOWN


def test_a_peer_that_resets_the_connection_is_not_clean(tmp_path):
    def part(talk):
        talk.say(b"stream: O")  # what we send stays unread: the close is a reset

    with peer(tmp_path / "s", part) as clamd:
        for _ in range(20):
            assert scan(clamd, b"x").verdict is Verdict.UNKNOWN
            assert clamd.scan_stream([bytes(65536)] * 100, 5).verdict is Verdict.UNKNOWN


def test_an_answer_that_came_before_the_end_of_the_stream_is_still_read(tmp_path):
    def part(talk):
        talk.say(b"INSTREAM size limit exceeded. ERROR\0")

    with peer(tmp_path / "s", part) as clamd:
        for _ in range(20):
            found = clamd.scan_stream([bytes(65536)] * 100, 5)
            assert found.reason == "larger than clamd's StreamMaxLength"


def test_chunks_travel_with_their_length_and_end_with_none(tmp_path):
    heard = []

    def part(talk):
        while not talk.heard.endswith(struct.pack("!I", 0)):
            talk.hear()
        heard.append(talk.heard)
        talk.say(b"stream: OK\0")

    with peer(tmp_path / "s", part) as clamd:
        assert clamd.scan_stream([b"abc", b"d"], 5) == CLEAN
    assert heard == [b"zINSTREAM\0\0\0\0\x03abc\0\0\0\x01d\0\0\0\0"]


def test_an_empty_chunk_does_not_end_the_stream(local):
    assert local.scan_stream([b"", BAD[:9], b"", BAD[9:]], 30).verdict is Verdict.INFECTED


def test_no_reply_is_longer_than_a_limit():
    assert module.LONGEST <= 2**20
