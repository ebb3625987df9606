"""Which definitions are on disk right now, and which generation that makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maintenance.clamav import databases, system
from maintenance.clamav.connection import Clamd
from maintenance.clamav.databases import Database, Snapshot
from maintenance.clamav.facts_store import FactsStore
from maintenance.clamav.private import ScanOptions
from maintenance.errors import ToolError
from maintenance.ledger.generations import Generation
from maintenance.ledger.ledger import Ledger
from maintenance.programs import find, run
from maintenance.settings import Config
from maintenance.text import show
from maintenance.times import iso


@dataclass(frozen=True, slots=True)
class Definitions:
    """The databases as read from disk, and what would scan with them."""

    directory: Path
    content: Snapshot
    engine: str  # such as "private ClamAV 1.4.6"
    options: str  # of its scans; of the system's clamd nothing is known
    fingerprint: str

    def stand_still(self) -> bool:
        """Tell, without reading them again, whether the files are still the same."""
        return databases.stamps(self.directory) == self.content.stamps

    def remember(self, state: Path) -> None:
        """Remember what they hold: the delta to a later generation is told from it.

        Raises ToolError when they are damaged, or others by now.
        """
        facts_below(state).derive(self.directory, self.content, self.engine, self.options)

    def facts(self) -> Sequence[Mapping[str, object]]:
        """Return the databases as the ledger keeps them, one for each name."""
        newest: dict[str, Database] = {}
        for one in self.content.databases:
            other = newest.get(one.name)
            if other is None or (one.version or 0) >= (other.version or 0):
                newest[one.name] = one
        return [{"name": show(one.name), "version": one.version, "signatures": one.signatures,
                 "built": iso(one.built), "sha256": one.sha256} for one in newest.values()]

    def differ_from(self, known: Generation | None) -> bool:
        """Tell whether their content is another than that of ``known``."""
        after = {(one["name"], one["sha256"]) for one in self.facts()}
        return known is None or after != {(one["name"], one["sha256"]) for one in known.databases}

    def changes_since(self, known: Generation | None) -> list[dict[str, object]]:
        """Return each database with the version it had in ``known``."""
        before = {one["name"]: one for one in known.databases} if known else {}
        return [{"name": one["name"], "from": before.get(one["name"], {}).get("version"),
                 "to": one["version"], "signatures": one["signatures"], "built": one["built"]}
                for one in self.facts()]

    def met(self, ledger: Ledger, *, confirmed: bool = False) -> Generation:
        """Return their generation; ``confirmed``: freshclam says they are the newest."""
        return ledger.generations.met(self.fingerprint, self.engine, self.facts(), confirmed)

    def number(self, ledger: Ledger, *, dry: bool) -> int | None:
        """Return the generation's number; a dry run gives a new one none."""
        if not dry:
            return self.met(ledger).number
        known = ledger.generations.current()
        return known.number if known and known.fingerprint == self.fingerprint else None


def facts_below(state: Path) -> FactsStore:
    """Return where the facts about generations are remembered."""
    return FactsStore(state / "facts")


def directory_of(config: Config) -> Path:
    """Return the database directory."""
    return databases.directory(config.clamav.databases, config.own_databases)


def uses_system_engine(config: Config) -> bool:
    """Tell which engine rescans: decided by what is installed, not by one run's luck."""
    if config.clamav.engine == "auto":
        return system.fits(config.clamav.socket, config.clamav.max_file_size)
    return config.clamav.engine == "system"


def scan_options(config: Config) -> ScanOptions:
    """Return what decides how our own engine scans."""
    return ScanOptions(config.clamav.max_file_size, config.clamav.timeout)


def on_disk(config: Config) -> Definitions:
    """Read the definitions; raises ToolError when there are none or they are damaged."""
    directory = directory_of(config)
    content = databases.snapshot(directory)
    if not content.databases:
        raise ToolError(f"no definitions in {show(directory)} yet: run update-definitions")
    of_system = uses_system_engine(config)
    engine = f"{'system' if of_system else 'private'} {engine_version(config)}"
    options = "" if of_system else scan_options(config).text()
    return Definitions(directory, content, engine, options, content.fingerprint(engine, options))


def verify(definitions: Definitions, known: Generation | None) -> None:
    """Check signature and checksum of the signed databases that ``known`` does not have.

    Raises ToolError, with the repair.
    """
    before = {one.get("sha256") for one in known.databases} if known else set()
    for one in definitions.content.databases:
        if one.version is not None and one.sha256 not in before:
            path = definitions.directory / one.file
            if run(["sigtool", f"--info={path}"]).status != 0:
                raise ToolError(f"{show(path)}: damaged (sigtool --info);"
                                " remove it and run update-definitions")


def engine_version(config: Config) -> str:
    """Return such as ``ClamAV 1.4.6``; raises ToolError or EngineError."""
    if find("clamd") is None and uses_system_engine(config):
        said = Clamd(config.clamav.socket).version()
    else:
        said = run(["clamd", "--version"]).tail.decode("utf-8", "replace")
    return show(said.strip().partition("/")[0])


def shown(facts: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the databases as results show them."""
    return [{key: one[key] for key in ("name", "version", "signatures", "built")}
            for one in facts]
