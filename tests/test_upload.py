"""scan-upload, as an application calls it, against a real clamd."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.processes import ENVIRONMENT, started
from tests.site import BAD, BIN, Ended, answers, wait_until


@pytest.fixture
def guarded(site):
    """A site whose clamd is up."""
    site.update()
    with site.clamd():
        yield site


def scan(site, *arguments, stdin=b""):
    """Scan; the verdict's status and object."""
    ended = site.run("scan-upload", "--json", *arguments, stdin=stdin)
    assert "Traceback" not in ended.err
    return ended.status, ended.json


def uploads(site, **settings):
    site.settings["upload"] = settings
    site.write_config()


def test_the_verdict_is_the_status(guarded):
    assert guarded.run("scan-upload", guarded.image("a.jpg")) == Ended(0, "", "")
    ended = guarded.run("scan-upload", guarded.image("bad.jpg", BAD))
    assert (ended.status, ended.out) == (4, "")
    assert ended.err == "scan-upload: infected: Test.Bad.UNOFFICIAL\n"
    status, result = scan(guarded, guarded.store / "bad.jpg")
    assert (status, result["verdict"], result["signature"], result["reason"]) == (
        4, "infected", "Test.Bad.UNOFFICIAL", None)
    status, result = scan(guarded, guarded.store / "a.jpg")
    assert (status, result["verdict"], result["signature"]) == (0, "clean", None)
    assert (result["job"], result["outcome"]) == ("upload", "done")


def test_stdin_is_an_upload_too(guarded):
    assert scan(guarded, "-", stdin=b"clean enough")[1]["verdict"] == "clean"
    assert scan(guarded, "-", stdin=bytes(300_000) + BAD)[0] == 4
    assert scan(guarded, "-", stdin=b"")[1]["verdict"] == "clean"


def test_hostile_names_do_not_matter(guarded):
    for name in (b"-h", b"a\nb: OK", b"\xff.jpg"):
        path = guarded.image(name, BAD)
        assert scan(guarded, path)[0] == 4
    for name in ("-h", "-"):
        ran = subprocess.run([*guarded.command("scan-upload"), "--", name], cwd=guarded.store,
                             input=BAD, capture_output=True, check=False, env=ENVIRONMENT)
        assert (ran.returncode, ran.stdout) == (4, b"")


def test_over_the_greatest_size_it_is_refused_unread(guarded):
    uploads(guarded, max_size="1K")
    large = guarded.image("large.jpg", bytes(1025))
    for arguments, stdin in (((large,), b""), (("-",), bytes(1025))):
        status, result = scan(guarded, *arguments, stdin=stdin)
        assert (status, result["verdict"]) == (5, "unknown")
        assert "max_size" in result["reason"]
    assert scan(guarded, guarded.image("just.jpg", bytes(1024)))[0] == 0


def test_the_switch_is_read_at_every_scan(guarded):
    bad = guarded.image("bad.jpg", BAD)
    for enabled, expected in ((True, (4, "infected")), (False, (0, "off")),
                              (True, (4, "infected"))):
        uploads(guarded, enabled=enabled)
        status, result = scan(guarded, bad)
        assert (status, result["verdict"]) == expected


def test_observing_never_refuses_and_still_tells(guarded):
    uploads(guarded, observe=True, max_size="1K")
    status, result = scan(guarded, guarded.image("bad.jpg", BAD))
    assert (status, result["verdict"], result["signature"]) == (
        0, "infected", "Test.Bad.UNOFFICIAL")
    assert scan(guarded, guarded.image("large.jpg", bytes(2000)))[0] == 0


def test_without_a_clamd_there_is_no_verdict(site):
    path = site.image("a.jpg", BAD)
    status, result = scan(site, path)
    assert (status, result["verdict"], result["signature"]) == (3, "unknown", None)
    assert str(site.socket) in result["reason"]
    uploads(site, when_unavailable="accept")
    status, result = scan(site, path)
    assert (status, result["verdict"]) == (0, "unknown")


