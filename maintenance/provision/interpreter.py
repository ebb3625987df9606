"""Choosing the Python that the virtual environment is made of."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.provision.children import ask

OLDEST = (3, 11)


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs, and what is known of it."""

    path: str
    version: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Tell whether every user can reach it: jobs run as another one than root."""
        real = Path(self.path).resolve()
        return all(_others_may_execute(path) for path in (real, *real.parents))

    @property
    def venv_package(self) -> tuple[str, ...]:
        """Return the package Debian keeps its venv module in; empty: not Debian's Python."""
        if os.path.dirname(self.path) != "/usr/bin":
            return ()
        return (f"{os.path.basename(self.path)}-venv",)


def choose(requested: str | None = None) -> Interpreter:
    """Return the requested Python, or the best one here; raises ToolError.

    One that every user can reach comes before one in somebody's home, the
    system's own before its newer or older siblings.
    """
    wanted = ".".join(map(str, OLDEST))
    if requested is not None:
        found = _examine(os.path.abspath(requested))
        if found is None:
            raise ToolError(f"{requested} is no Python that runs")
        if found.version < OLDEST:
            version = ".".join(map(str, found.version))
            raise ToolError(f"{requested} is Python {version}; needed is {wanted} or newer")
        return found
    second_best = None
    for found in filter(None, map(_examine, _candidates())):
        if found.version >= OLDEST:
            if found.shared:
                return found
            second_best = second_best or found
    if second_best is None:
        raise ToolError(f"no Python {wanted} or newer here; install python{wanted}-venv, "
                        "or name one with --python")
    return second_best


def _candidates() -> Iterator[str]:
    yield "/usr/bin/python3"
    for directory in ("/usr/bin", "/usr/local/bin"):
        names = os.listdir(directory) if os.path.isdir(directory) else []
        matches = (re.fullmatch(r"python3\.(\d+)", name) for name in names)
        for minor in sorted(int(match[1]) for match in matches if match):
            yield f"{directory}/python3.{minor}"
    yield sys.executable
    yield from (os.path.join(directory, "python3")
                for directory in os.environ.get("PATH", "").split(":") if os.path.isabs(directory))


def _examine(path: str) -> Interpreter | None:
    version = ask([path, "-I", "-c", "import sys; print(*sys.version_info[:2])"])
    if version is None or not re.fullmatch(r"\d+ \d+\n", version):
        return None  # a pyenv shim without a version behind it, for one
    return Interpreter(path, tuple(map(int, version.split())))


def _others_may_execute(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)
