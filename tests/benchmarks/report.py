"""The tables that the benchmark prints, and what is to be reached."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from tabulate import tabulate

from tests.benchmarks.scale import Scale
from tests.benchmarks.scanning import FIND, NO_CHANGE, OURS, PEER, Heat
from tests.benchmarks.timing import TICKS, Run, percentile
from tests.benchmarks.uploads import Uploads, Wait

SPEED = 0.95  # of clamdscan's, at least
SHARE = 0.05  # of clamd's CPU seconds, at most
DELAY = 3.0  # times what an upload waits on an idle clamd, at most
WALK = 3.0  # times what find takes, at most
MEMORY = 120  # MB, at most
MB = 2**20


def full_scan(rounds: Sequence[Sequence[Heat]], images: int) -> Iterator[str]:
    """Yield what the full scans gave: medians of the rounds, and the most memory of any."""
    by_name = {heat.name: [one for heats in rounds for one in heats if one.name == heat.name]
               for heat in rounds[0]}
    heads = ["", "images/s", "wall s", "CPU s", "peak MB", "of clamdscan", "clamd CPU s", "cores",
             "share", "clamd MB", "hits"]
    yield _table(heads, [[name, *_own(heats, images), *_of_clamd(heats, by_name[PEER])]
                         for name, heats in by_name.items()])
    speed, share = _ratio(by_name[PEER], by_name[OURS]), _share(by_name[OURS])
    yield _target("full scan", f"{speed:.3f} of clamdscan's speed", f"at least {SPEED}",
                  speed >= SPEED)
    yield _target("our CPU seconds", f"{share:.1%} of clamd's", f"at most {SHARE:.0%}",
                  share <= SHARE)
    yield f"no change: {_ratio(by_name[NO_CHANGE], by_name[FIND]):.1f} times find"


def _own(heats: Sequence[Heat], images: int) -> list[str]:
    wall = median(heat.run.wall for heat in heats)
    return [f"{images / wall:.1f}", f"{wall:.2f}", f"{median(heat.run.cpu for heat in heats):.2f}",
            f"{max(heat.run.memory for heat in heats) / MB:.0f}"]


def _of_clamd(heats: Sequence[Heat], peer: Sequence[Heat]) -> list[str]:
    """Return what only those that scan have; "cores" is how many clamd was given to use."""
    if heats[0].hits is None:
        return [""] * 6
    cores = median(heat.clamd_cpu / heat.run.wall for heat in heats)
    return [f"{_ratio(peer, heats):.3f}", f"{median(heat.clamd_cpu for heat in heats):.1f}",
            f"{cores:.2f}", f"{_share(heats):.1%}",
            f"{max(heat.clamd_memory for heat in heats) / MB:.0f}",
            "/".join(sorted({str(len(heat.hits or ())) for heat in heats}))]


def _ratio(slow: Sequence[Heat], fast: Sequence[Heat]) -> float:
    """Return how often ``fast`` fits into the time of ``slow``, in the middle of the rounds."""
    return median(one.run.wall / other.run.wall for one, other in zip(slow, fast, strict=True))


def _share(heats: Sequence[Heat]) -> float:
    return median(heat.run.cpu / max(heat.clamd_cpu, 1 / TICKS) for heat in heats)


def uploads(measured: Uploads) -> Iterator[str]:
    """Yield what uploads waited, in milliseconds."""
    rows = []
    for name, of in (("scan-upload, whole process", lambda wait: wait.script),
                     ("FILDES request", lambda wait: wait.request)):
        idle, beside = _waits(measured.idle, of), _waits(measured.beside, of)
        rows += [[f"{name}, p{percent}", f"{idle(percent):.0f}", f"{beside(percent):.0f}",
                  f"{beside(percent) / idle(percent):.2f}"] for percent in (50, 95)]
    yield _table(["", "idle ms", "beside a rescan ms", "ratio"], rows)
    for name, ratio in ((row[0], float(row[3])) for row in rows if row[0].endswith("p95")):
        yield _target(name, f"{ratio:.2f} times as long beside a rescan", f"at most {DELAY:g}",
                      ratio <= DELAY)


def _waits(waits: Sequence[Wait], of: Callable[[Wait], float]) -> Callable[[int], float]:
    return lambda percent: 1000 * percentile([of(wait) for wait in waits], percent)


def scale(measured: Scale, images: int) -> Iterator[str]:
    """Yield what the walk and the ledger took."""
    runs = {"find -printf": measured.find, "rescan-store, no change": measured.no_change,
            "rescan-store, first walk": [measured.first_walk], "store-status": measured.status}
    yield _table(["", "wall s", "CPU s", "images/s", "peak MB"],
                 [_scale_row(name, some, images) for name, some in runs.items()])
    yield f"ledger: {measured.ledger / MB:.0f} MB, {measured.ledger / images:.0f} bytes an image"
    pairs = list(zip(measured.no_change, measured.find, strict=True))
    ratio = median(ours.wall / theirs.wall for ours, theirs in pairs)
    by_cpu = median(ours.cpu / max(theirs.cpu, 1 / TICKS) for ours, theirs in pairs)
    memory = max(run.memory for run in (measured.first_walk, *measured.no_change)) / MB
    yield _target("no change", f"{ratio:.2f} times find, by CPU seconds {by_cpu:.2f}",
                  f"at most {WALK:g}", ratio <= WALK)
    yield _target("our memory", f"{memory:.0f} MB", f"below {MEMORY}", memory < MEMORY)


def _scale_row(name: str, runs: Sequence[Run], images: int) -> list[str]:
    wall = median(run.wall for run in runs)
    return [name, f"{wall:.2f}", f"{median(run.cpu for run in runs):.2f}", f"{images / wall:.0f}",
            f"{max(run.memory for run in runs) / MB:.0f}"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, heads, disable_numparse=True,
                    colalign=("left", *["right"] * (len(heads) - 1))) + "\n"


def _target(what: str, value: str, goal: str, reached: bool) -> str:
    return f"{what}: {value} (to reach: {goal}): {'reached' if reached else 'MISSED'}"
