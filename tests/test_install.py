"""bin/install for real: venv, pip, cron's lines and all, on a host that only we see.

Only root can make such a host; what a plain user gets to hear is at the end.
"""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from maintenance import apparmor
from maintenance.provision import timetable
from tests import host as hosts
from tests.host import ROOT, USER, Host
from tests.processes import NOBODY, started
from tests.site import BAD, body_signature, wait_until

needs_root = [pytest.mark.server, pytest.mark.may_skip("only root can make a host of its own"),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a host of its own")]
LIBRARY = "/usr/local/lib/imagewarden"
KEPT = ("/var/lib/imagewarden", "/var/log/imagewarden", "/srv/.quarantine-uploads",
        "/etc/imagewarden.toml")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory that every user can reach; what is in it is gone afterwards."""
    directory = Path(subprocess.run(["mktemp", "-d", "/var/tmp/iw-host-XXXXXX"], check=True,
                                    capture_output=True, text=True).stdout.strip())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def source(place):
    """A checkout that can be installed without a network."""
    return hosts.checkout_with_wheels(place / "source")


@pytest.fixture(scope="module")
def first(place, source):
    """The first install of all: what was planned, done and found before and after."""
    root = place / "first"
    root.mkdir()
    hosts.make(root, source)
    with hosts.entered(root) as room:
        host = Host(root, source, source.parent / "wheels", room)
        seen = {"bare": host.tree()}
        seen["planned"] = host.install("--store", "/srv/uploads", "--dry-run")
        seen["after dry run"] = host.tree()
        seen["done"] = host.install("--store", "/srv/uploads")
        seen["root"] = root
    return seen


@pytest.fixture
def bare(tmp_path, place, source):
    """A host with nothing of ours on it."""
    yield from lent(place / tmp_path.name, source, None)


@pytest.fixture
def host(tmp_path, place, source, first):
    """A host on which everything is installed."""
    yield from lent(place / tmp_path.name, source, first["root"])


def lent(place, source, like):
    place.mkdir()
    (place / "host").mkdir()
    shutil.copytree(source, place / "checkout")
    if like is None:
        hosts.make(place / "host", source)
    else:
        subprocess.run(["cp", "-a", f"{like}/.", place / "host"], check=True)
    with hosts.entered(place / "host") as room:
        yield Host(place / "host", place / "checkout", source.parent / "wheels", room)
    shutil.rmtree(place)


def current(host):
    return (host.path(LIBRARY) / "current").readlink().name


def lines(ended):
    return ended.out.splitlines()


class TestTheFirst:
    pytestmark = needs_root

    def test_a_dry_run_changes_nothing_and_says_what_then_is_done(self, first):
        assert first["after dry run"] == first["bare"]
        assert (first["planned"].status, first["done"].status) == (0, 0), first["done"]
        assert lines(first["planned"]) == lines(first["done"])
        assert all(line.startswith(("made ", "unchanged Debian")) for line in lines(first["done"]))

    def test_it_is_roots_and_everybody_may_use_it(self, host):
        for path in host.path("/usr/local").rglob("*"):
            info = path.lstat()
            assert info.st_uid == 0, path
            if not path.is_symlink():
                assert not info.st_mode & 0o022, path
                assert info.st_mode & (0o005 if path.is_dir() else 0o004), path
        shown = host.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                         "/usr/local/sbin/imagewarden-show-config", "--json", check=True)
        assert shown.json["configuration"]["user"] == USER

    def test_an_application_imports_the_package_with_its_python(self, host):
        python = f"{LIBRARY}/current/.venv/bin/python3"
        said = host.run(python, "-c", "import maintenance; print(maintenance.__file__)", check=True)
        assert said.out.strip() == f"{LIBRARY}/{current(host)}/maintenance/__init__.py"

    def test_it_still_does_when_setup_has_made_the_environment_anew(self, host):
        shutil.rmtree(host.path(LIBRARY) / current(host) / ".venv")
        broken = host.run("/usr/local/sbin/imagewarden-store-status")
        assert broken.status == 1
        host.run(broken.err.strip().rpartition(": run ")[2], check=True)
        host.run(f"{LIBRARY}/current/.venv/bin/python3", "-c", "import maintenance", check=True)
        assert set(host.steps().values()) == {"unchanged"}

    def test_the_configuration_names_the_stores_owner_and_a_quarantine_beside_it(self, host):
        file = host.path("/etc/imagewarden.toml")
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o644)
        assert tomllib.loads(file.read_text()) == {
            "user": USER, "state": "/var/lib/imagewarden", "logs": "/var/log/imagewarden",
            "store": [{"name": "uploads", "path": "/srv/uploads", "min_age": "2m",
                       "quarantine": "/srv/.quarantine-uploads"}]}

    def test_the_jobs_directories_are_theirs(self, host):
        for place, mode in (("/var/lib/imagewarden", 0o700), ("/var/log/imagewarden", 0o750),
                            ("/srv/.quarantine-uploads", 0o700)):
            info = host.path(place).stat()
            assert (pwd.getpwuid(info.st_uid).pw_name, stat.S_IMODE(info.st_mode)) == (USER, mode)

    def test_it_says_what_is_left_to_do(self, first):
        said = first["done"].err
        assert "install: doctor: failed: definitions: no definitions" in said
        assert "clamav-freshclam" in said  # the daemon, and how it hands over

    def test_every_line_of_the_crontab_gives_a_recorded_run(self, host):
        feed = host.path("/srv/feed") / "test.ndb"
        feed.write_text(body_signature("Test.Bad", BAD))
        for name, content in (("bad.jpg", BAD), ("good.jpg", b"clean enough")):
            (host.path("/srv/uploads") / name).write_bytes(content)
        file = host.path("/etc/imagewarden.toml")
        file.write_text(file.read_text().replace('"2m"', '"0s"'))
        hosts.configure(host, clamav={"engine": "private", "timeout": "60s"},
                        definitions={"official": False, "start_rescan": False,
                                     "custom_urls": ["file:///srv/feed/test.ndb"]})
        minute = f"\n{timetable.own_minute()} * * * *    root  /usr/local/sbin/imagewarden-update"
        assert minute in host.path("/etc/cron.d/imagewarden").read_text()
        ran = 0
        for environment, user, command in host.cron_lines():
            script = command.split()[0].rpartition("imagewarden-")[2]
            if not (ROOT / "bin" / script).exists():  # its job is still to come
                continue
            ended = host.as_cron(environment, user, command)
            assert ended.status == (4 if script == "rescan-store" else 0), (command, ended)
            ran += 1
        assert ran >= 2
        jobs = host.run("/usr/local/sbin/imagewarden-store-status", "--json").json["jobs"]
        assert {"definitions": "done", "rescan": "infected"}.items() <= {
            one["job"]: one["outcome"] for one in jobs}.items()
        assert (host.path("/var/log/imagewarden") / "rescan.log").owner() == USER


    def test_packages_that_are_missing_are_in_the_plan(self, bare):
        status = bare.path("/var/lib/dpkg") / "status"
        status.write_text(status.read_text().replace("Package: optipng", "Package: other"))
        planned = bare.install("--store", "/srv/uploads", "--dry-run", check=True)
        assert lines(planned)[0] == "made      Debian packages (optipng)"


class TestAgain:
    pytestmark = needs_root

    def test_changes_nothing_and_says_so(self, host):
        before = host.tree()
        again = host.install("--store", "/srv/uploads")
        assert again.status == 0
        assert {line.split()[0] for line in lines(again)} == {"unchanged"}
        assert host.tree() == before
        assert host.install("--dry-run", check=True).out == again.out

    def test_it_brings_back_what_is_missing(self, host):
        before = host.tree()
        for name in ("/usr/local/sbin/imagewarden-doctor", "/etc/cron.d/imagewarden"):
            host.path(name).unlink()
        host.path("/srv/.quarantine-uploads").rmdir()
        made = {what for what, how in host.steps().items() if how == "made"}
        assert made == {"/usr/local/sbin/imagewarden-doctor", "/etc/cron.d/imagewarden",
                        "/srv/.quarantine-uploads"}
        assert host.tree().keys() == before.keys()

    def test_a_broken_copy_is_not_repaired_in_place_but_replaced(self, host):
        broken = current(host)
        (host.path(LIBRARY) / broken / "maintenance/text.py").write_text("broken")
        assert host.steps()[f"{LIBRARY}/current"] == "updated"
        assert current(host) == f"{broken}.1"
        assert host.run("/usr/local/sbin/imagewarden-show-config", check=True)
        assert set(host.steps().values()) == {"unchanged"}

    def test_an_admins_crontab_stays_and_ours_comes_beside_it(self, host):
        table, beside = (host.path(f"/etc/cron.d/imagewarden{end}") for end in ("", ".dpkg-dist"))
        table.write_text("# nothing here\n")
        assert host.steps()["/etc/cron.d/imagewarden"] == "unchanged"  # ours is the old one
        with (host.checkout / "cron/imagewarden.crontab").open("a") as stream:
            stream.write("# of a newer version\n")
        with (host.checkout / "cron/imagewarden.logrotate").open("a") as stream:
            stream.write("# of a newer version\n")
        steps = host.steps()
        assert (steps["/etc/cron.d/imagewarden"], steps["/etc/logrotate.d/imagewarden"]) == (
            "kept", "updated")
        assert table.read_text() == "# nothing here\n"
        assert beside.read_text().endswith("# of a newer version\n")
        assert host.steps()["/etc/cron.d/imagewarden"] == "unchanged"
        host.install("--uninstall", check=True)
        assert not table.exists()
        assert not beside.exists()
        assert host.path("/etc/cron.d/imagewarden.dpkg-old").read_text() == "# nothing here\n"

    def test_a_file_of_somebody_elses_is_never_touched(self, host):
        host.install("--uninstall", check=True)
        table = host.path("/etc/cron.d/imagewarden")
        table.write_text("# the admin's own\n")
        assert host.steps()["/etc/cron.d/imagewarden"] == "kept"
        host.install("--uninstall", check=True)
        assert table.read_text() == "# the admin's own\n"
        assert not host.path("/etc/cron.d/imagewarden.dpkg-dist").exists()

    def test_the_configuration_stays_and_what_it_lacks_is_said(self, host):
        file = host.path("/etc/imagewarden.toml")
        before = file.read_text()
        (host.path("/srv") / "more").mkdir()
        ended = host.install("--store", "/srv/uploads", "--store", "second=/srv/more", "--user",
                             "games", check=True)
        assert file.read_text() == before
        assert '[[store]]\n    name = "second"\n    path = "/srv/more"\n' in ended.err
        assert "/srv/uploads" not in ended.err
        assert 'user = "games"' in ended.err

    def test_code_that_the_configuration_does_not_suit_is_not_put_in_force(self, host):
        hosts.configure(host, rescan={"acton": "report"})
        host.new_version("2")
        before = current(host)
        ended = host.install()
        assert (ended.status, current(host)) == (1, before)
        assert ended.err.endswith("rescan.acton: unknown setting; did you mean rescan.action?\n")
        assert host.install("--dry-run").status == 0  # as far as can be told without the code

    def test_the_ledger_is_migrated_as_the_jobs_user(self, host):
        state = host.path("/var/lib/imagewarden")
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
        python = f"{LIBRARY}/current/.venv/bin/python3"
        older = ("import sqlite3, sys; one = sqlite3.connect(sys.argv[1]);"
                 "one.execute('pragma user_version=1'); one.execute('pragma user_version=0')")
        host.run(*as_user, python, "-c", older, "/var/lib/imagewarden/ledger.sqlite", check=True)
        assert host.steps()["/var/lib/imagewarden/ledger.sqlite"] == "updated"
        assert {path.owner() for path in state.rglob("*")} == {USER}
        assert host.steps()["/var/lib/imagewarden/ledger.sqlite"] == "unchanged"

    def test_timers_take_the_place_of_cron_and_the_other_way_round(self, host):
        units = sorted(path.name for path in (ROOT / "cron/systemd").iterdir())
        host.install("--systemd", check=True)
        before = host.tree()
        assert set(host.steps().values()) == {"unchanged"}  # and not back to cron
        assert host.tree() == before
        assert not host.path("/etc/cron.d/imagewarden").exists()
        placed = host.path("/etc/systemd/system")
        assert sorted(path.name for path in placed.glob("imagewarden-*")) == units
        assert sorted(path.name for path in (placed / "timers.target.wants").glob("imagew*")) == [
            name for name in units if name.endswith(".timer")]
        host.install("--cron", check=True)
        assert host.path("/etc/cron.d/imagewarden").exists()
        assert not list(placed.rglob("imagewarden-*"))

    def test_other_names_stand_where_the_four_words_stood(self, bare):
        store = bare.path("/srv/uploads")
        shutil.chown(store, "games", "games")
        bare.install("--store", "site=/srv/uploads", "--prefix", "/usr/local/x", "--config",
                     "/etc/iw/i.toml", check=True)
        table = bare.path("/etc/cron.d/imagewarden").read_text()
        assert "/usr/local/x/sbin/imagewarden-rescan-store" in table
        assert "IMAGEWARDEN_CONFIG=/etc/iw/i.toml" in table
        assert "su games games" in bare.path("/etc/logrotate.d/imagewarden").read_text()
        assert "www-data" not in table
        assert bare.run("/usr/local/x/sbin/imagewarden-show-config", "--check", "--config",
                        "/etc/iw/i.toml").status == 0


class TestUpgrade:
    pytestmark = needs_root

    def test_a_job_keeps_the_copy_it_was_started_from(self, host):
        old = host.path(LIBRARY) / current(host)
        job = [*host.room.wrap, "/usr/local/sbin/imagewarden-update-definitions", "--jitter",
               "1000d", "--no-rescan"]
        lock = host.path("/var/lib/imagewarden/locks/definitions.lock")
        with started(job) as running:
            wait_until(lambda: lock.exists() and lock.read_text())
            for version in ("2", "3"):
                host.new_version(version)
                host.steps()
                assert old.is_dir()
            removed = host.install("--uninstall")
            assert (removed.status, removed.out) == (1, "")
            assert "uses /usr/local/lib/imagewarden" in removed.err
            assert running.poll() is None
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 143, running.stderr.read()
        assert host.steps()[str(LIBRARY / Path(old.name))] == "removed"
        assert not old.exists()
        copies = [path for path in host.path(LIBRARY).iterdir()
                  if path.is_dir() and not path.is_symlink()]
        assert len(copies) == 2  # the one in force and the one before

    def test_a_container_with_the_same_paths_is_not_in_the_way(self, host, first):
        job = "/usr/local/sbin/imagewarden-update-definitions"
        lock = first["root"] / "lib/imagewarden/locks/definitions.lock"
        with hosts.entered(first["root"]) as other, started(
                [*other.wrap, job, "--jitter", "1000d", "--no-rescan"]):
            wait_until(lambda: lock.exists() and lock.read_text())
            host.install("--uninstall", check=True)
        for left in ("lib", "log"):
            shutil.rmtree(first["root"] / left / "imagewarden")
            (first["root"] / left / "imagewarden").mkdir(mode=0o750 if left == "log" else 0o700)
            shutil.chown(first["root"] / left / "imagewarden", USER, USER)

    def test_an_uninstall_stands_back_while_a_job_holds_its_lock(self, host):
        state = host.path("/var/lib/imagewarden")
        (state / "locks").mkdir()
        before = host.tree("/var/lib/imagewarden")
        with started([*host.room.wrap, "flock", "/var/lib/imagewarden/locks/rescan.lock",
                      "sleep", "300"]):
            wait_until(lambda: subprocess.run(["flock", "-n", state / "locks/rescan.lock", "true"],
                                              check=False).returncode)
            ended = host.install("--purge")
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.startswith("install: the job rescan runs (")
        assert host.tree("/var/lib/imagewarden") == before


class TestUninstall:
    pytestmark = needs_root

    def test_what_is_kept_is_all_that_is_left(self, host, first):
        kept = {"/var/lib/imagewarden/ledger.sqlite": "x", "/var/log/imagewarden/rescan.log": "x"}
        for name, text in kept.items():
            host.path(name).write_text(text)
        planned = host.install("--uninstall", "--dry-run", check=True).out
        ended = host.install("--uninstall", check=True)
        assert ended.out == planned
        assert [line.split()[1] for line in lines(ended) if line.startswith("kept")] == [
            "/srv/.quarantine-uploads", "/var/lib/imagewarden", "/var/log/imagewarden",
            "/etc/imagewarden.toml"]
        after = plain(host.tree())
        assert set(after) - set(plain(first["bare"])) == {*KEPT, *kept}
        assert {name: after[name] for name in plain(first["bare"])} == plain(first["bare"])
        again = host.install("--uninstall", check=True)
        assert {line.split()[0] for line in lines(again)} == {"kept"}

    def test_a_reinstall_goes_on_with_what_was_kept(self, host):
        before = host.path("/etc/imagewarden.toml").read_text()
        host.install("--uninstall", check=True)
        steps = host.steps()
        assert {steps[name] for name in KEPT} == {"unchanged"}
        assert host.path("/etc/imagewarden.toml").read_text() == before

    def test_with_another_prefix_it_takes_nothing_of_this_one_away(self, host):
        before = host.tree()
        ended = host.install("--uninstall", "--prefix", "/usr/local/other", check=True)
        assert {line.split()[0] for line in lines(ended)} == {"kept"}
        assert {name: facts for name, facts in host.tree().items()
                if not name.startswith("/usr/local/other")} == before

    def test_the_installed_script_removes_itself(self, host):
        host.run("/usr/local/sbin/imagewarden-install", "--uninstall", check=True)
        assert not host.path(LIBRARY).exists()

    def test_purge_takes_everything_but_the_store(self, host, first):
        held = host.path("/srv/.quarantine-uploads") / "1.image"
        held.write_text("")
        (host.path("/srv/uploads") / "a.jpg").write_text("")
        ended = host.install("--purge", check=True)
        assert "/srv/.quarantine-uploads (quarantine, 1 images held)" in ended.out
        after = plain(host.tree())
        assert set(after) - set(plain(first["bare"])) == {"/srv/uploads/a.jpg"}

    def test_purge_does_not_call_removed_what_a_link_leads_to(self, host):
        state, there = host.path("/var/lib/imagewarden"), host.path("/srv/state")
        state.rename(there)
        state.symlink_to("/srv/state")
        assert host.steps()["/var/lib/imagewarden"] == "kept"
        ended = host.install("--purge", check=True)
        assert ("kept      /var/lib/imagewarden (state: a link to /srv/state; remove it yourself)"
                in lines(ended))
        assert there.is_dir()

    @pytest.mark.parametrize(("setting", "value"), [
        ("state", "/srv"), ("state", "/srv/uploads/state"), ("logs", "/var/lib"),
        ("logs", "/var/log/other")])
    def test_purge_does_not_believe_a_configuration_that_names_more_than_ours(
            self, host, setting, value):
        host.path(value).mkdir(exist_ok=True)
        precious = host.path(value) / "precious"
        precious.write_text("")
        file = host.path("/etc/imagewarden.toml")
        kept = {"state": "/var/lib/imagewarden", "logs": "/var/log/imagewarden"}[setting]
        file.write_text(file.read_text().replace(f'"{kept}"', f'"{value}"'))
        ended = host.install("--purge", check=True)
        assert precious.exists()
        assert f"kept      {value} " in ended.out


class TestKilled:
    pytestmark = needs_root

    def test_while_it_builds_the_environment(self, bare, first):
        wrap = [*bare.room.wrap, bare.checkout / "bin/install", "--store", "/srv/uploads"]
        with started(wrap):
            wait_until(lambda: list(bare.path("/usr/local").glob(
                "lib/imagewarden/*/.venv/lib/python3*/site-packages/pip")))
        assert not (bare.path(LIBRARY) / "current").exists()
        (next(bare.path(LIBRARY).glob("0.*")) / "maintenance/stray.py").touch()
        assert bare.install("--store", "/srv/uploads").out == first["done"].out
        assert set(bare.steps().values()) == {"unchanged"}

    def test_between_making_a_directory_and_giving_it_away(self, host):
        for name in ("/srv/.quarantine-uploads", "/var/log/imagewarden"):
            shutil.chown(host.path(name), "root", "root")
        (host.path("/var/log/imagewarden") / "somebodys.log").touch()
        steps = host.steps()
        assert steps["/srv/.quarantine-uploads"] == "updated"
        assert host.path("/srv/.quarantine-uploads").owner() == USER
        assert steps["/var/log/imagewarden"] == "unchanged"
        assert host.path("/var/log/imagewarden").owner() == "root"  # doctor tells of it

    def test_at_every_step_that_follows(self, bare, first):
        python = [*bare.room.wrap, "/usr/bin/python3", "-I", ROOT / "tests/crash_install.py",
                  bare.checkout]
        bare.install("--store", "/srv/uploads", check=True)
        wanted = plain(bare.tree())
        for step in range(3, 1000, 17):
            bare.install("--uninstall", check=True)
            subprocess.run(["cp", "-al", first["root"] / "local/lib/imagewarden",
                            bare.path(LIBRARY)], check=True)
            for name in ("current", "manifest.json"):
                (bare.path(LIBRARY) / name).unlink()
            killed = subprocess.run([*python, str(step), "--json"], check=False,
                                    capture_output=True)
            assert killed.returncode in {0, -9}, killed.stderr
            assert bare.install(check=True)
            assert plain(bare.tree()) == wanted, step
            if killed.returncode == 0:
                break
        assert step > 50


class TestRefusals:
    pytestmark = needs_root

    def test_a_first_configuration_that_the_code_cannot_use_is_not_written(self, bare):
        before = bare.tree()
        job = bare.checkout / "maintenance/jobs/show_config.py"
        job.write_text(job.read_text().replace("    return ConfigReport", """\
    from maintenance.errors import ConfigError
    raise ConfigError("broken on purpose")
    return ConfigReport""", 1))
        ended = bare.install("--store", "/srv/uploads")
        assert (ended.status, ended.err.endswith("show-config: broken on purpose\n")) == (1, True)
        assert set(bare.tree("/usr/local")) - set(before) == set()

    @pytest.mark.parametrize(("words", "complaint"), [
        ([], "/etc/imagewarden.toml is not there yet: say --store PATH"),
        (["--store", "/srv/nowhere"], "--store /srv/nowhere: no such directory"),
        (["--store", "/srv/feed"], "/srv/feed belongs to root: say --user USER, the user that the "
                                   'jobs shall work as (it may be "root")'),
        (["--store", "/srv/feed", "--store", "/srv/uploads"],
         "the stores belong to different users: say --user USER"),
        (["--store", "/srv/uploads", "--store", "x=/srv"],
         "--store x=/srv: one store lies inside another"),
        (["--store", "/var", "--user", "games"],
         "--store /var: /var/lib/imagewarden lies in it, and is ours"),
        (["--store", "/srv/uploads", "--user", "nobody-such"],
         "--user nobody-such: no such user"),
        (["--store", "/srv/uploads", "--prefix", "/usr/local/a b"],
         "--prefix /usr/local/a b: letters, digits and ./_+@:,- only")])
    def test_a_wrong_command_line_is_one_line_and_changes_nothing(self, bare, words, complaint):
        before = bare.tree()
        ended = bare.install(*words)
        assert (ended.status, ended.out, ended.err) == (2, "", f"install: {complaint}\n")
        assert bare.tree() == before

    def test_a_configuration_that_is_not_toml_is_one_line(self, host):
        host.path("/etc/imagewarden.toml").write_text("state = \n")
        before = host.tree()
        for words in ((), ("--uninstall",), ("--purge",)):
            ended = host.install(*words)
            assert (ended.status, ended.out) == (1, "")
            assert ended.err.startswith("install: /etc/imagewarden.toml: Invalid value")
        assert host.tree() == before

    def test_a_setting_whose_file_is_not_there_is_one_line(self, host):
        file = host.path("/etc/imagewarden.toml")
        file.write_text(file.read_text().replace('"/var/lib/imagewarden"', '"@/no/such"'))
        ended = host.install()
        assert (ended.status, ended.err) == (
            1, "install: /etc/imagewarden.toml: /no/such: No such file or directory\n")

    def test_a_plain_user_is_told_that_it_needs_root(self, bare):
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                  bare.checkout / "bin/install", "--store", "/srv/uploads"]
        ended = bare.run(*nobody)
        assert (ended.status, ended.err) == (
            1, "install: this needs root: start it with sudo (--dry-run needs none)\n")
        assert bare.run(*nobody, "--dry-run").status == 0


class TestAppArmor:
    pytestmark = needs_root

    def test_the_rules_stand_beside_the_admins_and_go_alone(self, host):
        local = host.path("/etc/apparmor.d/local/usr.sbin.clamd")
        ours = local.read_text()
        assert '"/var/lib/imagewarden/databases/**" r,\n' in ours
        local.write_text(f"/before r,\n{ours.replace('databases', 'old')}/after r,")
        assert host.steps()["/etc/apparmor.d/local/usr.sbin.clamd"] == "updated"
        assert local.read_text() == f"/before r,\n{ours}/after r,"
        host.install("--uninstall", check=True)
        assert local.read_text() == "/before r,\n/after r,"

    def test_doctor_misses_them_where_the_kernel_enforces_profiles(self, host):
        host.room.run("mount -t tmpfs none /sys/module; mkdir -p /sys/module/apparmor/parameters;"
                      "echo Y > /sys/module/apparmor/parameters/enabled")
        assert doctor(host)["AppArmor"]["state"] == "ok"
        host.path("/etc/apparmor.d/local/usr.bin.freshclam").write_text("")
        row = doctor(host)["AppArmor"]
        assert (row["state"], row["detail"]) == (
            "warning", "the rules for our directories are not in "
            "/etc/apparmor.d/local/usr.bin.freshclam")
        host.path("/etc/apparmor.d/disable").mkdir(exist_ok=True)
        (host.path("/etc/apparmor.d/disable") / "usr.bin.freshclam").touch()
        assert doctor(host)["AppArmor"]["state"] == "ok"

    def test_doctor_says_what_starts_the_jobs(self, host):
        assert "/etc/cron.d/imagewarden" in doctor(host)["timetable"]["detail"]
        host.install("--systemd", check=True)
        assert doctor(host)["timetable"]["detail"].startswith("systemd: imagewarden-")
        host.install("--uninstall", check=True)
        assert doctor(host, ROOT / "bin/doctor")["timetable"]["detail"].endswith("by hand")


def doctor(host, script="/usr/local/sbin/imagewarden-doctor"):
    ended = host.run(script, "--json")
    return {one["check"]: one for one in ended.json["checks"]}


def plain(tree):
    """A tree without times, and without what rewriting a file in place has to change."""
    return {name: (*facts[:3], facts[4]) for name, facts in tree.items()}


# --- what needs no root


def test_a_path_with_special_characters_is_itself_in_a_rule():
    clamd, _ = apparmor.confined(['/srv/a "b" [c]*'], ())
    assert clamd.rules[1] == '"/srv/a \\"b\\" \\[c\\]\\*/**" r,'


def test_a_block_is_put_in_once_and_taken_out_whole():
    clamd, _ = apparmor.confined(["/a"], ())
    newer, _ = apparmor.confined(["/b"], ())
    once = apparmor.with_block("x", clamd.block)
    assert once == f"x\n{clamd.block}"
    assert apparmor.with_block(once, clamd.block) == once
    assert apparmor.with_block(once, newer.block) == f"x\n{newer.block}"
    assert apparmor.with_block(once + clamd.block, newer.block) == f"x\n{newer.block}"
    assert apparmor.without_block(once) == "x\n"


def test_a_dry_run_needs_no_root(tmp_path):
    (tmp_path / "store").mkdir()
    user = ["--user", pwd.getpwuid(os.geteuid()).pw_name]
    ended = subprocess.run(
        [ROOT / "bin/install", "--dry-run", "--json", "--store", tmp_path / "store", *user,
         "--prefix", f"/var/tmp/{os.getpid()}", "--config", tmp_path / "none.toml"],
        capture_output=True, text=True, check=False, cwd="/", env={})
    assert ended.returncode == 0, ended
    result = json.loads(ended.stdout)
    assert (result["outcome"], result["dry_run"], result["changed"]) == ("done", True, True)
    assert not Path(f"/var/tmp/{os.getpid()}").exists()
    assert not (tmp_path / "none.toml").exists()
