"""Where a demo keeps what; see claim.py for how it comes by the directory."""

import os
from dataclasses import dataclass
from pathlib import Path

from maintenance.accounts import Account

USER = "www-data"  # whom the jobs and the application work as when root shows the demo


@dataclass(frozen=True, slots=True)
class Place:
    """Where a demo keeps what, and whom its store belongs to (None: us)."""

    root: Path
    owner: Account | None

    def __truediv__(self, name: str) -> Path:
        """Return a path below."""
        return self.root / name

    @property
    def config(self) -> Path:
        """Return the configuration file."""
        return self.root / "imagewarden.toml"

    @property
    def socket(self) -> Path:
        """Return where the clamd for uploads listens: a directory its user can write to."""
        return self.root / "clamd" / "clamd.sock"

    @property
    def feed(self) -> Path:
        """Return the file that freshclam fetches definitions from."""
        return self.root / "feed" / "demo.ndb"

    def publish(self, definitions: bytes) -> None:
        """Put ``definitions`` where freshclam fetches them.

        The file is the owner's, because AppArmor lets freshclam read no other
        one here; the directory stays ours, so that he cannot lead us elsewhere.
        """
        draft = self.feed.with_suffix(".draft")
        draft.write_bytes(definitions)
        if self.owner is not None:
            os.chown(draft, self.owner.uid, self.owner.gid)
        draft.replace(self.feed)

    def give(self, directory: Path) -> None:
        """Hand a tree to the store's owner, from the bottom up.

        In that order what lies below is already his when a directory becomes
        his: nothing he puts there meanwhile is touched by root. Links are not followed.
        """
        if self.owner is None:
            return
        uid, gid = self.owner.uid, self.owner.gid
        for _, names, files, fd in os.fwalk(directory, topdown=False):
            for name in (*names, *files):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        os.chown(directory, uid, gid, follow_symlinks=False)
