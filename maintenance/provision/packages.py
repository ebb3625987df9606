"""Debian's packages: which are missing, and installing them without starting a service."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision.children import ask
from maintenance.provision.console import Console

RUNTIME = ("clamav", "clamav-daemon", "clamav-freshclam", "clamdscan", "optipng",
           "libjpeg-turbo-progs", "bubblewrap")
# Zabbix's server and frontend, whose API the tests use.
ZABBIX = ("postgresql", "zabbix-server-pgsql", "zabbix-frontend-php", "zabbix-sender", "php-cli",
          "php-pgsql", "php-gd", "php-xml", "php-bcmath", "php-mbstring")
TESTS = ("strace", "util-linux", "openssl", "libimage-exiftool-perl", "imagemagick", "cron",
         "faketime", "logrotate", "systemd", *ZABBIX)
BEFORE = {"zabbix-sender": "zabbix-agent"}  # which brings the program in older releases
SERVICES = ("clamav-daemon", "clamav-freshclam", "postgresql", "zabbix-server-pgsql",
            "zabbix-agent")

POLICY = Path("/usr/sbin/policy-rc.d")
MARK = "# Of imagewarden's bin/setup, for as long as it installs packages."
# Says no (101) only while the set-up that wrote it lives: one that was killed
# outright leaves a file that no longer forbids anything.
SCRIPT = f"#!/bin/sh\n{MARK}\nkill -0 %d 2>/dev/null && exit 101\nexit 0\n"


def missing(packages: Sequence[str]) -> list[str]:
    """Return those that are not completely installed, in the order given."""
    known = ask(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", "*"])
    if known is None:
        raise ToolError("dpkg-query is not here or fails: this needs Debian or Ubuntu")
    installed = {name for name, _, state in (line.partition(" ") for line in known.splitlines())
                 if state == "installed"}
    here = zip(packages, named_here(packages), strict=False)
    return [package for package, name in here if installed.isdisjoint({package, name})]


def named_here(packages: Sequence[str]) -> list[str]:
    """Return them under the names of this release, as far as apt knows it."""
    return [BEFORE[package] if package in BEFORE and ask(["apt-cache", "show", package]) is None
            else package for package in packages]


def command(packages: Sequence[str]) -> str:
    """Return what an administrator can type to install them."""
    return f"apt-get install --no-install-recommends {' '.join(named_here(packages))}"


def install(packages: Sequence[str], console: Console, policy: Path = POLICY) -> None:
    """Install them, asking nothing and starting nothing; needs root.

    A package list that cannot be refreshed is no failure yet: what is known may
    do, and one broken third-party source must not stand in the way.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8",
                   "NEEDRESTART_SUSPEND": "1"}
    apt = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300",
           "-o", "Dpkg::Options::=--force-confold"]
    console.say(f"installing {' '.join(packages)}")
    with no_service_starts(policy):
        with suppress(ToolError):  # finishes what an interrupted run left half configured
            console.run(["dpkg", "--force-confold", "--configure", "--pending"], environment)
        with suppress(ToolError):
            console.run([*apt, "update"], environment)
        console.run([*apt, "install", "--no-install-recommends", *named_here(packages)],
                    environment)
    services = [package for package in packages if package in SERVICES]
    if services and Path("/run/systemd/system").is_dir():
        console.say(f"{' and '.join(services)}: not started now, but Debian has enabled them, "
                    "so they start at the next boot")


@contextmanager
def no_service_starts(policy: Path = POLICY) -> Iterator[None]:
    """Keep packages from starting their services, unless the system has its own policy."""
    with suppress(OSError, UnicodeError):
        if MARK in policy.read_text(encoding="utf-8"):
            policy.unlink()
    try:
        descriptor = os.open(policy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(SCRIPT % os.getpid())
        yield
    finally:
        policy.unlink(missing_ok=True)
