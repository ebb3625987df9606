"""What install and uninstall do, one line a step: the same for a dry run and a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from maintenance.provision.console import Console
from maintenance.text import show

# Ignored by cron, logrotate, systemd and AppArmor alike in the directories they read.
DRAFT, OURS_BESIDE, YOURS_ASIDE = ".dpkg-tmp", ".dpkg-dist", ".dpkg-old"


def nothing() -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Step:
    """One thing: what was found to be done about it, and the doing.

    A step is found by looking at its own thing only, so that a dry run, where
    the steps before were not taken, finds the same ones.
    """

    action: str  # "made", "updated", "unchanged", "kept", "removed"
    what: str
    why: str = ""
    do: Callable[[], None] = nothing

    def __str__(self) -> str:
        """Return its line."""
        return f"{self.action:10}{show(self.what)}" + (f" ({show(self.why)})" if self.why else "")


@dataclass
class Journal:
    """Takes the steps, tells them, and remembers what is left for the admin to do."""

    console: Console
    dry: bool
    shown: bool  # one line a step on stdout
    steps: list[Step] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def take(self, steps: Iterable[Step]) -> None:
        """Take every step as soon as it is found; a dry run only tells it."""
        for step in steps:
            if not self.dry:
                step.do()
            self.steps.append(step)
            if self.shown:
                sys.stdout.write(f"{step}\n")
                sys.stdout.flush()

    def leave(self, line: str) -> None:
        """Tell the admin something that only he can do or decide."""
        self.left.append(line)
        if not self.console.quiet:
            sys.stdout.flush()
            sys.stderr.write(f"{self.console.script}: {line}\n")

    def members(self) -> dict[str, object]:
        """Return the result."""
        return {"dry_run": self.dry, "left": self.left,
                "changed": any(step.action not in {"unchanged", "kept"} for step in self.steps),
                "steps": [{"action": one.action, "what": one.what, "why": one.why}
                          for one in self.steps]}


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a file in its place whole, or not at all; its directory is made when missing."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(path.name + DRAFT)
    with draft.open("w", encoding="utf-8", errors="surrogateescape") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: Path) -> str | None:
    """Return a file's text; None: there is no file."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None


def link(path: Path, target: str) -> Step:
    """Have a symlink lead to ``target``; what is there and no symlink is the admin's."""
    def do() -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = path.with_name(path.name + DRAFT)
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(path)

    if path.is_symlink():
        same = os.readlink(path) == target
        return Step("unchanged", str(path)) if same else Step("updated", str(path), do=do)
    if path.exists():
        return Step("kept", str(path), "no link of ours: yours stays")
    return Step("made", str(path), do=do)
