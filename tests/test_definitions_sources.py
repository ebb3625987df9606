"""The real freshclam against a mirror, a proxy and files that behave and misbehave."""

import os
import re
import shutil
import ssl
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.feeds import (
    MORE,
    SIGNED,
    STANDARD,
    base,
    content,
    cooled,
    custom,
    definitions,
    end_cool_down,
    needs_signed,
    not_shipped,
    official,
    told,
    unpacked,
)
from tests.mirror import proxying, serving
from tests.processes import Namespace
from tests.site import body_signature

pytestmark = [pytest.mark.server, pytest.mark.once]
signed = [not_shipped, needs_signed]
NEW = body_signature("Test.New", b"something new")


# --- sources of others: whatever goes wrong, the old definitions stay, and the next run heals


def gone(mirror):
    mirror.files.clear()


def cut(mirror):
    mirror.files["/test.ndb"] = NEW.encode() * 500
    mirror.cut = True


def empty(mirror):
    mirror.files["/test.ndb"] = b""


def malformed(mirror):
    mirror.files["/test.ndb"] = b"this is no signature\n"


def refused(mirror):
    mirror.refuse = 500


@pytest.mark.parametrize(("fault", "status", "words"), [
    (gone, 11, "a download failed ({}: file not found)"),
    (cut, 5, "no connection, or no disk space ({}: Transferred a partial file)"),
    (empty, 6, "an empty file came ({})"),
    (malformed, 8, "a new database failed its test ({}: Malformed database)"),
    (refused, 11, "a download failed ({})")])
def test_a_source_that_fails_is_named_by_its_status_and_leaves_everything_as_it_was(
        site, fault, status, words):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        definitions(site)
        before = content(site.databases)
        fault(mirror)
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.err.count("\n")) == (1, 1), ended
        assert ended.json["error"] == (f"freshclam failed with status {status}: "
                                       + words.format(f"{mirror.url}/test.ndb"))
        assert ended.json["freshclam"]["outcome"] == "failed"
        assert ended.json["freshclam"]["status"] == status
        assert (ended.json["changed"], ended.json["generation"]) == (False, 1)
        assert content(site.databases) == before
        mirror.refuse, mirror.cut = 0, False
        mirror.files["/test.ndb"] = NEW.encode()
        healed = definitions(site)
    assert (healed["freshclam"]["outcome"], healed["generation"]) == ("changed", 2)


def test_a_source_that_cannot_be_reached_is_a_failure(site):
    custom(site, "http://127.0.0.1:9/test.ndb")
    result = definitions(site, status=1)
    assert (result["freshclam"]["status"], result["generation"]) == (5, None)
    assert "test.ndb: Couldn't connect to server)" in result["error"]


def test_a_change_beside_a_failure_counts_and_the_failure_is_said(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/one.ndb", f"{mirror.url}/other.ndb")
        mirror.files["/one.ndb"] = MORE.encode()
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["changed"]) == (0, True)
        assert ended.json["freshclam"]["outcome"] == "changed"
        assert ended.json["freshclam"]["status"] == 11
        assert "a download failed" in ended.err
        assert definitions(site, status=1)["freshclam"]["outcome"] == "failed", "and so it stays"


@pytest.mark.parametrize(("status", "hours", "body"), [
    (403, 24, b""), (429, 4, b"<html>not for you</html>")])
def test_a_source_that_refuses_us_is_a_cool_down_with_its_end(site, status, hours, body):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        definitions(site)
        before = content(site.databases)
        mirror.refuse, mirror.body = status, body
        for _ in range(2):
            result = definitions(site)
            assert result["freshclam"]["outcome"] == "cool-down"
            assert re.fullmatch(r"20\d\d-.*Z", result["freshclam"]["until"])
            assert (result["changed"], result["outcome"]) == (False, "done")
        assert 0 < hours * 3600 - (cooled(site.databases) - time.time()) < 60
        checked = told(site)["definitions"]["databases"][0]["checked"]
        site.settings["definitions"]["fail_age"] = "0s"
        site.write_config()
        ended = site.run("update-definitions", "--no-rescan")
        assert (ended.status, ended.err.count("\n")) == (1, 2)
        assert "days old" in ended.err
        assert f"{mirror.url}/test.ndb refuses us until 20" in ended.err
        assert content(site.databases) == before
    assert told(site)["definitions"]["databases"][0]["checked"] == checked, "nobody confirmed it"


