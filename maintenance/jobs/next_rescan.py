"""The rescan that new definitions call for, as a process of its own."""

import json
from pathlib import Path

from maintenance.errors import Exit
from maintenance.jobs.definitions_report import DefinitionsReport
from maintenance.shell.job import Context
from maintenance.shell.lock import is_held
from maintenance.shell.main import lock_of
from maintenance.shell.successor import Successor


class NextRescan:
    """A rescan-store made ready before privileges are dropped; it may never run."""

    def __init__(self, context: Context) -> None:
        """Make it ready, with our own configuration."""
        command: list[str | Path] = [context.script.parent / "rescan-store", "--json"]
        if context.config_path is not None:
            command += ["--config", context.config_path]
        self._successor = Successor(command)

    def follow(self, context: Context, report: DefinitionsReport) -> None:
        """Start it when ``report`` calls for it, and say so there."""
        if context.options.wait:
            self._in_the_foreground(report)
        elif not context.config.definitions.start_rescan or context.options.no_rescan:
            report.rescan = "off"
        elif report.generation == context.ledger.last_rescan():
            report.rescan = "not needed"
        elif is_held(lock_of(context, "rescan")):
            report.rescan = "running"  # and it will serve this generation before it ends
        else:
            self._successor.start()
            report.rescan = "started"

    def _in_the_foreground(self, report: DefinitionsReport) -> None:
        status = int(Exit.FAILED)  # when we are stopped meanwhile
        try:
            status = self._successor.finish()
        finally:
            report.rescan_status = Exit(status) if status in set(Exit) else Exit.FAILED
            try:
                report.rescan = json.loads(self._successor.said)
            except ValueError:
                report.rescan = {"outcome": "failed", "error": f"rescan-store ended with {status}"}