def test_what_is_no_file_is_one_line_and_1(guarded):
    os.mkfifo(guarded.store / "fifo")
    for path in (guarded.store / "fifo", guarded.store, guarded.store / "missing",
                 guarded.store / "x" / "y"):
        ended = guarded.run("scan-upload", path, timeout=10)
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert str(path) in ended.err
        assert scan(guarded, path)[1]["error"]


def test_a_clamd_that_hangs_costs_no_more_than_the_timeout(site):
    site.update()
    path = site.image("a.jpg")
    with site.clamd() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        status, result = scan(site, path, "--timeout", "0.5s")
        assert time.monotonic() - begun < 8
        assert (status, result["verdict"]) == (3, "unknown")
        assert "0.5 s" in result["reason"]
        uploads(site, timeout="0.4s")
        assert scan(site, "-", stdin=b"x")[0] == 3
        daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: answers(site.socket))
        assert scan(site, path, "--timeout", "20s")[0] == 0


def test_an_upload_that_stalls_on_stdin_is_given_up(guarded):
    with started(guarded.command("scan-upload", "-", "--timeout", "0.5s")) as job:
        job.stdin.write(b"the beginning")
        job.stdin.flush()
        assert job.wait(20) == 3


def test_clamd_may_be_reached_by_tcp(site):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site.update()
    site.image("bad.jpg", BAD)
    with site.clamd(TCPSocket=str(port), TCPAddr="127.0.0.1", StreamMaxLength="1M"):
        site.settings["clamav"]["socket"] = f"tcp://127.0.0.1:{port}"
        site.write_config()
        assert scan(site, site.store / "bad.jpg")[0] == 4
        assert scan(site, site.image("a.jpg"))[0] == 0
        assert scan(site, "-", stdin=BAD)[0] == 4
        status, result = scan(site, site.image("large.jpg", bytes(3_000_000)))
        assert (status, result["verdict"]) == (3, "unknown")
        site.settings["clamav"]["engine"] = "system"
        site.write_config()
        ended = site.run("rescan-store")
        assert (ended.status, "local clamd" in ended.err, ended.err.count("\n")) == (1, True, 1)


def test_a_limit_of_clamd_is_no_verdict(site):
    site.update()
    with site.clamd(MaxFileSize="1K"):
        status, result = scan(site, site.image("large.jpg", bytes(2000)))
        assert (status, result["verdict"]) == (3, "unknown")
        assert "limit" in result["reason"]


def test_uploads_touch_neither_state_nor_logs(site):
    site.run("scan-upload", site.image("a.jpg"))
    assert not site.state.exists()
    assert not (site.root / "logs").exists()


def test_a_mistake_in_another_section_does_not_stop_uploads(site):
    site.settings["upload"] = {"enabled": False}
    site.settings["zabbix"] = {"nonsense": 1}
    site.write_config(store={"path": 7})
    ended = site.run("scan-upload", site.config, "--json")
    assert (ended.status, ended.json["verdict"]) == (0, "off")


def test_what_takes_long_to_import_is_not_imported(site):
    code = (f"import sys; sys.path.insert(0, {str(BIN.parent)!r})\n"
            "from maintenance.shell.main import main\n"
            f"status = main('upload', [{str(site.config)!r}, '--config', {str(site.config)!r}])\n"
            "print(status, *sys.modules)")
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True,
                          env=ENVIRONMENT, check=False)
    status, *modules = done.stdout.split()
    assert status == "3", done
    assert not {"sqlalchemy", "aiohttp", "PIL", "requests", "tqdm", "subprocess", "tempfile",
                "asyncio"} & {*modules}


def test_a_configuration_that_is_half_written_is_as_without_a_clamd(guarded):
    path = guarded.image("a.jpg")
    good = guarded.config.read_text()
    for line, status in (("", 3), ('when_unavailable = "accept"', 0),
                         ("  when_unavailable='accept' # for now", 0),
                         ('# when_unavailable = "accept"', 3),
                         ('when_unavailable = "refuse"', 3)):
        guarded.config.write_text(f"{good}\n[upload]\n{line}\n[upl")
        ended = guarded.run("scan-upload", path, "--json")
        assert (ended.status, ended.json["verdict"]) == (status, "unknown")
        assert "not TOML" in ended.json["reason"]
        assert ended.err.count("\n") == 1
