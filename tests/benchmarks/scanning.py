"""The full scan: ours against clamdscan and python-clamd's way, on the same clamd."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maintenance.errors import ImagewardenError
from tests.benchmarks.host import Host
from tests.benchmarks.timing import Run, cpu_of, memory_of, timed

IN_FLIGHT = 64
PEER, OURS, SERIAL = "clamdscan --multiscan --fdpass", "rescan-store --full", "serial INSTREAM"
FIND, NO_CHANGE = "find -printf", "rescan-store, no change"
FIND_FORMAT = "%s %T@ %C@ %i\\n"

Hits = Mapping[str, str]  # path in the store -> signature


class Disagreement(ImagewardenError):
    """The contenders did not do the same work."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that goes over the store; ``found`` reads its output, None: it scans nothing."""

    name: str
    argv: Sequence[str]
    good: Sequence[int]  # statuses
    found: Callable[[bytes], Hits] | None


@dataclass(frozen=True, slots=True)
class Heat:
    """What one contender took in one round."""

    name: str
    run: Run
    clamd: int | None  # its process
    clamd_cpu: float  # seconds
    clamd_memory: int  # bytes
    hits: Hits | None


def compete(host: Host, contenders: Sequence[Contender], rounds: int,
            say: Callable[[str], None]) -> list[list[Heat]]:
    """Return the heats of every round; those that scan take turns at going first."""
    scanners = [one for one in contenders if one.found]
    others = [one for one in contenders if not one.found]
    taken = []
    for number in range(rounds):
        turn = number % len(scanners)
        heats = []
        for one in (*scanners[turn:], *scanners[:turn], *others):
            say(f"round {number + 1} of {rounds}: {one.name}")
            heats.append(_heat(host, one))
        taken.append(heats)
    return taken


def disagreements(rounds: Sequence[Sequence[Heat]], planted: Hits) -> list[str]:
    """Return who did not find exactly what was planted."""
    return [f"{heat.name} found {dict(heat.hits)}, planted was {dict(planted)}"
            for heats in rounds for heat in heats
            if heat.hits is not None and heat.hits != planted]


def _heat(host: Host, contender: Contender) -> Heat:
    with ExitStack() as stack:
        clamd = stack.enter_context(host.engine()) if contender.found else None
        before = cpu_of(clamd) if clamd else 0.0
        run = timed(contender.argv, contender.good, discard=contender.found is None)
        return Heat(contender.name, run, clamd,
                    clamd_cpu=cpu_of(clamd) - before if clamd else 0.0,
                    clamd_memory=memory_of(clamd) if clamd else 0,
                    hits=contender.found(run.out) if contender.found else None)


def contenders(host: Host, images: int) -> list[Contender]:
    """Return everything that goes over a store of so many images."""
    clamdscan = ["clamdscan", "--config-file", str(host.clamd_conf), "--multiscan", "--fdpass",
                 "--infected", "--no-summary", str(host.store)]
    full = host.command("rescan-store", IN_FLIGHT, "--full", "--json")
    serial = [sys.executable, "-I", str(Path(__file__).with_name("instream.py")),
              str(host.store), host.clamd.address]
    return [Contender(PEER, clamdscan, (0, 1), partial(_found_by_clamdscan, host.store)),
            Contender(OURS, full, (0, 4), partial(_found_by_us, images)),
            Contender(SERIAL, serial, (0,), json.loads),
            find(host),
            Contender(NO_CHANGE, host.command("rescan-store", IN_FLIGHT), (0, 4), None)]


def find(host: Host) -> Contender:
    """Return the peer of a run that finds nothing new."""
    command = ["find", str(host.store), "-type", "f", "-printf", FIND_FORMAT]
    return Contender(FIND, command, (0,), None)


def _found_by_clamdscan(store: Path, out: bytes) -> Hits:
    pairs = [line.removesuffix(" FOUND").split(": ") for line in out.decode().splitlines()]
    return {str(Path(path).relative_to(store)): signature for path, signature in pairs}


def _found_by_us(images: int, out: bytes) -> Hits:
    result = json.loads(out)
    store = result["stores"][0]
    if (store["full"], store["unknown"]) != (images, 0):
        raise Disagreement(f"{OURS} scanned {store['full']} of {images} images and has"
                           f" {store['unknown']} without a verdict")
    return {one["path"]: one["signature"] for one in result["infected"]}
