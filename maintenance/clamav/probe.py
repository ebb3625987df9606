"""Evidence where no canary can be laid: new signatures that say what they match.

A plain body signature is its own bait. One that the databases before did not have
is found only by an engine that has loaded these. Which were found is kept in a
note, as the canary is kept in its file.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from maintenance.clamav.bodies import Body
from maintenance.clamav.canary import signature_in
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import Snapshot
from maintenance.verdict import Answer

NOTE = "probe.json"
CHOICE = 8  # signatures tried of one file: an exception may keep some from being reported


@dataclass(frozen=True, slots=True)
class Probe:
    """What is new in some databases: of each file at least one body must be found."""

    content: str  # fingerprint of the databases
    bodies: tuple[Body, ...]

    @classmethod
    def of(cls, content: Snapshot, new: Iterable[Body]) -> Self | None:
        """Return one for ``content``, made of what is ``new`` in it; None without any."""
        chosen: dict[str, list[Body]] = {}
        for body in new:
            ours = chosen.setdefault(body.file, [])
            if len(ours) < CHOICE:
                ours.append(body)
        bodies = tuple(body for ours in chosen.values() for body in ours)
        return cls(content.fingerprint("", ""), bodies) if bodies else None

    @classmethod
    def read(cls, state: Path) -> Self | None:
        """Return the one that was noted under ``state``, if any."""
        try:
            note = json.loads((state / NOTE).read_text(encoding="ascii"))
            return cls(str(note["content"]), tuple(
                Body(file, signature, bytes.fromhex(text))
                for file, signature, text in note["bodies"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, state: Path) -> None:
        """Note it under ``state``, whole or not at all; raises OSError."""
        draft = state / f".{NOTE}.new"
        bodies = [(one.file, one.signature, one.text.hex()) for one in self.bodies]
        draft.write_text(json.dumps({"content": self.content, "bodies": bodies}), encoding="ascii")
        draft.replace(state / NOTE)

    def stands_for(self, content: Snapshot) -> bool:
        """Tell whether it is about exactly these databases."""
        return self.content == content.fingerprint("", "")

    def askable(self, clamd: Clamd) -> Self | None:
        """Return it without texts in which the engine finds something else; None: nothing is left.

        Such a text says nothing: another signature may always be reported for it.
        """
        left = tuple(one for one, found in zip(self.bodies, self._asked(clamd, 30.0), strict=True)
                     if signature_in(found) in {None, one.signature})
        return replace(self, bodies=left) if left else None

    def found_by(self, clamd: Clamd, timeout: float = 30.0) -> bool:
        """Tell whether the engine finds it: something of every file."""
        return self.found_in(self._asked(clamd, timeout))

    def baits(self) -> Sequence[bytes]:
        """Return the contents to ask about."""
        return [one.text for one in self.bodies]

    def found_in(self, answers: Sequence[Answer]) -> bool:
        """Tell whether something of every file was found, by the answers to ``baits``."""
        pairs = zip(self.bodies, answers, strict=True)
        found = {one.file for one, answer in pairs if signature_in(answer) == one.signature}
        return found == {one.file for one in self.bodies}

    def _asked(self, clamd: Clamd, timeout: float) -> Sequence[Answer]:
        return [clamd.scan_stream([bait], timeout) for bait in self.baits()]
