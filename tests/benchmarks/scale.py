"""The walk and the ledger at scale: a run that finds nothing new against find."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from maintenance.errors import ImagewardenError
from maintenance.ledger.ledger import Ledger
from maintenance.ledger.rows import Asked, Need
from maintenance.verdict import CLEAN
from tests.benchmarks.host import STORE, Host
from tests.benchmarks.scanning import IN_FLIGHT, find
from tests.benchmarks.timing import Run, timed

PAGE = 10_000  # images booked in one transaction


@dataclass(frozen=True, slots=True)
class Scale:
    """What was measured; the lists have one run a round."""

    first_walk: Run
    find: list[Run]
    no_change: list[Run]
    status: list[Run]
    ledger: int  # bytes


def measure(host: Host, images: int, rounds: int, say: Callable[[str], None]) -> Scale:
    """Walk a store for the first time, book it as clean, then time runs without a change."""
    say("first walk")
    with host.engine():  # it is asked nothing, but has to be proven when something is due
        first = host.run("rescan-store", IN_FLIGHT, "--time-limit", "0.001s", "--json")
    check(first, images, current=0)
    say("booking every image as clean")
    book(host)
    finds, ours, status = [], [], []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        finds.append(timed(find(host).argv, discard=True))
        ours.append(host.run("rescan-store", IN_FLIGHT, "--json"))
        check(ours[-1], images, current=images)
        status.append(host.run("store-status", IN_FLIGHT))
    ledger = sum(path.stat().st_size for path in host.state.glob("ledger.sqlite*"))
    return Scale(first, finds, ours, status, ledger)


def book(host: Host) -> None:
    """Book every image as clean at the current generation.

    Through the ledger's own methods: an engine would take hours to say the same.
    """
    with Ledger.open(host.state) as ledger:
        generation = ledger.generations.current()
        assert generation is not None, "the first walk has met one"
        images = ledger.images(STORE)
        page: list[Asked] = []
        for row in images.due(Need(generation.number, time.time())):
            page.append(Asked(row.key, row.stamp, CLEAN))
            if len(page) == PAGE:
                images.record_answers(page, generation.number)
                page.clear()
        images.record_answers(page, generation.number)


def check(run: Run, images: int, current: int) -> None:
    """Raise ImagewardenError for a rescan that saw or scanned something else."""
    store = json.loads(run.out)["stores"][0]
    if (store["images"], store["current"], store["full"]) != (images, current, 0):
        raise ImagewardenError(f"rescan-store saw {store['images']} images, {store['current']} of"
                               f" them current, and scanned {store['full']}")
