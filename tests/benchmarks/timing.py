"""What programs cost, seen from outside: time, CPU seconds and memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maintenance.errors import ToolError
from maintenance.programs import Child, How, find
from maintenance.text import show

LONGEST = 4 * 3600.0  # seconds that one run may take
TICKS = os.sysconf("SC_CLK_TCK")
# A small process of its own starts and awaits the program: the kernel counts the memory of
# whoever starts a program among that of the program.
_WATCH = """
import json, os, sys, time
begun = time.monotonic()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
wall = time.monotonic() - begun
cost = {"status": os.waitstatus_to_exitcode(status), "wall": wall,
        "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024}
sys.stderr.write("\\n" + json.dumps(cost))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program, with what it started and awaited."""

    status: int  # -n: by signal n
    wall: float  # seconds
    cpu: float  # seconds
    memory: int  # bytes; the most that one of its processes had
    out: bytes


def timed(argv: Sequence[str], good: Sequence[int] = (0,), discard: bool = False) -> Run:
    """Run a program to its end and return what it cost; ``discard``: nobody reads its output.

    Raises ToolError when it is not there or ends with a status that is not ``good``.
    """
    program = find(argv[0])
    if program is None:
        raise ToolError(f"{show(argv[0])} is not installed")
    watch = [sys.executable, "-ISc", _WATCH, program, *argv[1:]]
    with (open(os.devnull, "w+b") if discard else tempfile.TemporaryFile() as out,
          tempfile.TemporaryFile() as err):
        try:
            with Child(watch, How(), out, err) as child:
                child.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise ToolError(f"{show(argv[0])}: no end within {LONGEST:g} s") from None
        out.seek(0)
        err.seek(0)
        words, _, cost = err.read().decode("utf-8", "replace").rpartition("\n")
        run = Run(**json.loads(cost), out=out.read())
    if run.status not in good:
        raise ToolError(f"{show(argv[0])}: status {run.status}: {show(words.strip()[-500:])}")
    return run


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid: int) -> int:
    """Return the most memory, in bytes, that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ToolError(f"process {pid} has no memory")


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that ``percent`` of all do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
