"""A cache is told of images that are others by now, and holds no job up."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from maintenance.ledger.ledger import Ledger
from maintenance.ledger.purges import note
from maintenance.monitoring import purge
from maintenance.monitoring.purge import Purging
from maintenance.times import DAY, Deadline
from tests.images import jpeg
from tests.site import BAD

pytestmark = pytest.mark.once


class Cache:
    """A web server that answers with ``status``, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.status = 200
        self.methods = {"POST", "GET"}
        self.released = threading.Event()
        self.released.set()
        self.url = ""


@contextmanager
def serving() -> Iterator[Cache]:
    cache = Cache()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            cache.released.wait(30)
            known = self.command in cache.methods
            if known:
                cache.told.append((self.command, self.path))
            self.send_response(cache.status if known else 405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cache.url = f"http://127.0.0.1:{server.server_port}/purge/{{store}}/{{path}}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield cache
    finally:
        cache.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cache():
    with serving() as one:
        yield one


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path) as opened:
        opened.notes_purges = True
        yield opened


def noted(ledger, *keys, store="s"):
    with ledger._engine.begin() as connection:
        note(connection, store, keys)


def run(ledger, cache, seconds=20.0):
    purging = Purging(cache.url, ledger.purges, Deadline.after(seconds))
    purging.run()
    return purging


@pytest.fixture
def cached(site, cache):
    """A site with a cache in front of it, and an image that can be made smaller."""
    site.settings |= {"notify": {"purge_url": cache.url}, "optimize": {"window": ""}}
    site.write_config()
    site.image("sub/a b.jpg", jpeg(size=(400, 300)))
    site.update()
    return site


def waiting(site):
    with Ledger.open(site.state) as ledger:
        return ledger.purges.count()


@pytest.mark.server
def test_an_image_that_was_replaced_or_taken_is_told_of_once(cached, cache):
    cached.image("bad\xff.jpg".encode("latin-1"), BAD)
    assert cached.rescan("--action", "quarantine")[0] == 4
    assert cached.run("optimize-images").status == 0
    assert cache.told == [("POST", "/purge/uploads/bad%FF.jpg"),
                          ("POST", "/purge/uploads/sub/a%20b.jpg")]
    assert cached.run("optimize-images").status == 0
    assert (len(cache.told), waiting(cached)) == (2, 0)


@pytest.mark.server
def test_a_cache_that_is_silent_holds_the_job_up_for_seconds_and_is_told_later(cached, cache):
    cache.released.clear()
    begun = time.monotonic()
    ended = cached.run("optimize-images", "-v")
    assert (ended.status, waiting(cached)) == (0, 1)
    assert "it does not answer in time; the rest waits" in ended.err
    assert time.monotonic() - begun < 20
    cache.released.set()
    cache.told.clear()
    assert cached.run("send-checks").status == 0
    assert (set(cache.told), waiting(cached)) == ({("POST", "/purge/uploads/sub/a%20b.jpg")}, 0)


def test_without_a_url_nothing_is_noted(site):
    site.image("a.jpg")
    site.settings["optimize"] = {"window": ""}
    site.write_config()
    site.update()
    site.run("optimize-images")
    assert waiting(site) == 0


@pytest.mark.parametrize(("status", "left", "refused"), [
    (200, 0, {}), (204, 0, {}), (404, 0, {}), (410, 0, {}), (401, 0, {401: 1}), (301, 0, {301: 1}),
    (429, 1, {}), (500, 1, {}), (503, 1, {})])
def test_what_asks_for_patience_gets_it_and_what_refuses_is_not_asked_again(
        ledger, cache, status, left, refused):
    noted(ledger, b"a")
    cache.status = status
    purging = run(ledger, cache)
    assert (ledger.purges.count(), purging.refused) == (left, refused)
    assert purging.trouble == (f"it answers {status}" if left else None)


def test_a_cache_that_knows_no_post_is_asked_by_get(ledger, cache):
    cache.methods = {"GET"}
    noted(ledger, *(b"%d" % number for number in range(200)))
    assert run(ledger, cache).told == 200
    assert {method for method, _ in cache.told} == {"GET"}
    assert len(cache.told) == 200


def test_a_cache_that_is_away_is_not_asked_about_every_image(ledger, cache):
    cache.url = "http://127.0.0.1:1/{path}"
    noted(ledger, *(b"%d" % number for number in range(1000)))
    begun = time.monotonic()
    purging = run(ledger, cache)
    assert purging.trouble == "it cannot be reached (ConnectionError)"
    assert (ledger.purges.count(), purging.told) == (1000, 0)
    assert time.monotonic() - begun < 10


def test_time_limits_the_whole_and_what_was_told_is_not_told_again(ledger, cache, monkeypatch):
    monkeypatch.setattr(purge, "PAGE", 4)
    noted(ledger, *(b"%d" % number for number in range(12)))
    cache.released.clear()
    threading.Timer(0.5, cache.released.set).start()
    run(ledger, cache, 10)
    assert sorted(cache.told) == sorted(("POST", f"/purge/s/{number}") for number in range(12))
    assert ledger.purges.count() == 0


def test_an_image_waits_once_and_what_is_noted_meanwhile_stays(ledger):
    noted(ledger, b"a", b"b")
    (first, second) = ledger.purges.waiting(0, 10)
    noted(ledger, b"a")
    ledger.purges.done([first.number, second.number])
    assert [one.key for one in ledger.purges.waiting(0, 10)] == [b"a"]
    noted(ledger, b"a\0x", store="other")
    assert ledger.purges.drop(time.time() - DAY) == 0
    assert ledger.purges.drop(time.time() + 1) == 2


def test_the_url_reaches_no_message(ledger, cache):
    cache.url = "http://user:secret@127.0.0.1:1/{path}"
    noted(ledger, os.fsencode("a"))
    assert "secret" not in run(ledger, cache).trouble