def test_a_change_beside_a_refusal_counts_and_the_refusal_is_said(site):
    with serving() as mirror, serving() as other:
        custom(site, f"{mirror.url}/test.ndb", f"{other.url}/more.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        other.refuse = 403
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["freshclam"]["outcome"]) == (0, "changed")
        assert ended.json["freshclam"]["until"] is not None
        assert f"{other.url}/more.ndb refuses us until 20" in ended.err
        assert definitions(site)["freshclam"]["outcome"] == "cool-down"


def test_a_source_that_says_when_to_come_back_is_heard(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.refuse, mirror.retry_after = 429, 1800
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["freshclam"]["outcome"]) == (1, "failed")
        assert "no definitions yet, and the mirror refuses us until 20" in ended.err
        assert 0 < 1800 - (cooled(site.databases) - time.time()) < 60


def test_a_failure_of_another_kind_is_one_also_during_a_cool_down(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb", f"file://{site.root}/feed/test.ndb".replace(
            "test.ndb", "more.ndb"))
        (site.root / "feed/more.ndb").write_text(MORE)
        mirror.files["/test.ndb"] = MORE.encode()
        definitions(site)
        mirror.refuse = 429
        assert definitions(site)["freshclam"]["outcome"] == "cool-down"
        (site.root / "feed/more.ndb").unlink()
        result = definitions(site, status=1)
        assert (result["freshclam"]["outcome"], result["freshclam"]["status"]) == ("failed", 14)


def test_a_file_that_is_not_there_is_a_failure(site):
    definitions(site)
    (site.root / "feed/test.ndb").unlink()
    result = definitions(site, status=1)
    assert (result["freshclam"]["outcome"], result["freshclam"]["status"]) == ("failed", 14)


def test_a_file_that_is_older_than_our_copy_and_differs_is_taken_all_the_same(site):
    definitions(site)
    site.feed(MORE)
    os.utime(site.root / "feed/test.ndb", (1_000_000_000, 1_000_000_000))  # as cp -p leaves it
    assert definitions(site)["freshclam"]["outcome"] == "changed"
    assert (site.databases / "test.ndb").read_text() == MORE


def test_over_http_only_what_was_modified_is_fetched(site):
    with serving() as mirror:
        custom(site, f"{mirror.url}/test.ndb")
        mirror.files["/test.ndb"] = MORE.encode()
        mirror.times["/test.ndb"] = time.time() - 1000
        definitions(site)
        before = (site.databases / "test.ndb").stat()
        assert definitions(site)["freshclam"]["outcome"] == "unchanged"
        assert (site.databases / "test.ndb").stat() == before, "304"
        mirror.files["/test.ndb"] = NEW.encode()
        mirror.times["/test.ndb"] = time.time() + 1000
        assert definitions(site)["freshclam"]["outcome"] == "changed"


def test_every_kind_of_database_comes_by_http_and_by_file_readable_for_all(site):
    kinds = {"a.ndb": MORE, "b.hdb": f"{'0' * 32}:5:Test.Hash\n",
             "c.yar": "rule a { condition: false }",
             "d.ldb": "Test.L;Target:0;0;6162636465\n", "e.ign2": "Test.Ignored\n",
             "f.fp": f"{'1' * 32}:5:Test.Good\n", "g.cdb": "Test.C:*:*:x\\.exe:*:*:*:*:*:*\n"}
    with serving() as mirror:
        for name, text in kinds.items():
            mirror.files[f"/{name}"] = text.encode()
            (site.root / "feed" / f"file-{name}").write_text(text)
        custom(site, *(f"{mirror.url}/{name}" for name in kinds),
               *(f"file://{site.root}/feed/file-{name}" for name in kinds))
        result = definitions(site)
    wanted = {*kinds, *(f"file-{name}" for name in kinds)}
    assert {one["name"] for one in result["databases"]} == wanted
    for name in wanted:
        assert stat.S_IMODE((site.databases / name).stat().st_mode) == 0o644, name


