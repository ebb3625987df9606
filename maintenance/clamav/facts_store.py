"""The directory that holds the facts of all generations in use.

Eight bytes for every line, and what generations have in common only once.
"""

import fcntl
import os
import secrets
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec

from maintenance.clamav import facts, kinds
from maintenance.clamav.cvd import loaded, parts
from maintenance.clamav.databases import Database, Snapshot
from maintenance.clamav.facts import Facts, Member
from maintenance.clamav.lines import DIGEST

_SEAL = 16  # bytes before the content of each file, by which damage shows
_FACTS, _LINES = ".facts", ".lines"


class FactsGone(Exception):
    """What was remembered is not there, or damaged: nothing can be derived from it."""


@dataclass(frozen=True, slots=True)
class FactsStore:
    """A generation's facts lie under its fingerprint, which outlives a ledger that is lost."""

    place: Path

    def derive(self, databases: Path, content: Snapshot, engine: str, options: str) -> Facts:
        """Read the databases of a generation, and remember them.

        What another generation has in common is not read again. Raises ToolError when
        a database is damaged or no longer that of the snapshot.
        """
        with self._held():
            known = list(self._all())
            salt = known[0].salt if known else secrets.token_bytes(16)
            known = [one for one in known if one.salt == salt]
            files = list(loaded(content))
            members = [member for one in files
                       for member in self._members(databases, one, known, salt)]
            derived = Facts(engine, options, salt, {one.file: one.sha256 for one in files},
                            tuple(members))
            self._write(content.fingerprint(engine, options) + _FACTS,
                        msgspec.json.encode(derived))
            return derived

    def load(self, fingerprint: str) -> Facts:
        """Return what is remembered of a generation; raises FactsGone."""
        try:
            return msgspec.json.decode(self._read(fingerprint + _FACTS), type=Facts)
        except msgspec.MsgspecError:
            raise FactsGone from None

    def digests(self, of: Facts, member: Member) -> "array[int]":
        """Return the digests of a member's lines, in their order; raises FactsGone."""
        found: array[int] = array("Q")
        found.frombytes(self._read(_lines_file(member, of.salt)))
        return found

    def prune(self, in_use: Collection[str]) -> None:
        """Forget the generations whose fingerprints are not in use."""
        with self._held():
            needed = {fingerprint + _FACTS for fingerprint in in_use}
            for one in self._all(in_use):
                needed |= {_lines_file(member, one.salt) for member in one.members}
            for path in self.place.iterdir():
                if path.name not in needed:
                    path.unlink()

    def _members(self, databases: Path, one: Database, known: Sequence[Facts], salt: bytes
                 ) -> Iterator[Member]:
        for other in known:
            if other.files.get(one.file) == one.sha256:
                members = [member for member in other.members if member.file == one.file]
                if all(self._has(member, salt) for member in members):
                    yield from members
                    return
        for part in parts(databases, one):
            member, digests = facts.read(part, salt)
            if not self._has(member, salt):
                self._write(_lines_file(member, salt), digests)
            yield member

    def _has(self, member: Member, salt: bytes) -> bool:
        """Tell, by its size, whether the digests of a member's lines are there."""
        if not kinds.by_lines(member.kind):
            return True
        try:
            size = (self.place / _lines_file(member, salt)).stat().st_size
        except OSError:
            return False
        return size == _SEAL + member.lines * DIGEST

    def _write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole. It need not reach the disk: damage is noticed."""
        draft = self.place / ".draft"
        with draft.open("wb") as stream:
            stream.write(_seal(content))
            stream.write(content)
        draft.rename(self.place / name)

    def _read(self, name: str) -> bytes:
        try:
            with (self.place / name).open("rb") as stream:
                seal, content = stream.read(_SEAL), stream.read()
        except OSError:
            raise FactsGone from None
        if seal != _seal(content):
            raise FactsGone
        return content

    def _all(self, of: Iterable[str] | None = None) -> Iterator[Facts]:
        """Yield what is remembered of generations; by default of all, in no order."""
        every = (path.stem for path in self.place.glob(f"*{_FACTS}"))
        for fingerprint in every if of is None else of:
            with suppress(FactsGone):
                yield self.load(fingerprint)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Let one process at a time write."""
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.place, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _lines_file(member: Member, salt: bytes) -> str:
    """Return the file of a member's digests: one for all members with this content."""
    return f"{member.sha256}-{salt.hex()[:8]}{_LINES}"


def _seal(content: bytes) -> bytes:
    return blake2b(content, digest_size=_SEAL).digest()
