"""The rescan that new definitions call for, as a process of its own."""

import json
from pathlib import Path

from maintenance.errors import Exit
from maintenance.jobs.definitions_report import DefinitionsReport
from maintenance.shell.job import Context
from maintenance.shell.lock import is_ending, is_held
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
        """Start it when ``report`` calls for it, and say so there.

        A run that is under way serves what came meanwhile, as long as it has not
        announced its end; if it has, the one started here waits for that. The lock is
        looked at first: a run is in the ledger before it lets go of it.
        """
        lock = lock_of(context, "rescan")
        runs = is_held(lock) and not is_ending(lock)
        if context.options.wait:
            self._in_the_foreground(report)
        elif not context.config.definitions.start_rescan or context.options.no_rescan:
            report.rescan = "off"
        elif report.generation == context.ledger.last_rescan():
            report.rescan = "not needed"
        elif runs:
            report.rescan = "running"
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
