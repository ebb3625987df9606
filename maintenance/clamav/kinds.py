"""What kinds of database files there are, and what a change of each means for a delta.

The judge is ClamAV's loader (libclamav/readdb.c): it goes by the suffix alone.
"""

from enum import Enum

from maintenance.clamav.databases import CONTAINERS, suffix
from maintenance.text import show


class Role(Enum):
    """What the lines of a kind are to the signatures beside them."""

    SIGNATURES = "every line finds something by itself: only new ones need to be asked about"
    EXCEPTIONS = "every line takes something away: one that ends needs a full scan"
    SETTINGS = "the lines decide together how every signature works: any change needs one"
    WHOLE = "nobody knows what a part of it means: any change needs one"
    CODE = "as WHOLE, and signed code works only inside its container"
    NOTHING = "no engine of ours loads it"


# Kinds with one loader are one: what moves from .hdb to .hsb is not new.
_SAME = {".hsb": ".hdb", ".msb": ".mdb", ".sfp": ".fp", ".ign": ".ign2", ".yara": ".yar"}
_ROLES = {
    Role.SIGNATURES: {".hdb", ".mdb", ".imp", ".ndb", ".db", ".ldb", ".cdb", ".zmd", ".rmd"},
    Role.EXCEPTIONS: {".fp", ".ign2", ".wdb", ".crb"},
    Role.SETTINGS: {".ftm", ".cfg", ".idb", ".pwdb", ".sdb"},
    Role.CODE: {".cbc"},
    # Potentially unwanted programs: our engines have them off.
    Role.NOTHING: {".hdu", ".hsu", ".mdu", ".msu", ".ndu", ".ldu"},
}
# Not compared line by line, and yet it belongs to what other signatures need: trusted hashes.
CARRIED_WHOLE = {".cat"}
EXCLUSIONS = ".ign2"  # names of signatures that are not to be loaded
CERTIFICATES = ".crb"  # may take away and add


def kind(suffix: str) -> str:
    """Return the kind of a suffix, itself a suffix."""
    return _SAME.get(suffix, suffix)


def role(kind: str) -> Role:
    """Return what a kind is; one that is not known here counts as WHOLE."""
    return next((role for role, kinds in _ROLES.items() if kind in kinds), Role.WHOLE)


def by_lines(kind: str) -> bool:
    """Tell whether its lines are compared."""
    return role(kind) in {Role.SIGNATURES, Role.EXCEPTIONS, Role.SETTINGS}


def is_container(file: str) -> bool:
    """Tell whether a file holds others."""
    return suffix(file) in CONTAINERS


def is_signed(file: str) -> bool:
    """Tell whether the engine takes a file's content for ClamAV's own."""
    return suffix(file) in CONTAINERS - {".cud"}


def name_of(kind: str, line: bytes) -> bytes:
    """Return the name of the signature that ``line`` is."""
    if kind == ".db":
        return line.partition(b"=")[0]
    if kind == ".ldb":
        return line.partition(b";")[0]
    fields = line.split(b":", 3)
    return fields[2] if kind in {".hdb", ".mdb", ".imp"} and len(fields) > 2 else fields[0]


def reported(name: bytes, *, official: bool) -> str:
    """Return the name under which an engine reports a signature of this name."""
    plain = name.partition(b" (Clam)")[0].decode("utf-8", "backslashreplace")
    return plain if official else f"{plain}.UNOFFICIAL"


def shown(file: str, name: str) -> str:
    """Return a database's name for a sentence, with the container it is in."""
    return show(name) if file == name else f"{show(name)} in {show(file)}"
