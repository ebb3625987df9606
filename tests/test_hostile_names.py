"""Names that break careless programs, through every script that meets images."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.site import BAD, BIN, Ended

pytestmark = pytest.mark.server

HOSTILE = [
    b"clean.jpg\nx", b"a: OK", b"b FOUND", b"-h", b"@x.jpg", b"$(touch pwned).jpg",
    b"'\"; `touch pwned` \\.jpg", b"\xff\xfe.jpg", b"\x1b[31mred\r\x07\xc2\x9b.jpg",
    b"n" * 251 + b".jpg", "no reply from clamd\u2028lstat() \u202e.jpg".encode(), b" ", b"a\tb",
    b"...", b"-o7.png", b"--", b"*", b"%s%n.jpg", b"stream: Eicar FOUND\x01"]


def there(site, *names: bytes) -> set[bytes]:
    """What of the store is below a directory of it."""
    root = os.path.join(os.fsencode(site.store), *names)
    return {os.path.relpath(os.path.join(top, name), root)
            for top, _, files in os.walk(root) for name in files}


def in_c_locale(site, cwd, script, *arguments, stdin=b"") -> Ended:
    """Run a script from ``cwd`` where not even the locale knows what UTF-8 is."""
    done = subprocess.run(
        [BIN / script, *arguments], cwd=cwd, input=stdin, capture_output=True, check=False,
        timeout=60, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/nonexistent",
                         "TMPDIR": os.environ.get("TMPDIR", "/tmp")})
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_hostile_names_are_found_taken_and_given_back_and_their_neighbours_never(site):
    for name in HOSTILE:
        site.image(b"bad/" + name, BAD + name)
        site.image(b"clean/" + name)
    site.image("bad/clean.jpg")  # its neighbour has a newline after this name
    site.image(b"d\n\xff/$(touch pwned)/in it.jpg", BAD)
    site.update()
    config, cwd = ("--config", str(site.config)), site.root / "cwd"
    cwd.mkdir()
    ended = in_c_locale(site, cwd, "rescan-store", "--json", "--action", "quarantine", *config)
    assert (ended.status, ended.json["stores"][0]["clean"]) == (4, len(HOSTILE) + 1), ended.err
    shown = {one["path"]: one["ticket"] for one in ended.json["infected"]}
    assert len(shown) == len(HOSTILE) + 1, "no two names look alike"
    assert all(shown.values())
    log = (site.root / "logs/rescan.log").read_text(encoding="utf-8")
    assert ended.err.count("infected: uploads: ") == len(shown) == log.count("infected: uploads: ")
    for text in (ended.err, log, *shown):
        assert all(line.isprintable() for line in text.split("\n"))
    assert there(site, b"bad") == {b"clean.jpg"}
    assert there(site, b"clean") == set(HOSTILE)
    place = site.state / "quarantine/uploads"
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in place.glob("*.image")} == {0}
    listed = in_c_locale(site, cwd, "quarantine", "list", "--json", *config).json["held"]
    assert {one["path"]: one["ticket"] for one in listed} == shown
    table = in_c_locale(site, cwd, "quarantine", "list", *config).out
    assert all(line.isprintable() for line in table.splitlines())
    back = in_c_locale(site, cwd, "quarantine", "restore", "--force", *shown.values(), *config)
    assert (back.status, back.err) == (0, "")
    assert there(site, b"bad") == {b"clean.jpg", *HOSTILE}
    for name in HOSTILE:
        assert Path(os.fsdecode(os.fsencode(site.store) + b"/bad/" + name)).read_bytes() == (
            BAD + name)
    for place in (site.root, Path("/")):
        assert not list(place.glob("pwned"))
    assert not list(site.root.rglob("pwned"))


def test_hostile_names_are_scanned_when_they_are_named_from_their_own_directory(site):
    for name in HOSTILE:
        site.image(b"bad/" + name, BAD)
    site.update()
    arguments = ("rescan-store", "--json", "--config", str(site.config))
    for words, stdin in ((("--", *HOSTILE), b""), (("-",), b"\0".join(HOSTILE))):
        ended = in_c_locale(site, site.store / "bad", *arguments, *words, stdin=stdin)
        assert (ended.status, ended.json["undone"]) == (4, []), ended.err
        assert len({one["path"] for one in ended.json["infected"]}) == len(HOSTILE)
    assert not list(site.root.rglob("pwned"))
