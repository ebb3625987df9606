"""The copies of the code on a host, each with its environment; one of them is current.

A running job keeps the copy it was started from: a new one goes beside it, and a
symlink turns. The one before stays, for the way back and for a job that is only
just starting; older ones go when no process uses them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import maintenance
from maintenance.errors import ToolError
from maintenance.provision.children import ask, must, run
from maintenance.provision.console import Console
from maintenance.provision.environment import Environment
from maintenance.provision.interpreter import Interpreter
from maintenance.provision.processes import users_of
from maintenance.provision.steps import Step, link
from maintenance.text import show

CONTENT = ("bin", "cron", "docs", "maintenance", "zabbix", "requirements.lock", "CHANGELOG.md",
           "LICENSE", "README.md")
ANEW = [f".{number}" for number in range(1, 100)]  # a broken copy in use is not touched
CURRENT, PREVIOUS = "current", "previous"


@dataclass(frozen=True)
class Releases:
    """All copies in one directory, PREFIX/lib/imagewarden."""

    directory: Path
    source: Path  # the checkout, or a copy, that is installed

    @property
    def current(self) -> Path:
        """Return the path by which links and documents name the copy in force."""
        return self.directory / CURRENT

    def target(self) -> tuple[Path, bool]:
        """Return where this source belongs, and whether a sound copy lies there."""
        wanted, current = fingerprint(self.source), self.in_force()
        if current is not None and sound(current, wanted):
            return current, True
        name = f"{maintenance.__version__}-{wanted[:12]}"
        for copy in (self.directory / f"{name}{end}" for end in ("", *ANEW)):
            if copy.is_dir() and sound(copy, wanted):
                return copy, True
            if not copy.is_dir() or (copy != current and not users_of(copy)):
                return copy, False  # not there, or left half made
        raise ToolError(f"{show(self.directory)}: too many broken copies of {name}")

    def provide(self, copy: Path, interpreter: Interpreter | None, console: Console
                ) -> Iterator[Step]:
        """Make a copy with its environment, not yet in force; no interpreter: it is sound."""
        if interpreter is None:
            yield Step("unchanged", str(copy))
        else:
            yield Step("made", str(copy), "code and Python packages",
                       do=lambda: make(self.source, copy, interpreter, console))

    def switch(self, target: Path) -> Iterator[Step]:
        """Put the copy in force and remember the one before."""
        before = self.in_force()
        if before is not None and before != target and before.is_dir():
            yield link(self.directory / PREVIOUS, before.name)
        yield link(self.current, target.name)

    def clear_away(self, target: Path, before: Path | None) -> Iterator[Step]:
        """Remove the copies that nothing needs; ``before`` was current until now."""
        previous = before if before not in {None, target} else self._leads_to(PREVIOUS)
        needed = {target, previous}
        for copy in self.all():
            if copy not in needed:
                users = users_of(copy)
                if users:
                    yield Step("kept", str(copy), f"in use by {users[0]}")
                else:
                    yield Step("removed", str(copy), do=partial(remove, copy))

    def all(self) -> list[Path]:
        """Return every copy."""
        if not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir()
                      if path.is_dir() and not path.is_symlink())

    def in_force(self) -> Path | None:
        """Return the copy that is current."""
        return self._leads_to(CURRENT)

    def _leads_to(self, name: str) -> Path | None:
        try:
            return self.directory / os.readlink(self.directory / name)
        except OSError:
            return None


def sound(copy: Path, wanted: str) -> bool:
    """Tell whether a copy is complete, unchanged, and its Python still runs."""
    environment = Environment(copy)
    return (fingerprint(copy) == wanted and environment.ready()
            and ask([environment.python, "-I", "-c", "import maintenance.errors"]) is not None)


def fingerprint(place: Path) -> str:
    """Return a digest of everything that is installed: names, contents, what can be run."""
    digest = hashlib.sha256()
    for path in _files(place):
        name = path.relative_to(place)
        digest.update(f"{name}\0{_runs(name)}\0".encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def make(source: Path, target: Path, interpreter: Interpreter, console: Console) -> None:
    """Copy the code and build its environment, for every user to read and root to write."""
    remove(target)
    for path in _files(source):
        name = path.relative_to(source)
        copy = target / name
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if _runs(name) else 0o644)
    environment = Environment(target)
    environment.build(interpreter, console)
    # Now, because the jobs' user may not write here; a failure costs only speed.
    run([environment.python, "-I", "-m", "compileall", "-q", target / "maintenance"], None)


def remove(copy: Path) -> None:
    """Remove a copy with everything in it."""
    must(run(["rm", "-rf", "--one-file-system", copy], None), f"removing {copy}")


def _files(place: Path) -> Iterator[Path]:
    for name in CONTENT:
        path = place / name
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if _counts(one.relative_to(place))
                              and one.is_file())
        elif path.is_file():
            yield path


def _counts(name: Path) -> bool:
    """Tell whether it is one of our files: not a cache, nor what an editor left."""
    return "__pycache__" not in name.parts and not name.name.startswith(".") and (
        not name.name.endswith("~"))


def _runs(name: Path) -> bool:
    return name.parts[0] == "bin"
