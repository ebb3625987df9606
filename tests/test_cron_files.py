"""What cron/ holds is executed: by cron, logrotate and systemd themselves, in places of our own."""

import grp
import os
import pwd
import re
import subprocess
import sys

import pytest

from maintenance.provision import timetable
from tests.processes import ROOT, Namespace, reachable, started
from tests.site import BAD, BIN, Ended, wait_until

CRON = BIN.parent / "cron"
CRONTAB = (CRON / "imagewarden.crontab").read_text()
LINE = re.compile(r"^((?:\S+ +){4}\S+) +(\w+) +/usr/local/sbin/imagewarden-(\S+)(.*)$", re.M)
LINES = {match[3]: match for match in LINE.finditer(CRONTAB)}
SCRIPTS = ["update-definitions", "rescan-store", "optimize-images", "send-checks"]
UNITS = sorted((CRON / "systemd").iterdir())
USER = "www-data"
needs_root = [pytest.mark.may_skip("only root can run cron"),
              pytest.mark.skipif(not ROOT, reason="only root can run cron")]


@pytest.fixture
def links(tmp_path):
    """The scripts as a host has them."""
    return links_in(tmp_path / "sbin", BIN)


def links_in(directory, scripts):
    """Make links to ``scripts`` as install does."""
    directory.mkdir()
    for script in SCRIPTS:
        (directory / f"imagewarden-{script}").symlink_to(scripts / script)
    return directory


def rendered(text, links, site=None):
    """A file of cron/ for this site, as install writes it."""
    text = text.replace("/usr/local/sbin", str(links))
    if site is not None:
        text = text.replace("/etc/imagewarden.toml", str(site.config))
        text = text.replace("/var/log/imagewarden", str(site.root / "logs"))
    return text


def variables(text):
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.M))


# --- the crontab

def test_the_crontab_starts_the_four_jobs_and_each_line_is_understood():
    assert list(LINES) == SCRIPTS
    told = [line for line in CRONTAB.splitlines()
            if line and not line.startswith("#") and not re.match("[A-Z_]+=", line)]
    assert len(told) == len(SCRIPTS)
    assert {match[2] for match in LINES.values()} == {"root"}
    assert set(variables(CRONTAB)) == {"SHELL", "PATH", "MAILTO", "IMAGEWARDEN_CONFIG"}


def test_no_daily_job_starts_in_an_hour_that_clock_changes_skip_or_repeat():
    hours = [match[1].split()[1] for match in LINES.values()]
    assert sorted(hours) == ["*", "*", "3", "5"]


def test_a_fleet_is_spread_and_the_jobs_do_not_start_together():
    timer = (CRON / "systemd/imagewarden-definitions.timer").read_text()
    assert "RandomizedDelaySec=30min" in timer
    minutes = [match[1].split()[0] for match in LINES.values()]
    checks = set(range(1, 57, 5))
    assert minutes.pop() == "1-56/5"
    assert not checks & {int(minute) for minute in minutes}


def test_install_gives_each_host_a_minute_of_its_own_and_always_the_same(tmp_path, monkeypatch):
    minutes = []
    for host in range(200):
        (tmp_path / f"{host}").write_text(f"{host}\n")
        monkeypatch.setattr(timetable, "MACHINE", tmp_path / f"{host}")
        minutes.append(timetable.own_minute())
        assert timetable.own_minute() == minutes[-1]
    assert len(set(minutes)) > 25
    assert not set(minutes) & {*range(1, 57, 5), *range(0, 60, 5)}
    monkeypatch.setattr(timetable, "MACHINE", tmp_path / "missing")
    assert timetable.own_minute() in timetable.MINUTES
    text, count = re.subn(timetable.HOURLY, "7 *", CRONTAB)
    assert count == 1
    assert re.search(r"^7 \* \* \* \*    root  \S+imagewarden-update-definitions$", text, re.M)


@pytest.mark.server
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_line_works_in_crons_environment(site, links, script):
    """Once as it is written."""
    site.image("bad.jpg", BAD)
    site.update()
    text = rendered(CRONTAB, links, site)
    given = variables(text)
    line = next(line for line in text.splitlines() if f"imagewarden-{script}" in line)
    command = line.split("root", 1)[1].strip()
    home = {"HOME": "/root" if ROOT else "/nonexistent", "LOGNAME": pwd.getpwuid(os.geteuid())[0]}
    done = subprocess.run([given["SHELL"], "-c", command], env={**given, **home}, cwd="/",
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False)
    ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
    job = {"update-definitions": "definitions", "rescan-store": "rescan",
           "optimize-images": "optimize", "send-checks": "checks"}[script]
    jobs = {one["job"]: one for one in site.run("store-status", "--json").json["jobs"]}
    assert ended.out == ""
    if script == "rescan-store":
        assert (ended.status, jobs[job]["outcome"]) == (4, "infected")
        assert "bad.jpg" in ended.err
    else:
        assert (ended.status, ended.err) == (0, "")
        assert jobs[job]["outcome"] in {"done", "closed"}


