"""import-template against frontends that are not what they should be."""

import io
import json
import os
import subprocess
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest

from maintenance.template_import import main

pytestmark = pytest.mark.once

IMPORT = Path(__file__).resolve().parent.parent / "zabbix/import-template"
TOKEN = "0123456789abcdef" * 4


def run(*arguments, token=TOKEN):
    """Run it as the script does; it never tells the token."""
    said, complained = io.StringIO(), io.StringIO()
    with (mock.patch.dict(os.environ, {} if token is None else {"ZABBIX_TOKEN": token}),
          redirect_stdout(said), redirect_stderr(complained)):
        try:
            status = main("import-template", [str(one) for one in arguments])
        except SystemExit as end:
            status = end.code
    done = subprocess.CompletedProcess([], status, said.getvalue(), complained.getvalue())
    assert TOKEN not in done.stdout + done.stderr
    return done


@contextmanager
def frontend(answer):
    """A web server on which ``answer`` says status, headers and body for a request."""
    class Talk(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.path, dict(self.headers), body))
            status, headers, told = answer(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.encode())

        def log_message(self, *words):
            pass

    heard: list = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Talk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/zabbix", heard
        finally:
            server.shutdown()
            thread.join()


def zabbix(version, **results):
    """A frontend of ``version`` that has ``results`` for methods, and true for all others."""
    def answer(body):
        told = {"apiinfo.version": version, **results}.get(body["method"], True)
        return 200, {}, json.dumps({"jsonrpc": "2.0", "id": 1, "result": told})
    return answer


def refuses(done, *words):
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(("version", "header", "groups"), [
    ("6.0.14", False, {"groups"}), ("6.2.1", False, {"template_groups", "host_groups"}),
    ("6.4.0", True, {"template_groups", "host_groups"}),
    ("7.0.22", True, {"template_groups", "host_groups"})])
def test_each_version_is_spoken_to_in_its_own_way(version, header, groups):
    with frontend(zabbix(version)) as (url, heard):
        done = run(url + "/")
    assert (done.returncode, done.stderr) == (0, "")
    assert version in done.stdout
    assert {path for path, _, _ in heard} == {"/zabbix/api_jsonrpc.php"}
    assert [body["method"] for _, _, body in heard] == [
        "apiinfo.version", "configuration.import", "configuration.import"]
    assert ("auth" in heard[0][2], "Authorization" in heard[0][1]) == (False, False)
    for _, headers, body in heard[1:]:
        assert (headers.get("Authorization") == f"Bearer {TOKEN}") is header
        assert (body.get("auth") == TOKEN) is not header
        rules = body["params"]["rules"]
        assert {name for name in rules if name.endswith("groups")} == groups
    first, second = (body["params"]["rules"] for _, _, body in heard[1:])
    assert "deleteMissing" not in first["items"], "first nothing is removed"
    assert second["items"]["deleteMissing"] is True
    assert "deleteMissing" not in second["templates"]


@pytest.mark.parametrize("version", ["5.0.30", "5.4.0", "", "nonsense"])
def test_a_zabbix_that_is_too_old_is_told_so(version):
    with frontend(zabbix(version)) as (url, heard):
        refuses(run(url), "needs 6.0")
    assert len(heard) == 1


def test_a_redirect_does_not_take_the_token_elsewhere():
    with frontend(zabbix("6.0.0")) as (other, heard), frontend(
            lambda _: (301, {"Location": other + "/\x1b[31m"}, "moved")) as (url, _):
        refuses(run(url), "301", other, "\\u{1b}")
    assert heard == []


@pytest.mark.parametrize(("told", "words"), [
    ("<html>", ["not as Zabbix's API"]), ("[]", ["no answer of Zabbix's API"]),
    ('{"error": "x"}', ["no answer of Zabbix's API"]), ("", ["not as Zabbix's API"]),
    ('{"error": {"message": "Invalid", "data": "No \\u001b\\npermissions"}}',
     ["Invalid No \\u{1b}\\u{a}permissions"])])
def test_what_is_no_result_is_one_line(told, words):
    with frontend(lambda _: (200, {}, told)) as (url, _):
        refuses(run(url), *words)


@pytest.mark.parametrize(("url", "word"), [
    ("http://127.0.0.1:1/zabbix", "Connection refused"), ("nothing", "nothing"),
    ("http://no-such-host.invalid", "no-such-host"), ("ftp://127.0.0.1", "ftp")])
def test_what_cannot_be_reached_is_one_line(url, word):
    refuses(run(url), word)


def test_a_host_is_made_once_and_its_group_too():
    answers = zabbix("7.0.0", **{
        "template.get": [{"templateid": "7"}], "host.get": [], "hostgroup.get": [],
        "hostgroup.create": {"groupids": ["9"]}})
    with frontend(answers) as (url, heard):
        assert run(url, "--host", "web1", "--group", "Sites").stdout.endswith("web1: made\n")
    made = {body["method"]: body["params"] for _, _, body in heard}
    assert made["hostgroup.create"] == {"name": "Sites"}
    assert made["host.create"] == {"host": "web1", "templates": [{"templateid": "7"}],
                                   "groups": [{"groupid": "9"}]}


@pytest.mark.parametrize(("linked", "told"), [
    ([], "linked"), ([{"templateid": "8"}], "linked"),
    ([{"templateid": "8"}, {"templateid": "7"}], "has it already")])
def test_a_host_that_is_there_keeps_what_it_has(linked, told):
    answers = zabbix("6.0.0", **{
        "template.get": [{"templateid": "7"}],
        "host.get": [{"hostid": "3", "parentTemplates": linked}]})
    with frontend(answers) as (url, heard):
        assert run(url, "--host", "web1").stdout.endswith(f"web1: {told}\n")
    added = [body["params"] for _, _, body in heard if body["method"] == "host.massadd"]
    assert added == ([{"hosts": [{"hostid": "3"}], "templates": [{"templateid": "7"}]}]
                     if told == "linked" else [])


def test_the_token_comes_from_a_file_that_nobody_else_can_read(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    with frontend(zabbix("6.0.0")) as (url, heard):
        assert run(url, "--token-file", file, token=None).returncode == 0
        assert heard[1][2]["auth"] == TOKEN
        file.chmod(0o640)
        refuses(run(url, "--token-file", file, token=None), "chmod 600")
        refuses(run(url, "--token-file", tmp_path / "none", token=None), "No such file")
    assert len(heard) == 3


@pytest.mark.parametrize("token", [None, "", "two words", "line\nend"])
def test_without_a_token_nothing_is_asked(token):
    with frontend(zabbix("6.0.0")) as (url, heard):
        refuses(run(url, token=token), "$ZABBIX_TOKEN")
    assert heard == []


def test_it_has_no_option_for_the_token_and_explains_itself():
    done = run("--help")
    assert done.returncode == 0
    assert "--token-file" in done.stdout
    assert run("http://127.0.0.1:1", "--token", "x").returncode == 2
    assert run().returncode == 2


def test_it_runs_from_anywhere_through_a_link(tmp_path):
    link = tmp_path / "a link"
    link.symlink_to(IMPORT)
    done = subprocess.run(["env", "-i", link, "--version"], cwd="/", capture_output=True,
                          text=True, check=False)
    assert done.stdout.startswith("imagewarden ")
    assert os.access(IMPORT, os.X_OK)
