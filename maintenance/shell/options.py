"""The options that every script has."""

import argparse
import re
from collections.abc import Sequence

from maintenance import __version__
from maintenance.shell.job import Job
from maintenance.units import Duration


def parser(job: Job) -> argparse.ArgumentParser:
    """Return the parser of ``job``; usage errors end the process with status 2."""
    made = argparse.ArgumentParser(
        prog=job.script, description=job.purpose, allow_abbrev=False,
        epilog="Exit statuses: 0 done, 1 failed, 2 usage, 3 some images left undone, 4 infection"
               " found, 5 upload refused, 75 another run holds the lock, 78 configuration.")
    job.options(made)
    common = made.add_argument_group("common options")
    common.add_argument("--config", metavar="FILE", help="the configuration file")
    common.add_argument("--version", action="version", version=f"imagewarden {__version__}")
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    loudness.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    common.add_argument("--json", action="store_true", help="one JSON object on stdout")
    common.add_argument("--log-format", choices=("text", "json"), default="text")
    if job.changes:
        common.add_argument("--dry-run", action="store_true",
                            help="say what would be done and change nothing")
    return made


def names_apart(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` without its ``--``; what follows it can no longer be an option.

    parse_intermixed_args forgets the ``--`` and parses a second time: an upload
    called ``-h`` would print the help and end with 0, which says clean.
    """
    if "--" not in argv:
        return list(argv)
    at = list(argv).index("--")
    names = [f"./{name}" if name.startswith("-") and name != "-" else name
             for name in argv[at + 1:]]
    return [*argv[:at], *names]


def duration(text: str) -> float:
    """Read a duration given on the command line, in seconds."""
    if not re.fullmatch(r"\d.*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30m or 4h")
    try:
        return float(Duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def natural(text: str) -> int:
    """Read a number of things given on the command line, at least one."""
    if not re.fullmatch(r"0*[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)
