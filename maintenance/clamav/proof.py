"""The proof that a clamd has certain definitions loaded: it finds their canary, and VERSION."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from maintenance.clamav import protocol
from maintenance.clamav.canary import Canary
from maintenance.clamav.connection import Clamd
from maintenance.clamav.session import Session, SessionLost
from maintenance.errors import EngineError


@dataclass(frozen=True, slots=True)
class Proof:
    """What it takes, as long as ``clamd`` has not loaded anything else."""

    clamd: Clamd
    canary: Canary
    daily: int | None  # the version of the daily definitions; None: there are none

    def holds(self) -> bool:
        """Ask, and wait for the answers; raises EngineError."""
        return self.agrees(self.clamd.version()) and self.canary.found_by(self.clamd)

    def agrees(self, version: str) -> bool:
        """Tell whether that is what a clamd with these definitions says of its version."""
        said = version.split("/")
        return version.startswith("ClamAV ") and (
            self.daily is None or len(said) < 2 or said[1] == str(self.daily))


class _Ask(Enum):
    CANARY = auto()
    VERSION = auto()


class Trial:
    """A proof under way, on a session of its own: it never waits, it is looked at."""

    def __init__(self, proof: Proof, timeout: float) -> None:
        """Begin; raises EngineError."""
        self._proof, self._timeout = proof, timeout
        self._deadline = time.monotonic() + timeout
        try:
            self._session = Session[_Ask](proof.clamd)
        except OSError as error:
            raise EngineError(f"clamd takes no session ({error.strerror or error})") from None
        self._bait = os.memfd_create("canary", os.MFD_CLOEXEC)
        os.write(self._bait, proof.canary.bait)
        self._session.scan(_Ask.CANARY, self._bait)

    def verdict(self) -> bool | None:
        """Tell whether the proof holds; None: not known yet. Raises EngineError."""
        try:
            for ask, reply in self._replies():
                if ask is _Ask.VERSION:
                    return self._proof.agrees(reply)
                if not self._proof.canary.found_in(protocol.answer(reply)):
                    return False
                self._session.version(_Ask.VERSION)
        except SessionLost as error:
            raise EngineError(str(error)) from None
        if time.monotonic() > self._deadline:
            raise EngineError(f"clamd gave no answer within {self._timeout:g} s")
        return None

    def close(self) -> None:
        """End it, whether it came to a verdict or not."""
        self._session.close()
        os.close(self._bait)

    def _replies(self) -> Iterator[tuple[_Ask, str]]:
        while replies := list(self._session.exchange()):
            yield from replies
