"""A signal ends a job wherever it arrives."""

import subprocess
import sys

LOST = """
import os, signal, time
from maintenance.shell import signals

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass

signals.listen()
try:
    Dying()
    time.sleep(20)
except signals.Stopped as stopped:
    print(stopped, stopped.status)
"""


def test_a_signal_that_meets_a_destructor_ends_the_job_all_the_same():
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True,
                          timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("stopped by SIGTERM 143\n", "")
