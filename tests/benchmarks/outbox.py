#!/usr/bin/env python3
"""How fast the outbox empties into a real Zabbix, and what a Zabbix that is away costs a job.

    .venv/bin/python3 tests/benchmarks/outbox.py [--results 10000] [--rounds 3]

The peer is Debian's zabbix_sender with the same values, against the same server and items.
Needs what bin/check installs; starts its own server on loopback.
"""

import argparse
import json
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "zabbix")]

from maintenance.ledger.ledger import Ledger, Run  # noqa: E402
from maintenance.monitoring.values import Value  # noqa: E402
from tests.site import wait_until  # noqa: E402
from tests.trappers import Caller, Trapper  # noqa: E402
from tests.watched import Watched  # noqa: E402
from tests.zabbix import Zabbix  # noqa: E402

KEY = "imagewarden.run[rescan]"
TIMEOUT = 3.0  # of [zabbix], as it is without a word about it


def result(at: int) -> dict[str, object]:
    """Return what an hourly rescan of one store tells: about 1,200 characters."""
    return {"job": "rescan", "outcome": "incomplete", "started": "2026-11-25T01:00:00Z",
            "seconds": 12.3, "host": "web1", "stores": [{
                "name": "uploads", "images": 100_000 + at, "full": 12, "delta": 99_000,
                "current": 900, "clean": 100_000, "infected": 0, "unknown": 5, "missing": 0,
                "left": 0}],
            "infected": [], "infected_total": 0, "undone": [
                {"store": "uploads", "path": f"2026/11/{at}/{n}.jpg", "reason": "too large"}
                for n in range(5)], "undone_total": 5, "bytes": 10**9, "canary": True,
            "definitions": {"generation": 7, "databases": [
                {"name": f"{name}.cvd", "version": 27000, "signatures": 2_000_000,
                 "built": "2026-11-24T08:00:00Z"} for name in ("main", "daily", "bytecode")]}}


def tell(line: str) -> None:
    """Show a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def used(begun: tuple[float, float]) -> tuple[float, float]:
    """Return wall and CPU seconds of children since ``begun``."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - begun[0], children.ru_utime + children.ru_stime - begun[1]


def ours(host: Watched, count: int, _: Path) -> tuple[float, float]:
    """Fill the outbox, and have send-checks empty it."""
    begun = time.time() - count
    with Ledger.open(host.site.state) as ledger:
        for at in range(count):
            ledger.record_run(Run("rescan", begun + at, begun + at, "incomplete", 3, result(at),
                                  None), send=True)
    start = used((0.0, 0.0))
    told = host.checks()
    assert told["sent"] >= count, told
    assert told["waiting"] == 0, told
    return used(start)


def theirs(host: Watched, count: int, scratch: Path) -> tuple[float, float]:
    """Have zabbix_sender send the same values."""
    begun = int(time.time() - count)
    lines = [Value(host.name, KEY, json.dumps(result(at)), begun + at, at).line()
             for at in range(count)]
    (scratch / "values").write_text("".join(f"{line}\n" for line in lines))
    start = used((0.0, 0.0))
    done = subprocess.run(["zabbix_sender", "-z", "127.0.0.1", "-p", str(host.zabbix.port), "-T",
                           "-N", "-i", scratch / "values"], capture_output=True, text=True,
                          check=True)
    taken = used(start)
    counts = re.findall(r"processed: (\d+);", done.stdout)
    assert sum(map(int, counts)) == count, done.stdout
    return taken


def kept(host: Watched) -> int:
    """Return how many results Zabbix has stored; what it has taken it works on afterwards."""
    return int(host.zabbix.sql("SELECT count(*) FROM history_text JOIN items USING (itemid) "
                               f"WHERE key_ = '{KEY}' AND hostid = {host.id};"))


def delivery(host: Watched, count: int, rounds: int, scratch: Path) -> None:
    """Print both, alternating; each begins when the server has dealt with what came before."""
    seen: dict[str, list[tuple[float, float]]] = {"send-checks": [], "zabbix_sender": []}
    for at in range(rounds):
        pair = [("send-checks", ours), ("zabbix_sender", theirs)]
        for name, send in pair if at % 2 == 0 else reversed(pair):
            before = kept(host)
            seen[name].append(send(host, count, scratch))
            wait_until(lambda: kept(host) >= before + count, 300)  # noqa: B023
    middle = {name: [statistics.median(part) for part in zip(*each, strict=True)]
              for name, each in seen.items()}
    for name, (wall, cpu) in middle.items():
        tell(f"{name}: {count} results in {wall:.1f} s ({count / wall:.0f}/s), {cpu:.1f} s CPU")
    tell(f"ratio: {middle['send-checks'][0] / middle['zabbix_sender'][0]:.2f} of its wall time")


def absence(host: Watched, rounds: int) -> None:
    """Print what a rescan with nothing to do takes, by what Zabbix does meanwhile."""
    def silence(caller: Caller) -> None:
        caller.hear()
        caller.wait_for_the_end()

    with ExitStack() as stack:
        silent = stack.enter_context(Trapper(silence))
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts: soon the kernel answers no more
            link = stack.enter_context(socket.socket())
            link.setblocking(False)
            link.connect_ex(full.getsockname())
        servers = {"no servers": [], "it takes everything": [host.zabbix.address],
                   "nobody listens": ["127.0.0.1:1"], "it never answers": [silent.address],
                   "packets are swallowed": [f"127.0.0.1:{full.getsockname()[1]}"]}
        seen: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, address in servers.items():
                host.site.settings["zabbix"] |= {"servers": address, "timeout": f"{TIMEOUT:.0f}s"}
                host.site.write_config()
                begun = time.monotonic()
                host.run("rescan-store")
                seen[name].append(time.monotonic() - begun)
    base = statistics.median(seen["no servers"])
    for name, each in seen.items():
        took = statistics.median(each)
        tell(f"rescan, {name}: {took:.2f} s, {took - base:+.2f} s (timeout {TIMEOUT:.0f} s)")


def main() -> None:
    """Run as a script."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--results", type=int, default=10_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with Zabbix() as zabbix, tempfile.TemporaryDirectory(prefix="iw-outbox-") as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        (root / "site").mkdir()
        host = Watched(zabbix, "web1", root / "site", {})
        host.site.image("a.jpg")
        host.run("update-definitions", "--no-rescan")
        host.run("rescan-store")
        host.discover()
        tell(f"Zabbix {'.'.join(map(str, zabbix.version))}")
        delivery(host, given.results, given.rounds, root)
        absence(host, given.rounds + 2)


if __name__ == "__main__":
    main()
