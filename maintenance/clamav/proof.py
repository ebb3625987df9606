"""The proof that a clamd has certain definitions loaded: it finds evidence, and VERSION."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from maintenance.clamav import protocol
from maintenance.clamav.canary import Evidence
from maintenance.clamav.connection import Clamd
from maintenance.clamav.session import Session, SessionLost
from maintenance.errors import EngineError
from maintenance.verdict import Answer


def agrees(version: str, daily: int | None) -> bool:
    """Tell whether that is what a clamd says of its version that has this one of daily."""
    said = version.split("/")
    return version.startswith("ClamAV ") and (
        daily is None or len(said) < 2 or said[1] == str(daily))


@dataclass(frozen=True, slots=True)
class Proof:
    """What it takes, as long as ``clamd`` has not loaded anything else."""

    clamd: Clamd
    evidence: Evidence
    daily: int | None  # the version of the daily definitions; None: there are none

    def holds(self) -> bool:
        """Ask, and wait for the answers; raises EngineError."""
        return agrees(self.clamd.version(), self.daily) and self.evidence.found_by(self.clamd)


class Trial:
    """A proof under way, on a session of its own: it never waits, it is looked at."""

    def __init__(self, proof: Proof, timeout: float) -> None:
        """Begin; raises EngineError."""
        self._proof, self._timeout = proof, timeout
        self._deadline = time.monotonic() + timeout
        try:
            self._session = Session[int | None](proof.clamd)  # bait by number; None: VERSION
        except OSError as error:
            raise EngineError(f"clamd takes no session ({error.strerror or error})") from None
        self._files: list[int] = []
        self._answers: dict[int, Answer] = {}
        for number, bait in enumerate(proof.evidence.baits()):
            self._files.append(os.memfd_create("bait", os.MFD_CLOEXEC))
            os.write(self._files[-1], bait)
            self._session.scan(number, self._files[-1])

    def verdict(self) -> bool | None:
        """Tell whether the proof holds; None: not known yet. Raises EngineError."""
        try:
            for number, reply in self._replies():
                if number is None:
                    return agrees(reply, self._proof.daily)
                self._answers[number] = protocol.answer(reply)
                if len(self._answers) == len(self._files):
                    answers = [self._answers[one] for one in range(len(self._files))]
                    if not self._proof.evidence.found_in(answers):
                        return False
                    self._session.version(None)
        except SessionLost as error:
            raise EngineError(str(error)) from None
        if time.monotonic() > self._deadline:
            raise EngineError(f"clamd gave no answer within {self._timeout:g} s")
        return None

    def close(self) -> None:
        """End it, whether it came to a verdict or not."""
        self._session.close()
        for file in self._files:
            os.close(file)

    def _replies(self) -> Iterator[tuple[int | None, str]]:
        while replies := list(self._session.exchange()):
            yield from replies
