"""The same through zabbix_sender, which speaks TLS with pre-shared keys; Python does not yet."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maintenance.errors import MonitoringError, ToolError
from maintenance.monitoring.answer import SHOWN
from maintenance.monitoring.server import Server
from maintenance.monitoring.values import Value
from maintenance.programs import How, Limits, find, run
from maintenance.settings import Zabbix
from maintenance.text import show
from maintenance.times import Deadline

NAME = "zabbix_sender"
REPAIR = "apt-get install zabbix-sender (on Debian 12: zabbix-agent)"


def send(settings: Zabbix, server: Server, values: Sequence[Value], deadline: Deadline) -> int:
    """Offer ``values`` over TLS and return how many the server took.

    Never in plain text: the program ends when it gets no TLS. Its settings go
    through a file, so that no process list shows the identity. Raises
    MonitoringError.
    """
    if find(NAME) is None:
        raise MonitoringError(f"{NAME}, which speaks TLS for us, is not installed:"
                              f" {REPAIR}")
    try:
        # Removed by us, and by the child's keeper should we be killed.
        with tempfile.TemporaryDirectory(prefix="imagewarden-",
                                         ignore_cleanup_errors=True) as scratch:
            return _send(Path(scratch), settings, server, values, deadline)
    except OSError as error:
        raise MonitoringError(f"{server}: {NAME}: {error.strerror}") from None
    except ToolError as error:
        raise MonitoringError(f"{server}: {error}") from None


def _send(scratch: Path, settings: Zabbix, server: Server, values: Sequence[Value],
          deadline: Deadline) -> int:
    conf, lines = scratch / "conf", scratch / "values"
    conf.write_text(_conf(settings), encoding="utf-8", errors="surrogateescape")
    lines.write_text("".join(f"{value.line()}\n" for value in values), encoding="utf-8",
                     errors="replace")
    how = How(limits=Limits(seconds=max(0.1, deadline.left)), grace=0.1, remove=scratch)
    ran = run([NAME, "-vv", "--config", str(conf), "--zabbix-server", server.host, "--port",
               str(server.port), "--with-timestamps", "--with-ns", "--input-file", str(lines)],
              how)
    return _taken(server, ran.status, ran.tail.decode("utf-8", "replace"), len(values))


def _conf(settings: Zabbix) -> str:
    named = {"TLSConnect": settings.tls, "TLSPSKIdentity": settings.psk_identity,
             "TLSPSKFile": settings.psk_file, "TLSCAFile": settings.ca_file,
             "TLSCertFile": settings.cert_file, "TLSKeyFile": settings.key_file}
    given = {name: str(value) for name, value in named.items() if value}
    for name, value in given.items():
        if not value.isprintable():  # a line end would begin another setting
            raise MonitoringError(f"{name}: {show(value)}: not one printable line")
    return "".join(f"{name}={value}\n" for name, value in given.items())


def _taken(server: Server, status: int, output: str, offered: int) -> int:
    """Count what was taken; the status alone is 0 also when nothing was."""
    counts = re.findall(r'^(?:Response from .*|info from server): "processed: (\d{1,9});', output,
                        re.MULTILINE)
    if status not in {0, 2} or not counts:
        raise MonitoringError(f"{server}: {NAME}: {_reason(output)}")
    taken = sum(int(count) for count in counts)
    if taken > offered:
        raise MonitoringError(f"{server}: claims to have taken {taken} of {offered} values")
    return taken


def _reason(output: str) -> str:
    """Return what it complains of, which it mostly tells at its most talkative only."""
    found = re.findall(r"\[\d+\]: (?:ERROR: |DEBUG: (?=Unable to connect))(.*)", output)
    return show(found[-1])[:SHOWN] if found else "no answer"
