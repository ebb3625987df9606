"""The brake: one bad signature must not empty a store."""

import os
import secrets
import time
from dataclasses import dataclass, field

import msgspec

from maintenance.store.intake import Finding, NotTaken
from maintenance.store.quarantine import Quarantine
from maintenance.store.records import CREATE, LARGEST, READ, discard
from maintenance.text import show
from maintenance.times import DAY, iso

FILE = b"brake.json"


class Braked(NotTaken):
    """The brake is on: nothing is taken until somebody lets go of it."""


class Brake(msgspec.Struct, frozen=True, kw_only=True):
    """One store's brake; it lies in the quarantine, so that it outlives the ledger."""

    why: str = ""  # empty: it is off
    since: float = 0.0
    released: float = 0.0  # what was taken before this moment counts no more

    @property
    def on(self) -> bool:
        """Tell whether it is on."""
        return bool(self.why)

    def told(self, store: str) -> str:
        """Return why nothing is taken, and what ends that."""
        return (f"brake on since {iso(self.since)}: {self.why}; nothing is taken until:"
                f" quarantine release --store {show(store)}")


def brake_of(quarantine: Quarantine, store: str) -> Brake:
    """Return the brake of ``store``. Where nobody can tell any more, it is on."""
    brakes = _read(quarantine)
    if brakes is None:
        return Brake(why=f"{FILE.decode()} is damaged")
    return brakes.get(store, Brake())


def release(quarantine: Quarantine, store: str) -> bool:
    """Let go of the brake; return whether it was on."""
    with quarantine.locked():
        was = brake_of(quarantine, store)
        if was.on:
            _write(quarantine, store, Brake(released=time.time()))
        return was.on


@dataclass(slots=True)
class Intake:
    """What one run takes out of one store."""

    quarantine: Quarantine
    limit: int  # files of a run, and of a signature in 24 hours
    most: int  # bytes in the quarantine
    taken: int = 0
    _room: int | None = None
    _met: set[str] = field(default_factory=set)  # signatures whose count was looked at

    def take(self, parent: int, path: bytes, scanned: os.stat_result, finding: Finding) -> str:
        """Take an image as ``Quarantine.take`` does, unless that would be too much.

        Raises Braked as well. Whoever reaches the limit puts the brake on.
        """
        with self.quarantine.locked():
            self._refuse(finding)
            if self._room is None:  # asked once: a bad signature may come with 100,000 images
                self._room = self.most - self.quarantine.bytes
            if scanned.st_size > self._room:
                raise NotTaken("the quarantine would hold more than quarantine_max"
                               f" ({self.most})")
            ticket = self.quarantine.take(parent, path, scanned, finding)
            self.taken += 1
            self._room -= scanned.st_size
            self._reached(finding)
            return ticket

    def _refuse(self, finding: Finding) -> None:
        """Raise Braked when the brake is on, or has to be."""
        brake = brake_of(self.quarantine, finding.store)
        if not brake.on and self.taken and self.taken >= self.limit:
            raise Braked(f"this run took {self.taken} images, and no more though the brake was"
                         " released meanwhile")
        if not brake.on and finding.signature not in self._met:
            self._met.add(finding.signature)
            brake = self._reached(finding)
        if brake.on:
            raise Braked(brake.told(finding.store))

    def _reached(self, finding: Finding) -> Brake:
        """Put the brake on where the limit is reached; return it."""
        brake = brake_of(self.quarantine, finding.store)
        why = ""
        if self.taken >= self.limit:
            why = f"a run took {self.taken} images"
        else:
            count = self._count(finding, brake.released)
            if count >= self.limit:
                why = f"{count} images taken for {show(finding.signature)} in 24 hours"
        if why:
            brake = Brake(why=why, since=time.time(), released=brake.released)
            _write(self.quarantine, finding.store, brake)
        return brake

    def _count(self, finding: Finding, released: float) -> int:
        """Count what was taken for this signature, also what has left the quarantine since."""
        since = max(time.time() - DAY, released)
        return sum(entry.record is not None and entry.record.taken > since
                   and (entry.record.store, entry.record.signature)
                   == (finding.store, finding.signature)
                   for entry in self.quarantine.entries(since))


def _read(quarantine: Quarantine) -> dict[str, Brake] | None:
    try:
        fd = os.open(FILE, READ, dir_fd=quarantine.fd)
        with os.fdopen(fd, "rb") as stream:
            return msgspec.json.decode(stream.read(LARGEST), type=dict[str, Brake])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _write(quarantine: Quarantine, store: str, brake: Brake) -> None:
    brakes = {**(_read(quarantine) or {}), store: brake}
    draft = FILE + b"." + secrets.token_hex(4).encode()
    fd = os.open(draft, CREATE, 0o600, dir_fd=quarantine.fd)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(msgspec.json.encode(brakes))
            stream.flush()
            os.fsync(fd)
        os.rename(draft, FILE, src_dir_fd=quarantine.fd, dst_dir_fd=quarantine.fd)
    except OSError:
        discard(quarantine.fd, draft)
        raise
    os.fsync(quarantine.fd)
