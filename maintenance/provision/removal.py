"""Taking the toolkit off a host again; purge takes what the jobs have kept as well."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision import confinement, timetable
from maintenance.provision.children import must, run
from maintenance.provision.known import Known
from maintenance.provision.offers import Offers
from maintenance.provision.processes import users_of
from maintenance.provision.scripts import Scripts
from maintenance.provision.steps import Step
from maintenance.text import show


@dataclass(frozen=True)
class Removal:
    """What is taken away."""

    library: Path  # PREFIX/lib/imagewarden
    scripts: Scripts
    offers: Offers
    config: Path
    known: Known | None  # None: there is no configuration

    def refuse_when_in_use(self) -> None:
        """Raise ToolError while a process runs from what is to be removed."""
        users = users_of(self.library)
        if users:
            raise ToolError(f"{users[0]} uses {show(self.library)}: stop it, or wait for its end")

    def uninstall(self) -> Iterator[Step]:
        """Take away what install has put there, in the order that starts nothing half."""
        yield from timetable.withdraw(self.offers)
        yield from self.scripts.withdraw()
        if self.library.is_dir():  # else the rules are those of an install with another prefix
            yield from confinement.withdraw()
            yield Step("removed", str(self.library), "code and Python packages",
                       do=lambda: _remove(self.library))

    def keep(self) -> Iterator[Step]:
        """Tell where everything is that an uninstall does not touch."""
        if self.known is not None:
            for what, path in _holdings(self.known):
                if path.is_dir():
                    yield Step("kept", str(path), what)
        if self.config.exists():
            yield Step("kept", str(self.config), "configuration")

    def purge(self) -> Iterator[Step]:
        """Take away what the jobs have kept; nothing of a store, whatever is configured."""
        if self.known is not None:
            for what, path in _holdings(self.known):
                if path.is_dir():
                    yield from _purged(what, path, self.known)
        if self.config.exists():
            yield Step("removed", str(self.config), "configuration", do=self.config.unlink)


def _holdings(known: Known) -> Iterator[tuple[str, Path]]:
    for path in map(Path, known.quarantines):
        yield f"quarantine, {_count(path)} images held", path
    held = _count(Path(known.state, "quarantine"))
    yield f"state, {held} images held in its quarantine" if held else "state", Path(known.state)
    if known.logs:
        yield "logs", Path(known.logs)


def _purged(what: str, path: Path, known: Known) -> Iterator[Step]:
    reason = _reason_to_keep(path, known)
    if reason:
        yield Step("kept", str(path), f"{what}: {reason}; remove it yourself")
    else:
        yield Step("removed", str(path), what, do=lambda: _remove(path))


def _reason_to_keep(path: Path, known: Known) -> str:
    """Say why a directory that the configuration names may hold more than what is ours."""
    real = os.path.realpath(path)
    if path.is_symlink():
        return f"a link to {real}"
    homes = [user.pw_dir for user in pwd.getpwall()]
    for other in (*known.stores.values(), *homes):
        there = os.path.realpath(other)
        if there == real or there.startswith(real.rstrip("/") + "/"):
            return f"{other} lies there"
    if any(real.startswith(os.path.realpath(store).rstrip("/") + "/")
           for store in known.stores.values()):
        return "it lies in a store"
    if os.stat(real).st_uid != known.entry.pw_uid:
        return f"it does not belong to {known.user}"
    return ""


def _count(quarantine: Path) -> int:
    """Return how many images are held in a quarantine, or in those below."""
    return sum(1 for _ in quarantine.rglob("*.image"))


def _remove(path: Path) -> None:
    must(run(["rm", "-rf", "--one-file-system", path], None), f"removing {path}")
