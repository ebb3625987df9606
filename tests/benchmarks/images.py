"""Ours and its peers on copies of the same images: bytes saved, processor time, damage.

    .venv/bin/python tests/benchmarks/images.py [FOLDER] [--only NAME…] [--memory]

Without FOLDER a set is made of images in Debian's packages (``image_set.py``); they are
downloaded into a temporary directory and not installed. Needs apt-get and PyPI for that and
for picopt, and the packages imagemagick (which compares), optipng, libjpeg-turbo-progs and
jpegoptim; image_optim is taken when it is on PATH, or where ``--image-optim`` says. Two cores
suffice; allow twenty minutes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import comparer
from tests.benchmarks import contenders, image_set, worst_images
from tests.benchmarks.contenders import BOTH, Contender

COLUMNS = ("", "saved", "saved, damaged as unsaved", "CPU s/MB", "damaged", "peak MB")


@dataclass(frozen=True)
class Cost:
    """What a command took, with all that it started."""

    cpu: float  # seconds
    peak: float  # MB of the largest process
    output: bytes


def measured(argv: list[str | Path]) -> Cost:
    """Run it to its end, whatever its status."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(child.pid, 0)
        output.seek(0)
        return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output.read())


def images_of(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*")
                  if path.suffix.lower() in BOTH and path.is_file())


def hurt(pair: tuple[Path, Path]) -> str:
    """Name the damage; what was damaged from the start cannot be hurt."""
    original, result = pair
    try:
        comparer.facts(original)
    except (OSError, SyntaxError):
        return "" if original.read_bytes() == result.read_bytes() else "changed though broken"
    return ", ".join(comparer.damage(original, result)) if result.exists() else "gone"


def contest(one: Contender, images: Path, work: Path) -> list[object]:
    """Let it at a copy; return its row."""
    copy = work / one.name.replace(" ", "_")
    shutil.copytree(images, copy)
    mine = [path for path in images_of(copy) if path.suffix.lower() in one.kinds]
    whole = sum(path.stat().st_size for path in images_of(images))
    handled = sum(path.stat().st_size for path in mine)
    cost = measured(one.argv(copy, [str(path) for path in mine]))
    pairs = [(path, copy / path.relative_to(images)) for path in images_of(images)]
    with ProcessPoolExecutor() as pool:
        harm = list(pool.map(hurt, pairs, chunksize=8))
    saved = [old.stat().st_size - (new.stat().st_size if new.exists() else 0)
             for old, new in pairs]
    good = sum(size for size, word in zip(saved, harm, strict=True) if not word)
    tell(one, cost, pairs, harm)
    if one.argv is contenders.ours:
        second = measured(one.argv(copy, []))
        counts = json.loads(second.output)["stores"][0]
        sys.stdout.write(f"second night: {second.cpu:.2f} s of CPU, "
                         f"{second.cpu / cost.cpu:.1%} of the first's ({counts})\n")
    shutil.rmtree(copy)
    return [one.name, f"{sum(saved) / whole:.2%}", f"{good / whole:.2%}",
            f"{cost.cpu / handled * 1e6:.2f}", sum(map(bool, harm)), f"{cost.peak:.0f}"]


def tell(one: Contender, cost: Cost, pairs: list[tuple[Path, Path]], harm: list[str]) -> None:
    sys.stdout.write(f"{one.name}: {cost.cpu:.1f} s of CPU\n")
    kinds: dict[str, int] = {}
    for (path, _), words in zip(pairs, harm, strict=True):
        if words:
            key = f"  {path.suffix.lower()}: {words[:60]}"
            kinds[key] = kinds.get(key, 0) + 1
    for key, count in sorted(kinds.items(), key=lambda item: -item[1])[:8]:
        sys.stdout.write(f"{key}: {count}\n")
    sys.stdout.flush()


def memory(work: Path) -> None:
    """Print what the worst images cost a worker."""
    rows = []
    made = work / "made"
    made.mkdir()
    # By a process of its own: our size would count as that of what we start.
    subprocess.run([sys.executable, worst_images.__file__, made], check=True)
    for path in sorted(made.iterdir()):
        store = work / "worst"
        store.mkdir()
        path.rename(store / path.name)
        size = (store / path.name).stat().st_size
        cost = measured(contenders.ours(store, []))
        result = json.loads(cost.output)
        reasons = [one["reason"] for one in result["undone"]] + list(result["kept_reasons"])
        rows.append([path.name, f"{size / 1e6:.1f}", f"{cost.peak:.0f}", f"{cost.cpu:.1f}",
                     *(reasons or [f"{result['bytes_saved'] / 1e6:.1f} MB saved"])])
        shutil.rmtree(store)
        shutil.rmtree(work / "worst.home")
    sys.stdout.write(tabulate(rows, ("", "MB", "peak MB", "CPU s", "outcome"),
                              disable_numparse=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders that begin so")
    parser.add_argument("--image-optim", default="image_optim", metavar="COMMAND")
    parser.add_argument("--memory", action="store_true", help="only the worst images' memory")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="images-", dir="/var/tmp") as scratch:
        work = Path(scratch)
        if chosen.memory:
            memory(work)
            return
        if chosen.folder is None:
            sys.stdout.write("from " + ", ".join(image_set.make(work / "set")) + "\n")
        images = chosen.folder or work / "set"
        found = images_of(images)
        sizes = {kinds: [path.stat().st_size for path in found if path.suffix.lower() in kinds]
                 for kinds in (contenders.PNG, contenders.JPEG)}
        for name, these in zip(("PNG", "JPEG"), sizes.values(), strict=True):
            sys.stdout.write(f"{len(these)} {name}, {sum(these) / 1e6:.1f} MB\n")
        rows = [contest(one, images, work)
                for one in contenders.installed(work, chosen.image_optim)
                if not chosen.only or one.name.startswith(tuple(chosen.only))]
        sys.stdout.write(tabulate(rows, COLUMNS, disable_numparse=True) + "\n")


if __name__ == "__main__":
    main()
