"""When jobs run on this host, and what becomes of their logs: cron or systemd, logrotate."""

from __future__ import annotations

import grp
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision.children import must, run
from maintenance.provision.known import Known
from maintenance.provision.offers import Offers
from maintenance.provision.steps import Step, link
from maintenance.text import show

CRON = Path("/etc/cron.d/imagewarden")
LOGROTATE = Path("/etc/logrotate.d/imagewarden")
UNITS = Path("/etc/systemd/system")
TIMERS = UNITS / "timers.target.wants"
SYSTEMD = Path("/run/systemd/system")  # there when systemd runs this host
UNIT = "imagewarden-*.*"
# Neither cron nor systemd nor logrotate has one way to quote that the others know.
PLAIN = re.compile(r"[\w./+@:,-]+", re.ASCII)

MACHINE = Path("/etc/machine-id")
HOURLY = re.compile(r"^\d+ \*(?= \* )", re.MULTILINE)  # what the template starts every hour
MINUTES = [minute for minute in range(60) if minute % 5 > 1]

# Any of these reads /etc/cron.d.
CRONS = ("/usr/sbin/cron", "/usr/sbin/crond", "/usr/sbin/bcron-start",
         "/usr/lib/systemd/system-generators/systemd-crontab-generator",
         "/lib/systemd/system-generators/systemd-crontab-generator")


@dataclass(frozen=True)
class Timetable:
    """The files in cron/ of a copy, with this host's words in them."""

    templates: Path
    scripts: Path  # where the links to the scripts lie
    config: Path
    known: Known

    def provide(self, offers: Offers, *, systemd: bool) -> Iterator[Step]:
        """Write what starts the jobs, take away what would start them twice."""
        if systemd:
            yield from offers.withdraw(CRON)
            yield from self._units(offers)
        else:
            yield from withdraw_units(offers, set())
            text = self._text("imagewarden.crontab")
            yield from offers.offer(CRON, re.sub(HOURLY, f"{own_minute()} *", text))
        if self.known.logs:
            yield from offers.offer(LOGROTATE, self._text("imagewarden.logrotate"))
        else:
            yield from offers.withdraw(LOGROTATE)

    def _units(self, offers: Offers) -> Iterator[Step]:
        names = sorted(path.name for path in (self.templates / "systemd").glob(UNIT))
        timers = [name for name in names if name.endswith(".timer")]
        yield from withdraw_units(offers, set(names))  # those of a job that is no more
        steps = [step for name in names
                 for step in offers.offer(UNITS / name, self._text(f"systemd/{name}"))]
        steps += [link(TIMERS / timer, str(UNITS / timer)) for timer in timers]
        yield from steps
        changed = any(step.action in {"made", "updated"} for step in steps)
        if changed and SYSTEMD.is_dir():
            yield Step("updated", "systemd", f"started {' '.join(timers)}",
                       do=lambda: _start(timers))

    def _text(self, template: str) -> str:
        user = self.known.entry
        words = {"www-data": user.pw_name, "/usr/local/sbin": str(self.scripts),
                 "/var/log/imagewarden": self.known.logs, "/etc/imagewarden.toml": str(self.config)}
        for word in words.values():
            if word and not PLAIN.fullmatch(word):
                raise ToolError(f"{show(word)} has characters that a crontab cannot hold")
        # logrotate's "su USER GROUP": a user's group need not be called like him.
        words["www-data www-data"] = f"{user.pw_name} {_group(user.pw_gid)}"
        text = (self.templates / template).read_text(encoding="utf-8")
        longest_first = sorted(words, key=len, reverse=True)
        pattern = "|".join(rf"(?<![\w-]){re.escape(word)}(?!\w)" for word in longest_first)
        return re.sub(pattern, lambda match: words[match[0]], text)


def own_minute() -> int:
    """Return the minute in which this host asks the mirror: always the same, unlike others'.

    None that many choose by hand, and none in which send-checks starts.
    """
    identity = b""
    with suppress(OSError):
        identity = MACHINE.read_bytes()
    found = hashlib.sha256(identity or os.uname().nodename.encode()).digest()
    return MINUTES[int.from_bytes(found[:8], "big") % len(MINUTES)]


def starters(systemd: bool) -> Iterator[str]:
    """Return the packages without which nothing reads what we write under /etc."""
    if not Path("/usr/sbin/logrotate").exists():
        yield "logrotate"
    if not systemd and not any(map(os.path.exists, CRONS)):
        yield "cron"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def withdraw(offers: Offers) -> Iterator[Step]:
    """Take everything away that starts a job or touches its log."""
    yield from offers.withdraw(CRON)
    yield from withdraw_units(offers, set())
    yield from offers.withdraw(LOGROTATE)


def withdraw_units(offers: Offers, but: set[str]) -> Iterator[Step]:
    """Stop our timers and take the units away; a run that is under way goes on."""
    timers = [one for one in sorted(TIMERS.glob("imagewarden-*.timer")) if one.name not in but]
    units = [Path(name) for name in sorted(offers.files)
             if Path(name).parent == UNITS and Path(name).name not in but]
    running = SYSTEMD.is_dir()
    for timer in timers:
        yield Step("removed", str(timer), do=partial(_stop, timer, running))
    for unit in units:
        yield from offers.withdraw(unit)
    if timers and running:
        yield Step("updated", "systemd", "has forgotten them", do=_reload)


def uses_systemd(offers: Offers) -> bool:
    """Tell whether the last install chose systemd's timers."""
    return any(name.endswith(".timer") for name in offers.files) and any(
        TIMERS.glob("imagewarden-*.timer"))


def _start(timers: list[str]) -> None:
    _reload()
    must(run(["systemctl", "start", *timers], None), "systemctl start")


def _stop(timer: Path, running: bool) -> None:
    if running:
        run(["systemctl", "stop", timer.name], None)
    timer.unlink()


def _reload() -> None:
    must(run(["systemctl", "daemon-reload"], None), "systemctl daemon-reload")
