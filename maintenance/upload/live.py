"""The settings of the moment: the file is read again whenever it has changed."""

import logging
import os
import threading

from maintenance import config as configuration
from maintenance.errors import ConfigError
from maintenance.settings import UploadSettings

log = logging.getLogger("maintenance.upload")
_Stamp = tuple[int, int, int, int]


class Live:
    """Threads may ask at once. A file that cannot be used leaves the last good settings."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self.forget()

    def forget(self) -> None:
        """Let a forked child have a lock of its own; settings stay good."""
        self._turn = threading.Lock()
        self._state: tuple[str, _Stamp | None, UploadSettings | ConfigError] | None = getattr(
            self, "_state", None)

    def settings(self) -> UploadSettings:
        """Return what is in force; raises ConfigError when there never was a file to use."""
        path = configuration.place(None)
        stamp = _stamp(path)
        state = self._state
        if state is None or state[:2] != (path, stamp):
            with self._turn:
                state = self._read(path, stamp)
        if isinstance(state[2], ConfigError):
            raise state[2]
        return state[2]

    def _read(self, path: str, stamp: _Stamp | None
              ) -> tuple[str, _Stamp | None, UploadSettings | ConfigError]:
        before = self._state
        if before is not None and before[:2] == (path, stamp):
            return before  # another thread was faster
        try:
            found: UploadSettings | ConfigError = configuration.load_part(
                None, ("clamav", "upload"), UploadSettings)
        except ConfigError as error:
            log.warning("%s", error)
            good = before is not None and before[0] == path and isinstance(
                before[2], UploadSettings)
            found = before[2] if good and before is not None else error
        self._state = (path, stamp, found)
        return self._state


def _stamp(path: str) -> _Stamp | None:
    try:
        info = os.stat(path)  # noqa: PTH116 - at every upload
    except (OSError, ValueError):
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
