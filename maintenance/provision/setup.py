"""Makes the scripts of this checkout runnable: system packages and the virtual environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from maintenance.errors import ToolError
from maintenance.provision import packages
from maintenance.provision.console import CHECKOUT, Console, conclude, parser
from maintenance.provision.environment import Environment
from maintenance.provision.interpreter import choose

DESCRIPTION = """\
Makes the scripts of this checkout runnable: installs the Debian packages they
need (or says which, when not root) and makes the virtual environment .venv.
Running it again is cheap and repairs what is missing."""


@dataclass(frozen=True)
class Wanted:
    """What a set-up is to bring about."""

    packages: Sequence[str] = packages.RUNTIME
    tests: bool = False  # the Python packages of the tests too
    python: str | None = None
    dry_run: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as bin/setup and return the exit status."""
    options = parser(DESCRIPTION)
    options.add_argument("--dry-run", action="store_true",
                         help="say what would be done, do nothing")
    options.add_argument("--tests", action="store_true", help="also what the tests need")
    options.add_argument("--python", metavar="FILE",
                         help="make the environment of this Python; default: the system's, "
                              "or the first that every user can reach")
    given = options.parse_args(arguments)
    console = Console("setup", verbose=given.verbose or given.dry_run, quiet=given.quiet)
    wanted = Wanted(
        packages.RUNTIME + (packages.TESTS if given.tests else ()),
        tests=given.tests, python=given.python, dry_run=given.dry_run)
    return conclude("setup", given.json, lambda: {"changed": provide(wanted, console)})


def provide(wanted: Wanted, console: Console) -> bool:
    """Bring about what is wanted; tell whether anything was (or would be) done.

    Raises ToolError, for a plain user with the line to ask an administrator for.
    """
    os.umask(0o022)  # jobs run as other users than the one who sets up
    environment = Environment(CHECKOUT)
    interpreter = choose(wanted.python) if wanted.python else None
    fits = environment.ready(tests=wanted.tests) and (
        interpreter is None or environment.made_of(interpreter))
    if fits and not packages.missing(wanted.packages):
        return False
    needed = list(wanted.packages)
    if not fits:
        interpreter = interpreter or choose()
        needed += interpreter.venv_package
    lacking = packages.missing(needed)
    if lacking and os.geteuid() != 0:
        raise ToolError("Debian packages are missing; ask an administrator to run: sudo "
                        + packages.command(lacking))
    if wanted.dry_run:
        if lacking:
            console.say(f"would run: {packages.command(lacking)}")
        if interpreter and not fits:
            console.say(f"would make {environment.directory} with {interpreter.path}")
        return True
    with environment.locked():
        if lacking:
            packages.install(lacking, console)
        if interpreter and not fits:
            environment.build(interpreter, console, tests=wanted.tests)
    return True


if __name__ == "__main__":
    sys.exit(main())
