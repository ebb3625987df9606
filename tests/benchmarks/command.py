"""The command line of the benchmark of rescans."""

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from maintenance.errors import ImagewardenError, ToolError
from maintenance.programs import find
from tests.benchmarks import report, scale, scanning, signatures, stores, uploads
from tests.benchmarks.host import Host, workplace

NEEDED = ("clamd", "clamdscan", "find")
MB = 10**6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; 1: that failed, or not all found the same."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        missing = [program for program in NEEDED if find(program) is None]
        if missing:
            raise ToolError(f"not installed: {', '.join(missing)} (bin/setup installs them)")
        with workplace(options.dir) as root:
            return _measure(Host(root), options)
    except (ImagewardenError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _measure(host: Host, options: argparse.Namespace) -> int:
    host.prepare()
    _say(f"making {options.images} images and {options.signatures} signatures")
    planted = []
    if options.tiny:
        stores.make_tiny(host.store, options.images)
    else:
        planted = stores.make(host.store, options.images, options.megabytes * MB)
    signatures.make(host.databases, options.signatures, planted)
    host.hatch()
    if options.tiny:
        measured = scale.measure(host, options.images, options.rounds, _say)
        return _tell(report.scale(measured, options.images), asdict(measured), options)
    if options.uploads:
        waits = uploads.measure(host, options.samples, _say)
        return _tell(report.uploads(waits), asdict(waits), options)
    contenders = [one for one in scanning.contenders(host, options.images)
                  if options.serial or one.name != scanning.SERIAL]
    rounds = scanning.compete(host, contenders, options.rounds, _say)
    _tell(report.full_scan(rounds, options.images), [[*map(asdict, heats)] for heats in rounds],
          options)
    wrong = scanning.disagreements(rounds, {one.path: one.reported for one in planted})
    for line in wrong:
        _say(line)
    return 1 if wrong else 0


def _tell(lines: Iterable[str], raw: object, options: argparse.Namespace) -> int:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()
    if options.json is not None:
        options.json.write_text(json.dumps(raw, indent=1, default=bytes.decode) + "\n")
    return 0


def _say(what: str) -> None:
    sys.stderr.write(f"rescan.py: {what}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rescan.py", description="Time rescans against their peers in one run, on a"
        " store and signatures made for it: clamdscan and python-clamd's way on the same clamd,"
        " whose cache is cold for each, and find.")
    parser.add_argument("--images", type=_positive, default=3000, metavar="N")
    parser.add_argument("--megabytes", type=_positive, default=200, metavar="N",
                        help="of the whole store (default 200)")
    parser.add_argument("--signatures", type=_positive, default=300_000, metavar="N",
                        help="6000000 are as many as the official ones, and take clamd 1.4 GB")
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--tiny", action="store_true",
                       help="small files, and instead of scanning them the walk and the ledger;"
                       " for --images 1000000")
    other.add_argument("--uploads", action="store_true",
                       help="instead: what uploads wait beside a rescan")
    parser.add_argument("--samples", type=_positive, default=200, metavar="N",
                        help="uploads timed in each state (default 200)")
    parser.add_argument("--no-serial", dest="serial", action="store_false",
                        help="leave out python-clamd's way, which takes the longest")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the raw figures")
    parser.add_argument("--dir", type=Path, metavar="DIR",
                        help="where to work, in a directory that is removed (default: $TMPDIR)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
