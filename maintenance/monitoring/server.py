"""Where a Zabbix server or proxy listens."""

import re
from dataclasses import dataclass
from typing import Self

from maintenance.errors import MonitoringError
from maintenance.text import show

PORT = 10051


@dataclass(frozen=True, slots=True)
class Server:
    """Where a Zabbix server or proxy listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "host", "host:port" or "[::1]:port", as the configuration has them."""
        found = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+))?", text)
        if found is None:  # the configuration lets none of these through
            raise MonitoringError(f"{show(text)}: not a server")
        return cls(found[1].strip("[]"), int(found[2] or PORT))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
