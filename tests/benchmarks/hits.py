"""Hits through the spool against an upsert per hit, on SQLite and PostgreSQL, in one run.

Both go through the application's decorator: `mode = "spool"` followed by flush-hits
until the database has every hit, and `mode = "immediate"`, which is one upsert for each
hit in a transaction of its own. They alternate; the ratio of a round is that of hits
counted a second. Besides: what one counted call costs beyond the call itself.

    .venv/bin/python3 -m tests.benchmarks.hits [--hits N] [--upserts N] [--rounds N]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres import Postgres
from tests.site import Site

CHECKOUT = Path(__file__).resolve().parent.parent.parent
IMAGES = 1000
APPLICATION = """
import sys, time
sys.path.insert(0, {checkout!r})
from maintenance.hits import count_hit
names = [f"gallery/{{number % {images}}}.jpg" for number in range({hits})]
def plain(image): return image
view = count_hit(plain)
view("first")
def took(function):
    begin = time.perf_counter()
    for name in names: function(name)
    return time.perf_counter() - begin
bare, counted = took(plain), took(view)
print(counted, (counted - bare) / len(names) * 1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hits", type=int, default=1_000_000, help="through the spool")
    parser.add_argument("--upserts", type=int, default=5_000, help="one by one")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagewarden-bench-") as place, Postgres() as postgres:
        for name, url in (("sqlite", ""), ("postgresql", postgres.make("bench"))):
            say(f"{name}: hits a second")
            ratios = []
            for number in range(given.rounds):
                with site(Path(place, f"{name}{number}"), url) as one:
                    slow, _ = immediate(one, given.upserts)
                    fast, cost = spooled(one, given.hits)
                ratios.append(fast / slow)
                say(f"  spool and flush {fast:10,.0f}   upsert each {slow:8,.0f}"
                    f"   ratio {fast / slow:6.0f}   a counted call +{cost:.2f} us")
            say(f"  median ratio {statistics.median(ratios):.0f} (to reach: 50)")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def site(root: Path, url: str) -> Iterator[Site]:
    """A configuration that counts into ``url``."""
    root.mkdir()
    made = Site(root)
    made.settings["hits"] = {"database": url}
    made.write_config()
    flush(made)
    yield made


def immediate(site: Site, hits: int) -> tuple[float, float]:
    """Hits a second, and microseconds that a call costs."""
    site.settings["hits"]["mode"] = "immediate"
    site.write_config()
    seconds, cost = application(site, hits)
    return hits / seconds, cost


def spooled(site: Site, hits: int) -> tuple[float, float]:
    """The same through the spool, the flush included."""
    site.settings["hits"] |= {"mode": "spool", "spool_max": 2**31 - 1}
    site.write_config()
    begin = time.perf_counter()
    _, cost = application(site, hits)
    flush(site, hits)
    return hits / (time.perf_counter() - begin), cost


def application(site: Site, hits: int) -> tuple[float, float]:
    """Run a process that counts ``hits``; what its own clock says."""
    code = APPLICATION.format(checkout=str(CHECKOUT), images=IMAGES, hits=hits)
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE,
                          env={**os.environ, "IMAGEWARDEN_CONFIG": str(site.config)})
    seconds, cost = map(float, done.stdout.split())
    return seconds, cost


def flush(site: Site, at_least: int = 0) -> None:
    """Run flush-hits, and see that it counted what there was."""
    ended = site.run("flush-hits", "--json", timeout=600)
    if ended.status != 0 or ended.json["hits"] < at_least:
        sys.exit(f"flush-hits: {ended}")


if __name__ == "__main__":
    main()