class Cron:
    """A real cron with a cron.d and at a time of our own; the machine's own is not there."""

    def __init__(self, tmp_path, at, crontab, zone="UTC"):
        directory = tmp_path / "cron.d"
        self.mail = tmp_path / "mail"
        self.mail.mkdir(mode=0o777)
        self.mail.chmod(0o777)
        directory.mkdir(mode=0o755)
        (directory / "imagewarden").write_text(crontab)
        (directory / "imagewarden").chmod(0o644)
        # Where the checkout lies may be closed to the jobs' user: here it is not.
        self.checkout, tools, spool = (tmp_path / name for name in ("checkout", "tools", "spool"))
        self.checkout.mkdir(mode=0o755)
        self.checkout.chmod(0o755)
        (spool / "crontabs").mkdir(parents=True)
        tools.mkdir()
        (tools / "sendmail").write_text(f"#!/bin/sh\nexec cat >{self.mail}/$$\n")
        (tools / "sendmail").chmod(0o755)
        self.namespace = Namespace(
            f"mount --make-rprivate / && mount --bind {directory} /etc/cron.d &&"
            f" mount --bind {BIN.parent} {self.checkout} &&"
            f" mount --bind {spool} /var/spool/cron && mount --bind /dev/null /etc/crontab &&"
            f" mount -t tmpfs tmpfs /run && mount -t overlay overlay"
            f" -o lowerdir={tools}:/usr/sbin /usr/sbin")
        # The environment of cron is not that of its jobs: they live in real time.
        self.argv = ["env", f"TZ={zone}", "faketime", "-f", f"@{at}", "/usr/sbin/cron", "-f"]

    def __enter__(self):
        self.namespace.__enter__()
        self.daemon = started([*self.namespace.wrap, *self.argv])
        self.daemon.__enter__()
        return self

    def __exit__(self, *problem):
        self.daemon.__exit__(*problem)
        self.namespace.__exit__(*problem)

    def mails(self):
        return [path.read_text() for path in self.mail.iterdir()]


def theirs(site):
    """Let the jobs' user work in the site, and reach it."""
    reachable(site.root)
    site.settings["definitions"]["start_rescan"] = False
    site.write_config()
    for path in site.store.iterdir():
        path.chmod(0o644)
    return site


def every_minute(text, user="root"):
    """The crontab with all its lines due at once."""
    return re.sub(r"^(?:\S+ +){4}\S+ +root ", f"* * * * * {user} ", text, flags=re.M)


def finished(site, *wanted):
    """Whether these jobs have ended since the site was made ready."""
    lines = [(site.root / "logs" / f"{job}.log") for job in wanted]
    return all(path.exists() and ", status " in path.read_text() for path in lines)


def quiet_logs(site):
    for path in (site.root / "logs").iterdir():
        path.write_text("")


@pytest.mark.server
@pytest.mark.parametrize("column", ["root", USER])
class TestCron:
    pytestmark = needs_root

    def test_cron_starts_the_jobs_as_the_column_says_and_mails_what_was_found(
            self, site, tmp_path, column):
        site.image("bad.jpg", BAD)
        site.image("good.jpg")
        theirs(site)
        site.top["user"] = USER
        site.write_config()
        site.update()
        quiet_logs(site)
        links = links_in(tmp_path / "all", tmp_path / "checkout/bin")
        crontab = every_minute(rendered(CRONTAB, links, site), column)
        with Cron(tmp_path, "2026-03-10 12:00:57", crontab) as cron:
            wait_until(lambda: finished(site, "definitions", "rescan"), 90)
            wait_until(lambda: "".join(cron.mails()), 30)  # it may still be being written
            (mail,) = cron.mails()
        assert "bad.jpg" in mail
        assert "To: root" in mail
        assert site.coverage()["infected"] == 1
        made = [site.state, *site.state.rglob("*"), *(site.root / "logs").iterdir()]
        assert {path.owner() for path in made} == {USER}


@pytest.mark.server
@pytest.mark.parametrize("at", ["2026-03-29 02:40:00", "2026-10-25 03:00:00"])
class TestClockChange:
    pytestmark = needs_root

    def test_cron_itself_makes_up_for_what_the_clock_leaps_over_and_repeats_nothing(
            self, tmp_path, at):
        """In Helsinki 03:05 does not exist, or twice, on these days. An hour takes 6 seconds."""
        text = re.sub(r"/usr/local/sbin/imagewarden-(\S+).*", rf"echo >>{tmp_path}/\1", CRONTAB)
        with Cron(tmp_path, f"{at} x600", text, "Europe/Helsinki"):
            checks = tmp_path / "send-checks"  # its minutes come and go with the clock
            wait_until(lambda: checks.exists() and checks.stat().st_size >= 15, 90)
        assert (tmp_path / "optimize-images").read_text() == "\n"


# --- logrotate

