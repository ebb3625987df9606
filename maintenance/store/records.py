"""What is written down about each file in a quarantine.

Every ticket has a record, TICKET.STATE, and while the file is here TICKET.image.
The state is part of the name, because a rename needs no room on a full disk and
is either done or not.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from maintenance.errors import NoRoom, QuarantineError
from maintenance.store.moving import FULL, look
from maintenance.text import show

TICKET = re.compile(r"\d{20}-[0-9a-f]{8}")
LARGEST = 2**20  # bytes of a record
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class State(StrEnum):
    """Where the file is. ``RESTORED`` and ``DELETED`` are kept a day, for the brake."""

    TAKING = "taking"
    HELD = "held"
    RESTORING = "restoring"
    RESTORED = "restored"
    DELETED = "deleted"


GONE = frozenset({State.RESTORED, State.DELETED})


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about a file that was taken. Paths are hex: any bytes may be in them."""

    store: str
    path: str  # in its store
    shown: str  # the same for people
    directory: str  # in which it was, from the root
    directory_inode: int
    signature: str
    generation: int | None
    run: str
    taken: float  # epoch seconds
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    size: int
    links: int
    inode: int
    sha256: str
    copied: bool = False  # the quarantine is on another file system: another inode is here
    not_kept: tuple[str, ...] = ()  # extended attributes and ACLs that a copy does not have

    def __post_init__(self) -> None:
        bytes.fromhex(self.path + self.directory)

    @property
    def raw(self) -> bytes:
        """Return the path in the store."""
        return bytes.fromhex(self.path)

    @property
    def name(self) -> bytes:
        """Return the file's own name."""
        return self.raw.rpartition(b"/")[2]


@dataclass(frozen=True, slots=True)
class Entry:
    """One ticket; without a record when that is ``damaged``, and why."""

    ticket: str
    state: State
    record: Record | None
    damaged: str = ""

    @property
    def image(self) -> bytes:
        """Return the name of the file here."""
        return f"{self.ticket}.image".encode()

    @property
    def draft(self) -> bytes:
        """Return the name of a copy of it that is not complete."""
        return f"{self.ticket}.part".encode()

    @property
    def file(self) -> bytes:
        """Return the name of the record."""
        return f"{self.ticket}.{self.state}".encode()


def new_ticket() -> str:
    """Return a name of ours: nothing of the file's own name is in it."""
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}"


def made(ticket: str) -> float:
    """Return when a ticket was made, as epoch seconds: its record was written right after."""
    return int(ticket[:20]) / 1e9


def entries(directory: int, since: float = 0.0) -> Iterator[Entry]:
    """Yield every ticket made after ``since`` (epoch), oldest first.

    A damaged record hides no other.
    """
    for name in sorted(os.listdir(directory)):
        ticket, _, state = name.partition(".")
        if TICKET.fullmatch(ticket) and state in set(State) and made(ticket) >= since:
            entry = _read(directory, ticket, State(state))
            if entry is not None:
                yield entry


def find(directory: int, ticket: str) -> Entry | None:
    """Return one ticket; None when there is no such."""
    if TICKET.fullmatch(ticket):
        for state in State:
            entry = _read(directory, ticket, state)
            if entry is not None:
                return entry
    return None


def _read(directory: int, ticket: str, state: State) -> Entry | None:
    try:
        fd = os.open(f"{ticket}.{state}", READ, dir_fd=directory)
        with os.fdopen(fd, "rb") as stream:
            record = msgspec.json.decode(stream.read(LARGEST), type=Record)
    except FileNotFoundError:
        return None  # gone, or in its next state, since it was listed
    except OSError as error:
        return Entry(ticket, state, None, error.strerror or str(error))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Entry(ticket, state, None, show(str(error)))
    return Entry(ticket, state, record)


def create(directory: int, record: Record) -> Entry:
    """Write the record of a file that is about to be taken; on disk when this returns.

    A crash may leave half of it: then the file was not touched yet.
    """
    entry = Entry(new_ticket(), State.TAKING, record)
    _write(directory, entry.file, record)
    return entry


def rewrite(directory: int, entry: Entry, record: Record) -> Entry:
    """Correct the record of a file that was not touched yet."""
    os.unlink(entry.file, dir_fd=directory)
    _write(directory, entry.file, record)
    return Entry(entry.ticket, entry.state, record)


def _write(directory: int, name: bytes, record: Record) -> None:
    text = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
    fd = os.open(name, CREATE, 0o600, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(fd)
        os.fsync(directory)
    except OSError:
        os.unlink(name, dir_fd=directory)
        raise


def turn(directory: int, entry: Entry, state: State) -> Entry:
    """Bring a ticket into another state; on disk when this returns."""
    after = Entry(entry.ticket, state, entry.record, entry.damaged)
    os.rename(entry.file, after.file, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    return after


def discard(directory: int, *names: bytes) -> None:
    """Remove files; one that is not there is no matter."""
    for name in names:
        if look(directory, name) is not None:
            os.unlink(name, dir_fd=directory)


def trouble(where: bytes, error: OSError) -> NoRoom | QuarantineError:
    """Return what to raise for a failure in the directory ``where``."""
    kind = NoRoom if error.errno in FULL else QuarantineError
    return kind(f"{show(where)}: {error.strerror or error}")
