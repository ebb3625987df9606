"""Emptying the outbox: what Zabbix takes is forgotten, what it refuses blocks nothing else."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from maintenance.errors import MonitoringError
from maintenance.ledger.outbox import Outbox, Waiting
from maintenance.monitoring.values import Value, fitted
from maintenance.monitoring.zabbix import Zabbix
from maintenance.times import DAY, Deadline

OLDEST = 30 * DAY  # what Zabbix did not want for so long it will not miss
MOST = 100_000  # values, in case something fills the outbox in no time
REQUEST = 250  # values: as many as Zabbix's own sender puts into one
REQUEST_SIZE = 512 * 2**10  # characters: a huge request can bring a server down
REFUSED = "Zabbix takes other values of this item, but not this one"


@dataclass(slots=True)
class Delivery:
    """One delivery, and what became of it; readable at any moment."""

    outbox: Outbox
    zabbix: Zabbix
    host: str
    until: Deadline
    sent: int = 0
    dropped: int = 0  # never sent: too old, or too many
    set_aside: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by item; they go on waiting
    _open: set[str] = field(default_factory=set)  # items of which a value was taken
    _closed: set[str] = field(default_factory=set)  # items that seem not to exist, yet
    _doubtful: list[Waiting] = field(default_factory=list)

    def run(self) -> None:
        """Offer everything that waits, oldest first; raises MonitoringError.

        When time is up the rest goes on waiting. A value is forgotten only after
        the server said that it has taken it: one sent twice, because we died in
        between, has the same clock and nanoseconds and does no harm.
        """
        try:
            self._run()
        except MonitoringError:
            if not (self.sent and self.until.passed):  # else it was but cut short
                raise

    def bound(self) -> None:
        """Drop what is too old or too much; who does it has to say so."""
        self.dropped += self.outbox.trim(time.time() - OLDEST, MOST)

    def _run(self) -> None:
        after = 0
        while not self.until.passed:
            rows = self.outbox.waiting(after, REQUEST, self._closed)
            if not rows:
                break
            rows = _of_bearable_size(rows)
            self._offer(rows)
            after = rows[-1].number
        self._judge()

    def send(self, values: Sequence[Value]) -> int:
        """Offer values that are not in the outbox; return how many were taken."""
        taken = self.zabbix.send(values, self.until)
        self.sent += taken
        return taken

    def _offer(self, rows: Sequence[Waiting]) -> None:
        """Offer rows, and smaller and smaller parts of them where some are refused."""
        taken = self._send(rows)
        if taken == len(rows):
            return
        by_key = [list(group) for _, group in groupby(sorted(rows, key=_key), _key)]
        if len(by_key) > 1:
            for part in by_key:
                if taken:
                    self._offer(part)
                else:
                    self._refused(part)
        elif taken == 0:
            self._refused(rows)
        else:
            half = len(rows) // 2
            self._offer(rows[:half])
            self._offer(rows[half:])

    def _send(self, rows: Sequence[Waiting]) -> int:
        now = time.time()
        taken = self.zabbix.send([_value(row, self.host, now) for row in rows], self.until)
        if taken == len(rows):
            self.outbox.taken([row.number for row in rows])
            self.sent += taken
            self._open |= {row.key for row in rows}
        return taken

    def _refused(self, rows: Sequence[Waiting]) -> None:
        """Remember refused rows of one item; find out whether it takes any at all."""
        key = rows[0].key
        self.refused[key] += len(rows)
        if key not in self._open:
            newest = self.outbox.newest(key)
            if newest is None or newest.number <= rows[-1].number or not self._send([newest]):
                self._closed.add(key)
                return
        self._doubtful += rows

    def _judge(self) -> None:
        """Set aside what is refused though its item takes others; not before a day has passed.

        An item may have come into being only while we were sending, and one in
        maintenance without data collection refuses what is recent.
        """
        old = [row for row in self._doubtful if row.clock < time.time() - DAY]
        for row in old:
            if self.until.passed:
                return
            self.refused[row.key] -= 1
            if self._send([row]) == 0:
                self.outbox.set_aside(row.number, REFUSED)
                self.set_aside += 1


def _key(row: Waiting) -> str:
    return row.key


def _of_bearable_size(rows: Sequence[Waiting]) -> Sequence[Waiting]:
    size = 0
    for at, row in enumerate(rows):
        size += len(row.value)
        if size > REQUEST_SIZE:
            return rows[:max(1, at)]
    return rows


def _value(row: Waiting, host: str, now: float) -> Value:
    """Return what is sent; the row's number makes its nanoseconds its own, and in order."""
    clock = int(min(row.clock, now))  # a clock that was set back since: not in the future
    return Value(host, row.key, fitted(row.value), clock, row.number % 10**9)


def pending(outbox: Outbox, host: str) -> Sequence[Value]:
    """Return everything that waits as it would be sent."""
    now = time.time()
    return [_value(row, host, now) for row in outbox.waiting(0, MOST)]
