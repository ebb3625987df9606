"""What doctor looks at of a clamd that others have set up: what it would hide from us."""

from collections.abc import Iterator

from maintenance import memory
from maintenance.clamav import system
from maintenance.clamav.clamd_conf import ClamdConf
from maintenance.clamav.connection import PATIENCE, Clamd, pid_of
from maintenance.clamav.databases import Snapshot
from maintenance.clamav.private import memory_of
from maintenance.clamav.system import SystemEngine
from maintenance.jobs.examinations import Finding
from maintenance.settings import Config
from maintenance.text import show
from maintenance.units import Size


def unproven(found: SystemEngine) -> Finding:
    """Say what to do about a clamd that is not proven to have loaded what is on disk."""
    if found.conf is not None and found.conf.yes("OfficialDatabaseOnly"):
        return Finding("engine", "failed", "clamd loads neither our canary nor custom databases,"
                       " so nothing proves what it has loaded",
                       _put("OfficialDatabaseOnly no", found.conf))
    return Finding("engine", "failed", "clamd has not loaded what is on disk",
                   "update-definitions")


def limits(found: SystemEngine, wanted: Size) -> Iterator[Finding]:
    """Look whether it scans images up to ``wanted`` whole, and tells what it did not scan."""
    conf = found.conf
    if conf is None:
        yield Finding("limits", "warning", "clamd's configuration cannot be read: images of"
                      f" {Size(found.largest or 0)} and more count as unknown",
                      "let the jobs' user read clamd.conf")
    elif lines := conf.lacking(wanted):
        what = ("clamd calls clean what is over its limits" if found.hides_limits else
                "clamd's limits are below clamav.max_file_size: larger images are unknown")
        yield Finding("limits", "warning", what, _put(lines, conf))


def reloading(found: SystemEngine, content: Snapshot) -> Iterator[Finding]:
    """Look whether there is room for what a reload takes besides: the definitions once more."""
    if found.conf is None or not found.conf.yes("ConcurrentDatabaseReload"):
        return
    try:
        with found.clamd.connect(PATIENCE) as link:
            free = memory.available(pid_of(link))
    except OSError:  # it ended just now
        return
    needed = memory_of(content)
    if needed > free:
        yield Finding("reload", "warning", "while clamd reloads it holds the definitions twice:"
                      f" it wants {needed / 2**20:.0f} MB more, {free / 2**20:.0f} MB are"
                      " available", "more memory; or, with scans that wait for each reload, "
                      + _put("ConcurrentDatabaseReload no", found.conf))


def of_uploads(config: Config) -> Iterator[Finding]:
    """Look whether the clamd that uploads ask scans the largest of them whole."""
    conf = system.conf_for(config.clamav.socket)
    if conf is None:  # on another host, say
        return
    largest = min(config.upload.max_size, config.clamav.max_file_size)
    if not conf.alerts_on_limits and not conf.covers(largest):
        yield Finding("upload limits", "warning", "clamd calls clean what is over its limits, and"
                      f" uploads of up to {largest} are let in", _put(conf.lacking(largest), conf))
    if 0 < conf.size("StreamMaxLength") < largest:
        how = "from stdin" if Clamd(config.clamav.socket).local else "by tcp"
        yield Finding("upload limits", "warning", f"uploads of up to {largest} are let in, but"
                      f" clamd takes less {how}: larger ones have no verdict",
                      _put(f"StreamMaxLength {largest}", conf))


def _put(lines: str, conf: ClamdConf) -> str:
    return f"put into {show(conf.path)}, instead of what it says: {lines}; then restart clamd"
