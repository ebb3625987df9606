"""What doctor looks at. Each examination finds, and repairs nothing."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maintenance.clamav import clamd_conf, freshclam, system
from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.errors import ImagewardenError, QuarantineError
from maintenance.jobs.generation import directory_of, on_disk, uses_system_engine
from maintenance.jobs.quarantines import quarantine_of
from maintenance.ledger.ledger import Ledger
from maintenance.programs import find
from maintenance.shell.job import Context
from maintenance.store.quarantine import NotThere
from maintenance.store.tree import Tree
from maintenance.text import show

# Program, Debian package, and whether nothing works without it.
PROGRAMS = (("clamd", "clamav-daemon", True), ("freshclam", "clamav-freshclam", True),
            ("sigtool", "clamav", True), ("optipng", "optipng", False),
            ("jpegtran", "libjpeg-turbo-progs", False), ("bwrap", "bubblewrap", False))


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one thing, and what to type when it is not well."""

    check: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    repair: str = ""


def programs(_context: Context) -> Iterator[Finding]:
    """Look for the programs that jobs start."""
    for name, package, needed in PROGRAMS:
        path = find(name)
        if path is not None:
            yield Finding(name, "ok", path)
        else:
            yield Finding(name, "failed" if needed else "warning", "not installed",
                          f"apt-get install {package}")


def directories(context: Context) -> Iterator[Finding]:
    """Look at the places that the jobs write to."""
    config = context.config
    places = [("state", config.state), *([("logs", config.logs)] if config.logs else [])]
    for name, path in places:
        if not path.exists() and os.access(path.parent, os.W_OK | os.X_OK):
            yield Finding(name, "ok", f"{show(path)} will be made by the first job")
        elif not path.is_dir():
            yield Finding(name, "failed", f"{show(path)} is no directory",
                          f"mkdir -m 0700 {show(path)}; chown it to the jobs' user")
        elif not os.access(path, os.W_OK | os.X_OK):
            yield Finding(name, "failed", f"{show(path)} is not writable for us",
                          f"chown the jobs' user {show(path)}")
        else:
            yield Finding(name, "ok", show(path))


def stores(context: Context) -> Iterator[Finding]:
    """Look at every store's directory and marker."""
    for store in context.config.store:
        name = f"store {store.name}"
        try:
            with Tree(store.path) as tree:
                os.listdir(tree.fd)  # noqa: PTH208 - by descriptor
                missing = store.marker and not tree.holds(store.marker)
        except (ImagewardenError, OSError) as error:
            yield Finding(name, "failed", str(error), "mount it, or correct its path")
            continue
        if missing:
            yield Finding(name, "failed", f"its marker {show(store.marker)} is missing", "mount it")
        else:
            yield Finding(name, "ok", show(store.path))


def quarantines(context: Context) -> Iterator[Finding]:
    """Look at each store's quarantine: who can enter it, and where it is."""
    for store in context.config.store:
        name = f"quarantine {store.name}"
        place = context.config.quarantine_of(store)
        try:
            with quarantine_of(context.config, store, make=False) as opened:
                device, troubles = os.fstat(opened.fd).st_dev, list(opened.damaged())
        except NotThere:
            yield Finding(name, "ok", f"{show(place)} will be made when something is taken")
            continue
        except QuarantineError as error:
            yield Finding(name, "failed", str(error),
                          "give the jobs' user a directory of his own with mode 0700")
            continue
        if troubles:
            yield Finding(name, "warning", troubles[0], "quarantine list; quarantine delete TICKET")
        elif store.path.exists() and store.path.stat().st_dev != device:
            yield Finding(name, "ok", f"{show(place)}: not on the store's file system, so images"
                          " are copied there, without extended attributes and ACLs")
        else:
            yield Finding(name, "ok", show(place))


def definitions(context: Context) -> Iterator[Finding]:
    """Look at the databases and their age."""
    settings = context.config.definitions
    directory = directory_of(context.config)
    try:
        content = on_disk(context.config).content
    except ImagewardenError as error:
        yield Finding("definitions", "failed", str(error), "update-definitions")
        return
    built = [one.built for one in content.databases if one.built is not None]
    age = (time.time() - max(built)) / 86400 if built else None
    detail = f"{len(content.databases)} databases in {show(directory)}"
    if age is None or age * 86400 <= settings.warn_age:
        yield Finding("definitions", "ok", detail)
    else:
        failed = age * 86400 > settings.fail_age
        yield Finding("definitions", "failed" if failed else "warning",
                      f"{detail}, {age:.1f} days old", "update-definitions, and see its log")
    other = freshclam.running(directory)
    if other is not None:
        yield Finding("freshclam daemon", "ok" if other.daemon else "warning",
                      f"pid {other.pid} works in {show(directory)}")


def engine(context: Context) -> Iterator[Finding]:
    """Look at what would rescan."""
    settings = context.config.clamav
    if not uses_system_engine(context.config):
        yield Finding("engine", "ok", "private: started for a run when something is due")
        return
    try:
        found = system.connect(settings.socket)
        content = on_disk(context.config).content
        proven = found.proven(Canary.read(directory_of(context.config)), content)
    except ImagewardenError as error:
        yield Finding("engine", "failed", str(error), "systemctl restart clamav-daemon")
        return
    if not proven:
        yield Finding("engine", "failed", "clamd has not loaded what is on disk",
                      "update-definitions")
    if found.hides_limits:
        yield Finding("engine", "warning", "clamd calls clean what is over its limits",
                      f"put into {clamd_conf.SYSTEM}: AlertExceedsMax yes,"
                      f" MaxFileSize {settings.max_file_size}")
    elif proven:
        yield Finding("engine", "ok", f"system: {settings.socket}")


def uploads(context: Context) -> Iterator[Finding]:
    """Look at the clamd that uploads ask."""
    config = context.config
    if not config.upload.enabled:
        yield Finding("uploads", "warning", "switched off: nothing is scanned before it is saved",
                      "upload.enabled = true")
    elif Clamd(config.clamav.socket).answers():
        yield Finding("uploads", "ok", config.clamav.socket)
    else:
        yield Finding("uploads", "warning", f"no clamd answers at {config.clamav.socket}",
                      "start clamav-daemon; without it scan-upload has no verdict")


def ledger(context: Context) -> Iterator[Finding]:
    """Look at the ledger, without making one."""
    state = Path(context.config.state)
    if not (state / "ledger.sqlite").exists():
        yield Finding("ledger", "ok", "will be made by the first job")
        return
    try:
        with Ledger.open(state) as opened:
            waiting, set_aside, _ = opened.outbox_state()
    except ImagewardenError as error:
        yield Finding("ledger", "failed", str(error))
        return
    yield Finding("ledger", "ok", f"{waiting} results wait for Zabbix, {set_aside} set aside")
