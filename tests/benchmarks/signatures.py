"""Signature databases of any size: made-up lines of the usual kinds, and a few that match."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

SEED = 20261125
# Of a hundred signatures: hashes, as in the official ones, are nearly all of them.
SHARES = {"hsb": 40, "mdb": 44, "hdb": 12, "ndb": 2, "ldb": 2}
# What a body signature is about, as ClamAV numbers it: anything, programs, HTML, pictures.
TARGETS = (0, 0, 1, 1, 1, 1, 1, 3, 3, 5)


@dataclass(frozen=True, slots=True)
class Planted:
    """An image that is to be found infected."""

    path: str  # relative to the store
    kind: str  # the suffix of the database that finds it
    name: str  # of the signature
    line: str  # of that database

    @property
    def reported(self) -> str:
        """Return the name that an engine gives: our databases are not signed."""
        return f"{self.name}.UNOFFICIAL"


@dataclass(frozen=True, slots=True)
class Plant:
    """What makes an image infected: ``mark`` is put at its end."""

    kind: str
    mark: bytes

    def into(self, path: str, content: bytes) -> tuple[bytes, Planted]:
        """Return an image's content with the mark in it, and what then finds it."""
        content += self.mark
        name = f"Benchmark.Planted.{self.kind.capitalize()}"
        half = len(self.mark) // 2
        line = {
            "hdb": f"{_md5(content)}:{len(content)}:{name}\n",
            "hsb": f"{hashlib.sha256(content).hexdigest()}:{len(content)}:{name}\n",
            "ndb": f"{name}:0:*:{self.mark.hex()}\n",
            "ldb": f"{name};Engine:81-255,Target:0;0&1;{self.mark[:half].hex()};"
                   f"{self.mark[half:].hex()}\n",
        }[self.kind]
        return content, Planted(path, self.kind, name, line)


def plants() -> list[Plant]:
    """Return one plant of each kind that can match an image."""
    chance = Random(SEED)
    return [Plant(kind, chance.randbytes(32)) for kind in ("hdb", "hsb", "ndb", "ldb")]


def make(directory: Path, count: int, planted: Sequence[Planted], seed: int = 0) -> None:
    """Write ``count`` signatures into ``directory``, those that find ``planted`` among them."""
    chance = Random(SEED + 1 + seed)
    for kind, share in SHARES.items():
        ours = [one.line for one in planted if one.kind == kind]
        number = max(1, count * share // 100 - len(ours))
        with (directory / f"benchmark.{kind}").open("w", encoding="ascii") as file:
            file.writelines(_lines(chance, kind, number))
            file.writelines(ours)


def _lines(chance: Random, kind: str, count: int) -> Iterator[str]:
    make_one = _KINDS[kind]
    for number in range(count):
        yield make_one(chance, f"Benchmark.{kind.capitalize()}-{number}")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _size(chance: Random) -> int:
    return chance.randrange(1000, 5_000_000)


def _body(chance: Random) -> str:
    return chance.randbytes(chance.randrange(16, 80)).hex()


_KINDS: dict[str, Callable[[Random, str], str]] = {
    "hdb": lambda chance, name: f"{chance.randbytes(16).hex()}:{_size(chance)}:{name}\n",
    "hsb": lambda chance, name: f"{chance.randbytes(32).hex()}:{_size(chance)}:{name}\n",
    "mdb": lambda chance, name: f"{_size(chance)}:{chance.randbytes(16).hex()}:{name}\n",
    "ndb": lambda chance, name: f"{name}:{chance.choice(TARGETS)}:*:{_body(chance)}\n",
    "ldb": lambda chance, name: (f"{name};Engine:81-255,Target:{chance.choice(TARGETS)};0&1;"
                                 f"{_body(chance)};{_body(chance)}\n"),
}
