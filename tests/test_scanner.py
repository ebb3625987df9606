"""Many scans at once: every question is answered exactly once, and never wrongly clean."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from maintenance.clamav import protocol, session
from maintenance.clamav import scanner as module
from maintenance.clamav.connection import Clamd
from maintenance.clamav.scanner import Question, Scanner
from maintenance.verdict import Verdict, unknown
from tests.peers import Peer
from tests.site import BAD, Site, body_signature, free_port, wait_until

pytestmark = [pytest.mark.server, pytest.mark.once]

# Names that end a command, imitate a reply, look like an option, or are no text.
HOSTILE = [b"clean.jpg\nx", b"x: OK", b"x FOUND", b"-h", b"@list", b"$(touch pwned).jpg", b"' \"\\",
           b"\xff\xfe.jpg", b"\x1b[31m\r.jpg", b"n" * 255]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The addresses of a real clamd that takes streams of 1 MB, for all tests of this module."""
    site, port = Site(tmp_path_factory.mktemp("host")), free_port()
    with started(site, TCPSocket=str(port), TCPAddr="127.0.0.1", StreamMaxLength="1M"):
        yield {"unix": str(site.socket), "tcp": f"tcp://127.0.0.1:{port}"}


@pytest.fixture
def local(addresses):
    return Clamd(addresses["unix"])


@contextmanager
def started(site, **options):
    site.databases.mkdir(parents=True)
    (site.databases / "test.ndb").write_text(body_signature("Test.Bad", BAD))
    with site.clamd(**options) as daemon:
        yield daemon


@pytest.fixture
def quick(monkeypatch):
    """No patience beyond a question's own timeout."""
    monkeypatch.setattr(module, "GRACE", 0.0)
    monkeypatch.setattr(module, "TICK", 0.1)


def ask(clamd, contents, in_flight=64, timeout=30, before_end=lambda: None):
    """Scan ``contents`` (name: bytes); a list of (name, answer), and why clamd was lost.

    What was in flight then is unknown, for that reason.
    """
    with ExitStack() as stack:

        def questions():
            for name, content in contents.items():
                fd = os.memfd_create("image")
                stack.callback(os.close, fd)
                os.write(fd, content)
                yield Question(name, fd)
            before_end()

        scanner = Scanner[object](clamd, in_flight, timeout)
        with closing(scanner):
            answers = [(question.what, answer) for question, answer in scanner.scan(questions())]
            answers += [(one.what, unknown(scanner.lost)) for one in scanner.unanswered()]
        return answers, scanner.lost


def verdicts(answers):
    """What each was called; fails when anything was answered twice."""
    found = {name: answer.verdict for name, answer in answers}
    assert len(found) == len(answers)
    return found


@pytest.mark.parametrize("address", ["unix", "tcp"])
@pytest.mark.parametrize(("in_flight", "count"), [(1, 100), (2, 300), (33, 300), (1000, 1000)])
def test_every_question_gets_its_own_answer(addresses, address, in_flight, count):
    contents = {n: BAD + b"%d" % n if n % 3 == 0 else b"harmless %d" % n for n in range(count)}
    answers, lost = ask(Clamd(addresses[address]), contents, in_flight)
    assert lost is None
    assert verdicts(answers) == {
        n: Verdict.CLEAN if n % 3 else Verdict.INFECTED for n in range(count)}


def test_a_verdict_does_not_depend_on_the_name(local, tmp_path):
    questions = []
    for number, name in enumerate(HOSTILE):
        for directory, content in (("bad", BAD), ("good", b"innocent")):
            place = os.path.join(os.fsencode(tmp_path), directory.encode())
            os.makedirs(place, exist_ok=True)
            path = os.path.join(place, name)
            with open(path, "wb") as stream:
                stream.write(content)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            questions.append(Question((number, directory), fd))
    with closing(Scanner[object](local, 64, 30)) as scanner:
        answers = [(question.what, answer) for question, answer in scanner.scan(questions)]
    for question in questions:
        os.close(question.fd)
    found = verdicts(answers)
    assert len(found) == 20
    assert all((verdict is Verdict.INFECTED) == (directory == "bad")
               for (_, directory), verdict in found.items())
    assert not list(tmp_path.rglob("pwned"))


class Streaming(Clamd):
    """A peer on a Unix socket that is sent streams, as one far away would be."""

    local = property(lambda _self: False)

    def connect(self, timeout):
        return Clamd(self.address).connect(timeout)


TOO_LONG = "larger than clamd's StreamMaxLength"


