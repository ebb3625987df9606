"""The Zabbix servers of the configuration, as one."""

from collections.abc import Sequence

from maintenance import settings
from maintenance.errors import MonitoringError
from maintenance.monitoring import program, trapper
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value
from maintenance.times import Deadline


class Zabbix:
    """Offers values to the servers in turn; the first that takes any has them."""

    def __init__(self, section: settings.Zabbix) -> None:
        self._settings = section
        self._servers = [Server.parse(one) for one in section.servers]
        self.answered: Server | None = None
        self._taker: Server | None = None  # what it refuses, no other is asked for
        self._silent: set[Server] = set()

    def send(self, values: Sequence[Value], until: Deadline) -> int:
        """Offer ``values`` and return how many were taken, before ``until``.

        Takes no longer than ``timeout`` for all servers together: each has an equal
        share of what the ones before it left. One that does not answer, or takes
        nothing where another does, is asked last from then on. Raises
        MonitoringError when none answers.
        """
        deadline = Deadline.after(min(self._settings.timeout, until.left) or 0.001)
        reasons: list[str] = []
        refusing: list[Server] = []
        for left in range(len(self._servers), 0, -1):
            server = self._servers[0]
            if refusing and server in self._silent:
                break  # it is not waited for at every refusal
            self._servers.append(self._servers.pop(0))
            try:
                taken = self._offer(server, values, Deadline.after(deadline.left / left or 0.001))
            except MonitoringError as error:
                reasons.append(str(error))
                self._silent.add(server)
                continue
            if taken:
                self._taker = server
            if taken or not values or server == self._taker:
                return self._settle_on(server, taken)
            refusing.append(server)
        if not refusing:
            raise MonitoringError(f"Zabbix: {'; '.join(reasons)}")
        return self._settle_on(refusing[0], 0)

    def _settle_on(self, server: Server, taken: int) -> int:
        self.answered = server
        self._servers.remove(server)
        self._servers.insert(0, server)
        return taken

    def _offer(self, server: Server, values: Sequence[Value], deadline: Deadline) -> int:
        if self._settings.tls == "off":
            return trapper.send(server, values, deadline)
        return program.send(self._settings, server, values, deadline)
