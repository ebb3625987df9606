"""A real PostgreSQL on loopback, with a database of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.processes import NOBODY
from tests.site import wait_until
from tests.zabbix import ENVIRONMENT, as_plain_user, unused_port


class Postgres:
    """Starts in two seconds; ``stop`` and ``start`` as often as wanted."""

    def __enter__(self) -> Self:
        self.place = Path(tempfile.mkdtemp(prefix="imagewarden-pg-", dir="/tmp"))
        self.port = unused_port()
        if os.geteuid() == 0:  # it refuses to run as root
            os.chown(self.place, NOBODY, NOBODY)
        try:
            self._run("initdb", "-D", str(self.place / "data"), "-U", "owner", "-A", "trust",
                      "-E", "UTF8", "--locale=C.UTF-8", "-N")
            self.start()
        except BaseException:
            shutil.rmtree(self.place, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.place, ignore_errors=True)

    def start(self) -> None:
        with (self.place / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [*as_plain_user(), self._program("postgres"), "-D", self.place / "data", "-k",
                 self.place, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                 "-c", "fsync=off"], cwd="/", env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log)
        ready = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(30)

    def url(self, database: str, user: str = "owner") -> str:
        """What [hits] database says of it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """Make a database and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "owner", database)
        return self.url(database)

    def sql(self, database: str, statement: str) -> list[list[str]]:
        """Run a statement; what it returned, as text."""
        out = self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "owner", "-XAt",
                        "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", statement, database)
        return [line.split("\t") for line in out.decode().splitlines()]

    def _program(self, name: str) -> Path:
        newest = max(Path("/usr/lib/postgresql").iterdir(), key=lambda one: int(one.name))
        return newest / "bin" / name

    def _run(self, name: str, *words: str) -> bytes:
        done = subprocess.run([*as_plain_user(), self._program(name), *words], cwd="/",
                              env=ENVIRONMENT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
