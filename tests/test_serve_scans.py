"""serve-scans, as a client sees it, in front of a real clamd."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from maintenance.serve import body as bodies
from tests.processes import ENVIRONMENT, started
from tests.serving import form, serving
from tests.site import BAD, BIN, free_port, wait_until
from tests.test_upload import uploads

pytestmark = pytest.mark.server

BURIED = bytes(400_000) + BAD  # beyond what is kept in memory


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A service with a clamd, for tests that leave both as they are."""
    from tests.site import Site  # noqa: PLC0415 - beside its one use
    site = Site(tmp_path_factory.mktemp("serve"))
    site.update()
    uploads(site, max_size="1M")
    with site.clamd(), serving(site) as service:
        yield service


def chunked(*chunks):
    yield from chunks


def one_sentence(answer, status):
    assert answer.status == status, answer
    assert answer.json["error"].count("\n") == 0
    return answer.json["error"]


@pytest.mark.parametrize("content", [b"clean enough", b"", BAD, BURIED])
def test_a_raw_a_chunked_and_a_form_s_file_get_their_verdict(shared, content):
    expected = "infected" if BAD in content else "clean"
    sent = form(("csrf", None, b"token"), ("image", "a.jpg", content))
    for answer in (shared.scan(content), shared.request("POST", "/scan", *sent),
                   shared.request("POST", "/scan", chunked(content[:7], content[7:]),
                                  encode_chunked=True,
                                  headers={"Transfer-Encoding": "chunked"})):
        assert (answer.status, answer.json["verdict"]) == (200, expected)
        assert answer.json["signature"] == ("Test.Bad.UNOFFICIAL" if BAD in content else None)
        assert answer.json["seconds"] >= 0
        assert answer.json["accepted"] is (expected == "clean")


def test_too_large_is_413_however_it_comes(shared):
    large = bytes(2**20 + 1)
    for answer in (
            shared.scan(large),
            shared.request("POST", "/scan", *form(("image", "a.jpg", large))),
            shared.request("POST", "/scan", chunked(large), encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})):
        assert (answer.status, answer.json["verdict"]) == (413, "unknown")
        assert "upload.max_size" in answer.json["reason"]
    assert shared.scan(bytes(2**20)).status == 200
    assert shared.request("POST", "/scan",
                          *form(("image", "a.jpg", bytes(2**20)))).status == 200


def test_a_length_that_is_too_large_is_refused_before_the_body_comes(shared):
    got = shared.send(b"POST /scan HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
                      b"Connection: close\r\n\r\n" + BAD, end=False)
    assert got.startswith(b"HTTP/1.1 413 ")


