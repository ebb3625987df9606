"""Puts the toolkit on a production host, upgrades it there, and takes it away again."""

from __future__ import annotations

import argparse
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from maintenance.errors import ToolError, UsageError
from maintenance.provision import aftercare, confinement, known, packages, timetable
from maintenance.provision.children import run
from maintenance.provision.console import CHECKOUT, Console, conclude, parser
from maintenance.provision.interpreter import choose
from maintenance.provision.known import Known
from maintenance.provision.ledger import migrate
from maintenance.provision.offers import Offers
from maintenance.provision.places import places
from maintenance.provision.processes import jobs_held_off
from maintenance.provision.release import Releases, make
from maintenance.provision.removal import Removal
from maintenance.provision.scripts import Scripts
from maintenance.provision.steps import Journal, Step, write
from maintenance.text import show

DESCRIPTION = """\
Puts the toolkit on this host: Debian packages, code with a Python environment of
its own, configuration, directories, cron, logrotate and AppArmor. It asks nothing.
Again, it upgrades, or repairs what is missing; a configuration that is there is
never changed, nor is any file under /etc that you have changed."""
# Any of these reads /etc/cron.d.
CRONS = ("/usr/sbin/cron", "/usr/sbin/crond", "/usr/sbin/bcron-start",
         "/usr/lib/systemd/system-generators/systemd-crontab-generator",
         "/lib/systemd/system-generators/systemd-crontab-generator")


