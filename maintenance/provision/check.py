"""Checks this checkout: style, types, known vulnerabilities and the tests."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import IO

from maintenance.errors import ImagewardenError
from maintenance.provision import packages
from maintenance.provision.audit import audit
from maintenance.provision.children import Child, must, run
from maintenance.provision.console import CHECKOUT, Console, conclude, parser
from maintenance.provision.environment import Environment
from maintenance.provision.setup import Wanted, provide
from maintenance.provision.suites import Suite, running

DESCRIPTION = """\
Installs what the tests need and runs all checks: ruff, mypy, pip-audit, and the
tests as root, as an unprivileged user and under LC_ALL=C. Started by a plain
user it leaves the root half out and says so. Every step runs, also after one
that failed; the exit status is 1 when any did."""
# What pytest selects: see the markers in setup.cfg.
MARKED = {"fast": "not server and not long", "default": "not long", "long": ""}


@dataclass(frozen=True)
class Step:
    """One thing to check; its work returns a remark and raises when it fails."""

    name: str
    work: Callable[[], str | None]


@dataclass(frozen=True)
class Done:
    """A step that was taken."""

    step: str
    outcome: str  # "ok" or "failed"
    seconds: float
    remark: str

    def __str__(self) -> str:
        """Return its line in the report."""
        return f"{self.outcome:6} {self.seconds:7.1f} s  {self.step}" + (
            f": {self.remark}" if self.remark else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as bin/check and return the exit status."""
    options = parser(DESCRIPTION)
    extent = options.add_mutually_exclusive_group()
    extent.add_argument("--fast", dest="extent", action="store_const", const="fast",
                        help="without servers to install, under 3 minutes")
    extent.add_argument("--long", dest="extent", action="store_const", const="long",
                        help="also the tests that take long")
    given = options.parse_args(arguments)
    console = Console("check", verbose=given.verbose, quiet=given.quiet)
    output = sys.stderr if given.json else sys.stdout
    return conclude("check", given.json,
                    lambda: check(given.extent or "default", console, output))


def check(extent: str, console: Console, output: IO[str]) -> Mapping[str, object]:
    """Take every step and return the result's members; a failed set-up ends it at once."""
    needed = packages.RUNTIME + (() if extent == "fast" else packages.TESTS)
    start = time.monotonic()
    provide(Wanted(needed, tests=True), console)
    # Not every user of the tests may write it beside the sources, and scripts start often.
    python = Environment(CHECKOUT).python
    run([python, "-I", "-m", "compileall", "-q", CHECKOUT / "maintenance"], None)
    taken = [Done("set-up", "ok", round(time.monotonic() - start, 1), "")]
    with closing(steps(extent, output)) as ahead:
        taken += [_take(step, output) for step in ahead]
    failed = [done.step for done in taken if done.outcome == "failed"]
    output.write("\n" + "".join(f"{done}\n" for done in taken))
    if os.geteuid() != 0:
        output.write("not root: the tests as root were not run\n")
    seconds = sum(done.seconds for done in taken)
    output.write(f"check: {'failed: ' + '; '.join(failed) if failed else 'all is well'}"
                 f" ({seconds:.0f} s)\n")
    output.flush()
    return {"outcome": "failed" if failed else "done", "extent": extent,
            "steps": [vars(done) for done in taken]}


def steps(extent: str, output: IO[str]) -> Generator[Step]:
    """Return what is checked after set-up, the quick answers first.

    The runs of the tests go side by side: one alone keeps one core busy at most. The
    first is watched, what the others say is shown after it.
    """
    scripts = sorted([*(CHECKOUT / "bin").iterdir(), *(CHECKOUT / "zabbix").glob("*-template")])
    python = Environment(CHECKOUT).python
    tool = partial(_tool, output)
    yield Step("ruff", partial(
        tool, "ruff", "check", f"--cache-dir={CHECKOUT}/build/ruff", CHECKOUT, *scripts))
    yield Step("mypy", partial(tool, "mypy", f"--cache-dir={CHECKOUT}/build/mypy"))
    yield Step("pip-audit", partial(audit, python, [
        CHECKOUT / "requirements.lock", CHECKOUT / "tests" / "requirements.lock"]))
    first, *others = suites(extent, root=os.geteuid() == 0)
    with ExitStack() as stack:
        background = []
        for suite in reversed(others):  # the checkout is copied before anybody works in it
            said = stack.enter_context(TemporaryFile("w+", encoding="utf-8", errors="replace"))
            background.append((suite, stack.enter_context(running(suite, CHECKOUT, said)), said))
        child = stack.enter_context(running(first, CHECKOUT, output))
        yield Step(first.name, partial(passed, first, child))
        for suite, child, said in background:
            yield Step(suite.name, partial(passed, suite, child, said, output))


def passed(suite: Suite, child: Child, said: IO[str] | None = None,
            output: IO[str] | None = None) -> None:
    """Wait for a run of the tests; raises ToolError when any failed or none ran."""
    status = child.wait()
    if said is not None and output is not None:
        said.seek(0)
        shutil.copyfileobj(said, output)
        output.flush()
    must(status, suite.name)


def suites(extent: str, *, root: bool) -> list[Suite]:
    """Return the runs of the tests, the longest first.

    The unprivileged run is also the one under LC_ALL=C: whatever is not about
    locales was seen in root's, and a third run would take its time for nothing. For
    the same reason it leaves out what is costly and knows no difference between users;
    root runs that beside the rest, since a test waits more than it computes.
    """
    marked = MARKED[extent]
    if not root:
        return [Suite(marked, "C")]
    either, costly = (" and ".join(filter(None, (marked, own))) for own in ("not once", "once"))
    return [Suite(either), Suite(costly, part="once"), Suite(either, "C", unprivileged=True)]


def _tool(output: IO[str], module: str, *arguments: str | os.PathLike[str]) -> None:
    python = Environment(CHECKOUT).python
    must(run([python, "-I", "-m", module, *arguments], output, directory=CHECKOUT), module)


def _take(step: Step, output: IO[str]) -> Done:
    output.write(f"\n== {step.name}\n")
    output.flush()  # before a child writes to the same descriptor
    start = time.monotonic()
    try:
        outcome, remark = "ok", step.work() or ""
    except (ImagewardenError, OSError) as error:
        outcome, remark = "failed", str(error)
    done = Done(step.name, outcome, round(time.monotonic() - start, 1), remark)
    output.write(f"{done}\n")
    return done
