"""A real Zabbix server, its database and its API, all on loopback and all ours."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.processes import NOBODY
from tests.site import wait_until

SHARE = Path("/usr/share/zabbix-server-pgsql")
FRONTEND = Path("/usr/share/zabbix")
HOST = "web1"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent",
               "LC_ALL": "C.UTF-8"}
TEXT, NUMBER = 4, 3  # Zabbix's value types
TRAPPER = 2


def unused_port() -> int:
    """A port on which nobody listens; Zabbix takes none above 32767."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as link, suppress(OSError):
            link.bind(("127.0.0.1", port))
            return port


def as_plain_user() -> list[str]:
    """What goes before a command that must not be root's; it dies with us, however we die."""
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", "--pdeathsig", "KILL", *(user if os.geteuid() == 0 else []), "--"]


class Zabbix:
    """The whole of it. ``stop_server`` and ``start_server`` leave the rest running."""

    def __init__(self) -> None:
        # Short, for sockets; not pytest's own, which only its user can enter.
        self.place = Path(tempfile.mkdtemp(prefix="zbx-"))
        self.port, self._web = unused_port(), unused_port()
        self._ending = ExitStack()
        self._server: subprocess.Popen | None = None
        self._token: str | None = None

    def __enter__(self) -> "Zabbix":
        self._ending.callback(shutil.rmtree, self.place, ignore_errors=True)
        try:
            if os.geteuid() == 0:
                os.chown(self.place, NOBODY, NOBODY)
            self._make_certificates()
            self._start_database()
            self._start_frontend()
            self.start_server()
            self._ending.callback(self.stop_server)
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def address(self) -> str:
        """The trapper, as [zabbix] servers has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def frontend(self) -> str:
        """Where a browser goes, and what uses the API."""
        return f"http://127.0.0.1:{self._web}"

    # --- the parts

    def start(self, *argv: str | Path) -> subprocess.Popen:
        with (self.place / "log").open("ab") as log:
            return subprocess.Popen([*as_plain_user(), *argv], cwd="/", env=ENVIRONMENT,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, process: subprocess.Popen, how: int) -> None:
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _run(self, *argv: str | Path, stdin: bytes = b"") -> bytes:
        done = subprocess.run([*as_plain_user(), *argv], cwd="/", env=ENVIRONMENT, input=stdin,
                              capture_output=True, check=False)
        assert done.returncode == 0, (argv, done.stderr[-2000:])
        return done.stdout

    def _make_certificates(self) -> None:
        """One authority, with a certificate for the server and one for a sender."""
        def openssl(*words: str | Path) -> None:
            self._run("openssl", *words)

        def at(name: str) -> Path:
            return self.place / name

        new = ("req", "-newkey", "rsa:2048", "-nodes")
        openssl(*new, "-x509", "-subj", "/CN=authority", "-days", "2", "-keyout", at("ca.key"),
                "-out", at("ca.pem"))
        for name in ("server", "sender"):
            openssl(*new, "-subj", f"/CN={name}", "-keyout", at(f"{name}.key"), "-out",
                    at(f"{name}.csr"))
            openssl("x509", "-req", "-in", at(f"{name}.csr"), "-CA", at("ca.pem"), "-CAkey",
                    at("ca.key"), "-set_serial", str(len(name)), "-days", "2", "-out",
                    at(f"{name}.pem"))

    def _start_database(self) -> None:
        programs = max(Path("/usr/lib/postgresql").iterdir(), key=lambda one: int(one.name)) / "bin"
        data = self.place / "pg"
        self._run(programs / "initdb", "-D", data, "-U", "zabbix", "-A", "trust", "-E", "UTF8",
                  "--locale=C.UTF-8", "-N")
        server = self.start(programs / "postgres", "-D", data, "-k", self.place, "-c",
                             "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off",
                             "-c", "synchronous_commit=off")
        self._ending.callback(self.end, server, signal.SIGQUIT)
        ready = [programs / "pg_isready", "-q", "-h", self.place, "-U", "zabbix"]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
        self._run(programs / "createdb", "-h", self.place, "-U", "zabbix", "zabbix")
        lines = b"".join(gzip.decompress((SHARE / f"{part}.sql.gz").read_bytes())
                         for part in ("schema", "images", "data"))
        # Without statistics the import of a template takes a minute.
        self.sql("SET synchronous_commit = off;\n" + lines.decode() + "\nANALYZE;")

    def _start_frontend(self) -> None:
        pages = self.place / "web"
        self._run("cp", "-RL", FRONTEND, pages)
        where = pages / "include/classes/core/CConfigFile.php"  # it is /etc that is built in
        where.write_text(re.sub(r"(CONFIG_FILE_PATH = )'.*'", rf"\1'{self.place}/web.conf.php'",
                                where.read_text()))
        database = {"TYPE": "POSTGRESQL", "SERVER": self.place, "PORT": 0, "DATABASE": "zabbix",
                    "USER": "zabbix", "PASSWORD": "", "SCHEMA": "", "KEY_FILE": "", "CERT_FILE": "",
                    "CA_FILE": "", "CIPHER_LIST": "", "VAULT": "", "VAULT_URL": "",
                    "VAULT_DB_PATH": "", "VAULT_TOKEN": ""}
        lines = [f"$DB['{name}'] = '{value}';" for name, value in database.items()]
        (self.place / "web.conf.php").write_text("\n".join([
            "<?php", *lines, "$DB['ENCRYPTION'] = $DB['VERIFY_HOST'] = false;",
            "$DB['DOUBLE_IEEE754'] = true;", "$IMAGE_FORMAT_DEFAULT = IMAGE_FORMAT_PNG;"]))
        server = self.start("php", "-d", "memory_limit=512M", "-d", "max_execution_time=300",
                             "-d", "post_max_size=32M", "-d", f"session.save_path={self.place}",
                             "-S", f"127.0.0.1:{self._web}", "-t", pages)
        self._ending.callback(self.end, server, signal.SIGTERM)
        wait_until(lambda: listens(self._web))
        self._token = self.api("user.login", **{
            "username" if self.version >= (6,) else "user": "Admin", "password": "zabbix"})

    def start_server(self) -> None:
        """Start zabbix_server and wait until it takes values."""
        conf = self.place / "server.conf"
        conf.write_text("".join(f"{key}={value}\n" for key, value in {
            "ListenIP": "127.0.0.1", "ListenPort": self.port, "DBHost": self.place,
            "DBName": "zabbix", "DBUser": "zabbix", "LogType": "console",
            "PidFile": self.place / "server.pid", "SocketDir": self.place,
            "CacheUpdateFrequency": 1, "StartPollers": 1, "StartPollersUnreachable": 1,
            "StartPingers": 0, "StartDiscoverers": 0, "StartHTTPPollers": 0, "StartTrappers": 3,
            "StartPreprocessors": 1, "StartEscalators": 1, "Timeout": 4,
            "TLSCAFile": self.place / "ca.pem", "TLSCertFile": self.place / "server.pem",
            "TLSKeyFile": self.place / "server.key"}.items()))
        self._server = self.start("zabbix_server", "-f", "-c", conf)
        wait_until(lambda: listens(self.port) or self._server.poll() is not None, 60)
        assert self._server.poll() is None, (self.place / "log").read_text()[-2000:]

    def stop_server(self) -> None:
        """Stop zabbix_server: it writes what it has in memory first."""
        if self._server is not None:
            self.end(self._server, signal.SIGTERM)
            self._server = None

    # --- what is in it

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, such as (6, 0, 14)."""
        return tuple(int(part) for part in self.api("apiinfo.version").split("."))

    def sql(self, text: str) -> str:
        """Run SQL; columns are separated by ``|``."""
        return self._run("psql", "-h", self.place, "-U", "zabbix", "-v", "ON_ERROR_STOP=1", "-qAt",
                         "zabbix", stdin=text.encode()).decode()

    def api(self, method: str, *ids: str, **parameters: object) -> object:
        """Call the JSON-RPC API."""
        body = {"jsonrpc": "2.0", "method": method, "params": parameters or ids, "id": 1}
        headers = {"Content-Type": "application/json-rpc"}
        if self._token is not None and method != "apiinfo.version":
            body["auth"] = self._token
        request = urllib.request.Request(f"{self.frontend}/api_jsonrpc.php",
                                         json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            told = json.load(answer)
        assert "error" not in told, (method, told)
        return told["result"]

    def exported(self, template: str) -> dict:
        """All that Zabbix has of a template."""
        known = self.api("template.get", filter={"host": [template]})[0]["templateid"]
        told = json.loads(self.api("configuration.export", format="json",
                                   options={"templates": [known]}))["zabbix_export"]
        return {name: part for name, part in told.items() if name != "date"}

    def make_token(self, name: str) -> str:
        """A token for the API, as an admin makes one."""
        token = self.api("token.create", name=name, userid="1")["tokenids"][0]
        return self.api("token.generate", token)[0]["token"]

    def make_host(self, name: str = HOST) -> str:
        """Create a host without items; return its id."""
        group = self.api("hostgroup.get", filter={"name": ["Linux servers"]})[0]["groupid"]
        return self.api("host.create", host=name, groups=[{"groupid": group}])["hostids"][0]

    def make_item(self, host: str, key: str, kind: int = TEXT) -> str:
        """Create a trapper item whose values are taken soon; return its id."""
        item = self.api("item.create", hostid=host, name=key, key_=key, type=TRAPPER,
                        value_type=kind)["itemids"][0]
        self.learn()
        return item

    def make_rule(self, host: str, key: str) -> str:
        """Create a discovery rule that takes values soon."""
        rule = self.api("discoveryrule.create", hostid=host, name=key, key_=key,
                        type=TRAPPER)["itemids"][0]
        self.learn()
        return rule

    def remove_host(self, host: str) -> None:
        """Delete a host with all it has."""
        self.api("host.delete", host)
        self.learn()

    def learn(self) -> None:
        """Have the server read its configuration soon."""
        conf = self.place / "server.conf"
        self._run("zabbix_server", "-c", conf, "-R", "config_cache_reload")

    def history(self, item: str) -> Sequence[Mapping[str, str]]:
        """The values of a text item, oldest first."""
        found = self.api("history.get", itemids=[item], history=TEXT, output="extend")
        return sorted(found, key=lambda one: (int(one["clock"]), int(one["ns"])))


def listens(port: int) -> bool:
    """Whether something accepts connections on ``port``."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return True
    except OSError:
        return False
