"""What a forked child must not keep of its parent."""

import os
import signal
from collections.abc import Collection

from maintenance.programs import Account


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
    os.closerange(low, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65536 else 65536)
    if account is not None and os.geteuid() == 0:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
