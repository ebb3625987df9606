"""A hundred uploads at once, a clamd that dies among them, and a switch that is flipped."""

import base64
import io
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maintenance.upload import check, checking
from tests.serving import form, serving
from tests.site import answers, wait_until
from tests.test_upload import uploads

pytestmark = [pytest.mark.server, pytest.mark.once]

# Assembled at run time: ClamAV's harmless test file must not lie in a checkout.
EICAR = base64.b64decode("WDVPIVAlQEFQWzRcUFpYNTQoUF4pN0NDKTd9JEVJQ0FS"
                         "LVNUQU5EQVJELUFOVElWSVJVUy1URVNULUZJTEUhJEgrSCo=")
LIMIT = 2 * 2**20
CONTENTS = {"clean": bytes(700_000), "infected": EICAR, "buried": bytes(LIMIT - 1000) + EICAR,
            "large": bytes(LIMIT + 1)}
EXPECTED = {"clean": "clean", "infected": "infected", "buried": "infected", "large": "unknown"}
KINDS = ["clean", "infected", "large", "clean", "buried"]


@pytest.fixture
def loaded(site, monkeypatch):
    """A site that knows EICAR anywhere in a file, with its limit; clamd is still down."""
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(site.config))
    site.feed(f"Test.Eicar:0:*:{EICAR.hex()}\n")
    site.update()
    uploads(site, max_size=f"{LIMIT}", timeout="60s")
    yield site
    checking._forget()


def ask_http(service, number):
    """Ask in one of the ways that clients have; the kind and the verdict, or none."""
    kind = KINDS[number % len(KINDS)]
    content = CONTENTS[kind]
    if number % 7 == 3:
        got = service.request("POST", "/scan", *form(("image", "a.jpg", content)))
    elif number % 7 == 5:
        got = service.request("POST", "/scan", iter([content[:99], content[99:]]),
                              encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    else:
        got = service.scan(content)
    assert got.status == (413 if kind == "large" else 200), (kind, got)
    return kind, got.json["verdict"]


def dawdle(service, number, stop):
    """Send a body byte by byte, or half of it and hang up; nobody may wait for it."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(service.path))
        link.sendall(b"POST /scan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + EICAR)
        if number % 2:
            stop.wait(60)


def rights(found):
    wrong = [(kind, verdict) for kind, verdict in found if verdict != EXPECTED[kind]]
    assert not wrong


def test_a_hundred_uploads_at_once_over_http(loaded):
    stop = threading.Event()
    with loaded.clamd(), serving(loaded) as service, ThreadPoolExecutor(140) as clients:
        slow = [clients.submit(dawdle, service, number, stop) for number in range(40)]
        rights(clients.map(lambda number: ask_http(service, number), range(100)))
        first = service.memory
        for _ in range(3):
            rights(clients.map(lambda number: ask_http(service, number), range(100)))
        assert service.memory < first + 30 * 2**20
        stop.set()
        for one in slow:
            one.result(30)
        assert service.scan(EICAR).json["verdict"] == "infected"
    told = loaded.run("send-checks", "--json").json["uploads"]
    assert (told["uploads"], told["set_aside"]) == (401, 0)


def ask_python(number):
    kind = KINDS[number % len(KINDS)]
    with tempfile.SpooledTemporaryFile(max_size=10**6) as file:
        file.write(CONTENTS[kind])
        return kind, check(file).verdict


def test_a_hundred_uploads_at_once_in_python(loaded):
    with loaded.clamd(), ThreadPoolExecutor(100) as threads:
        rights(threads.map(ask_python, range(100)))
        before = peak()
        for _ in range(3):
            rights(threads.map(ask_python, range(100)))
        assert peak() < before + 60 * 2**20
        assert len(list(Path("/proc/self/fd").iterdir())) < 300


def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.parametrize("way", ["python", "http"])
def test_a_clamd_restarted_under_load_costs_verdicts_but_gives_no_wrong_one(loaded, way):
    stop, found = threading.Event(), []
    with serving(loaded) as service:
        def ask():
            while not stop.is_set():
                for kind in ("clean", "infected"):
                    verdict = (check(io.BytesIO(CONTENTS[kind])).verdict if way == "python"
                               else service.scan(CONTENTS[kind]).json["verdict"])
                    found.append((kind, verdict))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for one in threads:
            one.start()
        try:
            for _ in range(3):
                with loaded.clamd():
                    wait_until(lambda: answers(loaded.socket))
                    at = len(found)
                    wait_until(lambda at=at: sum(verdict != "unknown"
                                                 for _, verdict in found[at:]) > 50)
        finally:
            stop.set()
            for one in threads:
                one.join(60)
    assert {verdict for kind, verdict in found if kind == "infected"} == {"infected", "unknown"}
    assert {verdict for kind, verdict in found if kind == "clean"} == {"clean", "unknown"}


@pytest.mark.parametrize("way", ["python", "http"])
def test_the_switch_flipped_under_load_holds_for_what_begins_a_second_later(loaded, way):
    stop, found = threading.Event(), []
    with loaded.clamd(), serving(loaded) as service:
        def ask():
            while not stop.is_set():
                begun = time.monotonic()
                verdict = (check(io.BytesIO(EICAR)).verdict if way == "python"
                           else service.scan(EICAR).json["verdict"])
                found.append((begun, time.monotonic(), verdict))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for one in threads:
            one.start()
        base, fresh = loaded.config.read_text(), loaded.config.with_suffix(".new")
        flips = []
        for enabled in (False, True) * 3:
            ended = time.monotonic()
            fresh.write_text(base.replace("[upload]", f"[upload]\nenabled = {enabled}".lower()))
            fresh.chmod(0o644)
            fresh.rename(loaded.config)
            since = time.monotonic() + 1
            flips.append((ended, since, "infected" if enabled else "off"))
            wait_until(lambda since=since: sum(begun > since for begun, _, _ in found) > 20)
        stop.set()
        for one in threads:
            one.join(60)
    ends = [*(ended for ended, _, _ in flips[1:]), float("inf")]
    for (_, since, expected), end in zip(flips, ends, strict=True):
        assert {
            verdict for begun, done, verdict in found if since < begun and done < end} == {expected}
