"""What doctor looks at of Zabbix."""

import os
import time
from collections.abc import Iterator

from maintenance.errors import ImagewardenError
from maintenance.jobs.examinations import Finding
from maintenance.jobs.situation import Situation
from maintenance.monitoring import program
from maintenance.monitoring.zabbix import Zabbix
from maintenance.programs import find
from maintenance.settings import Zabbix as Settings
from maintenance.shell.job import Context
from maintenance.text import show
from maintenance.times import Deadline


def zabbix(context: Context) -> Iterator[Finding]:
    """Look for a server that takes what we send; none is needed for anything but watching."""
    settings = context.config.zabbix
    if not settings.servers:
        yield Finding("zabbix", "ok", "off: no servers")
        return
    lacking = [] if settings.tls == "off" else [*_lacking(settings)]
    yield from lacking or [_taken(context, Zabbix(settings))]


def _taken(context: Context, servers: Zabbix) -> Finding:
    """Offer how things stand now, as send-checks does; a result of a run is left to it."""
    offered = []
    try:
        if context.config.state.is_dir():  # else no job ever ran
            now = Situation.of(context, time.time())
            offered = [*now.discovered(), *now.told()]
        taken = servers.send(offered, Deadline(float("inf")))
    except ImagewardenError as error:
        return Finding("zabbix", "warning", str(error), "see that it runs and can be reached")
    if taken == len(offered):
        return Finding("zabbix", "ok", f"{servers.answered} takes what we send" if offered
                       else f"{servers.answered} answers")
    return Finding("zabbix", "warning", f"{servers.answered} takes {taken} of {len(offered)} values"
                   f' of host "{show(context.host)}"',
                   "in Zabbix: a host of this name that is enabled, linked to the template")


def _lacking(settings: Settings) -> Iterator[Finding]:
    """Look for what TLS needs."""
    if find(program.NAME) is None:
        yield Finding("zabbix", "failed", f"{program.NAME} is not installed", program.REPAIR)
        return
    for file in (settings.psk_file, settings.ca_file, settings.cert_file, settings.key_file):
        if file is not None and not os.access(file, os.R_OK):
            yield Finding("zabbix", "failed", f"{show(file)} cannot be read by us",
                          f"chown the jobs' user {show(file)}")
            return
