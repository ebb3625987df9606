"""What doctor looks at besides our own: the host that confines and starts the jobs."""

from collections.abc import Iterator
from pathlib import Path

from maintenance import apparmor
from maintenance.apparmor import Confined
from maintenance.errors import ConfigError
from maintenance.images.cage import cage
from maintenance.jobs.examinations import Finding
from maintenance.settings import Config
from maintenance.shell.job import Context
from maintenance.text import show

CRON = (Path("/etc/cron.d"), Path("/var/spool/cron/crontabs"))
TIMERS = Path("/etc/systemd/system/timers.target.wants")
CRON_DAEMONS = frozenset({"cron", "crond", "fcron", "cronie", "busybox", "supercronic"})


def sandbox(context: Context) -> Iterator[Finding]:
    """Try the cage in which images are parsed."""
    wish = context.config.optimize.sandbox
    repair = "apt-get install bubblewrap; where it is there, allow user namespaces"
    try:
        works = bool(cage(wish))
    except ConfigError as error:
        yield Finding("sandbox", "failed", str(error), repair)
        return
    if works:
        yield Finding("sandbox", "ok", "bubblewrap")
    elif wish == "off":
        yield Finding("sandbox", "warning", "switched off: images are parsed under limits only",
                      'optimize.sandbox = "auto"')
    else:
        yield Finding("sandbox", "warning",
                      "bubblewrap does not work here: images are parsed under limits only", repair)


def confinement(context: Context) -> Iterator[Finding]:
    """Look whether AppArmor lets clamd and freshclam into our directories."""
    if not apparmor.active():
        return
    bad = [one for one in confined(context.config) if one.in_force and not _allowed(one)]
    if bad:
        places = ", ".join(show(one.local) for one in bad)
        yield Finding("AppArmor", "warning", f"the rules for our directories are not in {places}",
                      "imagewarden-install (as root) puts them there")
    else:
        yield Finding("AppArmor", "ok", "clamd and freshclam may use our directories")


def confined(config: Config) -> tuple[Confined, ...]:
    """Return what the configuration asks of each confined program."""
    databases = [str(config.own_databases)]
    if config.clamav.databases is not None:
        databases.append(str(config.clamav.databases))
    sources = [url.removeprefix("file://") for url in config.definitions.custom_urls
               if url.startswith("file:///")]
    return apparmor.confined(list(dict.fromkeys(databases)), sources)


def _allowed(one: Confined) -> bool:
    try:
        return one.block in one.local.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False


def timetable(_context: Context) -> Iterator[Finding]:
    """Look for what starts the jobs: cron, systemd's timers or run-schedule."""
    timers = [timer.name for timer in _in(TIMERS) if timer.name.startswith("imagewarden-")]
    tables = [table for place in CRON for table in _in(place) if _starts_jobs(table)]
    if timers:
        yield Finding("timetable", "ok", f"systemd: {', '.join(timers)}")
    elif tables and not _runs(CRON_DAEMONS):
        yield Finding("timetable", "warning", f"{show(tables[0])} is there, but no cron runs",
                      "service cron start; or use run-schedule")
    elif tables:
        yield Finding("timetable", "ok", show(tables[0]))
    elif _runs(frozenset({"run-schedule"})):
        yield Finding("timetable", "ok", "run-schedule")
    else:
        yield Finding("timetable", "ok", "neither cron nor timers nor run-schedule: by hand")


def _in(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:  # not there, or not for us to read
        return []


def _starts_jobs(table: Path) -> bool:
    """Tell whether a crontab starts a rescan; cron itself passes over names with a dot."""
    if "." in table.name:
        return False
    try:
        lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any("rescan-store" in line and not line.lstrip().startswith("#") for line in lines)


def _runs(names: frozenset[str]) -> bool:
    for process in _in(Path("/proc")):
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")[:4]
                program = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue
            scripts = {word.rpartition(b"/")[2].decode("utf-8", "replace") for word in words}
            if program in names or scripts & names:
                return True
    return False
