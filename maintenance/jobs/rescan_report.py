"""What a rescan found, as an admin and Zabbix read it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from maintenance.errors import Exit
from maintenance.jobs import coverage
from maintenance.ledger.rows import Coverage
from maintenance.shell.job import worst
from maintenance.text import show
from maintenance.times import spoken

LISTED = 1000  # entries of a list; its total stays exact


@dataclass(slots=True)
class StoreResult:
    """One store; ``full``, ``delta`` and ``current``: how images were brought up to date."""

    name: str | None
    images: int = 0
    full: int = 0
    delta: int = 0
    current: int = 0
    clean: int = 0
    infected: int = 0
    unknown: int = 0
    missing: int = 0
    left: int = 0
    passed: int = 0  # symlinks, FIFOs, devices, sockets: no images
    known: Coverage | None = None  # of the whole store, in the end

    def members(self) -> dict[str, object]:
        """Return it as results show it."""
        own = {name: getattr(self, name) for name in (
            "name", "images", "full", "delta", "current", "clean", "infected", "unknown",
            "missing", "left", "passed")}
        return {**own, **coverage.members(self.known)}


@dataclass(frozen=True, slots=True)
class Infected:
    """An infected image, and what was done about it."""

    store: str | None
    path: str
    signature: str
    action: str = "reported"
    ticket: str | None = None


@dataclass(frozen=True, slots=True)
class Undone:
    """What could not be checked or taken, and why."""

    store: str | None
    path: str
    reason: str


@dataclass(slots=True)
class RescanReport:
    """The result of a rescan, filled in while it works."""

    stores: list[StoreResult] = field(default_factory=list)
    infected: list[Infected] = field(default_factory=list)
    infected_total: int = 0
    undone: list[Undone] = field(default_factory=list)
    undone_total: int = 0
    generation: int | None = None
    databases: list[dict[str, object]] = field(default_factory=list)
    canary: bool | None = None
    hidden_limits: bool = False
    engine_had: bool = False  # one with all definitions
    engine_lost: bool = False  # in the middle, for good
    why: dict[int, str] = field(default_factory=dict)  # an older generation needs full scans
    full_reasons: Counter[str] = field(default_factory=Counter)
    seconds_full: float = 0.0  # with engines that had all definitions
    seconds_delta: float = 0.0  # finding out what is new included
    saved: float | None = None  # seconds, estimated: what full scans would have taken more
    bytes: int = 0
    notices: list[str] = field(default_factory=list)  # what somebody has to do

    def found(self, one: Infected) -> None:
        """Count an infected image."""
        self.infected_total += 1
        if len(self.infected) < LISTED:
            self.infected.append(one)

    def left_undone(self, one: Undone) -> None:
        """Count what could not be checked or taken."""
        self.undone_total += 1
        if len(self.undone) < LISTED:
            self.undone.append(one)

    def status(self) -> Exit:
        """Return 4 while an infected image is in the store, 3 when something was not checked."""
        return worst([Exit.INFECTED] * bool(self.infected_total)
                     + [Exit.INCOMPLETE] * (self.engine_lost or bool(self.undone_total)))

    def members(self) -> dict[str, object]:
        """Return the rescan's part of its JSON result."""
        return {
            "stores": [one.members() for one in self.stores],
            "infected": [asdict(one) for one in self.infected],
            "infected_total": self.infected_total,
            "undone": [asdict(one) for one in self.undone], "undone_total": self.undone_total,
            "definitions": {"generation": self.generation, "databases": self.databases},
            "canary": self.canary, "bytes": self.bytes,
            "full_reasons": dict(self.full_reasons.most_common()),
            "seconds_full": round(self.seconds_full, 3),
            "seconds_delta": round(self.seconds_delta, 3),
            "seconds_saved": None if self.saved is None else round(self.saved, 1),
            **({"limits": "hidden"} if self.hidden_limits else {})}

    def summary(self) -> Iterator[str]:
        """Yield what was done, and where the stores stand now."""
        if not self.stores:
            yield "no images"
        for one in self.stores:
            yield (f"{one.name or 'given paths'}: {one.images:,} images, {one.full:,} scanned,"
                   f" {one.delta:,} against what is new, {one.current:,} already current;"
                   f" {one.clean:,} clean,"
                   f" {one.infected:,} infected, {one.unknown:,} unknown,"
                   f" {one.missing:,} missing, {one.left:,} left")
        for reason, count in self.full_reasons.most_common():
            yield f"scanned in full: {count:,}: {reason}"
        if self.saved is not None:
            yield f"scanning only against what is new saved about {spoken(self.saved)}"
        rows = [coverage.row(one.name, one.known) for one in self.stores
                if one.name is not None and one.known is not None]
        if rows:
            yield f"\n{coverage.table(rows)}"

    def alerts(self) -> Iterator[str]:
        """Yield what is infected and what could not be done, as far as it is listed."""
        yield from self.notices
        for bad in self.infected:
            taken = "" if bad.ticket is None else f", quarantined as {bad.ticket}"
            yield f"infected: {_place(bad)} ({show(bad.signature)}){taken}"
        for one in self.undone:
            yield f"undone: {_place(one)} ({show(one.reason)})"
        unlisted = self.infected_total + self.undone_total - len(self.infected) - len(self.undone)
        if unlisted:
            yield f"and {unlisted} more"


def _place(one: Infected | Undone) -> str:
    return one.path if one.store is None else f"{one.store}: {one.path}"
