"""A real Zabbix proxy between a sender and the server of tests/zabbix.py."""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import NOBODY
from tests.site import wait_until
from tests.zabbix import Zabbix, listens, unused_port

PACKAGE = "zabbix-proxy-sqlite3"


def program(scratch: Path) -> Path:
    """The proxy's program. Its package cannot be installed beside the server's."""
    done = subprocess.run(["apt-get", "-q", "download", PACKAGE], cwd=scratch, check=False,
                          capture_output=True)
    packages = list(scratch.glob("*.deb"))
    if done.returncode or not packages:
        pytest.skip(f"cannot download {PACKAGE}: {done.stderr.decode()[-200:]}")
    subprocess.run(["dpkg-deb", "-x", packages[0], scratch], check=True)
    return scratch / "usr/sbin/zabbix_proxy"


@contextmanager
def proxy(zabbix: Zabbix, name: str, scratch: Path):
    """Run a proxy; yields its address and a function that has it monitor a host."""
    place = zabbix.place / name
    place.mkdir()
    shutil.copy(program(scratch), place / "zabbix_proxy")
    if os.geteuid() == 0:
        for one in (place, place / "zabbix_proxy"):
            os.chown(one, NOBODY, NOBODY)
    new = zabbix.version >= (7,)
    [made] = zabbix.api("proxy.create", **({"name": name, "operating_mode": 0} if new else
                                           {"host": name, "status": 5}))["proxyids"]
    port, conf = unused_port(), place / "conf"
    conf.write_text("".join(f"{key}={value}\n" for key, value in {
        "Server": f"127.0.0.1:{zabbix.port}", "Hostname": name, "ListenIP": "127.0.0.1",
        "ListenPort": port, "DBName": place / "proxy.db", "LogType": "console",
        "PidFile": place / "pid", "SocketDir": place, "StartPollers": 1, "StartTrappers": 2,
        "ProxyConfigFrequency" if new else "ConfigFrequency": 1, "DataSenderFrequency": 1,
    }.items()))

    def monitor(host: str) -> None:
        zabbix.api("host.update", hostid=host, **({"monitored_by": 1, "proxyid": made} if new else
                                                  {"proxy_hostid": made}))
        zabbix.learn()

    process = zabbix.start(place / "zabbix_proxy", "-f", "-c", conf)
    try:
        wait_until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, (zabbix.place / "log").read_text()[-2000:]
        yield f"127.0.0.1:{port}", monitor
    finally:
        zabbix.end(process, signal.SIGTERM)
