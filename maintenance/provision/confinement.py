"""AppArmor's local rules: put in and taken out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from maintenance import apparmor
from maintenance.apparmor import Confined
from maintenance.provision.children import must, run
from maintenance.provision.known import Known
from maintenance.provision.steps import Step, read, write

NAMES = ("usr.sbin.clamd", "usr.bin.freshclam")


def allow(known: Known) -> Iterator[Step]:
    """Let the confined programs work in our directories."""
    for one in programs(known):
        if not one.file.is_file():
            continue  # without the profile nothing reads its local file
        text = read(one.local)
        wanted = apparmor.with_block(text or "", one.block)
        if text == wanted:
            yield Step("unchanged", str(one.local), "AppArmor")
        else:
            action = "updated" if text and apparmor.BEGIN in text else "made"
            yield Step(action, str(one.local), "AppArmor: what imagewarden needs",
                       do=partial(_apply, one, wanted))


def withdraw() -> Iterator[Step]:
    """Take our rules out again."""
    for name in NAMES:
        one = Confined(name, ())
        text = read(one.local)
        if text is not None and apparmor.BEGIN in text:
            wanted = apparmor.without_block(text)
            yield Step("removed", str(one.local), "AppArmor: only what imagewarden needed",
                       do=partial(_apply, one, wanted))


def programs(known: Known) -> Sequence[Confined]:
    """Return what the configuration asks of each confined program."""
    places = dict.fromkeys([f"{known.state}/databases", *filter(None, [known.databases])])
    return apparmor.confined(list(places), known.sources)


def _apply(one: Confined, text: str) -> None:
    write(one.local, text, _mode(one.local))
    if apparmor.active() and one.in_force:
        must(run(["apparmor_parser", "-r", "-T", "-W", one.file], None),
             f"apparmor_parser -r {one.file}")


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return 0o644
