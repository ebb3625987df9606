"""A small engine for what is new: it answers for images that were clean before."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from maintenance.clamav import clamd_conf, kinds
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import Snapshot, snapshot
from maintenance.clamav.delta_files import OFFICIAL, DeltaFiles
from maintenance.clamav.difference import difference
from maintenance.clamav.facts_store import FactsStore
from maintenance.clamav.home import engine_home
from maintenance.clamav.private import ScanOptions, private_engine

_UNOFFICIAL = ".UNOFFICIAL"


@dataclass(frozen=True, slots=True)
class Delta:
    """Databases with what one generation has that another had not."""

    where: Path
    content: Snapshot
    lines: int  # new ones
    asks: bool  # False: nothing could find more, so what was clean is clean without a question
    fuzzy: bool  # some line looks at what an image shows

    @contextmanager
    def engine(self, options: ScanOptions) -> Iterator[Clamd]:
        """Start a clamd on them; raises EngineError when it does not load them."""
        options = _Options(options.max_file_size, options.timeout, self.fuzzy)
        with private_engine(self.where, self.content, options) as clamd:
            yield clamd

    def reported(self, signature: str) -> str:
        """Return the name that an engine with all databases gives to what this one found.

        Signed databases cannot be taken apart and stay signed, so to this engine all lines
        are somebody else's.
        """
        name = signature.removesuffix(_UNOFFICIAL)
        return name if self._is_official(name.encode()) else signature

    def _is_official(self, name: bytes) -> bool:
        for path in self.where.glob(f"{OFFICIAL}.*"):
            with path.open("rb") as stream:
                if any(kinds.name_of(path.suffix, line.rstrip()) == name for line in stream):
                    return True
        return False


@dataclass(frozen=True, slots=True)
class _Options(ScanOptions):
    """Those of the generation, and off what costs time and cannot change an answer."""

    fuzzy: bool

    def text(self) -> str:
        # libclamav computes the hash of what an image shows, stores it, and compares it only
        # with those of fuzzy_img subsignatures (calculate_fuzzy_image_hash in scanners.c,
        # matcher_run in matcher.c): without any it changes nothing.
        return ScanOptions.text(self) + clamd_conf.write(
            {} if self.fuzzy else {"ScanImageFuzzyHash": "no"})


@contextmanager
def prepared(store: FactsStore, older: str, databases: Path, content: Snapshot, newer: str,
             names: Collection[str] = ()) -> Iterator[Delta]:
    """Write the delta from one generation (by fingerprint) to that of ``content``, for the block.

    ``names``: signatures to have in it although they are not new, such as those that
    images are infected by: such an image need not be asked about in full when this engine
    finds it as well. Raises FullNeeded when only a full scan tells, ToolError when a
    database is damaged or changed.
    """
    new = difference(store, older, newer)
    with engine_home() as home:
        where = home.path / "delta"
        where.mkdir()
        wanted = {name.removesuffix(_UNOFFICIAL).encode() for name in names}
        files = DeltaFiles(where, new, wanted)
        files.write(databases, content)
        yield Delta(where, snapshot(where), new.lines, bool(new.lines or new.certificates),
                    files.fuzzy)
