"""After any edit of the databases a rescan knows what clamscan, loading them all, finds.

Random databases in all kinds that can be told apart line by line, and in those that cannot;
random edits, one after the other; images with the words in all places where an engine looks.
"""

import hashlib
import os
import re
import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.pictures_with import PICTURES, at_border, in_metadata, program, zipped
from tests.site import Site

pytestmark = [pytest.mark.server, pytest.mark.once]

WORDS = [b"word %02d of the signatures" % number for number in range(10)]
MEMBER = "inside.txt"
KINDS = (".ndb", ".mdb", ".db", ".hdb", ".hsb", ".ldb", ".ldb", ".cdb", ".ndu", ".fp", ".sfp",
         ".ign2", ".yara", ".pwdb", ".ftm")
OFTEN = (".ndb", ".mdb", ".db", ".hdb", ".hsb", ".ldb", ".ldb", ".ndb", ".ign2", ".fp")
EDITS = ("add", "add", "add", "add", "remove", "change", "move", "rename", "reorder", "double",
         "ends", "no more")


def album() -> dict[str, bytes]:
    """Images by name, each with one word or two."""
    images = {"plain.png": PICTURES["PNG"], "plain.jpg": PICTURES["JPEG"]}
    for number, word in enumerate(WORDS):
        other = WORDS[(number + 3) % len(WORDS)]
        kind = ("PNG", "JPEG", "GIF", "WEBP")[number % 4]
        images[f"behind-{number}"] = PICTURES[kind] + word
        images[f"metadata-{number}"] = in_metadata(word + b" and " + other, kind)
        box = zipped({MEMBER: word, f"{number}.txt": other}, packed=bool(number % 2))
        images[f"zip-{number}"] = PICTURES[kind] + box
    for number in range(3):
        images[f"program-{number}"] = program(WORDS[number])
    images["border"] = at_border(WORDS[0], 9)
    images["locked"] = PICTURES["PNG"] + zipped({MEMBER: WORDS[1]}, password=b"secret")
    return images


class Databases:
    """Text files of signatures that change at random."""

    def __init__(self, place: Path, seed: int, images: dict[str, bytes]) -> None:
        self.rng, self.place, self.images = Random(seed), place, images
        self.ends: dict[str, str] = {}
        self.made = 0
        self.files: dict[str, list[str]] = {"first.ndb": [self.line(".ndb")]}

    def line(self, kind: str) -> str:
        """A new line of a kind."""
        self.made += 1
        name, rng = f"Test.N{self.made}", self.rng
        word, other = (word.hex() for word in rng.sample(WORDS, 2))
        content = rng.choice(list(self.images.values()))
        if rng.random() < 0.3:
            content = rng.choice(WORDS)  # as a member of an archive
        length = rng.choice((str(len(content)), "*"))
        lines = {
            ".ndb": f"{name}:{rng.choice('0055')}:*:{word}",
            ".ndu": f"PUA.{name}:0:*:{word}",
            ".db": f"{name}={word}",
            ".hdb": f"{hashlib.md5(content).hexdigest()}:{len(content)}:{name}",
            ".hsb": f"{hashlib.sha256(content).hexdigest()}:{length}:{name}"
                    + (":73" if length == "*" else ""),
            ".fp": f"{hashlib.md5(content).hexdigest()}:{len(content)}:{name}",
            ".sfp": f"{hashlib.sha256(content).hexdigest()}:{len(content)}:{name}",
            ".ldb": f"{name};Engine:81-255,Target:{rng.choice('0055')};"
                    f"{rng.choice(('0&1', '0|1', '0', '1', '0=0&1'))};{word};{other}",
            ".cdb": f"{name}:CL_TYPE_ZIP:*:{rng.choice((MEMBER, '3.txt')).replace('.', '[.]')}"
                    ":*:*:*:*:*:*",
            ".ign2": f"Test.N{rng.randint(1, self.made)}",
            ".mdb": f"512:{hashlib.md5(program(rng.choice(WORDS[:3]))[512:]).hexdigest()}:{name}",
            ".yara": f"rule r{self.made} {{ strings: $a = {{ {word} }} condition: $a }}",
            ".pwdb": f"{name};Engine:81-255;0;{rng.choice(('secret', 'other'))}",
            ".ftm": f"0:0:{rng.choice(('89504e470d0a1a0a', 'ffd8ffe0'))}:{name}:CL_TYPE_ANY:"
                    f"{rng.choice(('CL_TYPE_GRAPHICS', 'CL_TYPE_PNG'))}:81",
        }
        return lines[kind]

    def edit(self) -> str:
        """Change something, and say what."""
        deed = self.rng.choice(EDITS)
        name = self.rng.choice(sorted(self.files))
        lines = self.files[name]
        kind = self.rng.choice(KINDS if self.rng.random() < 0.3 else OFTEN)
        if deed == "add":
            name = f"{self.rng.choice('ab')}{kind}"
            self.files.setdefault(name, []).append(self.line(kind))
        elif deed == "remove":
            lines.pop(self.rng.randrange(len(lines)))
        elif deed == "change":
            lines[self.rng.randrange(len(lines))] = self.line(Path(name).suffix)
        elif deed == "move":
            self.files.setdefault(f"moved{Path(name).suffix}", []).append(
                lines.pop(self.rng.randrange(len(lines))))
        elif deed == "rename":
            self.files[f"{self.rng.choice('xyz')}{Path(name).suffix}"] = self.files.pop(name)
        elif deed == "reorder":
            self.rng.shuffle(lines)
        elif deed == "double":
            lines.append(self.rng.choice(lines))
        elif deed == "ends":
            self.ends[name] = self.rng.choice(("\n", "\r\n"))
        else:
            del self.files[name]
        self.files = {name: lines for name, lines in self.files.items() if lines} or {
            "first.ndb": [self.line(".ndb")]}
        return f"{deed} {name}"

    def write(self) -> None:
        """Put the files in place."""
        for path in self.place.iterdir():
            if path.name not in {*self.files, "imagewarden-canary.hdb"}:
                path.unlink()
        for name, lines in self.files.items():
            ends = self.ends.get(name, "\n")
            (self.place / name).write_bytes("".join(f"{one}{ends}" for one in lines).encode())


