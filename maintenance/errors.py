"""Every way a job can fail, with the exit status each way has.

The numbers are a promise to crontabs, Zabbix triggers and upload code: they are
never renumbered.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of all scripts; a run ended by signal n exits 128+n."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    INFECTED = 4
    REFUSED = 5
    BUSY = 75  # EX_TEMPFAIL of sysexits.h
    CONFIG = 78  # EX_CONFIG of sysexits.h


class ImagewardenError(Exception):
    """A failure an admin can act on: shown as one line, never as a traceback."""

    status = Exit.FAILED


class UsageError(ImagewardenError):
    """The command line asks for something that cannot be."""

    status = Exit.USAGE


class ConfigError(ImagewardenError):
    """The configuration file cannot be used as it is."""

    status = Exit.CONFIG


class Busy(ImagewardenError):
    """Another run holds the lock this one needs."""

    status = Exit.BUSY


class Refused(ImagewardenError):
    """An upload breaks a rule: its size, type or pixels."""

    status = Exit.REFUSED


class StoreError(ImagewardenError):
    """A store is not there, or is not what the ledger remembers."""


class ToolError(ImagewardenError):
    """Another program is missing, failed, or gave no result in time."""


class EngineError(ImagewardenError):
    """No scan engine can be had, or it cannot be trusted."""


class LedgerError(ImagewardenError):
    """The ledger cannot be read or written."""


class NoRoom(ImagewardenError):
    """A file system is full: the run ends rather than going on half blind."""


class FileChanged(ImagewardenError):
    """The file on disk is no longer the one that was examined."""


class QuarantineError(ImagewardenError):
    """A quarantine cannot be trusted, or does not hold what is asked of it."""
