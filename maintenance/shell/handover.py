"""The end of a run: what waits for Zabbix is handed over, whatever becomes of it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from maintenance.errors import Busy, ImagewardenError
from maintenance.monitoring.delivery import Delivery
from maintenance.monitoring.zabbix import Zabbix
from maintenance.shell.job import Context
from maintenance.shell.lock import only_one
from maintenance.shell.signals import Stopped
from maintenance.times import Deadline

PATIENCE = 0.05  # seconds between two looks at the lock


@contextmanager
def delivery(context: Context, turn: Deadline, until: Deadline) -> Iterator[Delivery]:
    """Lend the outbox to one run at a time; raises Busy when none is to be had by ``turn``."""
    with _turn(context, turn):
        yield Delivery(context.ledger.outbox, Zabbix(context.config.zabbix), context.host, until)


@contextmanager
def _turn(context: Context, until: Deadline) -> Iterator[None]:
    path = context.config.state / "locks" / "outbox.lock"
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(only_one(path, time.time()))
                break
            except Busy:
                if until.passed:
                    raise
            time.sleep(PATIENCE)
        yield


def hand_over(context: Context) -> None:
    """Offer Zabbix what waits, for ``timeout`` at most.

    The run is over, recorded and shown: nothing that happens here changes its
    status or reaches stderr. What was not taken waits for the next run.
    """
    if not context.config.zabbix.servers or not context.hands_over:
        return
    until = Deadline.after(context.config.zabbix.timeout)
    try:
        with delivery(context, until, until) as outgoing:
            outgoing.run()
            context.log.info("Zabbix: %d values sent, %d refused", outgoing.sent,
                             outgoing.refused.total())
    except (ImagewardenError, OSError) as error:
        context.log.info("not sent: %s", error)
    except Stopped as stopped:
        context.log.info("not sent: %s", stopped)
    except Exception:  # noqa: BLE001 - see above
        context.log.debug("unexpected error while sending", exc_info=True)
