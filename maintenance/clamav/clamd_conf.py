"""Reading and writing clamd.conf, as far as it decides what is really scanned."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/etc/clamav/clamd.conf")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
# clamd's own defaults (1.x) for what a file does not set.
DEFAULTS = {"MaxFileSize": "100M", "StreamMaxLength": "100M", "MaxScanSize": "400M"}


@dataclass(frozen=True, slots=True)
class ClamdConf:
    """The options of one clamd; the first of repeated lines counts, as tried with clamd 1.4."""

    options: Mapping[str, str]

    def size(self, option: str) -> int:
        """Return a size in bytes; 0 means no limit in clamd's words."""
        match = re.fullmatch(r"(\d+)([KMG]?)", self.options.get(option, DEFAULTS[option]).upper())
        return 0 if match is None else int(match[1]) * UNITS[match[2]]

    def yes(self, option: str) -> bool:
        """Tell whether a switch is on; clamd takes yes, true and 1."""
        return self.options.get(option, "no").lower() in {"yes", "true", "1"}

    @property
    def alerts_on_limits(self) -> bool:
        """Tell whether what was not scanned is told apart from what is clean."""
        return self.yes("AlertExceedsMax")

    @property
    def reloads_aside(self) -> bool:
        """Tell whether it goes on scanning while it loads; if not, it first waits until idle."""
        return "ConcurrentDatabaseReload" not in self.options or self.yes(
            "ConcurrentDatabaseReload")

    @property
    def socket(self) -> str:
        """Return the path of the local socket, or an empty text."""
        return self.options.get("LocalSocket", "")

    @property
    def databases(self) -> Path:
        """Return the directory it loads its databases from."""
        return Path(self.options.get("DatabaseDirectory", "/var/lib/clamav"))

    def covers(self, size: int) -> bool:
        """Tell whether files up to ``size`` bytes are scanned whole."""
        limits = [self.size("MaxFileSize"), self.size("MaxScanSize")]
        return all(limit == 0 or limit >= size for limit in limits)


def read(path: Path) -> ClamdConf | None:
    """Return what ``path`` sets; None when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = [line.split(maxsplit=1) for line in lines if not line.lstrip().startswith("#")]
    return ClamdConf({pair[0]: pair[1].strip().strip('"')
                      for pair in reversed(pairs) if len(pair) == 2})


def write(options: Mapping[str, str | int]) -> str:
    """Return the text of a configuration file."""
    return "".join(f"{name} {value}\n" for name, value in options.items())
