"""``check``: one verdict on an upload, in the application's own process."""

import os
import time

from maintenance.clamav.connection import Clamd
from maintenance.errors import ConfigError, Exit
from maintenance.settings import UploadSettings
from maintenance.upload import judging
from maintenance.upload.judging import Rules, UploadVerdict
from maintenance.upload.live import Live
from maintenance.upload.pool import Pool
from maintenance.upload.source import TooLarge, Upload, opened
from maintenance.upload.tallying import tally

_LIVE, _POOL = Live(), Pool()


def check(upload: Upload, *, timeout: float | None = None) -> UploadVerdict:
    """Return the verdict on ``upload``; its ``accepted`` says whether to keep it.

    ``upload`` is a path, a descriptor, or a binary file: one that was opened, a
    temporary one in memory or on disk, werkzeug's FileStorage, Django's UploadedFile.
    What is on disk is handed to clamd by its descriptor, and nothing is copied; a file
    that can seek stands afterwards where it stood. ``timeout`` (seconds) is for the
    whole call; without it, upload.timeout.

    The configuration is that of ``$IMAGEWARDEN_CONFIG`` or the usual one, read again when
    it changes. Threads may call this at once, and forked children as well. Whatever is
    wrong with clamd or the configuration is a verdict. Raises ImagewardenError for a path
    that is no readable regular file, TypeError for what is no upload, and what
    reading from ``upload`` raises.
    """
    try:
        now = settings()
    except ConfigError as error:
        return UploadVerdict("unknown", accepted=False, status=Exit.INCOMPLETE,
                             reason=str(error), cause="configuration")
    verdict = checked(now, upload, now.upload.timeout if timeout is None else timeout)
    tally(now, verdict)
    return verdict


def checked(now: UploadSettings, upload: Upload, timeout: float) -> UploadVerdict:
    """Return the verdict by the settings ``now``, and count nothing; raises as ``check`` does."""
    if not now.upload.enabled:
        return judging.off()
    begun = time.monotonic()
    try:
        with opened(upload, judging.greatest_size(now)) as source:
            said = _POOL.ask(Clamd(now.clamav.socket), source, timeout)
    except TooLarge:
        return judging.too_large(now, time.monotonic() - begun)
    return judging.judged(now, said, time.monotonic() - begun)


def rules() -> Rules:
    """Return what an upload has to keep to; raises ConfigError."""
    now = settings()
    return Rules(judging.greatest_size(now), now.upload.types, now.upload.max_pixels)


def settings() -> UploadSettings:
    """Return the settings of the moment; raises ConfigError when there never were any."""
    return _LIVE.settings()


def _forget() -> None:
    _LIVE.forget()
    _POOL.forget()


os.register_at_fork(after_in_child=_forget)