def test_a_body_without_an_end_is_refused_as_soon_as_it_is_too_large(shared):
    size = 2**20 + 1
    got = shared.send(b"POST /scan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                      b"Connection: close\r\n\r\n%x\r\n" % size + bytes(size), end=False)
    assert got.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("data", [
    b"Content-Length: 100\r\n\r\nshort",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 60\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nxx',
    b"Content-Type: multipart/form-data\r\nContent-Length: 2\r\n\r\nxx",
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2\r\n\r\nxx",
], ids=str)
def test_a_broken_request_is_400_or_nothing_and_no_verdict(shared, data):
    got = shared.send(b"POST /scan HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + data)
    assert b"verdict" not in got
    assert got == b"" or got[:13] in {b"HTTP/1.1 400 ", b"HTTP/1.0 400 "}, got
    assert shared.scan(BAD).json["verdict"] == "infected"


@pytest.mark.parametrize(("parts", "why"), [
    ([("image", None, b"x")], "no file"), ([], "no file"),
    ([("one", "a.jpg", b"x"), ("two", "b.jpg", BAD)], "more than one file"),
    ([("text", None, bytes(70_000)), ("one", "a.jpg", b"x")], "beside its file")])
def test_a_form_without_exactly_one_file_is_400(shared, parts, why):
    assert why in one_sentence(shared.request("POST", "/scan", *form(*parts)), 400)


def test_a_form_cut_short_anywhere_is_never_clean(shared):
    body, headers = form(("image", "a.jpg", BAD))
    for length in range(0, len(body) - 4, 7):
        answer = shared.request("POST", "/scan", body[:length], headers)
        assert (answer.status, answer.json.get("verdict")) in {(400, None), (200, "infected")}


def test_other_paths_and_methods_are_refused(shared):
    assert shared.request("GET", "/scan").status == 405
    assert shared.request("POST", "/scan/../etc").status == 404
    assert shared.request("GET", "/").status == 404


def test_health_version_and_metrics(shared):
    assert (shared.request("GET", "/health").status,
            shared.request("GET", "/health").json) == (200, {"status": "ok"})
    assert shared.request("GET", "/version").json["clamav"].startswith("ClamAV ")
    shared.scan(BAD)
    told = shared.request("GET", "/metrics")
    assert told.headers["Content-Type"].startswith("text/plain")
    assert b'imagewarden_uploads_total{cause="",verdict="infected"}' in told.body
    assert b"imagewarden_upload_seconds_bucket" in told.body


def test_without_a_verdict_it_is_503_and_later_well_again(site):
    site.update()
    with serving(site) as service:
        answer = service.scan(BAD)
        assert (answer.status, answer.json["verdict"]) == (503, "unknown")
        assert int(answer.headers["Retry-After"]) > 0
        assert service.request("GET", "/health").status == 503
        uploads(site, when_unavailable="accept")
        answer = service.scan(BAD)
        assert (answer.status, answer.json["verdict"], answer.json["accepted"]) == (
            200, "unknown", True)
        with site.clamd():
            assert service.scan(BAD).json["verdict"] == "infected"
            assert service.request("GET", "/health").status == 200
        uploads(site, enabled=False)
        assert service.scan(BAD).json["verdict"] == "off"
        assert service.request("GET", "/health").status == 200
        site.config.write_text("half a fi")
        assert service.scan(BAD).json["verdict"] == "off"
    site.write_config()
    assert site.run("send-checks", "--json").json["uploads"]["uploads"] == 5


def test_a_body_that_does_not_come_is_400_in_time(site):
    with serving(site, "--body-timeout", "0.3s") as service:
        got = service.send(b"POST /scan HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                           b"Connection: close\r\n\r\nabc", end=False)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"within 0.3 s" in got


def test_more_connections_than_there_may_be_are_503(site):
    with serving(site, "--connections", "2") as service:
        held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for one in held:
            one.connect(str(service.path))
        wait_until(lambda: b"too many connections" in service.send(b"", end=False))
        for one in held:
            one.close()
        wait_until(lambda: b"HTTP/1.1 200" in service.send(
            b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", end=False))


@pytest.mark.server
def test_a_client_that_begins_no_request_is_hung_up_on(site):
    with serving(site) as service:
        assert service.send(b"POST /scan HT", end=False) == b""


def test_a_token_is_asked_for_where_there_is_one(site):
    file = site.root / "token"
    file.write_text("0123456789abcdef\n")
    file.chmod(0o600)
    with serving(site, "--token-file", str(file)) as service:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "},
                        {"Authorization": "0123456789abcdef"}):
            for path in ("/scan", "/metrics", "/version"):
                method = "POST" if path == "/scan" else "GET"
                one_sentence(service.request(method, path, b"", headers), 401)
        right = {"Authorization": "Bearer 0123456789abcdef"}
        assert service.request("GET", "/metrics", headers=right).status == 200
        assert service.request("GET", "/health").status == 503


def test_beyond_this_host_only_with_permission_and_a_token(site, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    port = free_port()
    for host in ("0.0.0.0", "[::]", "example.org", "192.0.2.1"):
        for more in ((), ("--allow-remote",), ("--token-file", str(token))):
            ended = site.run("serve-scans", "--listen", f"{host}:{port}", *more)
            assert (ended.status, ended.err.count("\n")) == (2, 1), ended
            assert "--allow-remote and --token-file" in ended.err
    command = site.command("serve-scans", "--listen", f"0.0.0.0:{port}", "--allow-remote",
                           "--token-file", str(token))
    with started(command) as job:
        def status():
            try:
                with socket.create_connection(("127.0.0.1", port), 20) as link:
                    link.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                    return link.recv(12)
            except OSError:
                return b""
        wait_until(lambda: status() == b"HTTP/1.1 401" or status() == b"HTTP/1.0 401")
        job.terminate()
        assert job.wait(30) == 143


@pytest.mark.parametrize(("content", "mode", "why"), [
    ("0123456789abcdef", 0o644, "chmod go-rw"), ("short", 0o600, "at least 16"),
    ("\n", 0o600, "at least 16"), (None, 0, "No such file")])
def test_a_token_file_that_is_no_secret_is_refused(site, content, mode, why):
    file = site.root / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    ended = site.run("serve-scans", "--listen", f"unix:{site.root}/s", "--token-file", file)
    assert (ended.status, why in ended.err, ended.err.count("\n")) == (1, True, 1), ended


def test_where_it_cannot_listen_is_one_line(site):
    for place, status, why in ((f"unix:{site.root}/no/s", 1, "No such file"),
                               ("nonsense", 2, "neither"), ("127.0.0.1:99999", 2, "neither"),
                               ("unix:relative", 2, "neither"),
                               (f"unix:{site.config}", 1, "no socket")):
        ended = site.run("serve-scans", "--listen", place)
        assert (ended.status, why in ended.err, ended.err.count("\n")) == (status, True, 1), ended
    assert site.config.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = site.run("serve-scans", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        assert (ended.status, ended.err.count("\n")) == (1, 1)


def test_the_socket_of_one_that_was_killed_is_used_again_of_one_that_lives_not(site):
    path = site.root / "scans.sock"
    with serving(site) as service:
        assert path.stat().st_mode & 0o777 == 0o660
        ended = site.run("serve-scans", "--listen", f"unix:{path}")
        assert (ended.status, "listens there already" in ended.err) == (1, True)
        os.kill(service.pid, 0)
    assert not path.exists()
    with started(site.command("serve-scans", "--listen", f"unix:{path}")) as job:
        wait_until(path.is_socket)
        job.send_signal(signal.SIGKILL)
        job.wait(30)
    assert path.exists()
    with serving(site) as service:
        assert service.request("GET", "/version").status == 200


def test_where_its_libraries_are_not_installed_it_says_how(site):
    code = (f"import sys; sys.path.insert(0, {str(BIN.parent)!r}); sys.modules['aiohttp'] = None\n"
            "from maintenance.shell.main import main\n"
            f"sys.exit(main('serve_scans', ['--config', {str(site.config)!r}]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=ENVIRONMENT, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "-m pip install 'aiohttp>=3.9' 'prometheus_client>=0.20'" in done.stderr


def test_what_is_kept_in_memory_is_little():
    assert bodies.IN_MEMORY < len(BURIED) < 2**20
