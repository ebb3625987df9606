"""show-config: the configuration as understood, secrets masked."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import tomli_w

from maintenance.errors import Exit
from maintenance.masking import masked
from maintenance.shell.job import Context, Job


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """Every setting, as text and numbers."""

    settings: dict[str, object]
    check_only: bool

    def status(self) -> Exit:
        """Return 0: a configuration that can be shown is one that can be used."""
        return Exit.DONE

    def members(self) -> dict[str, object]:
        """Return the settings."""
        return {"configuration": self.settings}

    def summary(self) -> Iterator[str]:
        """Yield the settings as TOML."""
        if not self.check_only:
            yield tomli_w.dumps(self.settings).rstrip("\n")

    def alerts(self) -> Iterator[str]:
        """Yield nothing: what is shown says it all."""
        yield from ()


def show_config(context: Context) -> ConfigReport:
    """Show what the jobs would work with."""
    return ConfigReport(masked(context.config), context.options.check)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true",
                        help="print nothing; the status says whether it can be used")


JOB = Job(script="show-config", name="show-config", run=show_config, options=_options,
          records=False, remembers=False, shows=True,
          purpose="Show the configuration as understood, secrets masked.")
