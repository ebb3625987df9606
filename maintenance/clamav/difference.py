"""What one generation has that an older one had not, or why images need a full scan instead.

The premise: an image was clean at the older generation. Then it is infected at the newer
one only by a line that is new there, as long as nothing changed what the other lines mean.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from maintenance.clamav import kinds
from maintenance.clamav.facts import Facts, Member
from maintenance.clamav.facts_store import FactsGone, FactsStore
from maintenance.clamav.fresh import MOST, TooMany, fresh
from maintenance.clamav.kinds import Role
from maintenance.clamav.lines import Mark

_EMPTY = sha256().hexdigest()
# A container's exclusions count for what is read after it. Of daily it is known when that is.
_DAILY = {"daily.cvd", "daily.cld"}
_NEVER_EMPTY = {".cdb", ".db", ".fp", ".hdb", ".idb", ".imp", ".ldb", ".mdb", ".ndb", ".rmd",
                ".sdb", ".zmd"}
_NEVER_WITHOUT_LINES = {".ftm", ".pwdb"}


class FullNeeded(Exception):
    """Only a full scan tells; the reason is a sentence for an admin."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The lines of the newer generation that the older one had not, by their positions."""

    facts: Facts  # of the newer one
    fresh: Sequence[tuple[Member, "array[int]"]]
    exclusions: frozenset[int]  # the digests of those that are new
    certificates: bool  # some are new: they may find something as well

    @property
    def lines(self) -> int:
        """Return how many lines are new."""
        return sum(len(positions) for _, positions in self.fresh)


def difference(store: FactsStore, older: str, newer: str) -> Difference:
    """Compare two generations by their fingerprints; raises FullNeeded."""
    try:
        old, new = store.load(older), store.load(newer)
        if old.salt != new.salt:
            raise FactsGone
        for reason in _obstacles(store, old, new):
            raise FullNeeded(reason)
        exclusions, certificates = (
            _digests(store, new, kind) - _digests(store, old, kind)
            for kind in (kinds.EXCLUSIONS, kinds.CERTIFICATES))
        fresh = [(member, positions) for member in new.members
                 if kinds.role(member.kind) is Role.SIGNATURES
                 for positions in [_fresh(store, old, new, member)] if positions]
    except FactsGone:
        raise FullNeeded("the facts about its definitions are gone") from None
    return Difference(new, fresh, frozenset(exclusions), bool(certificates))


def _obstacles(store: FactsStore, old: Facts, new: Facts) -> Iterator[str]:
    """Yield why the two cannot be told apart line by line."""
    if old.engine != new.engine:
        yield f"another engine: {new.engine}, it was {old.engine}"
    if old.options != new.options:
        yield "other scan options"
    yield from _order(new)
    yield from _order(old)
    for member in new.members:
        if _refused(member):
            yield f"{member.shown} is empty, and no engine loads such a file"
    for kind in sorted({member.kind for member in (*old.members, *new.members)}):
        yield from _RULES[kinds.role(kind)](store, old, new, kind)
    for mark in Mark:
        if _marked(old, mark) != _marked(new, mark):
            yield f"signatures with {mark} changed"


def _refused(member: Member) -> bool:
    return (member.kind in _NEVER_WITHOUT_LINES and not member.lines) or (
        member.kind in _NEVER_EMPTY and member.sha256 == _EMPTY)


def _order(facts: Facts) -> Iterator[str]:
    """Yield what takes effect in an order that a delta cannot repeat."""
    read: set[str] = set()
    for member in facts.members:
        if member.kind == kinds.EXCLUSIONS and member.contained and member.lines and (
                member.file not in _DAILY or member.file in read):
            yield f"{member.shown} excludes only what the engine reads after it"
        if kinds.role(member.kind) is Role.SIGNATURES:
            read.add(member.file)


def _nothing(store: FactsStore, old: Facts, new: Facts, kind: str) -> Iterator[str]:
    """Object to nothing."""
    yield from ()


def _ended(store: FactsStore, old: Facts, new: Facts, kind: str) -> Iterator[str]:
    """Object to a line that is no more."""
    if _digests(store, old, kind) - _digests(store, new, kind):
        yield f"an exception ended ({kind})"


def _rearranged(store: FactsStore, old: Facts, new: Facts, kind: str) -> Iterator[str]:
    """Object to lines that are not exactly the same, and to an order that chance decides."""
    before, after = (
        [(member.contained, store.digests(facts, member).tobytes())
         for member in facts.of_kind(kind) if member.lines] for facts in (old, new))
    if before != after:
        yield f"settings changed ({kind})"
    elif len(after) > 1:
        yield f"more than one database with settings ({kind})"


def _changed(store: FactsStore, old: Facts, new: Facts, kind: str) -> Iterator[str]:
    """Object to any change of a content."""
    before, after = (sorted(member.sha256 for member in facts.of_kind(kind))
                     for facts in (old, new))
    if before != after:
        yield f"a database changed that counts only as a whole ({kind})"


_RULES: dict[Role, Callable[[FactsStore, Facts, Facts, str], Iterator[str]]] = {
    Role.SIGNATURES: _nothing, Role.EXCEPTIONS: _ended, Role.SETTINGS: _rearranged,
    Role.WHOLE: _changed, Role.CODE: _changed, Role.NOTHING: _nothing,
}


def _digests(store: FactsStore, facts: Facts, kind: str) -> set[int]:
    return {digest for member in facts.of_kind(kind) for digest in store.digests(facts, member)}


def _marked(facts: Facts, mark: Mark) -> set[int]:
    return {one.digest for member in facts.members for one in member.marked if one.mark is mark}


def _fresh(store: FactsStore, old: Facts, new: Facts, member: Member) -> "array[int]":
    """Return the positions of the lines that no older database of the same kind has."""
    before = old.of_kind(member.kind)
    if any(one.sha256 == member.sha256 for one in before):
        return array("I")
    before.sort(key=lambda one: one.name != member.name)
    try:
        return fresh(store.digests(new, member),
                     [partial(store.digests, old, one) for one in before])
    except TooMany:
        raise FullNeeded(f"more than {MOST} lines are new ({member.shown})") from None
