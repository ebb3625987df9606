"""What an upload waits for its verdict, with and without a rescan on the same clamd."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from maintenance.errors import EngineError, ToolError
from maintenance.programs import ENVIRONMENT, Child, How
from maintenance.verdict import Verdict
from tests.benchmarks.host import Host
from tests.benchmarks.timing import cpu_of

SEED = 20261125
DEFAULT = 0  # in flight: as many as cores
TIMEOUT = 60.0  # seconds for one upload
BUSY = 0.1  # CPU seconds of clamd that show that a rescan is at work


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds that one image took."""

    script: float  # the whole scan-upload
    request: float  # clamd's part: one FILDES request on a connection of its own


@dataclass(frozen=True, slots=True)
class Uploads:
    """What was measured; a rescan has the default number in flight."""

    idle: list[Wait]
    beside: list[Wait]


def measure(host: Host, samples: int, say: Callable[[str], None]) -> Uploads:
    """Time the same uploads on an idle clamd and beside rescans of the whole store."""
    images = sorted(path for path in host.store.rglob("*") if path.is_file())
    chosen = Random(SEED).choices(images, k=samples)
    say("uploads to an idle clamd")
    with host.engine():
        idle = [_upload(host, image) for image in chosen]
    beside: list[Wait] = []
    while len(beside) < samples:
        say(f"uploads beside a rescan: {len(beside)} of {samples} so far")
        with host.engine() as clamd, _rescan(host, clamd) as rescan:
            while len(beside) < samples:
                wait = _upload(host, chosen[len(beside)])
                if rescan.ended:
                    break
                beside.append(wait)
    return Uploads(idle, beside)


@contextmanager
def _rescan(host: Host, clamd: int) -> Iterator[Child]:
    """Have a rescan at work for the block, or until it has seen every image."""
    before = cpu_of(clamd)
    command = host.command("rescan-store", DEFAULT, "--full")
    with tempfile.TemporaryFile() as output, Child(command, How(), output) as child:
        while cpu_of(clamd) - before < BUSY:
            if child.ended:
                raise EngineError("the rescan ends before an upload can begin: more images, please")
            time.sleep(0.01)
        yield child


def _upload(host: Host, image: Path) -> Wait:
    """Time two uploads of what looks like ``image``; neither is known to clamd's cache."""
    upload = host.root / "upload"
    content = image.read_bytes()
    upload.write_bytes(content + os.urandom(16))
    command = host.command("scan-upload", DEFAULT, str(upload))
    begun = time.perf_counter()
    done = subprocess.run(command, env=ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=TIMEOUT, check=False)
    script = time.perf_counter() - begun
    if done.returncode not in {0, 4}:
        raise ToolError(f"scan-upload: status {done.returncode}: {done.stderr.decode().strip()}")
    upload.write_bytes(content + os.urandom(16))
    with upload.open("rb") as file:
        begun = time.perf_counter()
        answer = host.clamd.scan_descriptor(file.fileno(), TIMEOUT)
        request = time.perf_counter() - begun
    if answer.verdict is Verdict.UNKNOWN:
        raise EngineError(f"clamd: {answer.reason}")
    return Wait(script, request)
