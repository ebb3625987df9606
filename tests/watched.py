"""A host that uses the template, the site that tells it things, and what Zabbix makes of them."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from maintenance.monitoring import trapper
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value
from maintenance.times import Deadline
from template import items, triggers
from template.parts import TEMPLATE
from tests.site import Site, wait_until
from tests.zabbix import Zabbix

IMPORT = Path(__file__).resolve().parent.parent / "zabbix/import-template"
CLOSE = 1  # what event.acknowledge is to do
PATIENCE = 60.0  # seconds for what Zabbix does in two


def imported(zabbix: Zabbix, *arguments: str) -> subprocess.CompletedProcess:
    """Run the script that imports the template."""
    return subprocess.run(
        [IMPORT, zabbix.frontend, *arguments], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "ZABBIX_TOKEN": zabbix.make_token(f"at {time.time_ns()}")})


class Watched:
    """The host ``name`` and ``site``, whose jobs send to it."""

    def __init__(self, zabbix: Zabbix, name: str, root: Path, macros: Mapping[str, str]) -> None:
        self.zabbix, self.name, self.site = zabbix, name, Site(root)
        done = imported(zabbix, "--host", name)
        assert (done.returncode, done.stderr) == (0, ""), done
        self.id = zabbix.api("host.get", filter={"host": [name]})[0]["hostid"]
        for macro, value in macros.items():
            self.set_macro(macro, value, learn=False)
        zabbix.learn()
        self.site.settings["zabbix"] = {"servers": [zabbix.address], "host": name,
                                        "timeout": "20s"}
        self.site.settings["optimize"] = {"window": ""}
        self.site.write_config()

    # --- what the site does

    def run(self, script: str, *arguments: str, status: int = 0) -> dict:
        """Run a job to its end; its result."""
        ended = self.site.run(script, "--json", *arguments)
        assert ended.status == status, ended
        return ended.json

    def checks(self, *arguments: str, status: int = 0) -> dict:
        return self.run("send-checks", *arguments, status=status)

    def offer(self, key: str, value: str, clock: float | None = None, ns: int = 0) -> int:
        """Send one value at once; 1 when it was taken."""
        return trapper.send(
            Server("127.0.0.1", self.zabbix.port),
            [Value(self.name, key, value, int(clock or time.time()), ns)], Deadline.after(20))

    def discover(self) -> None:
        """Have Zabbix make items for what there is, and wait until they take values."""
        wait_until(lambda: self.site.run("send-checks").status == 0, PATIENCE)
        wait_until(lambda: any("uploads" in key for key in self.items()), PATIENCE)
        self.zabbix.learn()
        at = time.time()
        wait_until(lambda: self.checks() and self.last("imagewarden.store.images[uploads]", at)
                   is not None, PATIENCE)

    # --- what Zabbix has

    def items(self, *more: str) -> dict[str, dict]:
        """Every item of the host, by key."""
        found = self.zabbix.api("item.get", hostids=[self.id], output=[
            "key_", "lastvalue", "lastclock", "state", "error", "value_type", "templateid", *more])
        return {one["key_"]: one for one in found}

    def last(self, key: str, since: float = 0) -> str | None:
        """The last value of an item, when it is not older than ``since``."""
        [one] = self.zabbix.api("item.get", hostids=[self.id], filter={"key_": key},
                                output=["lastvalue", "lastclock"]) or [{"lastclock": 0}]
        return one["lastvalue"] if int(one["lastclock"]) >= max(1, int(since)) else None

    def wait_for(self, key: str, value: str) -> None:
        """Wait until an item has ``value``."""
        wait_until(lambda: self.last(key) == value, PATIENCE)

    def trigger(self, mark: str, **names: str) -> dict:
        """A trigger, by its mark in the tables."""
        every = [*triggers.TRIGGERS, *(one for rule in items.RULES for one in rule.triggers)]
        [name] = [f"{TEMPLATE}: {one.name}" for one in every if one.mark == mark]
        for macro, text in names.items():
            name = name.replace(f"{{#{macro}}}", text)
        found = self.zabbix.api("trigger.get", hostids=[self.id], filter={"description": name},
                                output=["value", "state", "error", "description"])
        assert len(found) == 1, (name, found)
        return found[0]

    def rings(self, mark: str) -> bool:
        """Whether an alarm is on."""
        names = {"STORE": "uploads", "JOB": "night"}
        return self.trigger(mark, **names)["value"] == "1"

    def wait_for_alarm(self, mark: str) -> None:
        wait_until(lambda: self.rings(mark), PATIENCE)

    def wait_for_silence(self, mark: str) -> None:
        wait_until(lambda: not self.rings(mark), PATIENCE)

    def problems(self, mark: str) -> Sequence[dict]:
        """The open problems of an alarm."""
        trigger = self.trigger(mark, STORE="uploads")["triggerid"]
        return self.zabbix.api("problem.get", objectids=[trigger], output="extend")

    def close(self, mark: str) -> None:
        """Close an alarm by hand."""
        events = [one["eventid"] for one in self.problems(mark)]
        self.zabbix.api("event.acknowledge", eventids=events, action=CLOSE)
        self.wait_for_silence(mark)

    # --- what an admin changes there

    def set_macro(self, macro: str, value: str, *, learn: bool = True) -> str:
        """Set a macro for this host; its id."""
        [made] = self.zabbix.api("usermacro.create", hostid=self.id, macro=macro,
                                 value=value)["hostmacroids"]
        if learn:
            self.zabbix.learn()
        return made

    @contextmanager
    def macro(self, **values: str):
        """Have macros set: NODATA="1s"; a name may carry a context: ("NODATA", "x")."""
        made = [self.set_macro(written(name), value, learn=False)
                for name, value in values.items()]
        self.zabbix.learn()
        try:
            yield
        finally:
            self.zabbix.api("usermacro.delete", *made)
            self.zabbix.learn()


def written(name: str) -> str:
    """RUN_AGE__rescan as Zabbix writes it, with its context."""
    plain, _, context = name.partition("__")
    inner = f":{json.dumps(context)}" if context else ""
    return f"{{$IMAGEWARDEN.{plain.replace('_', '.')}{inner}}}"


def unlink(*paths: bytes) -> None:
    for path in paths:
        os.unlink(path)
