"""The scripts by the names that an admin types: imagewarden-NAME in PREFIX/sbin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maintenance.provision.steps import Step, link

START = "imagewarden-"
OF_A_CHECKOUT = {"check", "demo", "setup"}


@dataclass(frozen=True)
class Scripts:
    """The links in one directory."""

    directory: Path
    current: Path  # the copy of the code that is in force

    def provide(self, source: Path) -> Iterator[Step]:
        """Link every script that ``source`` has; unlink those that it no longer has."""
        names = sorted(path.name for path in (source / "bin").iterdir() if path.is_file()
                       and path.name not in OF_A_CHECKOUT and not path.name.startswith("."))
        for name in names:
            yield link(self.directory / f"{START}{name}", str(self.current / "bin" / name))
        yield from self._removed({f"{START}{name}" for name in names})

    def withdraw(self) -> Iterator[Step]:
        """Remove all links; what is no link of ours stays."""
        yield from self._removed(set())

    def _removed(self, but: set[str]) -> Iterator[Step]:
        for path in sorted(self.directory.glob(f"{START}*")):
            ours = path.is_symlink() and os.readlink(path).startswith(f"{self.current}/")
            if ours and path.name not in but:
                yield Step("removed", str(path), do=path.unlink)
