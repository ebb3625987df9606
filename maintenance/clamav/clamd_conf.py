"""Reading and writing clamd.conf, as far as it decides what is really scanned."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maintenance.units import Size

SYSTEM = Path("/etc/clamav/clamd.conf")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
# clamd's own defaults (1.x) for what a file does not set.
DEFAULTS = {"MaxFileSize": "100M", "StreamMaxLength": "100M", "MaxScanSize": "400M",
            "PCREMaxFileSize": "100M"}
ON = frozenset({"ConcurrentDatabaseReload"})  # of the switches that we look at
# AlertExceedsMax tells of what is over the first two. Above the third, signatures with regular
# expressions are not tried and the answer is OK all the same: nothing tells of that (1.4).
LIMITS = ("MaxFileSize", "MaxScanSize", "PCREMaxFileSize")


@dataclass(frozen=True, slots=True)
class ClamdConf:
    """The options of one clamd; the first of repeated lines counts, as tried with clamd 1.4."""

    options: Mapping[str, str]
    path: Path = SYSTEM  # of the file

    def size(self, option: str) -> int:
        """Return a size in bytes; 0 means no limit in clamd's words."""
        match = re.fullmatch(r"(\d+)([KMG]?)", self.options.get(option, DEFAULTS[option]).upper())
        return 0 if match is None else int(match[1]) * UNITS[match[2]]

    def yes(self, option: str) -> bool:
        """Tell whether a switch is on; clamd takes yes, true and 1."""
        return self.options.get(option, "yes" if option in ON else "no").lower() in {
            "yes", "true", "1"}

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
        return not self._below(size)

    def lacking(self, size: Size) -> str:
        """Return the lines that make it scan files up to ``size`` whole, and say what it did not.

        Empty when all are there.
        """
        alert = [] if self.alerts_on_limits else ["AlertExceedsMax yes"]
        # What is found inside of a file counts towards MaxScanSize as well.
        wanted = {"MaxScanSize": max(size, Size(DEFAULTS["MaxScanSize"]))}
        return ", ".join([*alert, *(f"{option} {wanted.get(option, size)}"
                                    for option in self._below(size))])

    def silent_from(self) -> int | None:
        """Return the size from which on its "clean" may not be the whole truth; None: no such."""
        *alerted, silent = map(self.size, LIMITS)
        limits = [silent + 1] if silent else []
        if not self.alerts_on_limits:
            limits += filter(None, alerted)
        return min(limits, default=None)

    def _below(self, size: int) -> list[str]:
        return [option for option in LIMITS if 0 < self.size(option) < size]


def read(path: Path) -> ClamdConf | None:
    """Return what ``path`` sets; None when it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = [line.split(maxsplit=1) for line in lines if not line.lstrip().startswith("#")]
    return ClamdConf({pair[0]: pair[1].strip().strip('"')
                      for pair in reversed(pairs) if len(pair) == 2}, path)


def write(options: Mapping[str, str | int]) -> str:
    """Return the text of a configuration file."""
    return "".join(f"{name} {value}\n" for name, value in options.items())
