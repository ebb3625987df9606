"""What doctor looks at on the host. Each examination finds, and repairs nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maintenance.errors import ImagewardenError, QuarantineError, ToolError
from maintenance.images.recipe import chosen, stand_in
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


def image_tools(context: Context) -> Iterator[Finding]:
    """Look for what makes images smaller; the programs among it are looked for anyway."""
    settings = context.config.optimize
    for kind, wish in (("png", settings.png), ("jpeg", settings.jpeg)):
        name = f"{kind} tool"
        try:
            tool, missing = chosen(kind, wish), stand_in(kind, wish)
        except ToolError as error:
            yield Finding(name, "failed", str(error), "install it, or choose another")
        else:
            yield Finding(name, "warning" if missing else "ok", missing or tool,
                          "bin/setup" if missing else "")


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
