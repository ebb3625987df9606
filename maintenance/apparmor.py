"""What AppArmor must let clamd and freshclam do besides what their profiles allow.

Debian and Ubuntu confine both to their own directories and /tmp. The rules for
ours go into the profiles' local files, between two marks, so that they can be
found again and what an admin wrote round them stays.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROFILES = Path("/etc/apparmor.d")
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
BEGIN, END = "# BEGIN imagewarden: written by its install", "# END imagewarden"
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Confined:
    """A program with a profile, and what it needs."""

    profile: str  # the file's name in PROFILES
    rules: Sequence[str]

    @property
    def file(self) -> Path:
        """Return the profile."""
        return PROFILES / self.profile

    @property
    def local(self) -> Path:
        """Return the file in which a site adds to the profile."""
        return PROFILES / "local" / self.profile

    @property
    def in_force(self) -> bool:
        """Tell whether the profile is there and not switched off by its admin."""
        return self.file.is_file() and not (PROFILES / "disable" / self.profile).exists()

    @property
    def block(self) -> str:
        """Return our rules between their marks."""
        return "".join(f"{line}\n" for line in (BEGIN, *self.rules, END))


def confined(databases: Sequence[str], sources: Sequence[str]) -> tuple[Confined, ...]:
    """Return both programs; ``sources``: files that freshclam copies databases from.

    What jobs give them besides lies in /tmp, where both profiles let them work.
    """
    read = [rule for place in databases for rule in _tree(place, "r")]
    fetch = [rule for place in databases for rule in _tree(place, "rwk")]
    return (Confined("usr.sbin.clamd", read),
            Confined("usr.bin.freshclam", (*fetch, *(f"{_quoted(one)} r," for one in sources))))


def active() -> bool:
    """Tell whether the kernel enforces profiles."""
    try:
        return ENABLED.read_text(encoding="ascii").strip() == "Y"
    except OSError:
        return False


def without_block(text: str) -> str:
    """Return a local file's text as it was before ours was added."""
    return _BLOCK.sub("", text)


def with_block(text: str, block: str) -> str:
    """Return a local file's text with our block in it, once, where it was."""
    if _BLOCK.search(text):
        first = _BLOCK.sub(lambda _: "\0\n", text, count=1)
        return without_block(first).replace("\0\n", block)
    return text + ("" if text.endswith("\n") or not text else "\n") + block


def _tree(place: str, access: str) -> list[str]:
    return [f"{_quoted(place + '/')} {access.replace('k', '')},",
            f"{_quoted(place + '/')[:-1]}**\" {access},"]


def _quoted(path: str) -> str:
    r"""Return a path as AppArmor reads it: in quotes, special characters escaped."""
    return '"' + re.sub(r'([\\"*?\[\]{}^])', r"\\\1", path) + '"'