def rotate(site, text):
    """Have logrotate do its work now, as the administrator's daily job would some day."""
    config = site.root / "logrotate.conf"
    me = pwd.getpwuid(os.geteuid())
    config.write_text(text.replace("su www-data www-data",
                                   f"su {me.pw_name} {grp.getgrgid(me.pw_gid).gr_name}"))
    config.chmod(0o644)
    done = subprocess.run(["/usr/sbin/logrotate", "-f", "-s", site.root / "logrotate.state",
                           config], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def rotation(site, links):
    text = rendered((CRON / "imagewarden.logrotate").read_text(), links, site)
    return lambda: rotate(site, text)


@pytest.mark.server
def test_a_job_that_runs_goes_on_in_the_new_file(site, rotation):
    site.image("bad.jpg", BAD)
    site.update()
    log = site.root / "logs/rescan.log"
    with started(site.command("rescan-store", "-")) as job:
        wait_until(lambda: log.exists() and os.listdir(f"/proc/{job.pid}/fd") and any(
            os.path.realpath(f"/proc/{job.pid}/fd/{fd}") == str(log)
            for fd in os.listdir(f"/proc/{job.pid}/fd")))
        log.write_text("a line from before\n")
        rotation()
        assert not log.exists()
        job.communicate(os.fsencode(site.store / "bad.jpg") + b"\0", timeout=60)
        assert job.returncode == 4
    assert log.with_name("rescan.log.1").read_text() == "a line from before\n"
    assert "bad.jpg" in log.read_text()
    assert ", status 4, " in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


WRITER = """\
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from maintenance.shell import logs
log = logs.start("job", 50, "text")
logs.add_file(Path(sys.argv[2], "job.log"), "text")
stop = Path(sys.argv[2], "stop")
number = 0
while not stop.exists():
    number += 1
    log.info("line %d", number)
print(number)
"""


def test_no_line_is_lost_or_doubled_while_logs_are_rotated(site, rotation):
    logs = site.root / "logs"
    logs.mkdir(mode=0o750)
    with started([sys.executable, "-c", WRITER, BIN.parent, logs]) as job:
        for _ in range(4):
            wait_until(lambda: (logs / "job.log").exists() and (logs / "job.log").stat().st_size)
            rotation()
        (logs / "stop").touch()
        written = int(job.communicate(timeout=60)[0])
    packed = sorted(logs.glob("job.log.*.gz"), key=lambda path: -int(path.suffixes[-2][1:]))
    assert len(packed) == 3
    text = subprocess.run(["zcat", *packed], capture_output=True, text=True, check=True).stdout
    for plain in ("job.log.1", "job.log"):
        text += (logs / plain).read_text() if (logs / plain).exists() else ""
    assert [int(line.rpartition(" ")[2]) for line in text.splitlines()] == list(
        range(1, written + 1))


@pytest.mark.may_skip("only root can become another user")
@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_root_rotates_as_the_jobs_user_and_only_so(site, links):
    theirs(site)
    logs = site.root / "logs"
    logs.mkdir(mode=0o750)
    (logs / "rescan.log").write_text("line\n")
    for path in (logs, logs / "rescan.log"):
        os.chown(path, pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid)
    text = rendered((CRON / "imagewarden.logrotate").read_text(), links, site)
    (site.root / "logrotate.conf").write_text(text)
    (site.root / "logrotate.conf").chmod(0o644)
    subprocess.run(["/usr/sbin/logrotate", "-f", "-s", site.root / "state.rotate",
                    site.root / "logrotate.conf"], check=True, timeout=60)
    assert (logs / "rescan.log.1").read_text() == "line\n"
    assert {path.owner() for path in logs.iterdir()} == {USER}


# --- systemd

def test_systemd_accepts_every_unit(tmp_path, links):
    for unit in UNITS:
        (tmp_path / unit.name).write_text(rendered(unit.read_text(), links))
    done = subprocess.run(["systemd-analyze", "verify", *(tmp_path / unit.name for unit in UNITS)],
                          capture_output=True, text=True, check=False, timeout=60)
    # It says the same of units of the machine's own, which are not ours to mend.
    ours = [line for line in done.stderr.splitlines() if "imagewarden" in line]
    assert (done.returncode, ours) == (0, [])


def test_a_unit_with_a_mistake_would_be_noticed(tmp_path, links):
    unit = tmp_path / "imagewarden-checks.service"
    text = rendered((CRON / "systemd" / unit.name).read_text(), links)
    unit.write_text(text.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True,
                          check=False, timeout=60)
    assert "NoNewPrivilege" in done.stderr


def test_there_is_a_timer_for_every_line_of_the_crontab():
    started_by = {}
    for unit in UNITS:
        if unit.suffix == ".service":
            assert unit.with_suffix(".timer") in UNITS
            (script,) = re.findall(r"^ExecStart=/usr/local/sbin/imagewarden-(\S+)$",
                                   unit.read_text(), re.M)
            started_by[script] = unit.read_text()
    assert sorted(started_by) == sorted(SCRIPTS)
    assert len(UNITS) == 2 * len(SCRIPTS)


def test_the_rescan_that_definitions_start_is_not_ended_with_them():
    text = (CRON / "systemd/imagewarden-definitions.service").read_text()
    assert "\nKillMode=process\n" in text
    assert "PrivateTmp=" not in text