@pytest.mark.parametrize("in_flight", [4, 64])
def test_a_stream_over_the_limit_gets_a_clear_answer_and_its_neighbours_theirs(
        addresses, in_flight):
    contents = {n: bytes(2_000_000) if n % 50 == 20 else (BAD if n % 3 else b"x") + b"%d" % n
                for n in range(120)}
    answers, lost = ask(Clamd(addresses["tcp"]), contents, in_flight)
    assert lost is None
    found = dict(answers)
    assert len(answers) == len(found) == 120
    for n, answer in found.items():
        if n % 50 == 20:
            assert (answer.verdict, answer.reason) == (Verdict.UNKNOWN, TOO_LONG)
        else:
            assert answer.verdict is (Verdict.INFECTED if n % 3 else Verdict.CLEAN)


def test_a_file_whose_sessions_others_cost_is_asked_about_a_few_times_only(tmp_path):
    def part(talk):  # whatever it is that is asked first, it is too long
        while b"zINSTREAM\0" not in talk.heard and talk.hear():
            pass
        talk.say(b"1: INSTREAM size limit exceeded. ERROR\0")

    with Peer(tmp_path / "s", part):
        answers, lost = ask(Streaming(str(tmp_path / "s")), {n: b"x" for n in range(9)}, 9)
    assert lost is None
    reasons = Counter(answer.reason for _, answer in answers)
    assert len(dict(answers)) == sum(reasons.values()) == 9
    assert set(reasons) == {TOO_LONG, module.SPENT}


def test_a_file_that_cannot_be_read_is_unknown_and_its_neighbours_are_not(addresses, tmp_path):
    with closing(Scanner[object](Clamd(addresses["tcp"]), 64, 30)) as scanner:
        fds = {name: os.memfd_create("image") for name in range(20)}
        for fd in fds.values():
            os.write(fd, BAD)
        fds["directory"] = os.open(tmp_path, os.O_RDONLY)
        answers = [(one.what, answer) for one, answer in
                   scanner.scan(Question(name, fd) for name, fd in fds.items())]
    for fd in fds.values():
        os.close(fd)
    assert scanner.lost is None
    reason = dict(answers)["directory"].reason
    assert "not readable" in reason
    assert verdicts(answers) == {**dict.fromkeys(range(20), Verdict.INFECTED),
                                 "directory": Verdict.UNKNOWN}


def test_streams_are_read_piece_by_piece(addresses, monkeypatch):
    taken, read = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: (
        taken.append(size), read(fd, size, offset))[1])
    contents = {n: os.urandom(900_000) for n in range(20)}
    answers, _ = ask(Clamd(addresses["tcp"]), contents)
    assert set(verdicts(answers).values()) == {Verdict.CLEAN}
    assert len(taken) > 20 * 900_000 // protocol.CHUNK
    assert max(taken) == protocol.CHUNK


def test_what_a_peer_says_while_it_takes_nothing_is_heard(tmp_path):
    """One that reads no more is full soon: its answers must not wait until it takes the rest."""

    def part(talk):
        while talk.heard.count(b"zINSTREAM\0") < 2 and talk.hear():
            pass
        answered.wait(0.1)
        talk.say(b"1: stream: OK\0")
        assert answered.wait(20)
        while talk.heard.count(b"zINSTREAM\0") < 3 and talk.hear():
            pass
        talk.say(b"2: stream: OK\x003: stream: OK\0")
        talk.drain()

    answered, fds = threading.Event(), [os.memfd_create("image") for _ in range(3)]
    os.write(fds[0], b"x")
    for fd in fds[1:]:
        os.truncate(fd, 5_000_000)
    with Peer(tmp_path / "s", part), closing(
            Scanner[int](Streaming(str(tmp_path / "s")), 3, 30)) as scanner:
        answers = {}
        for question, answer in scanner.scan(Question(n, fd) for n, fd in enumerate(fds)):
            answers[question.what] = answer.verdict
            answered.set()
    for fd in fds:
        os.close(fd)
    assert answers == dict.fromkeys(range(3), Verdict.CLEAN)


def test_no_question_is_no_work(local):
    assert ask(local, {}) == ([], None)


