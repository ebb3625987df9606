"""The configuration file: found, trusted, understood, shown; and its documents agree."""

import json
import os
import pwd
import re
import subprocess
import sys
import tempfile
import tomllib
import traceback
from pathlib import Path

import msgspec
import pytest
import tomli_w

from maintenance import config as module
from maintenance.config import SECTIONS, job_user, load, parse
from maintenance.errors import ConfigError, Exit
from maintenance.masking import masked
from maintenance.settings import Config, Store

ROOT = Path(__file__).parent.parent
NOBODY = 65534
MINIMAL = """
state = "/var/lib/imagewarden"
[[store]]
name = "uploads"
path = "/srv/uploads"
"""
root_only = [
    pytest.mark.may_skip("only root can give files to others"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others"),
]


@pytest.fixture
def place():
    """A directory that every user can enter, below root's sticky /tmp as pytest's own is."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture
def file(place):
    path = place / "imagewarden.toml"
    path.write_text(MINIMAL)
    path.chmod(0o644)
    return path


def line_of(function, *arguments):
    """The one line with which a call is refused."""
    with pytest.raises(ConfigError) as refused:
        function(*arguments)
    line = str(refused.value)
    assert line.isprintable()
    assert refused.value.status is Exit.CONFIG
    return line


def unprivileged(function):
    """Run a test's body as a user who is not root: in a child process, when we are root."""
    if os.geteuid() != 0:
        function()
        return
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            function()
            status = 0
        finally:  # whatever happened, the child must not come back and run the other tests
            if status:
                traceback.print_exc()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- found


def test_the_argument_wins_over_the_environment_and_that_over_the_usual_place(file, monkeypatch):
    other = file.with_name("other.toml")
    other.write_text(MINIMAL.replace("/var/lib/imagewarden", "/other"))
    other.chmod(0o600)
    monkeypatch.setattr(module, "USUAL", str(file))
    monkeypatch.delenv("IMAGEWARDEN_CONFIG", raising=False)
    assert load(None).state == Path("/var/lib/imagewarden")
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(other))
    assert load(None).state == Path("/other")
    assert load(str(file)).state == Path("/var/lib/imagewarden")
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", "")
    assert load(None).state == Path("/var/lib/imagewarden")


def test_a_missing_file_is_told_with_where_we_looked_and_what_to_do(place, file, monkeypatch):
    absent = place / "no\nsuch"
    shown = f"{place}/no\\u{{a}}such"
    advice = ("No such file or directory; copy docs/imagewarden.example.toml there, "
              "or name another by --config")
    monkeypatch.setattr(module, "USUAL", str(file))
    assert line_of(load, str(absent)) == f"{shown} (--config): {advice}"
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", str(absent))
    assert line_of(load, None) == f"{shown} ($IMAGEWARDEN_CONFIG): {advice}"
    monkeypatch.delenv("IMAGEWARDEN_CONFIG")
    monkeypatch.setattr(module, "USUAL", str(absent))
    assert line_of(load, None) == f"{shown} (no --config, no $IMAGEWARDEN_CONFIG): {advice}"


def test_a_relative_name_is_found_from_the_working_directory(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("IMAGEWARDEN_CONFIG", "./imagewarden.toml")
    assert load("imagewarden.toml") == load(None)


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_refused_without_waiting(place):
    os.mkfifo(place / "fifo", 0o600)
    for odd in (place / "fifo", place, Path("/dev/null")):
        assert line_of(load, str(odd)).startswith(f"{odd} (--config): not a regular file; ")


def test_a_file_that_is_not_utf8_is_refused_with_the_line(file):
    file.write_bytes(b'user = "a"\n# caf\xe9\n')
    assert line_of(load, str(file)) == f"{file}: line 2 is not UTF-8"


def test_no_descriptor_is_left_open(file):
    before = len([*Path("/proc/self/fd").iterdir()])
    load(str(file))
    line_of(load, str(file.parent))
    assert len([*Path("/proc/self/fd").iterdir()]) == before


# --- trusted


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622, 0o666])
def test_a_file_others_can_write_is_refused_with_the_repair(file, mode):
    file.chmod(mode)
    line = f"{file}: group or others can write it: chmod go-w {file}"
    assert line_of(load, str(file)) == line
    file.chmod(mode & ~0o022)
    assert load(str(file)).store


