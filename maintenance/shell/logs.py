"""Log lines: one a file for each job, one on stderr for whoever looks."""

import json
import logging
import os
import sys
import time
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path

from maintenance.errors import ImagewardenError
from maintenance.text import show

ROOT = "maintenance"


class _Text(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the time in UTC."""
        return time.strftime(datefmt or "", time.gmtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, also for a traceback's many."""
        return super().format(record).replace("\n", "\n    ")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = {"time": at, "level": record.levelname.lower(), "job": record.name,
                "pid": record.process, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _LogFile(WatchedFileHandler):
    """Follows logrotate to the new file, and never a symlink."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.baseFilename, flags, 0o640)
        return os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; a file that cannot be opened again after a rotation ends no run."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Stay silent: a full log disk must not take the run's own work down."""


def start(script: str, level: int, form: str) -> logging.Logger:
    """Send log lines from ``level`` up to stderr; ``form`` is text or json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(_Json() if form == "json" else _Text(f"{script}: %(message)s"))
    # What libraries log is not for the admin; without a handler it would go to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    logger = logging.getLogger(ROOT)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


def add_file(path: Path, form: str) -> None:
    """Keep lines in the job's own file as well; raises ImagewardenError."""
    try:
        handler = _LogFile(path, delay=False)
    except OSError as error:
        raise ImagewardenError(f"{show(path)}: {error.strerror}") from None
    handler.setLevel(logging.DEBUG)
    pattern = "%(asctime)s.%(msecs)03dZ %(levelname)s [%(process)d] %(message)s"
    handler.setFormatter(_Json() if form == "json" else _Text(pattern, "%Y-%m-%dT%H:%M:%S"))
    logging.getLogger(ROOT).addHandler(handler)