def test_what_reaches_a_limit_is_unknown_and_its_neighbours_are_not(tmp_path):
    site = Site(tmp_path)
    contents = {"large": bytes(3_000_000) + BAD, "bad": BAD, "good": b"good"}
    with started(site, MaxFileSize="1M"):
        answers, lost = ask(Clamd(str(site.socket)), contents)
    assert lost is None
    assert verdicts(answers) == {"large": Verdict.UNKNOWN, "bad": Verdict.INFECTED,
                                 "good": Verdict.CLEAN}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_when_clamd_ends_in_the_middle_all_are_answered_and_none_wrongly(tmp_path, end):
    site = Site(tmp_path)
    contents = {n: os.urandom(1_000_000) + (BAD if n % 2 else b"") for n in range(60)}
    with started(site, MaxThreads="2") as daemon:

        def die():
            daemon.send_signal(end)
            daemon.wait()

        answers, lost = ask(Clamd(str(site.socket)), contents, before_end=die)
    found = verdicts(answers)
    assert lost
    assert set(found) == set(contents)
    assert Verdict.UNKNOWN in found.values()
    for number, verdict in found.items():
        assert verdict in {Verdict.UNKNOWN, Verdict.INFECTED if number % 2 else Verdict.CLEAN}
    assert all(answer.reason for _, answer in answers if answer.verdict is Verdict.UNKNOWN)


def test_after_clamd_is_lost_no_more_is_asked(tmp_path):
    site = Site(tmp_path)
    drawn = []
    with started(site) as daemon, closing(Scanner[int](Clamd(str(site.socket)), 4, 30)) as scanner:

        def endless():
            while True:
                drawn.append(os.memfd_create("image"))
                if len(drawn) == 50:
                    daemon.kill()
                    daemon.wait()
                yield Question(len(drawn), drawn[-1])

        answers = [(question.what, answer) for question, answer in scanner.scan(endless())]
        left = [question.what for question in scanner.unanswered()]
    for fd in drawn:
        os.close(fd)
    assert sorted([*verdicts(answers), *left]) == list(range(1, len(drawn) + 1))
    assert len(drawn) < 60


def test_a_clamd_that_is_stopped_runs_out_of_time(tmp_path, quick):
    site = Site(tmp_path)
    with started(site) as daemon:
        answers, lost = ask(Clamd(str(site.socket)), {n: BAD for n in range(40)}, timeout=1,
                            before_end=lambda: daemon.send_signal(signal.SIGSTOP))
        scanner_lost = "gave no answer within 1 s" in (lost or "")
        daemon.send_signal(signal.SIGSTOP)
        again, why = ask(Clamd(str(site.socket)), {n: BAD for n in range(40)}, timeout=1)
        daemon.send_signal(signal.SIGCONT)
    assert len(verdicts(answers)) == 40
    assert scanner_lost or lost is None, "everything may have been answered before"
    assert set(verdicts(again).values()) == {Verdict.UNKNOWN}
    assert len(again) == 40
    assert "no answer within 1 s" in why


# It looks at these three about once a second.
IMPATIENT = dict.fromkeys(("IdleTimeout", "ReadTimeout", "CommandReadTimeout"), "1")


@pytest.mark.parametrize("kept", [True, False])
def test_sessions_without_work_outlive_the_patience_of_clamd_or_are_opened_again(
        tmp_path, monkeypatch, quick, kept):
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.3 if kept else 999)
    with started(Site(tmp_path), **IMPATIENT) as daemon:
        clamd = Clamd(str(tmp_path / "clamd.sock"))
        with closing(Scanner[int](clamd, 32, 20)) as scanner:
            wait_until(lambda: len(sockets_of(daemon.pid)) == 3)  # with the one it listens at
            first, until = sockets_of(daemon.pid), time.monotonic() + (3 if kept else 30)
            while sockets_of(daemon.pid) == first and time.monotonic() < until:
                assert list(scanner.answers(0.1)) == []
            assert (sockets_of(daemon.pid) == first) is kept
            fd = os.memfd_create("image")
            os.write(fd, BAD)
            answers = [(one.what, answer) for one, answer in scanner.scan([Question(1, fd)])]
            os.close(fd)
    assert scanner.lost is None
    assert verdicts(answers) == {1: Verdict.INFECTED}


