"""What the quarantine holds, or what was done about it, as an admin reads it."""

import pwd
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from tabulate import tabulate

from maintenance.errors import Exit
from maintenance.shell.job import worst
from maintenance.store.quarantine import Held
from maintenance.store.records import Entry
from maintenance.text import show
from maintenance.times import iso

COLUMNS = ("ticket", "store", "path", "signature", "taken", "size")


def listed(held: Held) -> dict[str, object]:
    """Return a held file's line in the list."""
    record = held.record
    return {"ticket": held.ticket, "store": record.store, "path": show(record.raw),
            "signature": record.signature, "taken": iso(record.taken), "size": record.size}


def described(entry: Entry, place: str) -> dict[str, object]:
    """Return all that is known about a ticket; ``place``: of the file that is here."""
    record = entry.record
    if record is None:
        return {"ticket": entry.ticket, "state": str(entry.state), "damaged": entry.damaged}
    return {
        **listed(Held(entry.ticket, record)), "state": str(entry.state), "file": place,
        "path_hex": record.path, "directory": show(bytes.fromhex(record.directory)),
        "generation": record.generation, "run": record.run, "sha256": record.sha256,
        "mode": f"{record.mode:04o}", "owner": _owner(record.uid), "uid": record.uid,
        "gid": record.gid, "modified": iso(record.mtime_ns / 1e9), "mtime_ns": record.mtime_ns,
        "links": record.links, "inode": record.inode, "copied": record.copied,
        "not_kept": list(record.not_kept)}


def _owner(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one ticket."""

    ticket: str
    store: str | None
    path: str | None
    outcome: str
    reason: str | None = None
    to: str | None = None


@dataclass(slots=True)
class QuarantineReport:
    """The result of one ``quarantine ACTION``, filled in while it works."""

    action: str
    rows: list[dict[str, object]] = field(default_factory=list)
    brakes: list[dict[str, object]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    statuses: list[Exit] = field(default_factory=list)

    def done(self, one: Done) -> None:
        """Add what became of a ticket."""
        self.rows.append(asdict(one))

    def refuse(self, line: str, status: Exit) -> None:
        """Add why one was not restored."""
        self.refusals.append(line)
        self.statuses.append(status)

    def status(self) -> Exit:
        """Return 4 when something infected stays here, 3 when nobody could tell."""
        return worst(self.statuses)

    def members(self) -> dict[str, object]:
        """Return the list under the word for what it is."""
        word = {"list": "held", "show": "tickets", "restore": "restored", "delete": "deleted",
                "release": "released"}[self.action]
        return {word: self.rows, **({"brakes": self.brakes} if self.action == "list" else {})}

    def summary(self) -> Iterator[str]:
        """Yield what was asked for; what was done only for somebody who looks on."""
        if self.action == "list":
            yield from self._list()
        elif self.action == "show":
            for row in self.rows:
                yield from (f"{key}: {'-' if row[key] is None else _plain(row[key])}"
                            for key in row)
                yield ""
        elif sys.stdout.isatty():
            for row in self.rows:
                name = row.get("ticket") or row["store"]
                place = f" to {row['to']}" if row.get("to") else ""
                yield f"{name}: {row['outcome']}{place}"

    def _list(self) -> Iterator[str]:
        if self.rows:
            yield tabulate([[_plain(row[one]) for one in COLUMNS] for row in self.rows], COLUMNS,
                           disable_numparse=True)
        else:
            yield "nothing is held"
        for one in self.brakes:
            yield f"brake of {one['store']}: on since {one['since']}: {one['why']}"

    def alerts(self) -> Iterator[str]:
        """Yield why something was not restored."""
        yield from self.refusals


def _plain(value: object) -> str:
    # A path went through show() already; a signature is text that others wrote.
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in str(value))
