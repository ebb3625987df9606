"""Writing the databases of a delta: what is new, and what that needs beside it."""

import hashlib
import secrets
import sys
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from maintenance.clamav import kinds, lines
from maintenance.clamav.cvd import Part, parts
from maintenance.clamav.databases import Database, Snapshot
from maintenance.clamav.difference import Difference, FullNeeded
from maintenance.clamav.facts import Member
from maintenance.clamav.kinds import Role
from maintenance.clamav.lines import Mark
from maintenance.errors import ToolError
from maintenance.text import show

OFFICIAL, OTHER = "official", "other"  # the files of new lines, by where those come from
_CODE = ".cbc"
_MOST_WITH_CODE = 20_000  # signatures of a container that is copied for the sake of its code
_FILLER = 4000  # bytes: about the longest signature that a line can hold
_FUZZY = b"fuzzy_img#"


class DeltaFiles:
    """The databases of a delta in a directory that holds nothing else."""

    def __init__(self, where: Path, difference: Difference, names: Collection[bytes]) -> None:
        """Write into ``where``; ``names``: of signatures wanted although they are not new."""
        self.fuzzy = False  # whether some line looks at what an image shows
        self._where = where
        self._facts = difference.facts
        self._new_exclusions = difference.exclusions
        self._fresh = {(one.file, one.name): positions for one, positions in difference.fresh}
        self._names = names
        self._excluded: defaultdict[bytes, set[bytes]] = defaultdict(set)

    def write(self, databases: Path, content: Snapshot) -> None:
        """Write what is needed of the databases of ``content``.

        Raises FullNeeded, and ToolError when a database is damaged or no longer that of
        the snapshot.
        """
        coded = {one.file for one in self._facts.members if one.kind == _CODE and one.contained}
        for one in content.databases:
            members = {member.name: member for member in self._facts.members
                       if member.file == one.file and self._needs(member)}
            if one.file in coded:
                self._copy(databases, one)
            elif members:
                for part in parts(databases, one):
                    if part.name in members:
                        self._take(part, members[part.name])
        self._fill()

    def _needs(self, member: Member) -> bool:
        if kinds.role(member.kind) is Role.SIGNATURES:
            return bool(self._names or (member.file, member.name) in self._fresh
                        or any(one.mark is Mark.HANDLER for one in member.marked))
        return bool(member.lines) or member.kind in kinds.CARRIED_WHOLE

    def _copy(self, databases: Path, one: Database) -> None:
        """Copy a container as it is: its code is believed only there."""
        if (one.signatures or 0) > _MOST_WITH_CODE:
            raise FullNeeded(f"{show(one.file)} holds code besides many signatures")
        data = (databases / one.file).read_bytes()
        if hashlib.sha256(data).hexdigest() != one.sha256:
            raise ToolError(f"{show(databases / one.file)}: it changed while it was read")
        (self._where / one.file).write_bytes(data)
        for part in parts(self._where, one):
            self.fuzzy |= _FUZZY in b"".join(part.chunks())

    def _take(self, part: Part, member: Member) -> None:
        if kinds.role(member.kind) is Role.SIGNATURES:
            self._pick(part, member)
            return
        name = f"{len(list(self._where.iterdir()))}{member.kind}"
        if member.kind == ".cfg" and member.contained:
            name = "daily.cfg"  # read before the others, as if it were in daily.cvd
        with (self._where / name).open("wb") as stream:
            stream.writelines(part.chunks())
        if member.kind == kinds.EXCLUSIONS:
            self._check_exclusions(self._where / name)

    def _pick(self, part: Part, member: Member) -> None:
        """Append the lines that are wanted to the file of their kind."""
        origin = OFFICIAL if member.official else OTHER
        positions = self._fresh.get((member.file, member.name), array("I"))
        handlers = any(one.mark is Mark.HANDLER for one in member.marked)
        start = first = 0
        for block in lines.lines(part.chunks(), part.name):
            picked = []
            while first < len(positions) and positions[first] < start + len(block):
                picked.append(block[positions[first] - start])
                first += 1
            start += len(block)
            for line in picked:
                _check(member, line)
            if handlers:
                picked += [line for line in block if b"HandlerType" in line]
            picked += self._named(member.kind, block)
            if picked:
                text = b"\n".join(picked) + b"\n"
                self.fuzzy |= _FUZZY in text
                with (self._where / f"{origin}{member.kind}").open("ab") as stream:
                    stream.write(text)

    def _named(self, kind: str, block: list[bytes]) -> Iterator[bytes]:
        if not self._names:
            return
        together = b"\n".join(block)
        names = [name for name in self._names if name in together]
        if names:
            yield from (line for line in block if kinds.name_of(kind, line) in names)

    def _check_exclusions(self, path: Path) -> None:
        """Object where it is not clear what an exclusion does to which signature."""
        marked = [one.name.encode() for member in self._facts.members for one in member.marked]
        for block in lines.lines([path.read_bytes(), b"\n"], path.name):
            for line in filter(None, block):
                fields = line.split(b":")
                name = fields[2] if len(fields) == 3 else fields[0]
                self._excluded[name].add(fields[1] if len(fields) == 2 else b"")
                if len(self._excluded[name]) > 1:
                    raise FullNeeded(f"{show(name)} is excluded in more than one way")
                digest = int.from_bytes(lines.digests([line], self._facts.salt), sys.byteorder)
                if digest in self._new_exclusions and any(
                        one.startswith(name.strip()) for one in marked):
                    raise FullNeeded(f"{show(name)} is excluded, on which others may depend")

    def _fill(self) -> None:
        """Write a long signature that nothing matches, so that no border hides a match.

        The engine normalises a text in pieces of 128 kB. They overlap by the length of the
        longest signature for texts only, but others are looked for in them, too.
        """
        (self._where / "filler.ndb").write_text(
            f"Imagewarden.Filler:7:*:{secrets.token_hex(_FILLER)}\n", encoding="ascii")


def _check(member: Member, line: bytes) -> None:
    objection = lines.objection(member.kind, line)
    if objection:
        name = show(kinds.name_of(member.kind, line))
        raise FullNeeded(f"a new signature has {objection} ({name})")
