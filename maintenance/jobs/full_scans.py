"""Full scans: which come round by the calendar, why an image needs one, what none would cost."""

import time
from collections.abc import Iterable, Mapping

from maintenance.jobs.open_store import OpenStore
from maintenance.jobs.rescan_report import RescanReport
from maintenance.ledger.rows import Extent, ImageRow, Need, Rolling
from maintenance.shell.job import Context
from maintenance.times import DAY
from maintenance.verdict import Verdict
from maintenance.window import Window

ROUND = "a full scan has come round (full_every)"
ENOUGH = 100  # images scanned in full, from which on their time is no chance


def needed(context: Context, opened: Iterable[OpenStore], generation: int) -> Need:
    """Return what makes an image due now; outside the window what is clean has time."""
    settings, now = context.config.rescan, time.time()
    if context.options.full:
        return Need(generation, now, full=True)
    if not Window(settings.window).is_open():
        return Need(generation, now, extent=Extent.UNCLEAN)
    rolling = coming_round(settings.full_every, now)
    if rolling is not None and any(one.images.any_has_come_round(rolling) for one in opened):
        return Need(generation, now, rolling=rolling)
    return Need(generation, now)


def coming_round(every: float, now: float) -> Rolling | None:
    """Return what makes every image meet all definitions each ``every`` seconds; 0: nothing.

    Ages are told by the beginning of the (local) day, or of a smaller step when ``every``
    is a few days only; the step is taken off, for so long an image may have to wait.
    """
    if every <= 0:
        return None
    step = min(DAY, every / 4)
    midnight = time.mktime((*time.localtime(now)[:3], 0, 0, 0, 0, 0, -1))
    return Rolling(now - (now - midnight) % step, every - step)


def reason(need: Need, why: Mapping[int, str], row: ImageRow) -> str:
    """Return why an image is scanned in full; ``why``: of those at an older generation."""
    if need.full:
        return "asked for (--full)"
    if row.verdict is None:
        return "new or changed"
    if row.verdict is Verdict.UNKNOWN or row.reason is not None:
        return "no verdict before"
    if row.verdict is Verdict.CLEAN and need.rolling is not None and need.rolling.has_come(row):
        return ROUND
    if row.verdict is Verdict.INFECTED:
        return "infected before"
    return why.get(row.generation or 0, "the new signatures alone gave no answer")


def estimate(context: Context, report: RescanReport) -> None:
    """Say how much longer full scans would have taken, by their rate in this run or the last."""
    delta = sum(one.delta for one in report.stores)
    full = sum(one.full for one in report.stores)
    if not delta:
        return
    rate = report.seconds_full / full if full >= ENOUGH else context.ledger.full_scan_rate(ENOUGH)
    if rate is not None:
        report.saved = max(0.0, delta * rate - report.seconds_delta)
