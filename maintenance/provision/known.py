"""What install has to know of a configuration, and the first one of a host."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maintenance.errors import ToolError, UsageError
from maintenance.provision.children import ask
from maintenance.provision.interpreter import Interpreter
from maintenance.text import show

STATE, LOGS = "/var/lib/imagewarden", "/var/log/imagewarden"
# Our own Python may be older than tomllib.
READER = """
import json, sys, tomllib
try:
    print(json.dumps(tomllib.loads(open(sys.argv[1], encoding="utf-8").read()), default=str))
except (OSError, ValueError, RecursionError) as error:
    print(json.dumps(str(error)))
"""
FIRST = """\
# Configuration of imagewarden, begun by its install, which never changes it again.
# Every setting, with its default: {documents}/docs/configuration.md
# After a change, imagewarden-doctor tells whether everything it needs is there.

# Whom jobs become when root starts them: the owner of the store.
user = {user}
# Ledger, outbox, definitions and locks. A local file system, not a network one.
state = {state}
# One log file for each job.
logs = {logs}
{stores}
# Infected images are reported. To have them taken out of the store as well:
#[rescan]
#action = "quarantine"
"""


@dataclass(frozen=True)
class Wanted:
    """A store as named on the command line."""

    name: str
    path: str


@dataclass(frozen=True)
class Known:
    """What a configuration says, as far as it concerns install."""

    user: str
    state: str
    logs: str
    stores: Mapping[str, str]  # name -> path
    quarantines: Sequence[str]  # those that do not lie under state
    databases: str
    sources: Sequence[str]  # files that definitions are copied from
    spool: str

    @property
    def entry(self) -> pwd.struct_passwd:
        """Return the jobs' user; raises ToolError when the host does not have him."""
        if not self.user:
            raise ToolError("the configuration has no user: say whom jobs shall work as")
        try:
            return pwd.getpwnam(self.user)
        except KeyError:
            raise ToolError(f"user: {show(self.user)} is not a user of this host") from None


def read(path: Path, interpreter: Interpreter) -> Known:
    """Understand a configuration file; raises ToolError when it cannot be used."""
    said = ask([interpreter.path, "-I", "-c", READER, path])
    table = json.loads(said) if said else "cannot be read"
    if isinstance(table, str):
        raise ToolError(f"{show(path)}: {show(table)}")
    try:
        return _understood(table)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ToolError(f"{show(path)}: not understood: see show-config --check") from None


def _understood(table: Mapping[str, Any]) -> Known:
    stores = [{key: _text(one.get(key, "")) for key in ("name", "path", "quarantine")}
              for one in table["store"]]
    urls = table.get("definitions", {}).get("custom_urls", [])
    return Known(
        user=_text(table.get("user", "")), state=_text(table["state"]),
        logs=_text(table.get("logs", LOGS)),
        stores={one["name"]: one["path"] for one in stores},
        quarantines=[one["quarantine"] for one in stores if one["quarantine"]],
        databases=_text(table.get("clamav", {}).get("databases", "")),
        sources=[url[len("file://"):] for url in map(_text, urls) if url.startswith("file:///")],
        spool=_text(table.get("upload", {}).get("spool", "")))


def _text(value: object) -> str:
    """Return a text, or what the file it names holds; raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError
    return Path(value[1:]).read_text(encoding="utf-8").rstrip("\n") if value.startswith("@/") else (
        value)


def wanted_stores(words: Sequence[str]) -> list[Wanted]:
    """Understand every ``--store [NAME=]PATH``; raises UsageError."""
    stores: list[Wanted] = []
    for word in words:
        match = re.fullmatch(r"([^/=]+)=(.+)", word, re.DOTALL)
        path = os.path.abspath(match[2] if match else word)
        name = match[1] if match else os.path.basename(path)
        if not os.path.isdir(path):
            raise UsageError(f"--store {show(word)}: no such directory")
        if not (name and name.isprintable() and path.isprintable() and len(name) <= 64):
            raise UsageError(f"--store {show(word)}: name and path have to be printable, "
                             "the name at most 64 characters")
        for other in stores:
            if other.name == name:
                raise UsageError(f"--store {show(word)}: the name {name} is taken; "
                                 "say --store NAME=PATH")
            if os.path.commonpath([other.path, path]) in {other.path, path}:
                raise UsageError(f"--store {show(word)}: one store lies inside another")
        stores.append(Wanted(name, path))
    return stores


def owner(stores: Sequence[Wanted]) -> str:
    """Return whom all stores belong to; raises UsageError when somebody has to decide."""
    uids = {os.stat(store.path).st_uid for store in stores}
    if len(uids) > 1:
        raise UsageError("the stores belong to different users: say --user USER")
    uid = uids.pop()
    if uid == 0:
        raise UsageError(f"{show(stores[0].path)} belongs to root: say --user USER, the user that "
                         'the jobs shall work as (it may be "root")')
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise UsageError(f"{show(stores[0].path)} belongs to uid {uid}, which has no name here: "
                         "say --user USER") from None


def begun(stores: Sequence[Wanted], user: str) -> Known:
    """Return what the first configuration will say."""
    beside = [_beside(store, stores) for store in stores]
    return Known(user, STATE, LOGS, {store.name: store.path for store in stores},
                 [place for place in beside if place], "", [], "")


def first(stores: Sequence[Wanted], user: str, documents: Path) -> str:
    """Return the text of a host's first configuration."""
    return FIRST.format(
        documents=documents, user=_quoted(user), state=_quoted(STATE), logs=_quoted(LOGS),
        stores="".join("\n" + section(store, stores) for store in stores))


def section(store: Wanted, stores: Sequence[Wanted]) -> str:
    """Return a [[store]] of the configuration."""
    lines = ["[[store]]", f"name = {_quoted(store.name)}", f"path = {_quoted(store.path)}"]
    beside = _beside(store, stores)
    if beside:
        lines += ["# Where infected images go, on the same file system.",
                  f"quarantine = {_quoted(beside)}"]
    lines += ["# Younger images wait for the next run: they may still be being written.",
              'min_age = "2m"', ""]
    return "\n".join(lines)


def _beside(store: Wanted, stores: Sequence[Wanted]) -> str:
    """Return a place for the quarantine next to the store; empty when there is none."""
    parent = os.path.dirname(store.path)
    inside = any(os.path.commonpath([one.path, parent]) == one.path for one in stores)
    if inside or os.stat(parent).st_dev != os.stat(store.path).st_dev:
        return ""
    return os.path.join(parent, f".quarantine-{os.path.basename(store.path)}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # printable, so also a string of TOML
