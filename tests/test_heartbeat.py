"""Watchers of cron jobs are told of every run, and hold none up."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from maintenance.monitoring import heartbeat
from tests.site import BAD

pytestmark = pytest.mark.once


class Watcher:
    """A web server that answers as ``answer`` says, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.answer = lambda request: request.send_response(200) or request.end_headers()
        self.url = ""


@contextmanager
def watching() -> Iterator[Watcher]:
    watcher = Watcher()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            watcher.told.append((self.path, body.decode()))
            watcher.answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    watcher.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield watcher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def watcher():
    with watching() as one:
        yield one


def watch(site, url, *jobs):
    site.settings["notify"] = {}
    site.write_config()
    text = site.config.read_text().replace("[notify]\n", "[notify.heartbeat_urls]\n" + "".join(
        f'{job} = "{url}"\n' for job in jobs))
    site.config.write_text(text)


def paths(watcher):
    return [path for path, _ in watcher.told]


def test_a_run_that_works_says_so_at_both_ends(site, watcher):
    watch(site, watcher.url + "/uuid?rid=7", "definitions")
    site.update()
    assert watcher.told == [("/uuid/start?rid=7", ""), ("/uuid?rid=7", "status 0\n")]


def test_a_failure_is_told_with_its_reason(site, watcher):
    watch(site, watcher.url, "rescan")
    assert site.run("rescan-store").status == 1
    assert paths(watcher) == ["/start", "/fail"]
    assert "no definitions" in watcher.told[1][1]


def test_an_infection_is_no_failure_of_the_job_but_is_told(site, watcher):
    site.image("bad.jpg", BAD)
    site.update()
    watch(site, watcher.url, "rescan")
    assert site.rescan()[0] == 4
    assert paths(watcher) == ["/start", "/"]
    assert "bad.jpg" in watcher.told[1][1]


def test_other_jobs_and_dry_runs_tell_nobody(site, watcher):
    watch(site, watcher.url, "optimize")
    site.update()
    watch(site, watcher.url, "definitions")
    assert site.run("update-definitions", "--dry-run").status == 0
    assert watcher.told == []


def drip(request):
    """Answer a byte a second, for longer than anybody should wait."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        if request.server.stopped.wait(0.5):
            return


def test_a_watcher_that_never_finishes_holds_a_job_up_for_its_time_out_only(
        watcher, monkeypatch, caplog):
    monkeypatch.setattr(heartbeat, "TIMEOUT", 1.0)
    stopped = threading.Event()

    def dripping(request):
        request.server.stopped = stopped
        drip(request)

    watcher.answer = dripping
    caplog.set_level("INFO")
    heartbeat.Heartbeat(watcher.url).started()
    stopped.set()
    assert "no answer within 1 s" in caplog.text


@pytest.mark.parametrize("answer", [
    lambda request: request.send_error(500),
    lambda request: request.wfile.write(b"\x00\xff garbage\r\n\r\n"),
    lambda request: request.connection.close(),
    lambda request: (request.send_response(302), request.send_header("Location", "http://0/"),
                     request.end_headers()),
], ids=["error", "garbage", "reset", "redirect"])
def test_whatever_a_watcher_answers_the_run_is_what_it_was(site, watcher, answer):
    watcher.answer = answer
    watch(site, watcher.url, "definitions")
    site.update()
    assert paths(watcher) == ["/start", "/"]


def test_a_watcher_that_is_not_there_is_in_the_log_and_its_url_is_not(site):
    watch(site, "http://127.0.0.1:1/secret-uuid", "definitions")
    site.update()
    log = (site.root / "logs/definitions.log").read_text()
    assert "heartbeat: not told (ConnectionError)" in log
    assert "secret-uuid" not in log
