"""Puts the toolkit on a production host, upgrades it there, and takes it away again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from maintenance.errors import ToolError, UsageError
from maintenance.provision import aftercare, beginning, confinement, known, packages, timetable
from maintenance.provision.beginning import Wanted
from maintenance.provision.console import CHECKOUT, conclude, parser
from maintenance.provision.host import Host, alone
from maintenance.provision.interpreter import Interpreter, choose
from maintenance.provision.known import Known
from maintenance.provision.ledger import migrate
from maintenance.provision.offers import Offers
from maintenance.provision.places import places
from maintenance.provision.processes import jobs_held_off
from maintenance.provision.release import Releases
from maintenance.provision.removal import Removal
from maintenance.provision.steps import Step
from maintenance.text import show

DESCRIPTION = """\
Puts the toolkit on this host: Debian packages, code with a Python environment of
its own, configuration, directories, cron, logrotate and AppArmor. It asks nothing.
Again, it upgrades, or repairs what is missing; a configuration that is there is
never changed, nor is any file under /etc that you have changed."""


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
    """Bring everything about, and tell what that leaves to do."""
    python = choose()
    wanted, text = settings(host, python)
    for steps in plan(host, python, wanted, text):
        host.journal.take(steps)
    for line in aftercare.hand_over():
        host.journal.leave(line)
    if not host.given.dry_run:
        for line in aftercare.examined(host.scripts.current / "bin" / "doctor", host.config):
            host.journal.leave(line)


def settings(host: Host, python: Interpreter) -> tuple[Known, str | None]:
    """Return what the configuration says, and its text when it is still to be written."""
    stores = beginning.wanted_stores(host.given.store)
    if host.config.exists():
        found = known.read(host.config, python)
        tell_what_is_not_added(host, found, stores)
        return found, None
    if not stores:
        raise UsageError(f"{show(host.config)} is not there yet: say --store PATH")
    user = host.given.user
    if user and not beginning.is_user(user):
        raise UsageError(f"--user {show(user)}: no such user")
    begun = beginning.begun(stores, user or beginning.owner(stores))
    return begun, beginning.first(stores, begun.user, host.scripts.current)


def plan(host: Host, python: Interpreter, wanted: Known, text: str | None
         ) -> Iterator[Iterable[Step]]:
    """Yield all steps, in an order in which each part finds what it needs."""
    user, releases = wanted.entry, Releases(host.library, CHECKOUT)
    (copy, sound), before = releases.target(), releases.in_force()
    offers = Offers.read(host.library / "manifest.json")
    systemd = timetable.uses_systemd(offers) if host.given.systemd is None else host.given.systemd
    missing = packages.missing([*packages.RUNTIME, *(() if sound else python.venv_package),
                                *timetable.starters(systemd)])
    yield system_packages(host, missing)
    yield releases.provide(copy, None if sound else python, host.console)
    yield beginning.configuration(host.config, copy, text)
    for place in places(wanted):
        yield place.provide(user)
    yield releases.switch(copy)
    yield migrate(copy, CHECKOUT, wanted, host.journal.leave)
    yield host.scripts.provide(CHECKOUT)
    table = timetable.Timetable(CHECKOUT / "cron", host.scripts.directory, host.config, wanted)
    yield table.provide(offers, systemd=systemd)
    yield confinement.allow(wanted, missing)
    yield releases.clear_away(copy, before)


def system_packages(host: Host, missing: Sequence[str]) -> Iterator[Step]:
    """Install Debian's packages that are missing."""
    if missing:
        yield Step("made", "Debian packages", " ".join(missing),
                   do=lambda: packages.install(missing, host.console))
    else:
        yield Step("unchanged", "Debian packages")


def tell_what_is_not_added(host: Host, found: Known, stores: Sequence[Wanted]) -> None:
    """Say what the command line asks for and the configuration does not have."""
    for store in stores:
        if store.path not in found.stores.values():
            lines = beginning.section(store, stores).strip().replace("\n", "\n    ")
            host.journal.leave(f"{show(host.config)} is yours and stays; to add this store, put "
                               f"into it:\n    {lines}")
    if host.given.user not in {None, found.user}:
        host.journal.leave(f"{show(host.config)} is yours and stays; to change the user, say "
                           f"there: user = \"{host.given.user}\"")


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
