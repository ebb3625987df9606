"""Whom a program runs as, and where it finds others. Little to import: uploads wait for it."""

from dataclasses import dataclass

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a child runs as; only root can ask for another than itself."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