def sockets_of(pid):
    """The connections that a process has open."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {link for link in links if link.startswith("socket:")}


@pytest.mark.parametrize("left_unread", [False, True])
def test_what_was_asked_just_when_clamd_lost_patience_is_asked_again(tmp_path, left_unread):
    def part(talk):
        talks.append(talk)
        if talk is talks[0]:
            talk.await_scans(2 if left_unread else 3)
            talk.say(b"2: fd[9]: OK\0COMMAND READ TIMED OUT\n")
        else:
            talk.await_scans(2)
            talk.say(b"1: fd[9]: OK\x002: fd[9]: OK\0")
            talk.drain()

    talks = []
    answers, lost = play(tmp_path / "s", part, 3)
    assert lost is None
    assert verdicts(answers) == dict.fromkeys((1, 2, 3), Verdict.CLEAN)


def play(path, part, count=2, in_flight=16, **how):
    """Ask a peer that plays ``part`` about ``count`` harmless images."""
    with Peer(path, part):
        return ask(Clamd(str(path)), {n: b"x" for n in range(1, count + 1)}, in_flight,
                   **how)


def test_a_silent_peer_runs_out_of_time(tmp_path, quick):
    answers, lost = play(tmp_path / "s", lambda talk: talk.drain(), timeout=0.5)
    assert [answer.verdict for _, answer in answers] == [Verdict.UNKNOWN] * 2
    assert "no answer within 0.5 s" in lost


def test_a_peer_that_says_pong_but_forgot_the_question_runs_out_of_time(
        tmp_path, quick, monkeypatch):
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.1)

    def forget(talk):
        for number in range(3, 100):
            talk.heard = b""
            while b"zPING\0" not in talk.heard:
                if not talk.hear():
                    return
            talk.say(b"%d: PONG\0" % number)

    answers, lost = play(tmp_path / "s", forget, timeout=1.5)
    assert [answer.verdict for _, answer in answers] == [Verdict.UNKNOWN] * 2
    assert "no answer within 1.5 s" in lost


def test_pings_share_the_numbers_of_the_questions(tmp_path, monkeypatch, quick):
    monkeypatch.setattr(session, "KEEP_ALIVE", 0.1)
    pings = []

    def answer_late(talk):
        talk.await_scans(2)
        while talk.heard.count(b"zPING\0") < 2:
            talk.hear()
        pings.append(talk.heard.count(b"zPING\0"))
        talk.say(b"3: PONG\x004: PONG\x002: fd[9]: OK\x001: fd[8]: Test.Bad FOUND\0")
        talk.drain()

    answers, lost = play(tmp_path / "s", answer_late)
    assert lost is None
    assert pings == [2]
    assert verdicts(answers) == {1: Verdict.INFECTED, 2: Verdict.CLEAN}


def test_replies_come_in_any_order_and_in_pieces(tmp_path):
    def piecemeal(talk):
        talk.await_scans(3)
        for byte in b"3: fd[12]: OK\x001: fd[10]: Test.Bad FOUND\x002: fd[11]: OK\0":
            talk.say(bytes([byte]))
            time.sleep(0.001)
        talk.drain()

    answers, lost = play(tmp_path / "s", piecemeal, 3)
    assert lost is None
    assert verdicts(answers) == {
        1: Verdict.INFECTED, 2: Verdict.CLEAN, 3: Verdict.CLEAN}


def test_the_time_limit_is_for_one_image_not_for_all(tmp_path, quick):
    def answer_slowly(talk):
        talk.await_scans(6)
        for number in range(1, 7):
            time.sleep(0.7)
            talk.say(b"%d: fd[9]: OK\0" % number)
        talk.drain()

    answers, lost = play(tmp_path / "s", answer_slowly, 6, timeout=2)
    assert lost is None
    assert set(verdicts(answers).values()) == {Verdict.CLEAN}


def test_a_number_that_never_comes_back_is_unknown_and_the_others_go_on(tmp_path, quick):
    def part(talk):
        talk.await_scans(6)
        talk.say(b"1: fd[9]: OK\x003: fd[9]: OK\x004: fd[9]: OK\x005: fd[9]: OK\x00")
        for number in range(6, 20):
            talk.await_scans(number + 2)
            time.sleep(0.2)
            talk.say(b"%d: fd[9]: OK\0" % number)
        talk.say(b"".join(b"%d: fd[9]: OK\0" % number for number in (20, 21)))
        talk.drain()

    answers, lost = play(tmp_path / "s", part, 21, 6, timeout=1)
    assert lost is None
    found = dict(answers)
    assert len(answers) == len(found) == 21
    assert "no answer within 1 s" in found.pop(2).reason
    assert {answer.verdict for answer in found.values()} == {Verdict.CLEAN}


def test_what_waits_in_the_queue_of_a_busy_clamd_is_not_late(tmp_path, quick):
    def in_order(talk):
        talk.await_scans(8)
        for number in range(1, 9):
            time.sleep(0.5)
            talk.say(b"%d: fd[9]: OK\0" % number)
        talk.drain()

    answers, lost = play(tmp_path / "s", in_order, 8, 8, timeout=1)
    assert lost is None
    assert set(verdicts(answers).values()) == {Verdict.CLEAN}


BROKEN = {
    "hangs up at once": b"",
    "breaks off in a reply": b"1: fd[10]: O",
    "breaks off before the end of a reply": b"1: fd[10]: OK",
    "gives no number": b"fd[10]: OK\0",
    "gives a number nobody asked for": b"99: fd[10]: OK\0",
    "gives an endless number": b"9" * 5000 + b": fd[10]: OK\0",
    "says that it lost patience": b"COMMAND READ TIMED OUT\0",
    "says something else": b"HTTP/1.1 200 OK\r\n\r\n\0",
    "says nothing that is text": bytes(range(255, 0, -1)) * 20 + b"\0",
    "says OK without a name": b"1: OK\x002: OK\0",
    "answers in the old form": b"1: fd[10]: OK\n2: fd[11]: OK\n",
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN)
def test_no_image_is_clean_when_the_peer(tmp_path, said):
    def part(talk):
        talk.await_scans(2)
        talk.say(said)

    answers, lost = play(tmp_path / "s", part)
    assert verdicts(answers) == {1: Verdict.UNKNOWN, 2: Verdict.UNKNOWN}
    assert all(answer.reason for _, answer in answers)
    if said != BROKEN["says OK without a name"]:
        assert lost


def test_a_peer_that_never_ends_its_reply_is_not_heard_to_the_end(tmp_path):
    def flood(talk):
        talk.await_scans(2)
        for _ in range(2000):
            talk.say(b"1" * 65536)

    answers, lost = play(tmp_path / "s", flood)
    assert verdicts(answers) == {1: Verdict.UNKNOWN, 2: Verdict.UNKNOWN}
    assert "no reply" in lost


def test_a_reply_given_twice_counts_once(tmp_path):
    def stutter(talk):
        talk.await_scans(2)
        talk.say(b"1: fd[10]: Test.Bad FOUND\x001: fd[10]: OK\x002: fd[11]: OK\0")
        talk.drain()

    answers, _ = play(tmp_path / "s", stutter)
    assert verdicts(answers) == {1: Verdict.INFECTED, 2: Verdict.CLEAN}


def test_what_was_answered_before_a_break_stays_answered(tmp_path):
    def part(talk):
        talk.await_scans(3)
        talk.say(b"2: fd[11]: Test.Bad FOUND\x001: fd[10]: OK\x00rubbish\x003: fd[12]: OK\0")
        talk.drain()

    answers, lost = play(tmp_path / "s", part, 3)
    assert "rubbish" in lost
    assert verdicts(answers) == {1: Verdict.CLEAN, 2: Verdict.INFECTED, 3: Verdict.UNKNOWN}


@pytest.mark.parametrize("taken", range(3))
def test_who_stops_early_can_still_close_what_waits(tmp_path, taken):
    def part(talk):
        talk.await_scans(6)
        talk.say(b"1: fd[10]: OK\x002: fd[11]: OK\0")  # and hangs up

    with Peer(tmp_path / "s", part), closing(Scanner(Clamd(str(tmp_path / "s")), 6, 30)) as scanner:
        fds = {n: os.memfd_create("image") for n in range(6)}
        answers = scanner.scan(Question(n, fd) for n, fd in list(fds.items()))
        for _ in range(taken):
            question, _ = next(answers)
            os.close(fds.pop(question.what))
        answers.close()
        left = scanner.unanswered()
        assert sorted(question.what for question in left) == sorted(fds) or taken == 0
    for fd in fds.values():
        os.close(fd)


def test_nobody_listening_is_an_error_at_the_start_and_leaks_nothing(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="No such file"):
            Scanner[int](Clamd(str(tmp_path / "nothing")), 64, 1)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="refused"):
        Scanner[int](Clamd(str(tmp_path / "file")), 64, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_peer_that_takes_one_session_only_is_an_error_and_leaks_nothing(tmp_path):
    peer = Peer(tmp_path / "s", lambda talk: talk.drain())
    path = Path(peer.path)
    before = len(os.listdir("/proc/self/fd"))

    class Fickle(Clamd):
        def connect(self, timeout):
            link = super().connect(timeout)
            path.unlink()
            return link

    with peer, pytest.raises(OSError, match="No such file"):
        Scanner[int](Fickle(str(path)), 64, 1)
    assert len(os.listdir("/proc/self/fd")) <= before
