"""The end of a run: caches are told of images that are others by now."""

import time
from typing import TYPE_CHECKING

from maintenance.errors import ImagewardenError
from maintenance.times import Deadline

if TYPE_CHECKING:
    from maintenance.monitoring.purge import Purging
    from maintenance.shell.job import Context

PATIENCE = 3.0  # seconds that this may hold a job up; send-checks has more


def purge(context: "Context", patience: float = PATIENCE) -> None:
    """Tell of what waits, for ``patience`` seconds at most.

    As with Zabbix, nothing that happens here changes the run's status; what could
    not be told waits for the next run, a week at most.
    """
    url = context.config.notify.purge_url
    if not url:
        return
    try:
        queue = context.ledger.purges
        if not queue.count():
            return
        from maintenance.monitoring.purge import OLDEST, Purging  # noqa: PLC0415 - 115 ms

        dropped = queue.drop(time.time() - OLDEST)
        run = Purging(url, queue, Deadline.after(patience))
        try:
            run.run()
        finally:
            _tell(context, run, dropped)
    except (ImagewardenError, OSError) as error:
        context.log.info("purge_url: %s", error)


def _tell(context: "Context", run: "Purging", dropped: int) -> None:
    if run.told:
        context.log.info("purge_url: told of %d images", run.told)
    if run.trouble:
        context.log.info("purge_url: %s; the rest waits", run.trouble)
    for status, count in run.refused.items():
        context.log.warning("purge_url: refused for %d images with status %d, not tried again",
                            count, status)
    if dropped:
        context.log.warning("purge_url: %d images have waited for a week and are given up", dropped)
