"""zabbix/import-template: the template into a Zabbix, and a host that uses it, by its API."""

import argparse
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from maintenance import __version__
from maintenance.errors import Exit, ImagewardenError
from maintenance.launch import CHECKOUT
from maintenance.text import show

TEMPLATE = Path(CHECKOUT) / "zabbix" / "imagewarden.yaml"
NAME = "imagewarden"  # of the template
TOKEN = "ZABBIX_TOKEN"  # noqa: S105 - the variable's name
PATIENCE = 120.0  # seconds for one answer; an import takes a few
SHOWN = 300  # characters of a server's own words in a message
# What is ours in the template: what an older version had and this one has not, goes.
OURS = ("items", "discoveryRules", "triggers", "graphs", "templateDashboards", "valueMaps")


@dataclass(slots=True)
class Frontend:
    """A Zabbix frontend's API; every method raises ImagewardenError."""

    url: str
    token: str
    version: tuple[int, ...] = ()

    def connect(self) -> None:
        """Ask for its version, for which it wants no token."""
        told = str(self.call("apiinfo.version", []))
        self.version = tuple(int(part) for part in re.findall(r"\d+", told))
        if self.version < (6, 0):
            raise ImagewardenError(f"{self.url}: Zabbix {show(told)}; the template needs 6.0")

    def call(self, method: str, parameters: object) -> Any:  # noqa: ANN401 - as JSON has it
        """Return the result of an API method."""
        body: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": parameters,
                                   "id": 1}
        headers = {"Content-Type": "application/json-rpc"}
        if self.version >= (6, 4):
            headers["Authorization"] = f"Bearer {self.token}"
        elif self.version:
            body["auth"] = self.token
        try:
            # A redirect would turn the request into another one, or take the token elsewhere.
            answer = requests.post(f"{self.url}/api_jsonrpc.php", json=body, headers=headers,
                                   timeout=PATIENCE, allow_redirects=False)
        except (requests.RequestException, ValueError) as error:
            raise ImagewardenError(f"{self.url}: {_reason(error)}") from None
        try:
            told = answer.json()
        except requests.exceptions.JSONDecodeError:
            where = answer.headers.get("Location")
            raise ImagewardenError(
                f"{self.url}: answers {answer.status_code}, but not as Zabbix's API does"
                f"{f'; it sends us to {show(where)}'[:SHOWN] if where else ''}") from None
        if not isinstance(told, dict) or "result" not in told:
            raise ImagewardenError(f"{self.url}: {method}: {_complaint(told)}")
        return told["result"]

    def import_template(self, source: str) -> None:
        """Create or update the template; history and what hosts have of their own stay."""
        update = {"createMissing": True, "updateExisting": True}
        groups = ("groups",) if self.version < (6, 2) else ("template_groups", "host_groups")
        rules = dict.fromkeys((*groups, "templates", *OURS), update)
        # First without removing: a removed item takes with it triggers that are to be updated.
        for more in ({}, dict.fromkeys(OURS, {**update, "deleteMissing": True})):
            self.call("configuration.import", {"format": "yaml", "source": source,
                                               "rules": {**rules, **more}})

    def link(self, host: str, group: str) -> str:
        """See that ``host`` has the template; return what was done for it."""
        [ours] = self.call("template.get", {"filter": {"host": [NAME]}, "output": ["templateid"]})
        known = self.call("host.get", {"filter": {"host": [host]}, "output": ["hostid"],
                                       "selectParentTemplates": ["templateid"]})
        if not known:
            self.call("host.create", {"host": host, "templates": [ours],
                                      "groups": [{"groupid": self._group(group)}]})
            return "made"
        if ours in known[0]["parentTemplates"]:
            return "has it already"
        self.call("host.massadd", {"hosts": [{"hostid": known[0]["hostid"]}], "templates": [ours]})
        return "linked"

    def _group(self, name: str) -> str:
        found = self.call("hostgroup.get", {"filter": {"name": [name]}, "output": ["groupid"]})
        made = None if found else self.call("hostgroup.create", {"name": name})
        return str(made["groupids"][0] if made else found[0]["groupid"])


def main(script: str, argv: Sequence[str] | None = None) -> int:
    """Run as the script and return its exit status."""
    chosen = _parser(script).parse_args(argv)
    try:
        frontend = Frontend(chosen.url.rstrip("/"), _token(chosen.token_file))
        frontend.connect()
        frontend.import_template(_text(TEMPLATE))
        _say(f"{NAME}: imported into Zabbix {'.'.join(map(str, frontend.version))}")
        for host in chosen.host:
            _say(f"host {show(host)}: {frontend.link(host, chosen.group)}")
    except ImagewardenError as error:
        sys.stderr.write(f"{script}: {error}\n")
        return int(error.status)
    return Exit.DONE


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ImagewardenError(f"{show(file)}: {error}") from None


def _token(file: Path | None) -> str:
    """Return the token: never from the command line, which every user of the host can see."""
    if file is None:
        token = os.environ.get(TOKEN, "")
    else:
        token = _text(file).strip()
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise ImagewardenError(f"{show(file)}: others can read the token; chmod 600")
    if not token.isalnum() or not token.isascii():
        raise ImagewardenError(f"no token: --token-file FILE, or ${TOKEN} (in Zabbix: Users, API"
                               " tokens)")
    return token


def _reason(error: BaseException) -> str:
    """Return what lies at the bottom of an error of the HTTP library."""
    while error.__context__ is not None:
        error = error.__context__
    return show(getattr(error, "strerror", None) or str(error))[:SHOWN]


def _complaint(told: object) -> str:
    error = told.get("error") if isinstance(told, dict) else None
    words = [str(error.get(name, "")) for name in ("message", "data")] if isinstance(
        error, dict) else ["no answer of Zabbix's API"]
    return show(" ".join(words))[:SHOWN]


def _parser(script: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=script, allow_abbrev=False,
        description="Import the template into a Zabbix (6.0 or newer), again to update it.",
        epilog=f"The API token is read from --token-file or ${TOKEN}. Exit statuses: 0 done,"
               " 1 failed, 2 usage.")
    made.add_argument("url", metavar="URL", help="the frontend: https://zabbix.example/zabbix")
    made.add_argument("--token-file", type=Path, metavar="FILE")
    made.add_argument("--host", action="append", default=[], metavar="NAME",
                      help="also make this host, or link the template to it; may be repeated")
    made.add_argument("--group", default="Linux servers", metavar="NAME",
                      help="of a host that is made (default: %(default)s)")
    made.add_argument("--version", action="version", version=f"imagewarden {__version__}")
    return made
