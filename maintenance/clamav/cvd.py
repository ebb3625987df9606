"""Reading what is inside a file of signatures: a plain file, or ClamAV's container.

A container (.cvd, .cld, .cud) is a header of 512 bytes and a tar archive, mostly
compressed. Its .info names size and SHA-256 of every database in it.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, cast

from maintenance.clamav.databases import CONTAINERS, HEADER, SUFFIXES, Database, Snapshot, suffix
from maintenance.errors import ToolError
from maintenance.text import show

CHUNK = 2**20  # bytes read at a time
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class _Hashing:
    """A stream that knows the SHA-256 of what was read from it."""

    stream: IO[bytes]
    digest: _Hash = field(default_factory=hashlib.sha256)

    def read(self, size: int = CHUNK) -> bytes:
        data = self.stream.read(size)
        self.digest.update(data)
        return data

    def drain(self) -> str:
        while self.read():
            pass
        return self.digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """One database: a plain file, or a member of a container."""

    file: str  # in the database directory
    name: str  # inside the container; of a plain file its own
    content: _Hashing

    @property
    def suffix(self) -> str:
        """Return what tells its kind, such as ``.ndb``."""
        return suffix(self.name)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content, once."""
        while chunk := self.content.read():
            yield chunk

    def sha256(self) -> str:
        """Return the digest of the whole content, reading what nobody has read yet."""
        return self.content.drain()


def loaded(content: Snapshot) -> Iterator[Database]:
    """Yield the files that an engine loads: of x.cvd beside x.cld only the newer one."""
    files = {one.file: one for one in content.databases}
    for one in content.databases:
        twin = files.get(_twin(one.file))
        if twin is None or _outdoes(one, twin):
            yield one


def _twin(file: str) -> str:
    letter = {".cvd": "l", ".cld": "v"}.get(suffix(file))
    return f"{file[:-2]}{letter}{file[-1]}" if letter else ""


def _outdoes(one: Database, twin: Database) -> bool:
    return (one.version or 0, suffix(one.file) == ".cld") > (
        twin.version or 0, suffix(twin.file) == ".cld")


def parts(directory: Path, one: Database) -> Iterator[Part]:
    """Yield what is in a database file, one part after the other.

    Only when the iteration has come to its end is what was read known to be right:
    raises ToolError when the file is damaged, or no longer the one of the snapshot.
    """
    path = directory / one.file
    try:
        with path.open("rb") as stream:
            raw = _Hashing(stream)
            if suffix(one.file) in CONTAINERS:
                yield from _members(raw, one.file)
            else:
                yield Part(one.file, one.file, raw)
            if raw.drain() != one.sha256:
                raise ToolError(f"{show(path)}: it changed while it was read")
    except _DAMAGE as error:
        raise ToolError(f"{show(path)}: damaged ({error});"
                        " remove it and run update-definitions") from None


def _members(raw: _Hashing, file: str) -> Iterator[Part]:
    raw.read(HEADER)
    listed: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    # Read as a stream: nothing but read() is called.
    with tarfile.open(fileobj=cast(IO[bytes], raw), mode="r|*", bufsize=CHUNK) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is None or "/" in member.name:
                raise tarfile.ReadError("it holds something else than files")
            content = _Hashing(stream)
            if suffix(member.name) == ".info":
                listed |= _listing(content.read())
            elif suffix(member.name) in SUFFIXES:
                yield Part(file, member.name, content)
                seen.add((member.name, content.drain()))
    if not seen <= listed:
        raise tarfile.ReadError("a member is not what its .info says")


def _listing(info: bytes) -> set[tuple[str, str]]:
    """Return name and digest of every database that an .info lists."""
    entries = [line.split(":") for line in info.decode("ascii", "replace").splitlines()]
    return {(entry[0], entry[2].lower()) for entry in entries if len(entry) == 3}
