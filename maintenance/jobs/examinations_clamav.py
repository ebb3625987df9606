"""What doctor looks at of ClamAV: definitions and engines."""

import time
from collections.abc import Iterator

from maintenance.clamav import freshclam, system
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import strays as among_databases
from maintenance.errors import ImagewardenError
from maintenance.jobs.engine_proof import evidence
from maintenance.jobs.engines import lacks_memory
from maintenance.jobs.examinations import Finding
from maintenance.jobs.examinations_clamd import limits, of_uploads, reloading, unproven
from maintenance.jobs.generation import directory_of, on_disk, uses_system_engine
from maintenance.settings import Config
from maintenance.shell.job import Context
from maintenance.text import show


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
    if not uses_system_engine(context.config):
        yield _private(context.config)
        return
    try:
        found = system.connect(context.config.clamav.socket)
        disk = on_disk(context.config)
        proven = found.proven(evidence(context.config, disk), disk.content)
    except ImagewardenError as error:
        yield Finding("engine", "failed", str(error), "systemctl restart clamav-daemon")
        return
    if not found.clamd.local:
        yield Finding("engine", "failed", "a rescan needs a local clamd: tcp:// is for uploads",
                      'clamav.engine = "private", or a local socket')
        return
    yield (Finding("engine", "ok", f"system: {context.config.clamav.socket}") if proven
           else unproven(found))
    yield from limits(found, context.config.clamav.max_file_size)
    yield from reloading(found, disk.content)


def _private(config: Config) -> Finding:
    try:
        lacking = lacks_memory(on_disk(config).content)
    except ImagewardenError:
        lacking = None  # there are none, which is a finding of its own
    if lacking is not None:
        return Finding("engine", "failed", lacking,
                       'more memory, or the system\'s clamd: clamav.engine = "system"')
    return Finding("engine", "ok", "private: started for a run when something is due")


def databases(context: Context) -> Iterator[Finding]:
    """Look at where the system's clamd has its databases from, and what lies among ours."""
    config, ours = context.config, directory_of(context.config)
    needed = uses_system_engine(config)
    conf = system.conf_for(config.clamav.socket)
    if conf is not None and conf.databases.resolve() != ours.resolve():
        yield Finding("databases", "failed" if needed else "warning",
                      f"clamd loads them from {show(conf.databases)}, but our definitions go to"
                      f" {show(ours)}", f'clamav.databases = "{show(conf.databases)}"')
    strays = among_databases(ours)
    if strays:
        names = ", ".join(show(name) for name in strays)
        yield Finding("databases", "failed" if needed else "warning",
                      f"called like databases, but no files: {names} in {show(ours)};"
                      " clamd does not get over them", "remove or rename them")


def uploads(context: Context) -> Iterator[Finding]:
    """Look at the clamd that uploads ask."""
    config = context.config
    if not config.upload.enabled:
        yield Finding("uploads", "warning", "switched off: nothing is scanned before it is saved",
                      "upload.enabled = true")
    elif Clamd(config.clamav.socket).answers():
        yield Finding("uploads", "ok", config.clamav.socket)
        yield from of_uploads(config)
    else:
        yield Finding("uploads", "warning", f"no clamd answers at {config.clamav.socket}",
                      "start clamav-daemon; without it scan-upload has no verdict")