def test_what_is_checked_is_the_file_that_was_opened(file, monkeypatch):
    loose = file.with_name("loose.toml")
    loose.write_text(MINIMAL)
    loose.chmod(0o666)
    opened = os.open

    def swap_after_open(name, *arguments, **more):
        descriptor = opened(name, *arguments, **more)
        file.replace(loose)  # from now on the name leads to a file that is fine
        return descriptor

    monkeypatch.setattr(os, "open", swap_after_open)
    assert "group or others can write it" in line_of(load, str(loose))


def test_an_unprivileged_job_may_read_anybodys_file(place):
    def body():
        own = Path(tempfile.mkdtemp(), "own.toml")
        own.write_text(MINIMAL)
        own.chmod(0o600)
        own.parent.chmod(0o777)  # noqa: S103
        try:
            assert load(str(own)).store
            assert job_user(load(str(own))) is None
        finally:
            own.unlink()
            own.parent.rmdir()

    unprivileged(body)


def test_started_by_root_a_file_of_somebody_else_is_refused(file, monkeypatch):
    if os.geteuid() == 0:
        os.chown(file, NOBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    line = f"{file}: not root's, but root starts us: chown root {file}"
    assert line_of(load, str(file)) == line


def test_started_by_root_a_file_that_only_root_can_change_is_read(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert line_of(load, "/etc/passwd").startswith("/etc/passwd: not TOML: ")


def test_started_by_root_a_symlink_of_somebody_else_is_refused(place, monkeypatch):
    link = place / "link.toml"
    link.symlink_to("/etc/passwd")
    if os.geteuid() == 0:
        os.chown(link, NOBODY, -1, follow_symlinks=False)
        culprit = link
    else:
        # The first directory that is our own, from the root down, comes first.
        culprit = next(one for one in [*reversed(place.parents), place]
                       if one.lstat().st_uid != 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert line_of(load, str(link)) == (f"{link}: root starts us, but {culprit} on its way is "
                                        f"not root's: chown -h root {culprit}")


class TestStartedByRoot:
    """What only root can set up, because it needs files of two owners."""

    pytestmark = root_only

    def test_a_directory_of_somebody_else_is_refused(self, file):
        os.chown(file.parent, NOBODY, -1)
        assert line_of(load, str(file)) == (
            f"{file}: root starts us, but {file.parent} on its way is not root's: "
            f"chown -h root {file.parent}")

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
    def test_a_directory_others_can_write_is_refused_however_far_up(self, place, mode):
        deep = place / "loose" / "tight" / "imagewarden.toml"
        deep.parent.mkdir(parents=True)
        deep.write_text(MINIMAL)
        deep.parent.parent.chmod(mode)
        assert line_of(load, str(deep)) == (
            f"{deep}: root starts us, but {place}/loose on its way is writable by group or others: "
            f"chmod go-w {place}/loose")

    def test_a_sticky_directory_is_fine_while_what_lies_in_it_is_roots(self, file):
        file.parent.chmod(0o1777)
        assert load(str(file)).store
        os.chown(file, NOBODY, -1)
        assert "not root's" in line_of(load, str(file))

    def test_a_sticky_directory_of_somebody_else_is_refused(self, file):
        file.parent.chmod(0o1777)
        os.chown(file.parent, NOBODY, -1)
        assert f"{file.parent} on its way is not root's" in line_of(load, str(file))

    def test_roots_symlink_to_roots_file_is_followed(self, place, file):
        (place / "deep").mkdir()
        (place / "deep" / "link.toml").symlink_to("../imagewarden.toml")
        (place / "dir").symlink_to(place / "deep")
        assert load(str(place / "dir" / "link.toml")) == load(str(file))
        assert load(str(place / "dir" / ".." / "imagewarden.toml")) == load(str(file))

    @pytest.mark.parametrize("absolute", [True, False])
    def test_a_symlink_is_refused_when_others_can_turn_round_one_in_the_middle(
            self, place, file, absolute):
        eve = place / "eve"
        eve.mkdir()
        (eve / "link").symlink_to(file)
        os.chown(eve, NOBODY, -1)
        (place / "first").symlink_to(eve / "link" if absolute else "eve/link")
        assert f"{eve} on its way is not root's" in line_of(load, str(place / "first"))

    def test_a_relative_name_is_judged_with_the_directories_above(self, file, monkeypatch):
        monkeypatch.chdir(file.parent)
        os.chown(file.parent, NOBODY, -1)
        assert f"{file.parent} on its way is not root's" in line_of(load, "imagewarden.toml")


# --- whom to become


def with_user(name):
    return parse(f'user = "{name}"\n{MINIMAL}')


def test_started_by_root_a_job_needs_to_be_told_whom_to_become(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert job_user(with_user("nobody")) == pwd.getpwnam("nobody")
    assert job_user(with_user("root")) == pwd.getpwnam("root")
    assert line_of(job_user, parse(MINIMAL)) == (
        'user: required when root starts a job (it may be "root")')
    assert line_of(job_user, with_user("no-such-user")) == (
        "user: 'no-such-user' is not a user of this system")


def test_started_by_anybody_else_a_job_becomes_nobody_else():
    def body():
        assert job_user(parse(MINIMAL)) is None
        assert job_user(with_user("no-such-user")) is None

    unprivileged(body)


# --- understood

BAD = [
    ("[rescan]\ntime_limit = '4 apples'",
     'rescan.time_limit: \'4 apples\' is not a duration such as "90s", "10m", "4h" or "7d"'),
    ("[rescan]\nfull_every = '99999d'", "rescan.full_every: '99999d' is longer than \"36500d\""),
    ("[rescan]\ntime_limit = '4\\n'",
     'rescan.time_limit: \'4\\\\n\' is not a duration such as "90s", "10m", "4h" or "7d"'),
    ("[clamav]\ntimeout = 120",
     'clamav.timeout: 120 has the wrong type: expected a text such as "120s"'),
    ("[clamav]\ntimeout = true",
     'clamav.timeout: true has the wrong type: expected a text such as "120s"'),
    ("[clamav]\ntimeout = '0s'",
     "clamav.timeout: '0s' must be above zero and at most \"1d\""),
    ("[clamav]\nmax_file_size = 100",
     'clamav.max_file_size: 100 has the wrong type: expected a text such as "10M"'),
    ("[clamav]\nmax_file_size = '10 MB'",
     "clamav.max_file_size: '10 MB' is not a size such as \"10M\" or \"2G\""),
    ("[clamav]\nengine = 'sytem'",
     'clamav.engine: \'sytem\' is not allowed: expected one of "auto", "system", "private"'),
    ("[clamav]\nengine = 3",
     'clamav.engine: 3 has the wrong type: expected one of "auto", "system", "private"'),
    ("[clamav]\ndatabases = 'db'",
     "clamav.databases: 'db' is not an absolute path without \"..\""),
    ("[clamav]\ndatabases = '/a/../b'",
     "clamav.databases: '/a/../b' is not an absolute path without \"..\""),
    ("[clamav]\ndatabases = \"/a\\u0000\"",
     "clamav.databases: '/a\\x00' is not an absolute path without \"..\""),
    ("[clamav]\ndatabases = false",
     'clamav.databases: false has the wrong type: expected a text such as "/srv/uploads"'),
    ("[clamav]\nsocket = 'clamd.ctl'",
     "clamav.socket: 'clamd.ctl' is not allowed: expected a path, or such as "
     '"tcp://127.0.0.1:3310"'),
    ("[clamav]\nsocket = 'tcp://127.0.0.1:65536'",
     "clamav.socket: 'tcp://127.0.0.1:65536' is not allowed: expected a path, or such as "
     '"tcp://127.0.0.1:3310"'),
    ("[rescan]\nin_flight = true",
     "rescan.in_flight: true has the wrong type: expected a whole number, 0 or above"),
    ("[rescan]\nin_flight = 1.5",
     "rescan.in_flight: 1.5 has the wrong type: expected a whole number, 0 or above"),
    ("[rescan]\nin_flight = -1",
     "rescan.in_flight: -1 is not allowed: expected a whole number, 0 or above"),
    ("[rescan]\nwindow = '25:00-05:00'",
     "rescan.window: '25:00-05:00' is not allowed: expected a text such as \"03:00-05:30\""),
    ("[rescan]\nwindow = '03:00-03:00'",
     "rescan.window: '03:00-03:00' is not allowed: expected a text such as \"03:00-05:30\""),
    ("[optimize]\nwindow = 03:00:00",
     'optimize.window: a time has the wrong type: expected a text such as "03:00-05:30"'),
    ("[optimize]\nmax_load = nan",
     "optimize.max_load: nan is not allowed: expected a number, 0 or above"),
    ("[optimize]\nmax_load = false",
     "optimize.max_load: false has the wrong type: expected a number, 0 or above"),
    ("[optimize]\nmin_gain = 0.5",
     'optimize.min_gain: 0.5 has the wrong type: expected a text such as "0.5%"'),
    ("[optimize]\nmin_gain = '101%'", "optimize.min_gain: '101%' is more than 100%"),
    ("[optimize]\nkeep_metadata = ['icc', 'gps']",
     "optimize.keep_metadata[1]: 'gps' is not allowed: expected one of \"icc\", \"orientation\", "
     '"copyright", "exif", "xmp", "all"'),
    ("[upload]\ntypes = 'jpeg'", "upload.types: its value has the wrong type: expected a list"),
    ("[upload]\ntypes = []", "upload.types: at least one type is required"),
    ("[upload]\nmode = '4755'",
     "upload.mode: '4755' is not allowed: expected a text such as \"0644\""),
    ("[upload]\njpeg_quality = 101",
     "upload.jpeg_quality: 101 is not allowed: expected a whole number from 1 to 100"),
    ("[upload]\nenabled = 'no'",
     "upload.enabled: 'no' has the wrong type: expected true or false"),
    ("[upload]\nenabled = 1", "upload.enabled: 1 has the wrong type: expected true or false"),
    ("[zabbix]\nservers = ['a', 'b:99999']",
     "zabbix.servers[1]: 'b:99999' is not allowed: expected a text such as \"127.0.0.1:10051\""),
    ("[zabbix]\nhost = ['web1']", "zabbix.host: a list has the wrong type: expected a text"),
    ("[notify]\nheartbeat_urls = { rescn = 'https://h.example/secret' }",
     "notify.heartbeat_urls.rescn: unknown setting; did you mean notify.heartbeat_urls.rescan?"),
    ("[notify]\nheartbeat_urls = { rescan = 'secret' }",
     "notify.heartbeat_urls.rescan: its value is not allowed: expected an http URL"),
    ("[notify]\nheartbeat_urls = 'https://h.example/secret'",
     "notify.heartbeat_urls: its value has the wrong type: expected a table of URLs"),
    ("[notify]\npurge_url = 'ftp://secret'",
     'notify.purge_url: its value is not allowed: expected an http URL or ""'),
    ("[definitions]\ncustom_urls = 'https://u:secret@h.example/x'",
     "definitions.custom_urls: its value has the wrong type: expected a list"),
    ("[definitions]\nmirror = 'u:secret@h.example'",
     "definitions.mirror: its value is not allowed: expected a host or an http URL"),
    ("[hits]\ndatabase = 'u:secret@db'",
     "hits.database: its value is not allowed: expected a database URL"),
    ("[hits]\nspool_max = 0",
     "hits.spool_max: 0 is not allowed: expected a whole number above 0"),
    ("[schedule]\nrescan = 'every 0m'",
     'schedule.rescan: \'every 0m\' is not allowed: expected "every 5m" or "03:00"'),
    ("[schedule]\nrescan = '24:00'",
     'schedule.rescan: \'24:00\' is not allowed: expected "every 5m" or "03:00"'),
    ("[schedule]\nrescan = \"05:30\\n\"",
     'schedule.rescan: \'05:30\\n\' is not allowed: expected "every 5m" or "03:00"'),
    ("[rescan]\ntime_limt = '4h'",
     "rescan.time_limt: unknown setting; did you mean rescan.time_limit?"),
    ("[rescan]\n\"a\\nb\" = 1", "rescan.a\\u{a}b: unknown setting"),
    ("[rescann]", "rescann: unknown setting; did you mean rescan?"),
    ("[[rescan]]", "rescan: its value has the wrong type: expected a table of settings"),
    ("[[store]]\npath = '/srv/b'", "store[1].name: required, and has no default"),
    ("[[store]]\nname = 'b'", "store[1].path: required, and has no default"),
    ("[[store]]\nname = 'a/b'\npath = '/srv/b'",
     "store[1].name: 'a/b' is not allowed: expected 1 to 64 characters without \"/\""),
    ("[[store]]\nname = '..'\npath = '/srv/b'",
     "store[1].name: '..' is not allowed: expected 1 to 64 characters without \"/\""),
    ("[[store]]\nname = ''\npath = '/srv/b'",
     "store[1].name: '' is not allowed: expected 1 to 64 characters without \"/\""),
    ("[[store]]\nname = 'b'\npath = 'srv'",
     "store[1].path: 'srv' is not an absolute path without \"..\""),
    ("[[store]]\nname = 'b'\npath = ''",
     "store[1].path: '' is not an absolute path without \"..\""),
    ("[[store]]\nname = 'uploads'\npath = '/srv/b'",
     'store "uploads": name: another store has it too'),
    ("[[store]]\nname = 'b'\npath = '/srv/b'\nmax_side = 9",
     'store "b": originals: required for lossy steps'),
    ("from_files = {}", "store[0].from_files: unknown setting"),
    ("[from_files]", "from_files: unknown setting"),
    ("rubbish", "configuration: not TOML: Expected '=' after a key in a key/value pair "
                "(at line 6, the end)"),
    ("[rescan]\nwindow = '", "configuration: not TOML: Expected \"'\" (at line 7, the end)"),
    (f"[rescan]\nin_flight = {'9' * 5000}",
     "configuration: not TOML: too long a number or too deep a list"),
    (f"[rescan]\nin_flight = {'[' * 5000}",
     "configuration: not TOML: too long a number or too deep a list"),
]


@pytest.mark.parametrize(("lines", "complaint"), BAD, ids=[complaint[:60] for _, complaint in BAD])
def test_a_bad_setting_is_refused_in_one_line_that_names_it(lines, complaint):
    assert line_of(parse, MINIMAL + lines) == complaint


@pytest.mark.parametrize(("text", "complaint"), [
    ("", "state: required, and has no default"),
    ("state = '/s'", "store: required, and has no default"),
    ("state = '/s'\nstore = []", "store: at least one [[store]] is required"),
    ("state = '/s'\n[store]\nname = 'a'",
     "store: its value has the wrong type: expected tables, each headed [[store]]"),
    ("state = ''\n[[store]]", "state: '' is not an absolute path without \"..\""),
    ("state = 1\n[[store]]",
     'state: 1 has the wrong type: expected a text such as "/srv/uploads"'),
])
def test_without_its_required_settings_a_file_is_refused(text, complaint):
    assert line_of(parse, text) == complaint


def test_a_syntax_error_names_the_file_and_the_line(file):
    file.write_text("user = 'a'\nstate =\n")
    assert line_of(load, str(file)) == f"{file}: not TOML: Invalid value (at line 2, column 8)"


def test_everything_left_out_has_its_default():
    store = Store(name="uploads", path=Path("/srv/uploads"))
    assert parse(MINIMAL) == Config(state=Path("/var/lib/imagewarden"), store=(store,))


def test_an_empty_text_stands_for_no_path():
    config = parse('logs = ""' + MINIMAL + 'quarantine = ""\n[clamav]\ndatabases = ""')
    assert (config.logs, config.store[0].quarantine, config.clamav.databases) == (None,) * 3


def test_a_whole_number_will_do_for_a_load():
    load_limit = parse(MINIMAL + "[optimize]\nmax_load = 2").optimize.max_load
    assert (load_limit, type(load_limit)) == (2.0, float)


# --- secrets


def secret(place, content, name="secret", mode=0o600):
    path = place / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_is_the_content_of_its_file_less_one_newline(place):
    for content, value in ((b"web1\n", "web1"), (b"web1", "web1"), (b"web1\n\n", "web1\n"),
                           (b"", ""), (b"w\xc3\xa9b", "wéb")):
        text = f'{MINIMAL}[zabbix]\nhost = "@{secret(place, content)}"'
        assert parse(text, ["zabbix"]).zabbix.host == value


def test_any_text_can_come_from_a_file_whatever_it_means(place):
    def at(content):
        return f'"@{secret(place, content, content.hex())}"'

    config = parse(f"""
        user = {at(b"www-data")}
        state = {at(b"/state")}
        [[store]]
        name = {at(b"uploads")}
        path = {at(b"/srv/uploads")}
        exclude = ["a/**", {at(b"b")}]
        originals_keep = {at(b"1d")}
        [clamav]
        engine = {at(b"system")}
        databases = {at(b"/db")}
        max_file_size = {at(b"1M")}
        [optimize]
        min_gain = {at(b"1%")}
        keep_metadata = ["icc", {at(b"exif")}]
        [notify]
        heartbeat_urls = {{ rescan = {at(b"https://h.example/x")} }}
        """, SECTIONS)
    assert (config.user, config.state, config.store[0].name) == (
        "www-data", Path("/state"), "uploads")
    assert (config.store[0].path, config.store[0].exclude) == (Path("/srv/uploads"), ("a/**", "b"))
    assert config.store[0].originals_keep == 86400
    assert (config.clamav.engine, config.clamav.databases) == ("system", Path("/db"))
    assert (config.clamav.max_file_size, config.optimize.min_gain) == (2**20, 0.01)
    assert config.optimize.keep_metadata == ("icc", "exif")
    assert config.notify.heartbeat_urls == {"rescan": "https://h.example/x"}


EVERYWHERE = """
user = "@/no/user"
state = "@/no/state"
[[store]]
name = "@/no/name"
path = "@/no/path"
quarantine = "@/no/path/quarantine"
min_age = "@/no/age"
exclude = ["@/no/pattern"]
[clamav]
engine = "@/no/engine"
socket = "@/no/socket"
timeout = "@/no/timeout"
[definitions]
mirror = "@/no/mirror"
custom_urls = ["@/no/url", "file:///x"]
[rescan]
window = "@/no/window"
[optimize]
min_gain = "@/no/gain"
keep_metadata = ["exif", "@/no/metadata"]
[upload]
mode = "@/no/mode"
max_size = "@/no/size"
[zabbix]
servers = ["@/no/server"]
tls = "@/no/tls"
psk_identity = "@/no/identity"
[notify]
heartbeat_urls = { rescan = "@/no/heartbeat" }
[hits]
database = "@/no/database"
[schedule]
rescan = "@/no/times"
"""


def test_a_job_reads_no_secret_of_a_section_it_does_not_need():
    config = parse(EVERYWHERE)
    assert (config.user, config.hits.database) == ("@/no/user", "@/no/database")
    assert (config.state, config.store[0].path) == (Path("@/no/state"), Path("@/no/path"))
    assert config.definitions.custom_urls == ("@/no/url", "file:///x")
    assert config.notify.heartbeat_urls == {"rescan": "@/no/heartbeat"}
    assert (config.clamav.engine, config.clamav.timeout) == ("auto", 120)
    assert config.optimize.keep_metadata == ("icc", "orientation")


@pytest.mark.parametrize(("section", "setting"), [
    ("store", "user"), ("clamav", "clamav.engine"), ("definitions", "definitions.mirror"),
    ("rescan", "rescan.window"), ("optimize", "optimize.min_gain"), ("upload", "upload.mode"),
    ("zabbix", "zabbix.servers[0]"), ("notify", "notify.heartbeat_urls.rescan"),
    ("hits", "hits.database"), ("schedule", "schedule.rescan"),
])
def test_a_section_asked_for_has_its_secrets_read(section, setting):
    missing = tomllib.loads(EVERYWHERE)
    for part in re.findall(r"\w+", setting):
        missing = missing[int(part) if part.isdigit() else part]
    complaint = f"{setting}: {missing[1:]}: No such file or directory"
    assert line_of(parse, EVERYWHERE, [section]) == complaint


def test_stores_are_read_with_the_settings_above_them():
    only_store = MINIMAL.replace("/srv/uploads", "@/no/path")
    assert line_of(parse, only_store, ["store"]) == (
        "store[0].path: /no/path: No such file or directory")
    assert parse(only_store, ["upload", "clamav"]).store[0].path == Path("@/no/path")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_secret_that_others_can_read_or_write_is_refused_with_the_repair(place, mode):
    path = secret(place, b"x", mode=mode)
    text = f'{MINIMAL}[zabbix]\nhost = "@{path}"'
    assert line_of(parse, text, ["zabbix"]) == (
        f"zabbix.host: {path}: readable or writable by group or others: chmod go-rw {path}")


@pytest.mark.timeout(10)
def test_a_secret_that_cannot_be_read_is_refused_with_setting_and_file(place):
    os.mkfifo(place / "fifo", 0o600)
    secret(place, b"\xff", "binary")
    for name, fault in (("absent", "No such file or directory"), ("fifo", "not a regular file"),
                        (".", "not a regular file"), ("binary", "not UTF-8 text"),
                        ("nul\\u0000", "not UTF-8 text")):
        line = line_of(parse, f'{MINIMAL}[zabbix]\nhost = "@{place}/{name}"', ["zabbix"])
        shown = name.replace("\\u0000", "\\u{0}")
        assert line == f"zabbix.host: {place}/{shown}: {fault}"


def test_a_secret_of_somebody_else_is_told_not_shown_as_a_traceback(place):
    path = secret(place, b"x", mode=0o600 if os.geteuid() == 0 else 0)

    def body():
        line = line_of(parse, f'{MINIMAL}[zabbix]\nhost = "@{path}"', ["zabbix"])
        assert line == f"zabbix.host: {path}: Permission denied"

    unprivileged(body)


@pytest.mark.parametrize("setting", [
    "clamav.timeout", "clamav.engine", "clamav.databases", "clamav.max_file_size", "clamav.socket",
    "optimize.min_gain", "upload.mode", "rescan.window", "zabbix.servers", "hits.database",
    "upload.types", "schedule.hits",
])
def test_no_complaint_gives_away_what_a_secret_file_holds(place, setting):
    section, key = setting.split(".")
    value = f'"@{secret(place, b"hunter 2")}"'
    value = f"[{value}]" if key in {"servers", "types"} else value
    line = line_of(parse, f"{MINIMAL}[{section}]\n{key} = {value}", [section])
    assert line.startswith(setting)
    assert "hunter" not in line


# --- shown


def shown(lines, sections=()):
    return masked(parse(MINIMAL + lines, sections))


@pytest.mark.parametrize(("setting", "url", "expected"), [
    ("hits.database", "postgresql://web:pw@db/hits", "postgresql://web:***@db/hits"),
    ("hits.database", "mysql+pymysql://web:p/a@w:x@db/hits", "mysql+pymysql://web:***@db/hits"),
    ("hits.database", "postgresql://:pw@db/hits", "postgresql://:***@db/hits"),
    ("hits.database", "postgresql://web@db/hits", "postgresql://web@db/hits"),
    ("hits.database", "postgresql:///hits?user=web&password=pw",
     "postgresql:///hits?user=***&password=***"),
    ("hits.database", "sqlite:////var/lib/imagewarden/hits.sqlite",
     "sqlite:////var/lib/imagewarden/hits.sqlite"),
    ("definitions.mirror", "http://web:pw@127.0.0.1:8080/m", "http://web:***@127.0.0.1:8080/m"),
    ("definitions.mirror", "http://127.0.0.1:8080/m", "http://127.0.0.1:8080/m"),
    ("definitions.mirror", "https://pw@mirror.example/", "https://***@mirror.example/"),
    ("definitions.mirror", "mirror.example", "mirror.example"),
    ("notify.purge_url", "https://cdn.example/purge/{path}?token=pw&key=pw",
     "https://cdn.example/purge/{path}?token=***&key=***"),
    ("notify.purge_url", "https://cdn.example/purge?path={path}&pw",
     "https://cdn.example/purge?path={path}&***"),
    ("notify.purge_url", "https://cdn.example/p#pw", "https://cdn.example/p#***"),
])
def test_a_url_is_shown_without_its_secrets(setting, url, expected):
    section, key = setting.split(".")
    assert shown(f'[{section}]\n{key} = "{url}"')[section][key] == expected


def test_a_token_in_the_path_of_a_database_source_is_masked():
    token = "0123456789abcdef" * 8
    urls = shown(f'[definitions]\ncustom_urls = ["https://h.example/get/{token}/x.hdb"]')
    assert urls["definitions"]["custom_urls"] == ["https://h.example/get/***/x.hdb"]


@pytest.mark.parametrize("url", [
    "https://hc.example/ping/5d1f0b3e-uuid", "https://hc.example/key/rescan?x=key",
    "https://hc.example/?key",
])
def test_of_a_heartbeat_only_the_host_is_shown(url):
    urls = shown(f'[notify]\nheartbeat_urls = {{ rescan = "{url}" }}')["notify"]["heartbeat_urls"]
    assert urls == {"rescan": "https://hc.example/***"}


def test_a_psk_identity_is_masked_and_an_empty_one_is_empty():
    assert shown('[zabbix]\npsk_identity = "pw"')["zabbix"]["psk_identity"] == "***"
    assert shown("")["zabbix"]["psk_identity"] == ""


def test_what_stands_in_a_file_of_its_own_is_shown_as_that_file_read_or_not(place):
    unread = masked(parse(EVERYWHERE))
    written = tomllib.loads(EVERYWHERE)
    for section, settings in written.items():
        if section == "optimize":
            assert unread[section]["min_gain"] == settings["min_gain"]
        elif section == "store":
            assert settings[0].items() <= unread[section][0].items()
        elif isinstance(settings, dict):
            assert settings.items() <= unread[section].items()
        else:
            assert unread[section] == settings
    path = secret(place, b"hunter2")
    lines = f'[zabbix]\nhost = "@{path}"\npsk_identity = "@{path}"'
    assert "hunter2" not in json.dumps(shown(lines, SECTIONS))
    assert shown(lines, SECTIONS)["zabbix"]["host"] == f"@{path}"


def test_amounts_are_shown_as_an_admin_would_write_them():
    everything = shown("[clamav]\ntimeout = '7200s'\nmax_file_size = '10240K'")
    assert everything["clamav"]["timeout"] == "2h"
    assert everything["clamav"]["max_file_size"] == "10M"
    assert everything["optimize"]["min_gain"] == "0.5%"
    assert everything["upload"]["mode"] == "0644"
    assert everything["rescan"]["time_limit"] == "0"


def test_what_is_shown_means_the_same_when_it_is_read_again():
    config = parse((ROOT / "docs/imagewarden.example.toml").read_text())
    assert parse(tomli_w.dumps(masked(config))) == config


# --- cheap


def test_reading_it_imports_little_and_nothing_more_is_imported_afterwards(file):
    watched = subprocess.run(
        [sys.executable, "-c", f"""
import sys
before = set(sys.modules)
from maintenance.config import job_user, load
from maintenance.masking import masked
config = load({str(file)!r}, ["upload", "clamav"])
loaded = set(sys.modules)
masked(config), config.upload_spool, config.hits_database, config.clamav.address
print(sorted(set(sys.modules) - loaded))
print(*sorted({{name.partition(".")[0] for name in loaded - before}}))
"""], cwd=ROOT, capture_output=True, text=True, check=True)
    later, imported = watched.stdout.splitlines()
    assert later == "[]"
    foreign = {name for name in imported.split() if name not in sys.stdlib_module_names}
    assert foreign <= {"maintenance", "msgspec", "typing_extensions"}
    assert "difflib" not in imported.split()


# --- documents


def settings_of(kind, prefix=""):
    """Every setting the code knows, dotted."""
    for field in msgspec.structs.fields(kind):
        if field.name == "store":
            yield from settings_of(Store, "store.")
        elif isinstance(field.default, msgspec.Struct):
            yield from settings_of(field.type, f"{field.name}.")
        elif field.name != "from_files":
            yield prefix + field.name


def names_in(table, prefix=""):
    """Every setting in TOML's tables, dotted."""
    for key, value in table.items():
        if key == "store":
            yield from names_in(value[0], "store.")
        elif isinstance(value, dict) and not prefix:
            yield from names_in(value, f"{key}.")
        else:
            yield prefix + key


def example(with_defaults):
    text = (ROOT / "docs/imagewarden.example.toml").read_text()
    return re.sub(r"(?m)^#(?=\w+ = )", "", text) if with_defaults else text


def reference():
    """The tables of docs/configuration.md as a TOML text, "required" filled in."""
    heading = re.compile(r"## `(\[+\w+\]+)`|\| `(\w+)` \| [\w ]+ \| (required|`.+?`) \| .+ \|")
    lines = []
    for line in (ROOT / "docs/configuration.md").read_text().splitlines():
        if found := heading.fullmatch(line):
            section, setting, default = found.groups()
            lines.append(section or f"{setting} = {default.strip('`')}")
    return "\n".join(lines).replace("= required", '= "/required"', 1).replace(
        "= required", '= "name"', 1).replace("= required", '= "/path"', 1)


def test_the_example_can_be_used_as_it_is():
    config = parse(example(with_defaults=False), SECTIONS)
    assert config == parse('user = "www-data"' + MINIMAL)


def test_the_defaults_shown_in_the_example_are_the_defaults():
    assert parse(example(with_defaults=True)) == parse(example(with_defaults=False))


def test_the_defaults_in_the_reference_are_the_defaults():
    assert parse(reference()) == parse(
        'state = "/required"\n[[store]]\nname = "name"\npath = "/path"')


def test_code_example_and_reference_know_the_same_settings_in_the_same_order():
    known = list(settings_of(Config))
    assert list(names_in(tomllib.loads(example(with_defaults=True)))) == known
    assert list(names_in(tomllib.loads(reference()))) == known
    assert list(names_in(masked(parse(MINIMAL)))) == known
