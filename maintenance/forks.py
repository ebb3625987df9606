"""What a process lets go of: a child its parent's things, root its privileges."""

import os
import signal
from collections.abc import Collection

from maintenance.accounts import Account


def settle(keep: Collection[int], account: Account | None = None) -> None:
    """Make this forked child independent: its own descriptors, signals, and user.

    A lock's descriptor left open here would hold the lock after the parent's
    death. Called in the child, first thing.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    low = 3
    for fd in sorted(fd for fd in keep if fd > 2):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, min(os.sysconf("SC_OPEN_MAX"), 65536))
    become(account)


def become(account: Account | None) -> None:
    """Drop root's privileges for good; None: there are none to drop."""
    if account is None:
        return
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