def test_https_is_fetched_and_its_certificate_verified(site):
    context, authority = certified(site.root)
    with serving() as mirror:
        mirror.files["/test.ndb"] = MORE.encode()
        with tls(context, mirror.url) as port:
            custom(site, f"https://localhost:{port}/test.ndb")
            result = definitions(site, status=1)
            assert result["freshclam"]["status"] == 5, "nobody vouches for it"
            with Namespace(f"mount --bind {authority} /etc/ssl/certs/ca-certificates.crt") as room:
                ended = site.run("update-definitions", "--no-rescan", "--json", wrap=room.wrap)
            assert (ended.status, ended.json["freshclam"]["outcome"]) == (0, "changed"), ended


def certified(place):
    """A server's TLS context, and the file of the authority that vouches for it."""
    certificate, key = place / "cert.pem", place / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    certificate.chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


class tls:  # noqa: N801 - used as a block
    """Speaks TLS before a mirror."""

    def __init__(self, context, url):
        import socketserver  # noqa: PLC0415
        import urllib.request  # noqa: PLC0415

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                try:
                    with context.wrap_socket(self.request, server_side=True) as link:
                        words = link.recv(65536).split(b" ")
                        with urllib.request.urlopen(url + words[1].decode()) as answer:
                            body = answer.read()
                        link.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d"
                                     b"\r\n\r\n%s" % (len(body), body))
                except OSError:
                    return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self):
        self._thread.start()
        return self._server.server_address[1]

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_a_url_that_clamd_would_not_load_is_named_and_the_others_are_fetched(site):
    with serving() as mirror:
        mirror.files |= {"/list": MORE.encode(), "/test.ndb": MORE.encode(),
                         "/twice/test.ndb": NEW.encode()}
        custom(site, f"{mirror.url}/list?key=0123456789abcdef0123", f"{mirror.url}/ok.ndb",
               f"{mirror.url}/test.ndb", f"{mirror.url}/twice/test.ndb")
        mirror.files["/ok.ndb"] = MORE.encode()
        ended = site.run("update-definitions", "--no-rescan", "--json")
    assert (ended.status, ended.err.count("\n")) == (1, 3), ended
    assert "would store it as list?key=***, which clamd does not load" in ended.err
    assert "0123456789" not in ended.err
    assert "twice/test.ndb: another URL is stored as test.ndb, too" in ended.err
    assert [one["name"] for one in ended.json["databases"]] == ["ok.ndb"]
    assert ended.json["freshclam"]["outcome"] == "changed"


def test_secrets_in_urls_reach_neither_log_nor_result_nor_command_line(site):
    token, password = "0123456789abcdef0123456789", "hunter2secret"
    with serving() as mirror:
        address = mirror.url.removeprefix("http://")
        url = f"http://me:{password}@{address}/get/{token}/test.ndb"
        custom(site, url)
        mirror.gate.clear()
        mirror.refuse = 404
        with subprocess.Popen(site.command("update-definitions", "--json", "-v"), cwd="/",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={"PATH": "/usr/bin:/bin"}) as job:
            while not mirror.asked:
                assert job.poll() is None
            words = b"\n".join(path.read_bytes() for path in commands())
            mirror.gate.set()
            out, err = job.communicate(timeout=60)
        logged = (site.root / "logs/definitions.log").read_bytes()
    assert b"Can't download test.ndb" in logged
    for place in (words, out, err, logged):
        assert token.encode() not in place
        assert password.encode() not in place


def commands():
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            entry.read_bytes()
        except OSError:
            continue
        yield entry


# --- a freshclam.conf to begin with


def test_proxy_mirror_and_custom_urls_of_a_given_freshclam_conf_count_and_nothing_else(site):
    with serving() as mirror, proxying() as proxy:
        mirror.files["/test.ndb"] = MORE.encode()
        site.settings["definitions"] = {"official": False}
        marks = [site.root / name for name in ("updated", "failed", "log", "pid", "elsewhere")]
        base(site, "# a comment", f"DatabaseMirror {mirror.url}",
             f'DatabaseCustomURL "{mirror.url}/test.ndb"', "HTTPProxyServer http://127.0.0.1",
             f"HTTPProxyPort {proxy.port}", "HTTPProxyUsername me", "HTTPProxyPassword hunter2",
             f"OnUpdateExecute touch {marks[0]}", f"OnErrorExecute touch {marks[1]}",
             f"UpdateLogFile {marks[2]}", f"PidFile {marks[3]}", f"DatabaseDirectory {marks[4]}",
             "DatabaseOwner clamav", "NotifyClamd /etc/clamav/clamd.conf", "Checks 24",
             "TestDatabases no", "LogSyslog yes", "ReceiveTimeout 0")
        result = definitions(site)
    assert result["freshclam"]["outcome"] == "changed"
    assert (site.databases / "test.ndb").read_text() == MORE
    assert not [mark for mark in marks if mark.exists()]
    assert proxy.targets == [mirror.url.removeprefix("http://")]
    assert proxy.allowed == ["Basic bWU6aHVudGVyMg=="]  # me:hunter2