@dataclass(frozen=True)
class Host:
    """Where things lie on this host, and what was asked for."""

    given: argparse.Namespace
    console: Console
    journal: Journal
    library: Path
    config: Path
    scripts: Scripts

    @classmethod
    def of(cls, given: argparse.Namespace) -> Host:
        """Understand the command line."""
        prefix = os.path.abspath(given.prefix)
        if not timetable.PLAIN.fullmatch(prefix):
            raise UsageError(f"--prefix {show(prefix)}: letters, digits and ./_+@:,- only")
        library = Path(prefix, "lib", "imagewarden")
        console = Console("install", verbose=given.verbose, quiet=given.quiet,
                          log=library / "install.log")
        shown = not given.json and not given.quiet
        return cls(given, console, Journal(console, given.dry_run, shown), library,
                   Path(os.path.abspath(given.config or "/etc/imagewarden.toml")),
                   Scripts(Path(prefix, "sbin"), library / "current"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as bin/install and return the exit status."""
    options = parser(DESCRIPTION, config="the configuration; default: /etc/imagewarden.toml")
    options.add_argument("--store", action="append", default=[], metavar="[NAME=]PATH",
                         help="a tree of images; required the first time; may be repeated")
    options.add_argument("--user", help="whom jobs work as; default: the owner of the store")
    options.add_argument("--prefix", default="/usr/local", metavar="DIR",
                         help="where lib/imagewarden and sbin/imagewarden-* go; default: "
                              "/usr/local")
    starter = options.add_mutually_exclusive_group()
    starter.add_argument("--systemd", action="store_const", const=True, dest="systemd",
                         help="start the jobs by systemd's timers; default: by cron")
    starter.add_argument("--cron", action="store_const", const=False, dest="systemd",
                         help="start the jobs by cron again")
    options.add_argument("--dry-run", action="store_true",
                         help="say what would be done, do nothing")
    options.add_argument("--uninstall", action="store_true",
                         help="take it away; state, logs, quarantine and configuration stay")
    options.add_argument("--purge", action="store_true",
                         help="take those away, too, with every image in quarantine")
    given = options.parse_args(arguments)
    return conclude("install", given.json, lambda: work(Host.of(given)))


def work(host: Host) -> Mapping[str, object]:
    """Do what was asked for and return the result's members."""
    os.umask(0o022)  # jobs run as other users than root
    if os.geteuid() != 0 and not host.given.dry_run:
        raise ToolError("this needs root: start it with sudo (--dry-run needs none)")
    with alone(host):
        if host.given.uninstall or host.given.purge:
            remove(host)
        else:
            install(host)
    return host.journal.members()


def install(host: Host) -> None:
    """Bring everything about, in an order in which each part finds what it needs."""
    journal = host.journal
    python = choose()
    found = known.read(host.config, python) if host.config.exists() else None
    stores = known.wanted_stores(host.given.store)
    if found is None:
        if not stores:
            raise UsageError(f"{show(host.config)} is not there yet: say --store PATH")
        wanted = known.begun(stores, host.given.user or known.owner(stores))
    else:
        wanted = found
        tell_what_is_not_added(host, found, stores)
    user = wanted.entry
    releases = Releases(host.library, CHECKOUT)
    copy, sound = releases.target()
    before = releases.in_force()
    offers = Offers.read(host.library / "manifest.json")
    systemd = host.given.systemd
    if systemd is None:
        systemd = timetable.uses_systemd(offers)
    missing = packages.missing([*packages.RUNTIME, *(() if sound else python.venv_package),
                                *starters(systemd)])
    journal.take(system_packages(host, missing))
    if sound:
        journal.take([Step("unchanged", str(copy))])
    else:
        journal.take([Step("made", str(copy), "code and Python packages",
                           do=lambda: make(CHECKOUT, copy, python, host.console))])
    journal.take(configuration(host, copy, found, known.first(stores, wanted.user, releases.current)
                               if found is None else ""))
    for place in places(wanted):
        journal.take(place.provide(user))
    journal.take(releases.switch(copy))
    journal.take(migrate(copy, CHECKOUT, wanted, journal.leave))
    journal.take(host.scripts.provide(CHECKOUT))
    table = timetable.Timetable(CHECKOUT / "cron", host.scripts.directory, host.config, wanted)
    journal.take(table.provide(offers, systemd=systemd))
    journal.take(confinement.allow(wanted, missing))
    journal.take(releases.clear_away(copy, before))
    tell_what_is_left(host)


def starters(systemd: bool) -> Iterator[str]:
    """Return the packages without which nothing reads what we write under /etc."""
    if not Path("/usr/sbin/logrotate").exists():
        yield "logrotate"
    if not systemd and not any(map(os.path.exists, CRONS)):
        yield "cron"


def system_packages(host: Host, missing: Sequence[str]) -> Iterator[Step]:
    """Install Debian's packages that are missing."""
    if missing:
        yield Step("made", "Debian packages", " ".join(missing),
                   do=lambda: packages.install(missing, host.console))
    else:
        yield Step("unchanged", "Debian packages")


def configuration(host: Host, copy: Path, found: Known | None, text: str) -> Iterator[Step]:
    """Begin a configuration; one that is there only has to suit the new code."""
    if found is None:
        yield Step("made", str(host.config), "configuration",
                   do=lambda: begin(host.config, copy, text))
    else:
        yield Step("unchanged", str(host.config), "yours: never changed by install",
                   do=lambda: check(host.config, copy))


def begin(config: Path, copy: Path, text: str) -> None:
    """Write the first configuration once the code has understood it."""
    trial = config.with_name(config.name + ".dpkg-new")
    write(trial, text)
    try:
        check(trial, copy)
        trial.replace(config)
    finally:
        trial.unlink(missing_ok=True)


def check(config: Path, copy: Path) -> None:
    """Raise ToolError unless the new code can use the configuration."""
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        if run([copy / "bin" / "show-config", "--check", "--config", config], output):
            output.seek(0)
            raise ToolError(f"{copy.name} is not put in force, the configuration does not suit it: "
                            + output.read().strip().rpartition("\n")[2])


def tell_what_is_not_added(host: Host, found: Known, stores: Sequence[known.Wanted]) -> None:
    """Say what the command line asks for and the configuration does not have."""
    for store in stores:
        if store.path not in found.stores.values():
            lines = known.section(store, stores).strip().replace("\n", "\n    ")
            host.journal.leave(f"{show(host.config)} is yours and stays; to add this store, put "
                               f"into it:\n    {lines}")
    if host.given.user not in {None, found.user}:
        host.journal.leave(f"{show(host.config)} is yours and stays; to change the user, say "
                           f"there: user = \"{host.given.user}\"")


def tell_what_is_left(host: Host) -> None:
    """Say what only the admin can decide, and what doctor finds."""
    for line in aftercare.hand_over():
        host.journal.leave(line)
    if not host.given.dry_run:
        for line in aftercare.examined(host.scripts.directory / "imagewarden-doctor", host.config):
            host.journal.leave(line)


def remove(host: Host) -> None:
    """Uninstall, and purge when that was asked for."""
    there = host.config.exists()
    found = known.read(host.config, choose()) if there else None
    removal = Removal(host.library, host.scripts, Offers.read(host.library / "manifest.json"),
                      host.config, found)
    removal.refuse_when_in_use()
    with jobs_held_off(Path(found.state if found else known.STATE) / "locks"):
        host.journal.take(removal.uninstall())
        host.journal.take(removal.purge() if host.given.purge else removal.keep())
    if found is None and Path(known.STATE).is_dir():
        host.journal.leave(f"{show(host.config)} is not there, which says where state, logs and "
                           f"quarantine are; {known.STATE} is one of them and stays")
    if not host.journal.steps:
        host.journal.take([Step("unchanged", str(host.library), "nothing is installed")])


@contextmanager
def alone(host: Host) -> Iterator[None]:
    """Keep a second install of the same prefix out; leaves no file behind."""
    if host.given.dry_run:
        yield
        return
    place = host.library.parent.parent
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ToolError("another install works here") from None
        yield
    finally:
        os.close(fd)
