"""What doctor looks at of Zabbix."""

import os
from collections.abc import Iterator

from maintenance.errors import ImagewardenError
from maintenance.jobs.examinations import Finding
from maintenance.monitoring import program
from maintenance.monitoring.zabbix import Zabbix
from maintenance.programs import find
from maintenance.settings import Zabbix as Settings
from maintenance.shell.job import Context
from maintenance.text import show
from maintenance.times import Deadline


def zabbix(context: Context) -> Iterator[Finding]:
    """Look for a server that answers; none is needed for anything but watching."""
    settings = context.config.zabbix
    if not settings.servers:
        yield Finding("zabbix", "ok", "off: no servers")
    elif settings.tls != "off":
        yield from _tls(settings)
    else:
        servers = Zabbix(settings)
        try:
            servers.send([], Deadline(float("inf")))
        except ImagewardenError as error:
            yield Finding("zabbix", "warning", str(error), "see that it runs and can be reached")
        else:
            yield Finding("zabbix", "ok", f"{servers.answered} answers")


def _tls(settings: Settings) -> Iterator[Finding]:
    """Look for what TLS needs; whether the server likes it, send-checks will tell."""
    if find(program.NAME) is None:
        yield Finding("zabbix", "failed", f"{program.NAME} is not installed", program.REPAIR)
        return
    for file in (settings.psk_file, settings.ca_file, settings.cert_file, settings.key_file):
        if file is not None and not os.access(file, os.R_OK):
            yield Finding("zabbix", "failed", f"{show(file)} cannot be read by us",
                          f"chown the jobs' user {show(file)}")
            return
    yield Finding("zabbix", "ok", f"{program.NAME} and its files are there")