def clamscan(databases: Path, store: Path) -> tuple[int, set[str]]:
    """What clamscan says of every image: its status, and the names of those infected."""
    done = subprocess.run(
        ["clamscan", f"--database={databases}", "--no-summary", "--infected", "--recursive",
         "--alert-exceeds-max=yes", "--disable-cache", store],
        capture_output=True, text=True, check=False)
    return done.returncode, {Path(path).name for path in re.findall(
        r"^(\S+): .* FOUND$", done.stdout, re.MULTILINE)}


def walk(site: Site, seed: int, steps: int) -> dict[str, int]:
    """Edit, rescan and compare so many times; return how many images were scanned how."""
    images = album()
    for name, content in images.items():
        site.image(name, content)
    site.databases.mkdir(parents=True)
    databases = Databases(site.databases, seed, images)
    done = {"full": 0, "delta": 0}
    for step in range(steps):
        deeds = [databases.edit() for _ in range(databases.rng.randint(1, 3))]
        databases.write()
        status, infected = clamscan(site.databases, site.store)
        ended = site.run("rescan-store", "--json")
        about = (f"seed {seed}, step {step}", deeds, databases.files, ended)
        if status == 2:  # clamscan cannot load them
            assert ended.status == 1, about
            databases.files = {"first.ndb": [databases.line(".ndb")]}
            continue
        assert ended.status == (4 if infected else 0), about
        assert {one["path"] for one in ended.json["infected"]} == infected, about
        store = ended.json["stores"][0]
        assert store["left"] == store["unknown"] == 0, about
        for kind in done:
            done[kind] += store[kind]
    return done


@pytest.mark.parametrize("seed", range(3))
def test_a_rescan_finds_what_clamscan_finds(site, seed):
    done = walk(site, seed, 12)
    assert min(done.values()) > 30, "both ways were gone"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 100 + int(os.environ.get("WALKS", "12"))))
def test_a_rescan_finds_what_clamscan_finds_after_very_many_edits(site, seed):
    walk(site, seed, 120)