def test_the_environments_proxy_is_not_ours(site, monkeypatch):
    with serving() as mirror:
        mirror.files["/test.ndb"] = MORE.encode()
        custom(site, f"{mirror.url}/test.ndb")
        ran = subprocess.run(
            site.command("update-definitions", "--no-rescan"), cwd="/", check=False,
            env={"PATH": "/usr/bin:/bin", "http_proxy": "http://127.0.0.1:9",
                 "https_proxy": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9"})
    assert ran.returncode == 0


@pytest.mark.parametrize("fault", ["missing", "unknown option"])
def test_a_freshclam_conf_that_cannot_be_used_is_one_line(site, fault):
    base(site, *(["Nonsense 1"] if fault == "unknown option" else []))
    if fault == "missing":
        (site.root / "base.conf").unlink()
    ended = site.run("update-definitions", "--no-rescan", "--json")
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    if fault == "missing":
        assert f"freshclam_config: {site.root}/base.conf: No such file" in ended.err
        assert ended.json["freshclam"]["status"] is None
    else:
        assert ended.json["freshclam"]["status"] == 2
        assert ended.err.endswith("it could not start (Unknown option Nonsense)\n")


# --- official, signed databases


@pytest.fixture
def mirrored(site):
    """A site that has version 1 of all three from a mirror of its own."""
    with serving() as mirror:
        for name in STANDARD:
            mirror.publish(SIGNED, name, 1)
        official(site, mirror)
        assert definitions(site)["freshclam"]["outcome"] == "changed"
        mirror.asked.clear()
        yield mirror


def versions(result):
    return {one["name"]: (one["from"], one["to"]) for one in result["databases"]}


@pytest.mark.usefixtures("mirrored")
class TestOfficial:
    """Under the names daily, main and bytecode."""

    pytestmark = signed

    def test_they_are_known_by_version_and_build_time(self, site, mirrored):
        again = definitions(site)
        assert (again["changed"], again["freshclam"]["outcome"]) == (False, "unchanged")
        assert all(re.fullmatch(r"2021-06-\d\dT.*Z", one["built"]) for one in again["databases"])
        mirrored.publish(SIGNED, "daily", 3)
        third = definitions(site)
        assert third["changed"]
        assert versions(third) == {"daily": (1, 3), "main": (1, 1), "bytecode": (1, 1)}

    @pytest.mark.parametrize(("fault", "status"), [
        ("gone", 11), ("main gone", 11), ("cut", 11), ("damaged", 7), ("half", 7), ("junk", 11),
        ("patches", 7), ("down", 11)])
    def test_a_mirror_that_fails_changes_nothing_and_the_next_run_heals(
            self, site, mirrored, fault, status):
        before = content(site.databases)
        for name in STANDARD:
            mirrored.publish(SIGNED, name, 4)
        good = dict(mirrored.files)
        daily = good["/daily.cvd"]
        if fault == "patches":  # made for another name: freshclam cannot apply them
            mirrored.files |= {f"/daily-{at}.cdiff": (SIGNED / f"test-{at}.cdiff").read_bytes()
                               for at in (2, 3, 4)}
        else:
            mirrored.files["/daily.cvd"] = {
                "damaged": daily[:3000] + bytes([daily[3000] ^ 1]) + daily[3001:],
                "half": daily[:len(daily) // 2], "junk": b"<html>welcome to this hotel</html>" * 50,
            }.get(fault, daily)
        if fault == "gone":
            mirrored.files.clear()
        if fault == "main gone":
            mirrored.files = {"/daily.cvd": (SIGNED / "test-1.cvd").read_bytes()}
        mirrored.cut = fault == "cut"
        mirrored.refuse = 503 if fault == "down" else 0
        result = definitions(site, status=1)
        assert (result["freshclam"]["outcome"], result["freshclam"]["status"]) == ("failed", status)
        assert (result["changed"], result["generation"]) == (False, 1)
        assert content(site.databases) == before
        mirrored.files, mirrored.cut, mirrored.refuse = good, False, 0
        healed = definitions(site)
        assert (healed["freshclam"]["outcome"], healed["generation"]) == ("changed", 2)
        assert versions(healed) == dict.fromkeys(STANDARD, (1, 4))

    @pytest.mark.parametrize("body", [b"", b"<html>not for you</html>"])
    @pytest.mark.parametrize(("refusal", "hours"), [(403, 24), (429, 4)])
    def test_one_that_refuses_us_is_asked_once_and_when_the_time_is_over(
            self, site, mirrored, refusal, hours, body):
        before = content(site.databases)
        uuid = (site.databases / "freshclam.dat").read_bytes()[:60]
        mirrored.refuse, mirrored.body = refusal, body
        first = definitions(site)
        assert first["freshclam"]["status"] == 11, "which says nothing of a refusal"
        assert not any("cool-down" in line for line in first["freshclam"]["last_lines"])
        mirrored.refuse = 0
        for name in STANDARD:
            mirrored.publish(SIGNED, name, 4)
        mirrored.asked.clear()
        second = definitions(site)
        assert (second["freshclam"]["status"], mirrored.asked) == (0, [])
        for result in (first, second):
            assert result["freshclam"]["outcome"] == "cool-down"
            assert re.fullmatch(r"20\d\d-.*Z", result["freshclam"]["until"])
            assert (result["changed"], result["outcome"]) == (False, "done")
        assert 0 < hours * 3600 - (cooled(site.databases) - time.time()) < 60
        assert content(site.databases) == before
        assert (site.databases / "freshclam.dat").read_bytes()[:60] == uuid
        end_cool_down(site.databases)
        healed = definitions(site)
        assert (healed["freshclam"]["outcome"], healed["freshclam"]["until"]) == ("changed", None)
        assert versions(healed) == dict.fromkeys(STANDARD, (1, 4))

    def test_a_cool_down_fails_when_the_definitions_are_too_old(self, site, mirrored):
        mirrored.refuse = 429
        assert definitions(site)["freshclam"]["outcome"] == "cool-down"
        site.settings["definitions"]["fail_age"] = "30d"
        site.write_config()
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.json["freshclam"]["outcome"]) == (1, "cool-down")
        assert "the mirror refuses us and the definitions are" in ended.json["error"]

    def test_an_old_daily_is_said_whatever_else_is_new(self, site, mirrored):
        assert site.run("update-definitions", "--no-rescan").err == ""
        site.settings["definitions"]["fail_age"] = "30d"
        site.write_config()
        ended = site.run("update-definitions", "--no-rescan")
        assert ended.status == 0
        assert re.search(r"the definitions are \d{4}\.\d days old \(built 2021-06-22T", ended.err)

    def test_an_older_version_is_not_taken(self, site, mirrored):
        mirrored.publish(SIGNED, "daily", 3)
        definitions(site)
        mirrored.publish(SIGNED, "daily", 1)
        back = definitions(site)
        assert (back["freshclam"]["outcome"], back["generation"]) == ("unchanged", 2)
        assert versions(back)["daily"] == (3, 3)

    def test_one_version_behind_without_its_patch_it_waits_and_two_behind_it_takes_the_whole(
            self, site, mirrored):
        mirrored.publish(SIGNED, "daily", 2)
        waits = definitions(site)
        assert (waits["freshclam"]["outcome"], waits["freshclam"]["status"]) == ("unchanged", 0)
        mirrored.publish(SIGNED, "daily", 3)
        assert versions(definitions(site))["daily"] == (1, 3)

    def test_a_container_of_somebody_else_is_not_pruned(self, site, mirrored):
        shutil.copyfile(SIGNED / "test-2.cvd", site.databases / "extra.cvd")
        result = definitions(site)
        assert versions(result)["extra"] == (None, 2)
        assert (site.databases / "extra.cvd").exists()

    def test_a_refusing_source_of_others_holds_the_official_ones_up_for_a_day_at_most(
            self, site, mirrored):
        with serving() as other:
            site.settings["definitions"]["custom_urls"] = [f"{other.url}/test.ndb"]
            site.write_config()
            other.refuse = 403
            ended = site.run("update-definitions", "--no-rescan", "--json")
            assert (ended.status, ended.json["freshclam"]["status"]) == (0, 17)
            assert ended.json["freshclam"]["outcome"] == "cool-down"
            assert f"{other.url}/test.ndb refuses us until 20" in ended.err
            until, asked = cooled(site.databases), list(other.asked)
            mirrored.publish(SIGNED, "daily", 3)
            mirrored.asked.clear()
            assert definitions(site)["freshclam"]["outcome"] == "cool-down"
            assert (cooled(site.databases), other.asked, mirrored.asked) == (until, asked, [])
            assert f"not asked during the cool-down: {other.url}/test.ndb" in (
                site.root / "logs/definitions.log").read_text()
            end_cool_down(site.databases)
            assert versions(definitions(site))["daily"] == (1, 3)

    def test_a_damaged_one_is_named_and_not_booked(self, site, mirrored):
        damaged = site.databases / "daily.cvd"
        damaged.write_bytes(damaged.read_bytes()[:-100])
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.err.count("\n")) == (1, 1)
        assert f"{damaged}: damaged" in ended.err
        assert "remove it and run update-definitions" in ended.err
        assert told(site)["definitions"]["generation"] == 1
        damaged.unlink()
        assert definitions(site)["generation"] == 1, "and so it heals"

    @pytest.mark.parametrize(("packed", "unpacked_one", "stale"), [
        (1, 3, "daily.cvd"), (3, 1, "daily.cld"), (3, 3, "daily.cld")])
    def test_a_second_one_of_a_name_is_noticed(self, site, mirrored, packed, unpacked_one, stale):
        shutil.copyfile(SIGNED / f"test-{packed}.cvd", site.databases / "daily.cvd")
        (site.databases / "daily.cld").write_bytes(unpacked(unpacked_one))
        ended = site.run("update-definitions", "--no-rescan", "--json")
        assert (ended.status, ended.err.count("\n")) == (0, 1), ended
        notice, = ended.json["notices"]
        assert notice.startswith(f"{site.databases}/{stale} (version")
        assert ended.err == f"update-definitions: {notice}\n"
        assert versions(ended.json)["daily"] == (1, 3), "clamd takes the newer one"
        (site.databases / stale).unlink()
        assert definitions(site)["notices"] == []


@pytest.mark.may_skip("ClamAV's signed test databases are not ours to ship")
@needs_signed
def test_patches_make_a_cld_that_replaces_the_cvd(site):
    with serving() as mirror:
        mirror.publish(SIGNED, "test", 1)
        official(site, mirror, *(f"ExcludeDatabase {name}" for name in STANDARD),
                 "ExtraDatabase test")
        assert versions(definitions(site)) == {"test": (None, 1)}
        mirror.publish(SIGNED, "test", 4)
        mirror.files |= {f"/test-{at}.{kind}": (SIGNED / f"test-{at}.{kind}").read_bytes()
                         for at in (2, 3, 4) for kind in ("cdiff", "cdiff.sign")}
        mirror.asked.clear()
        patched = definitions(site)
    assert versions(patched) == {"test": (1, 4)}
    assert list(content(site.databases)) == ["test.cld"]
    assert mirror.asked.count("/test.cvd") == 1, "only its header"


@not_shipped
@needs_signed
def test_signed_databases_may_come_as_files_and_what_went_back_is_said(site):
    """A host without a network: somebody carries them there."""
    custom(site, *(f"file://{site.root}/feed/{name}.cvd" for name in STANDARD),
           fail_age="36500d")

    def bring(name, version):
        shutil.copyfile(SIGNED / f"test-{version}.cvd", site.root / f"feed/{name}.cvd")

    for name in STANDARD:
        bring(name, 1)
    assert versions(definitions(site)) == dict.fromkeys(STANDARD, (None, 1))
    bring("daily", 3)
    assert versions(definitions(site))["daily"] == (1, 3)
    with (site.root / "feed/main.cvd").open("r+b") as file:
        file.seek(3000)
        file.write(b"damage")
    result = definitions(site, status=1)
    assert (result["freshclam"]["status"], result["changed"]) == (8, False)
    assert "main.cvd: Can't verify database integrity)" in result["error"]
    bring("main", 1)
    bring("daily", 1)
    ended = site.run("update-definitions", "--no-rescan")
    assert (ended.status, ended.err) == (
        0, "update-definitions: daily went back from version 3 to 1\n")
