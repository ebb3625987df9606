"""What Zabbix is told besides results of runs: the state, and what there is to be watched."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maintenance.jobs.status import state_of
from maintenance.monitoring import discovery
from maintenance.monitoring.values import Value, parts
from maintenance.shell.job import Context
from maintenance.times import iso

STATE = "imagewarden.state"


@dataclass(frozen=True, slots=True)
class Situation:
    """How things stand at one moment."""

    host: str
    now: float  # epoch seconds
    rules: Mapping[str, str]  # values of the discovery rules, by key
    state: Sequence[str]  # in parts where it is longer than Zabbix takes: see ``values.parts``

    @classmethod
    def of(cls, context: Context, now: float) -> "Situation":
        """Look at the ledger and the quarantines."""
        state = state_of(context, context.config.store).members()
        text = json.dumps({"job": "store-status", "outcome": "done", "started": iso(now),
                           "seconds": round(time.time() - now, 3), "host": context.host, **state},
                          ensure_ascii=False)
        return cls(context.host, now, discovery.rules(state), parts(text, "stores"))

    def discovered(self) -> Sequence[Value]:
        """Return what there is, for the discovery rules."""
        ns = int(self.now % 1 * 10**9)
        return [Value(self.host, key, value, int(self.now), ns)
                for key, value in self.rules.items()]

    def told(self) -> Sequence[Value]:
        """Return the state."""
        return [Value(self.host, STATE, text, int(self.now), ns)
                for ns, text in enumerate(self.state)]
