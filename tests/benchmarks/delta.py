#!/usr/bin/env python3
"""A rescan after an update against a full one, on the same store and definitions.

    .venv/bin/python3 tests/benchmarks/delta.py [--signatures 1000000] [--lines 1500] [--rounds 3]
    .venv/bin/python3 tests/benchmarks/delta.py --derive --signatures 6000000

Both start an engine of their own, as a run from cron does: everything is in the time. Three
quarters of the signatures are in files that the update does not touch, as in main.cvd, the
rest in files that it does, as in daily.cvd. The second form measures only how long finding
out what is new takes, and its memory.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import signatures, stores
from tests.benchmarks.host import BIN, workplace
from tests.benchmarks.signatures import Plant
from tests.benchmarks.timing import Run, timed

MB = 2**20
FUZZY = "Benchmark.New.Fuzzy;Engine:150-255,Target:5;0;fuzzy_img#af2ad01ed42993c7#0\n"
KINDS = ("hsb", "mdb", "hdb", "ndb", "ldb")
DERIVE = """
import resource, sys, time
from pathlib import Path
from maintenance.clamav.databases import snapshot
from maintenance.clamav.difference import difference
from maintenance.clamav.facts_store import FactsStore
old, new, facts = map(Path, sys.argv[1:])
store, found = FactsStore(facts), [snapshot(old), snapshot(new)]
store.derive(old, found[0], "x", "")
begun = time.monotonic()
store.derive(new, found[1], "x", "")
derived = time.monotonic()
lines = difference(store, *(one.fingerprint("x", "") for one in found)).lines
compared = time.monotonic()
size = sum(path.stat().st_size for path in facts.iterdir())
print(f"{lines} new lines: read in {derived - begun:.1f} s, compared in {compared - derived:.1f} s,"
      f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB of memory,"
      f" {size / 2**20:.0f} MB of facts for both")
"""


def say(what: str) -> None:
    """Show a line at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def update(databases: Path, new: Path, lines: int, plants: list[Plant], *, fuzzy: bool) -> None:
    """Link the definitions, and add new lines of all kinds to the files that change."""
    new.mkdir()
    for path in databases.iterdir():
        if path.name.startswith("main"):
            (new / path.name).hardlink_to(path)
        else:
            shutil.copy(path, new)
    chance = Random(signatures.SEED + 2 + fuzzy)
    made: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for number in range(lines):
        kind = KINDS[number % len(KINDS)]
        made[kind].append(signatures._KINDS[kind](chance, f"Benchmark.New-{number}"))  # noqa: SLF001
    for plant in plants:
        made["ndb"].append(f"Benchmark.New.{plant.kind}:0:*:{plant.mark.hex()}\n")
    if fuzzy:
        made["ldb"].append(FUZZY)
    for kind, added in made.items():
        with (new / f"daily.{kind}").open("a", encoding="ascii") as file:
            file.writelines(added)


def definitions(place: Path, count: int, planted: list[signatures.Planted]) -> None:
    """Make the older definitions, in files that stay and in files that change."""
    for name, part, seed in (("main", count * 3 // 4, 0), ("daily", count // 4, 10)):
        signatures.make(place, part, planted if name == "main" else [], seed)
        for path in place.glob("benchmark.*"):
            path.rename(place / f"{name}{path.suffix}")


def configuration(root: Path, databases: Path) -> Path:
    """Write the configuration for a directory of definitions."""
    user = ['user = "root"'] if os.geteuid() == 0 else []
    path = root / f"{databases.name}.toml"
    path.write_text("\n".join([
        *user, f"state = {json.dumps(str(root / 'state'))}", 'logs = ""', "[[store]]",
        'name = "uploads"', f"path = {json.dumps(str(root / 'store'))}", "[clamav]",
        'engine = "private"', f"databases = {json.dumps(str(databases))}", ""]))
    path.chmod(0o644)
    return path


def rescan(root: Path, databases: Path, *words: str) -> tuple[Run, Mapping[str, object]]:
    """Run rescan-store and return what it cost and told."""
    run = timed([str(BIN / "rescan-store"), "--json", "--config",
                 str(configuration(root, databases)), *words], good=(0, 4))
    return run, json.loads(run.out)


def compete(root: Path, rounds: int, variant: str, databases: Path) -> list[object]:
    """Alternate a full and a delta rescan from the same beginning; a line of the table."""
    walls: dict[str, list[float]] = {"delta": [], "full": []}
    memory, hits = 0, {}
    for number in range(rounds):
        for kind in (("delta", "full") if number % 2 else ("full", "delta")):
            shutil.rmtree(root / "state")
            shutil.copytree(root / "kept", root / "state")
            run, told = rescan(root, databases, *(["--full"] if kind == "full" else []))
            walls[kind].append(run.wall)
            hits[kind] = sorted((one["path"], one["signature"]) for one in told["infected"])
            counts = {name: told["stores"][0][name] for name in ("full", "delta")}
            say(f"{variant}, round {number + 1}, {kind}: {run.wall:.2f} s, {counts}, "
                f"{told['full_reasons']}")
            if kind == "delta":
                memory = max(memory, run.memory)
    if hits["full"] != hits["delta"]:
        raise SystemExit(f"not the same hits: {hits}")
    full, delta = (statistics.median(walls[kind]) for kind in ("full", "delta"))
    return [variant, f"{full:.2f}", f"{delta:.2f}", f"{full / delta:.1f}", len(hits["full"]),
            f"{memory / MB:.0f}"]


def main() -> None:
    """Run as a script."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--signatures", type=int, default=1_000_000)
    options.add_argument("--lines", type=int, default=1500)
    options.add_argument("--images", type=int, default=3000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--derive", action="store_true")
    given = options.parse_args()
    with workplace(None) as root:
        for part in ("store", "old"):
            (root / part).mkdir()
        planted = [] if given.derive else stores.make(root / "store", given.images,
                                                      given.images * 67_000)
        definitions(root / "old", given.signatures, planted)
        plants = [Plant("later", mark) for mark in later(root / "store")]
        update(root / "old", root / "new", given.lines, plants, fuzzy=False)
        if given.derive:
            say(timed([sys.executable, "-c", DERIVE, str(root / "old"), str(root / "new"),
                       str(root / "facts")]).out.decode().strip())
            return
        update(root / "old", root / "fuzzy", given.lines, plants, fuzzy=True)
        first, told = rescan(root, root / "old")
        say(f"{given.signatures} signatures, first rescan: {first.wall:.1f} s,"
            f" {told['infected_total']} infected")
        shutil.copytree(root / "state", root / "kept")
        rows = [compete(root, given.rounds, name, root / databases) for name, databases in (
            ("hashes and bodies", "new"), ("with a fuzzy hash", "fuzzy"))]
        say(tabulate(rows, [f"update of {given.lines} lines", "full s", "delta s", "ratio", "hits",
                            "peak MB"], disable_numparse=True))


def later(store: Path) -> list[bytes]:
    """Return bytes of a few images, by which an update finds them."""
    found = [path for path in stores.paths(store) if path.stat().st_size > 20_000]
    return [path.read_bytes()[-1200:-1160] for path in found[5::max(1, len(found) // 6)]]


if __name__ == "__main__":
    main()
