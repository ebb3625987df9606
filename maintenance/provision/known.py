"""What install has to know of a configuration."""

from __future__ import annotations

import json
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maintenance.errors import ToolError
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
    except OSError as error:
        raise ToolError(f"{show(path)}: {show(str(error.filename))}: {error.strerror}") from None
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
