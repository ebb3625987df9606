"""One photograph of a megabyte as an upload: scan-upload against clamdscan, nothing cached."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import median

from PIL import Image
from tabulate import tabulate

from maintenance.errors import ImagewardenError
from tests.benchmarks import signatures
from tests.benchmarks.host import Host, workplace
from tests.benchmarks.timing import percentile, timed

MEGABYTE = 10**6
RATIO = 3.0  # times the wall time of clamdscan, at most
OVERHEAD = 0.080  # seconds beside clamd's, at most
CHECK = """
import sys, time
from maintenance.upload import check
check(sys.argv[1])
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    assert check(sys.argv[1]).verdict == "clean"
    print(time.perf_counter() - begun)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table; 1: that failed."""
    parser = argparse.ArgumentParser(prog="photograph.py", description=__doc__)
    parser.add_argument("--signatures", type=int, default=300_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=30, metavar="N")
    parser.add_argument("--dir", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        with workplace(options.dir) as root:
            _measure(Host(root), options.signatures, options.rounds)
    except (ImagewardenError, OSError) as error:
        sys.stderr.write(f"photograph.py: {error}\n")
        return 1
    return 0


def _measure(host: Host, count: int, rounds: int) -> None:
    host.prepare()
    with host.clamd_conf.open("a") as file:
        file.write("DisableCache yes\n")
    signatures.make(host.databases, count, [])
    host.hatch()
    photograph = host.root / "photograph.jpg"
    photograph.write_bytes(_photograph())
    contenders = {
        "clamdscan --fdpass": ["clamdscan", "--fdpass", "--no-summary", "--config-file",
                               str(host.clamd_conf), str(photograph)],
        "scan-upload": host.command("scan-upload", 0, str(photograph))}
    runs = {name: [] for name in contenders}
    request = []
    with host.engine():
        for command in contenders.values():
            timed(command)
        for _ in range(rounds):
            for name, command in contenders.items():
                runs[name].append(timed(command))
            with photograph.open("rb") as file:
                begun = time.perf_counter()
                host.clamd.scan_descriptor(file.fileno(), 60)
                request.append(time.perf_counter() - begun)
        checks = _checks(host, photograph, rounds)
    _tell(runs, request, checks, photograph.stat().st_size)


def _checks(host: Host, photograph: Path, rounds: int) -> list[float]:
    """Time ``check`` in a process that goes on."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, photograph, str(rounds)], capture_output=True, text=True,
        cwd=Path(__file__).parents[2], env={"IMAGEWARDEN_CONFIG": str(host.configuration(0))},
        check=True)
    return [float(line) for line in done.stdout.split()]


def _tell(runs: dict, request: list[float], checks: list[float], size: int) -> None:
    rows = [[name, f"{median(run.wall for run in of) * 1000:.1f}",
             f"{percentile([run.wall for run in of], 95) * 1000:.1f}",
             f"{median(run.cpu for run in of) * 1000:.1f}"] for name, of in runs.items()]
    rows += [[name, f"{median(of) * 1000:.1f}", f"{percentile(of, 95) * 1000:.1f}", ""]
             for name, of in (("check(), in a process that goes on", checks),
                              ("clamd's part: one FILDES request", request))]
    sys.stdout.write(tabulate(rows, ["", "median ms", "p95 ms", "CPU ms"], disable_numparse=True)
                     + "\n")
    ours, peer = runs["scan-upload"], runs["clamdscan --fdpass"]
    ratio = median(one.wall / other.wall for one, other in zip(ours, peer, strict=True))
    own = median(run.cpu for run in ours)
    sys.stdout.write(
        f"{size} bytes; scan-upload takes {ratio:.2f} times as long as clamdscan"
        f" (to reach: at most {RATIO:g}: {'met' if ratio <= RATIO else 'MISSED'}),"
        f" {own * 1000:.0f} ms of CPU (at most {OVERHEAD * 1000:.0f}:"
        f" {'met' if own <= OVERHEAD else 'MISSED'})\n")


def _photograph() -> bytes:
    """Return a JPEG of a megabyte, as noisy as a photograph by night."""
    for side in range(900, 4000, 50):
        buffer = BytesIO()
        noise = Image.effect_noise((side, side), 60)
        Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))).save(
            buffer, "JPEG", quality=85)
        if buffer.tell() >= MEGABYTE:
            return buffer.getvalue()
    raise ImagewardenError("no photograph of a megabyte")


if __name__ == "__main__":
    sys.exit(main())
