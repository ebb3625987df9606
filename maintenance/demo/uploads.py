"""The clamd that an application's host has: the one that uploads are scanned by."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from maintenance.clamav import clamd_conf
from maintenance.clamav.connection import Clamd
from maintenance.demo.place import Place
from maintenance.errors import EngineError
from maintenance.programs import Child, How
from maintenance.text import show

STARTING = 30.0  # seconds; with the demo's two signatures it takes less than one


@contextmanager
def clamd_for_uploads(place: Place) -> Iterator[None]:
    """Run it for the length of the block; it ends with us, also when we are killed."""
    conf = place / "clamd.conf"
    conf.write_text(clamd_conf.write({
        "Foreground": "yes",
        "LocalSocket": str(place.socket),
        "LocalSocketMode": "660",
        "FixStaleSocket": "yes",
        "DatabaseDirectory": str(place / "databases"),
        "TemporaryDirectory": str(place.socket.parent),
        "LogFile": str(place.socket.with_name("clamd.log")),
        "LogTime": "yes",
        "AlertExceedsMax": "yes",
        "MaxThreads": 2,
        "ConcurrentDatabaseReload": "yes",
        "SelfCheck": 0,  # it reloads when update-definitions says so, not by itself
    }), encoding="utf-8")
    with tempfile.TemporaryFile() as output:
        argv = ["clamd", "--config-file", str(conf)]
        with Child(argv, How(account=place.owner), output) as child:
            deadline = time.monotonic() + STARTING
            clamd = Clamd(str(place.socket))
            while not clamd.answers():
                if child.ended or time.monotonic() > deadline:
                    output.seek(0)
                    said = output.read().splitlines()[-1:] or [b"it said nothing"]
                    raise EngineError(f"the clamd for uploads does not start: {show(said[0])}")
                time.sleep(0.05)
            yield
