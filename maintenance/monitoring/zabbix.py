"""The Zabbix servers of the configuration, as one."""

from collections.abc import Sequence

from maintenance import settings
from maintenance.errors import MonitoringError
from maintenance.monitoring import program, trapper
from maintenance.monitoring.trapper import Server
from maintenance.monitoring.values import Value
from maintenance.times import Deadline


class Zabbix:
    """Offers values to the servers in turn; the first that answers has them."""

    def __init__(self, section: settings.Zabbix) -> None:
        self._settings = section
        self._servers = [Server.parse(one) for one in section.servers]
        self.answered: Server | None = None

    def send(self, values: Sequence[Value], until: Deadline) -> int:
        """Offer ``values`` and return how many were taken, before ``until``.

        Takes no longer than ``timeout`` for all servers together: each has an equal
        share of what the ones before it left. One that does not answer is asked
        last from then on. Raises MonitoringError when none does.
        """
        deadline = Deadline.after(min(self._settings.timeout, until.left) or 0.001)
        reasons = []
        for left in range(len(self._servers), 0, -1):
            server = self._servers[0]
            share = Deadline.after(deadline.left / left or 0.001)
            try:
                taken = self._offer(server, values, share)
            except MonitoringError as error:
                reasons.append(str(error))
                self._servers.append(self._servers.pop(0))
            else:
                self.answered = server
                return taken
        raise MonitoringError(f"Zabbix: {'; '.join(reasons)}")

    def _offer(self, server: Server, values: Sequence[Value], deadline: Deadline) -> int:
        if self._settings.tls == "off":
            return trapper.send(server, values, deadline)
        return program.send(self._settings, server, values, deadline)
