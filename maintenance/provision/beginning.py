"""The first configuration of a host: from the command line to a file that works."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from maintenance.errors import ToolError, UsageError
from maintenance.provision.children import run
from maintenance.provision.known import LOGS, STATE, Known
from maintenance.provision.steps import Step, write
from maintenance.text import show

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
        for own in (STATE, LOGS):
            if os.path.commonpath([own, path]) == path:
                raise UsageError(f"--store {show(word)}: {own} lies in it, and is ours")
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


def is_user(name: str) -> bool:
    """Tell whether the host has a user of that name."""
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


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


def configuration(config: Path, copy: Path, text: str | None) -> Iterator[Step]:
    """Begin a configuration; one that is there (``text`` is None) has to suit the new code."""
    if text is not None:
        yield Step("made", str(config), "configuration", do=lambda: begin(config, copy, text))
    else:
        yield Step("unchanged", str(config), "yours: never changed by install",
                   do=lambda: check(config, copy))


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
