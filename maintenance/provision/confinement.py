"""AppArmor's local rules: put in and taken out."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from maintenance import apparmor
from maintenance.apparmor import Confined
from maintenance.provision.children import PATH, must, run
from maintenance.provision.known import Known
from maintenance.provision.steps import Step, read, write

PACKAGES = {"usr.sbin.clamd": "clamav-daemon", "usr.bin.freshclam": "clamav-freshclam"}


def allow(known: Known, coming: Collection[str]) -> Iterator[Step]:
    """Let the confined programs work in our directories.

    ``coming``: Debian packages that a real run installs before this, profiles and all.
    """
    for one in programs(known):
        if not one.file.is_file() and PACKAGES[one.profile] not in coming:
            continue  # without the profile nothing reads its local file
        text = read(one.local)
        wanted = apparmor.with_block(text or "", one.block)
        if text == wanted:
            # Again, because the run that wrote it may have been killed before.
            yield Step("unchanged", str(one.local), "AppArmor", do=partial(_reload, one))
        else:
            action = "updated" if text and apparmor.BEGIN in text else "made"
            yield Step(action, str(one.local), "AppArmor: what imagewarden needs",
                       do=partial(_apply, one, wanted))


def withdraw() -> Iterator[Step]:
    """Take our rules out again."""
    for name in PACKAGES:
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
    _reload(one)


def _reload(one: Confined) -> None:
    if apparmor.active() and one.in_force and shutil.which("apparmor_parser", path=PATH):
        must(run(["apparmor_parser", "-r", "-T", "-W", one.file], None),
             f"apparmor_parser -r {one.file}")


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return 0o644
