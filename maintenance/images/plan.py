"""What a worker is told before its first image."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Self

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one image may cost. Beyond it the image stays as it is."""

    memory: int = 2048 * MEGABYTE  # address space of a worker
    size: int = 256 * MEGABYTE  # of the file
    pixels: int = 100_000_000
    raw: int = 256 * MEGABYTE  # of pixels as a PNG holds them
    deep: int = 32 * MEGABYTE  # the same with 16 bits a colour, which takes long to compare
    seconds: float = 600.0  # from handing it over to the answer
    cpu: int = 300  # seconds of it


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tool works on which kind, and what has to stay in an image."""

    png: str  # oxipng, optipng, strip or off
    jpeg: str  # mozjpeg, jpegtran, strip or off
    png_second: str  # the tool for what the first one cannot do, or dies of
    jpeg_second: str
    keep: frozenset[str]
    min_gain: float  # share of the original's size
    allowance: Allowance = field(default_factory=Allowance)

    @property
    def careful(self) -> Self:
        """Return the plan for an image over which a worker died: without the first tools."""
        return replace(self, png=self.png_second, jpeg=self.jpeg_second)

    def as_text(self) -> str:
        """Return it as one line for ``from_text``."""
        return json.dumps(asdict(self) | {"keep": sorted(self.keep)})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what ``as_text`` was made from."""
        members = json.loads(text)
        return cls(**members | {"keep": frozenset(members["keep"]),
                                "allowance": Allowance(**members["allowance"])})
