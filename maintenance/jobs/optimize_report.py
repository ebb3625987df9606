"""What the optimiser did, as an admin and Zabbix read it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from maintenance.errors import Exit
from maintenance.jobs.rescan_report import LISTED, Undone
from maintenance.shell.job import worst
from maintenance.text import show


@dataclass(slots=True)
class StoreResult:
    """One store: every image that was considered counts once.

    ``current``: it was in step with the recipe already; ``kept``: there is a reason
    to leave it as it is, of this run or an earlier one; ``left``: still due.
    """

    name: str
    shrunk: int = 0
    kept: int = 0
    current: int = 0
    undone: int = 0
    left: int = 0

    @property
    def considered(self) -> int:
        """Return how many images there are."""
        return self.shrunk + self.kept + self.current + self.undone + self.left

    def members(self) -> dict[str, object]:
        """Return it as results show it."""
        return {"name": self.name, "considered": self.considered, "shrunk": self.shrunk,
                "kept": self.kept, "current": self.current, "undone": self.undone,
                "left": self.left}


@dataclass(slots=True)
class FormatResult:
    """The images of one format, of those that were looked at in this run."""

    shrunk: int = 0
    kept: int = 0
    undone: int = 0
    bytes_before: int = 0  # of those that became smaller
    bytes_after: int = 0


@dataclass(slots=True)
class OptimizeReport:
    """The result of an optimising run, filled in while it works."""

    stores: list[StoreResult] = field(default_factory=list)
    formats: dict[str, FormatResult] = field(default_factory=dict)
    kept_reasons: Counter[str] = field(default_factory=Counter)
    kept: list[Undone] = field(default_factory=list)  # in this run, for another cause than size
    undone: list[Undone] = field(default_factory=list)
    undone_total: int = 0
    bytes_before: int = 0  # of the images that became smaller
    bytes_after: int = 0
    sandbox: str = "off"
    engine_lost: bool = False  # in the middle, for good
    closed: bool = False  # it was not the time

    def left_undone(self, one: Undone) -> None:
        """Count what could not be made smaller."""
        self.undone_total += 1
        if len(self.undone) < LISTED:
            self.undone.append(one)

    def left_as_it_is(self, one: Undone) -> None:
        """Name an image that is kept; how many those are is counted elsewhere."""
        if len(self.kept) < LISTED:
            self.kept.append(one)

    def of_format(self, kind: str) -> FormatResult:
        """Return where images of a format are counted."""
        return self.formats.setdefault(kind, FormatResult())

    @property
    def saved(self) -> int:
        """Return the bytes saved so far."""
        return self.bytes_before - self.bytes_after

    def saved_so_far(self) -> str:
        """Return what stands beside the progress bar."""
        return f"{self.saved / 1e6:.1f} MB saved"

    @property
    def left(self) -> int:
        """Return how many images wait for the next run."""
        return sum(one.left for one in self.stores)

    def status(self) -> Exit:
        """Return 3 when something could not be done; what is only left is no failure."""
        return worst([Exit.INCOMPLETE] * (self.engine_lost or bool(self.undone_total)))

    def members(self) -> dict[str, object]:
        """Return the optimiser's part of its JSON result."""
        return {
            "stores": [one.members() for one in self.stores],
            "bytes_before": self.bytes_before, "bytes_after": self.bytes_after,
            "bytes_saved": self.saved,
            "formats": {kind: asdict(one) for kind, one in sorted(self.formats.items())},
            "undone": [asdict(one) for one in self.undone], "undone_total": self.undone_total,
            "kept": [asdict(one) for one in self.kept], "kept_reasons": dict(self.kept_reasons),
            "sandbox": self.sandbox, "left": self.left}

    def summary(self) -> Iterator[str]:
        """Yield what an admin wants to know first."""
        if self.closed:
            yield "outside the window; --now works all the same"
        for one in self.stores:
            yield (f"{one.name}: {one.considered} images, {one.shrunk} made smaller,"
                   f" {one.current} current, {one.kept} kept, {one.undone} undone,"
                   f" {one.left} left")
        for reason, count in self.kept_reasons.most_common():
            yield f"  kept: {count} {show(reason)}"
        for kind, found in sorted(self.formats.items()):
            if found.shrunk:
                yield f"  {kind}: {found.shrunk} made smaller, {_share(found)}"
        if self.bytes_before:
            yield _share(self)

    def alerts(self) -> Iterator[str]:
        """Yield what could not be done, as far as it is listed."""
        for one in self.undone:
            yield f"undone: {one.store}: {one.path} ({show(one.reason)})"
        if self.undone_total > len(self.undone):
            yield f"and {self.undone_total - len(self.undone)} more"


def _share(sizes: FormatResult | OptimizeReport) -> str:
    before, saved = sizes.bytes_before, sizes.bytes_before - sizes.bytes_after
    return f"{saved} bytes saved of {before} ({saved / before:.1%})"
