"""Files under /etc that install writes and an admin may change: his changes stay.

Like the configuration files of Debian's packages: what still is as we wrote it is
ours to replace; what is not stays, and what we would have written lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maintenance.errors import ToolError
from maintenance.provision.steps import OURS_BESIDE, YOURS_ASIDE, Step, read, write
from maintenance.text import show

REMEMBERED = 8  # texts of a file, the newest last


@dataclass
class Offers:
    """What was written where, by the digests of the texts; kept in ``path``."""

    path: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Offers:
        """Return what is remembered; nothing when nothing is."""
        text = read(path)
        if text is None:
            return cls(path)
        try:
            files = json.loads(text)["files"]
            return cls(path, {name: {"placed": bool(one["placed"]),
                                     "digests": [str(digest) for digest in one["digests"]]}
                              for name, one in files.items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ToolError(f"{show(path)} is damaged; remove it, and compare the files that "
                            "the next run puts beside yours") from None

    def offer(self, path: Path, text: str) -> Iterator[Step]:
        """Have ``path`` say ``text``, unless the admin wants it otherwise."""
        now, known = read(path), self._digests(path)
        if now == text:
            yield Step("unchanged", str(path), do=lambda: self._note(path, text, placed=True))
        elif now is None or _digest(now) in known:
            yield Step("made" if now is None else "updated", str(path),
                       do=lambda: self._place(path, text))
        elif _digest(text) in known:
            yield Step("unchanged", str(path), "changed by you: it stays")
        else:
            beside = path.with_name(path.name + OURS_BESIDE)
            yield Step("kept", str(path), f"yours stays, ours is {beside}",
                       do=lambda: self._put_beside(path, beside, text))

    def withdraw(self, path: Path) -> Iterator[Step]:
        """Take away what was written; what the admin changed is moved aside, out of use."""
        yield from self._withdraw_beside(path)
        now = read(path)
        if now is None:
            return
        if _digest(now) in self._digests(path):
            yield Step("removed", str(path), do=path.unlink)
        elif self.files.get(str(path), {}).get("placed"):
            aside = path.with_name(path.name + YOURS_ASIDE)
            yield Step("kept", str(aside), "it was changed by you, and is no longer used",
                       do=partial(os.replace, path, aside))
        else:
            yield Step("kept", str(path), "not written by install")

    def _withdraw_beside(self, path: Path) -> Iterator[Step]:
        beside = path.with_name(path.name + OURS_BESIDE)
        text = read(beside)
        if text is not None and _digest(text) in self._digests(path):
            yield Step("removed", str(beside), do=beside.unlink)

    def _digests(self, path: Path) -> list[str]:
        return list(self.files.get(str(path), {}).get("digests", ()))

    def _place(self, path: Path, text: str) -> None:
        self._note(path, text, placed=True)  # first: killed in between, the file is still ours
        write(path, text)
        path.with_name(path.name + OURS_BESIDE).unlink(missing_ok=True)

    def _put_beside(self, path: Path, beside: Path, text: str) -> None:
        write(beside, text)
        placed = bool(self.files.get(str(path), {}).get("placed"))
        self._note(path, text, placed=placed)

    def _note(self, path: Path, text: str, *, placed: bool) -> None:
        digests = [one for one in self._digests(path) if one != _digest(text)] + [_digest(text)]
        entry = {"placed": placed, "digests": digests[-REMEMBERED:]}
        if self.files.get(str(path)) != entry:
            self.files[str(path)] = entry
            write(self.path, json.dumps({"files": self.files}, indent=1) + "\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
