"""Whether the clamd that uploads ask answers, and knows what the definitions on disk know."""

from collections.abc import Mapping
from datetime import UTC, datetime

from maintenance.clamav.connection import Clamd
from maintenance.errors import EngineError
from maintenance.ledger.generations import Generation
from maintenance.settings import Config
from maintenance.times import epoch, iso

OLD = ("clamd works with definitions that are older than those on disk by more than"
       " definitions.fail_age: restart it, and see its log")
DATED = "%a %b %d %H:%M:%S %Y"  # the third part of clamd's VERSION


def told(config: Config, generation: Generation | None) -> Mapping[str, object]:
    """Return the switch, and what clamd says of itself; nobody asks it while that is off."""
    enabled = config.upload.enabled
    version = _version(Clamd(config.clamav.socket)) if enabled else None
    built = None if version is None else _built(version)
    newest = _newest(generation)
    behind = None if built is None or newest is None else max(0.0, newest - built)
    return {"enabled": enabled, "engine": (version is not None) if enabled else None,
            "engine_built": iso(built),
            "engine_old": None if behind is None else behind > config.definitions.fail_age}


def _version(clamd: Clamd) -> str | None:
    try:
        return clamd.version()
    except EngineError:
        return None


def _built(version: str) -> float | None:
    """Return when clamd's daily was built; None: it has none."""
    try:
        found = datetime.strptime(version.split("/")[2], DATED)  # noqa: DTZ007 - it names no zone
    except (IndexError, ValueError):
        return None
    return found.replace(tzinfo=UTC).timestamp()


def _newest(generation: Generation | None) -> float | None:
    built = [] if generation is None else [one["built"] for one in generation.databases]
    return max((epoch(one) for one in built if isinstance(one, str)), default=None)
