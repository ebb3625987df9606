"""The canary: a random token as a signature proves which databases are loaded.

The signature's name carries the fingerprint of the databases it was written
beside, so that finding it says *which* content the engine has, not only that it
has some.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import CANARY, Snapshot
from maintenance.verdict import Answer, Verdict

_LINE = re.compile(r"[0-9a-f]{32}:\d+:Imagewarden\.Canary\.([0-9a-f]{16})\.([0-9a-f]{32})\s*")


class Evidence(Protocol):
    """What only an engine with certain databases can find."""

    def stands_for(self, content: Snapshot) -> bool:
        """Tell whether it is about exactly these databases."""
        ...

    def found_by(self, clamd: Clamd, timeout: float = 30.0) -> bool:
        """Tell whether the engine finds it."""
        ...

    def baits(self) -> Sequence[bytes]:
        """Return the contents to ask about."""
        ...

    def found_in(self, answers: Sequence[Answer]) -> bool:
        """Tell whether that is what such an engine says of ``baits``, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Canary:
    """A token that only an engine which loaded its signature can find."""

    content: str  # 16 hex digits: the databases beside it
    token: str

    @classmethod
    def hatch(cls, content: Snapshot) -> Self:
        """Return a new one for these databases."""
        return cls(_short(content), secrets.token_hex(16))

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Return the one that lies in ``directory``, if any."""
        try:
            match = _LINE.fullmatch((directory / CANARY).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return None if match is None else cls(match[1], match[2])

    def stands_for(self, content: Snapshot) -> bool:
        """Tell whether it was written beside exactly these databases."""
        return self.content == _short(content)

    @property
    def signature(self) -> str:
        """Return the name under which an engine reports it."""
        return f"Imagewarden.Canary.{self.content}.{self.token}"

    @property
    def line(self) -> str:
        """Return the signature as a line of an .hdb file."""
        md5 = hashlib.md5(self.bait, usedforsecurity=False).hexdigest()
        return f"{md5}:{len(self.bait)}:{self.signature}\n"

    @property
    def bait(self) -> bytes:
        """Return the content that it is found in."""
        return f"imagewarden canary {self.token}\n".encode("ascii")

    def found_by(self, clamd: Clamd, timeout: float = 30.0) -> bool:
        """Tell whether the engine finds it."""
        return self.found_in([clamd.scan_stream([self.bait], timeout)])

    def baits(self) -> Sequence[bytes]:
        """Return the one content to ask about."""
        return (self.bait,)

    def found_in(self, answers: Sequence[Answer]) -> bool:
        """Tell whether that is what an engine which has it says of ``bait``."""
        return [signature_in(answer) for answer in answers] == [self.signature]


def signature_in(answer: Answer) -> str | None:
    """Return the name of what was found, as its signature has it; None: nothing was."""
    found = answer.verdict is Verdict.INFECTED
    return (answer.signature or "").removesuffix(".UNOFFICIAL") if found else None


def _short(content: Snapshot) -> str:
    return content.fingerprint("", "")[:16]
