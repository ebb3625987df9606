"""Programs that we run: what they get, what they may take, and that none outlives us."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maintenance.errors import ToolError
from maintenance.programs import ENVIRONMENT, TAIL, Child, How, Limits, find, run
from tests.processes import commands, family, lives, parents
from tests.site import wait_until

ROOT = Path(__file__).parent.parent
# A job that starts programs, says so, and then is in the middle of its work.
JOB = """\
import json, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from maintenance.programs import Child, How
for argv, grace, remove in json.loads(sys.argv[2]):
    where = None if remove is None else pathlib.Path(remove)
    child = Child(argv, How(grace=grace, remove=where), open("/dev/null", "wb"))
    globals().setdefault("children", []).append(child)
print("up", flush=True)
time.sleep(300)
"""


def said(argv, how=None):
    """Run to the end; status and output."""
    ran = run(argv, how)
    return ran.status, ran.tail.decode()


def shell(script, how=None):
    return said(["sh", "-c", script], how)


def job(*programs):
    """A job in a process of its own, with these (argv, grace, remove) running."""
    process = subprocess.Popen([sys.executable, "-c", JOB, ROOT, json.dumps(programs)],
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    return process


def kill(process):
    process.kill()
    process.communicate()


@pytest.fixture
def child(tmp_path):
    """A function that starts a program as a Child, ended after the test."""
    started = []

    def start(script, **how):
        with (tmp_path / "out").open("ab") as output:
            started.append(Child(["sh", "-c", script], How(**how), output))
        return started[-1]

    yield start
    for one in started:
        one.end()


def pids(*files):
    """The process numbers that a script left in files."""
    wait_until(lambda: all(file.exists() and file.read_text().strip() for file in files))
    return [int(file.read_text()) for file in files]


def nest(place):
    """A script with a child, a grandchild and one in a session of its own; all deaf to TERM."""
    return (f"trap '' TERM; sleep 290 & echo $! > {place}/grandchild;"
            f" setsid sh -c 'echo $$ > {place}/stray; sleep 291; sleep 292' &"
            f" echo $$ > {place}/child; while :; do sleep 293; done")


def test_when_the_job_is_killed_all_it_started_goes_with_it(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    process = job([["sh", "-c", nest(own)], 0.3, None], [["sleep", "294"], 0.3, None])
    numbers = pids(own / "child", own / "grandchild", own / "stray")
    numbers += family(process.pid)
    assert len(numbers) > 6
    kill(process)
    wait_until(lambda: not any(map(lives, numbers)), 10)


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_a_job_killed_while_it_starts_a_program_leaves_none(moment):
    mark = f"295.{os.getpid()}{int(moment * 1000)}"
    process = job([["sleep", mark], 0.3, None])
    time.sleep(moment)
    kill(process)
    wait_until(lambda: not any(mark.encode() in words for words in commands()), 10)


def test_a_directory_of_the_program_is_deleted_even_when_the_job_is_killed(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for place in (own, other):
        (place / "below").mkdir(parents=True)
        (place / "below/file").write_text("x")
    (own / "link").symlink_to(other)
    # What outlives the program's own end writes on: nothing of it may stay either.
    script = (f"(trap '' TERM; while :; do mkdir -p {own}/again; echo x > {own}/again/$$;"
              f" done) & exec sleep 296")
    process = job([["sh", "-c", script], 0.2, str(own)])
    wait_until((own / "again").exists)
    kill(process)
    wait_until(lambda: not own.exists(), 10)
    time.sleep(0.2)
    assert not own.exists()
    assert (other / "below/file").read_text() == "x"


def test_a_directory_of_the_program_is_deleted_at_its_end(tmp_path, child):
    own = tmp_path / "own"
    own.mkdir()
    one = child("exit 3", remove=own)
    assert one.wait(20) == 3
    assert not own.exists()


def test_a_program_is_asked_before_it_is_killed(tmp_path, child):
    for stop in (signal.SIGTERM, signal.SIGINT):
        mark = tmp_path / stop.name
        one = child(f"trap 'echo bye > {mark}; exit 9' {stop.name[3:]}; echo > {mark}.up;"
                    " while :; do sleep 0.05; done", stop=stop, grace=20)
        wait_until(Path(f"{mark}.up").exists)
        one.end()
        assert mark.read_text() == "bye\n"
        assert one.wait(0) == 9


def test_a_program_that_does_not_listen_is_killed_after_its_grace(tmp_path, child):
    one = child(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done", grace=0.2)
    number, = pids(tmp_path / "pid")
    one.end()
    assert one.ended
    assert not lives(number)
    assert one.wait(0) == 128 + signal.SIGKILL


def test_one_program_can_be_ended_while_others_run(tmp_path, child):
    first, second = child("sleep 297", grace=20), child("sleep 298", grace=20)
    begun = time.monotonic()
    first.end()
    assert first.ended
    assert not second.ended
    assert time.monotonic() - begun < 15, "the second holds the first one's lifeline"


def test_out_of_time_is_an_error_and_nothing_is_left(tmp_path):
    with pytest.raises(ToolError, match=r"^sh: no result after 0\.5 s$"):
        shell(nest(tmp_path), How(limits=Limits(seconds=0.5), grace=0.1))
    assert not any(map(lives, pids(*(tmp_path / x for x in ("child", "grandchild", "stray")))))


def test_what_a_program_leaves_running_ends_with_it(tmp_path):
    status, _ = shell(f"sleep 299 & echo $! > {tmp_path}/one;"
                      f" setsid sh -c 'echo $$ > {tmp_path}/two; exec sleep 299' &"
                      f" while ! test -s {tmp_path}/two; do sleep 0.02; done; exit 5")
    assert status == 5
    assert not any(map(lives, pids(tmp_path / "one", tmp_path / "two")))


def test_a_killed_keeper_takes_nobody_with_it_and_leaves_nobody(tmp_path, child):
    one = child(f"echo $$ > {tmp_path}/pid; sleep 300; exit 0", grace=0.2)
    number, = pids(tmp_path / "pid")
    os.kill(parents()[number], signal.SIGKILL)
    assert one.wait(20) == 128 + signal.SIGKILL
    wait_until(lambda: not lives(number), 10)


def test_what_a_killed_keeper_leaves_is_killed_by_the_job(tmp_path, child):
    one = child(f"sleep 300 & echo $! > {tmp_path}/grandchild; echo $$ > {tmp_path}/pid; wait")
    number, grandchild = pids(tmp_path / "pid", tmp_path / "grandchild")
    os.kill(parents()[number], signal.SIGKILL)
    one.wait(20)
    one.end()
    wait_until(lambda: not lives(grandchild), 10)


def test_orphans_that_ended_do_not_pile_up(child, tmp_path):
    child(f"for n in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 & ) ; done; echo $$ > {tmp_path}/pid;"
          " exec sleep 301")
    number, = pids(tmp_path / "pid")
    wait_until(lambda: family(parents()[number]) == [number], 10)


@pytest.mark.parametrize(("script", "status"), [
    ("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143),
    ("kill -SEGV $$", 139), ("kill -INT $$", 130), ("kill -HUP $$", 129)])
def test_the_status_says_how_a_program_ended(script, status):
    assert shell(script)[0] == status


def test_memory_is_limited():
    grab = [sys.executable, "-IS", "-c", "bytes(600 * 2**20); print('had it')"]
    assert said(grab) == (0, "had it\n")
    status, text = said(grab, How(limits=Limits(memory=300 * 2**20)))
    assert status != 0
    assert "MemoryError" in text


def test_a_file_that_grows_too_large_ends_the_program(tmp_path):
    large = tmp_path / "large"
    status, _ = shell(f"exec dd if=/dev/zero of={large} bs=1000 count=100 2>&1",
                      How(limits=Limits(output=50_000)))
    assert status == 128 + signal.SIGXFSZ
    assert large.stat().st_size <= 50_000


def test_a_program_that_would_dump_its_core_cannot():
    assert shell("ulimit -c; ulimit -Hc") == (0, "0\n0\n")


def test_a_limit_above_the_hosts_own_is_no_failure():
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from maintenance.programs import *\n"
            "ran = run(['sh', '-c', 'ulimit -f'], How(limits=Limits(output=10**9)))\n"
            "print(ran.status, ran.tail)")
    done = subprocess.run(["prlimit", "--fsize=1048576:1048576", sys.executable, "-c", code, ROOT],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "0 b'2048\\n'\n"


def test_a_chatty_program_never_waits_for_us():
    chat = ("import sys\nfor n in range(80_000):\n"
            "    sys.stdout.write(f'{n:060d}\\n'); sys.stderr.write('e' * 20 + '\\n')\n"
            "sys.stdout.write('the end')")
    ran = run([sys.executable, "-IS", "-c", chat])
    assert ran.status == 0
    assert len(ran.tail) == TAIL
    assert b"the end" in ran.tail


def test_nothing_of_our_environment_reaches_a_program(monkeypatch):
    for name in ("LD_PRELOAD_X", "PYTHONPATH", "TMPDIR_X", "LANG", "HOME", "SECRET"):
        monkeypatch.setenv(name, "/nonexistent")
    assert set(said(["env"])[1].splitlines()) == {f"{k}={v}" for k, v in ENVIRONMENT.items()}
    _, text = said(["env"], How(environment={"TMPDIR": "/x"}))
    assert "TMPDIR=/x" in text.splitlines()


def test_a_program_gets_no_descriptor_signal_or_terminal_of_ours(tmp_path):
    with (tmp_path / "secret").open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        _, text = shell("cat; pwd; ls -l /proc/$$/fd; grep ^Sig[BI] /proc/self/status;"
                        " cut -d' ' -f7 /proc/$$/stat")
    assert text.startswith("/\n"), "stdin is empty, and the directory is the root"
    assert "secret" not in text
    assert text.count(" -> ") <= 4, text
    assert "SigBlk:\t0000000000000000" in text
    assert "SigIgn:\t0000000000000000" in text
    assert text.splitlines()[-1] == "0", "no terminal controls it"


def test_a_planted_program_is_not_run(tmp_path, monkeypatch):
    for name in ("true", "python3", "sh"):
        (tmp_path / name).write_text("#!/bin/sh\necho planted\nexit 66\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert said(["true"]) == (0, "")
    assert shell("command -v true python3 | grep -v ^/usr ; exit 0")[1].count("planted") == 0
    assert find("sh") in {"/usr/bin/sh", "/bin/sh"}
    assert find("no-such-program") is None


def test_a_missing_program_is_an_error_that_says_where_we_looked():
    with pytest.raises(ToolError, match=r"^no-such-program\\u\{a\} is not installed .*/usr/bin"):
        run(["no-such-program\n"])


def test_a_program_that_cannot_be_executed_says_so(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/nonexistent/interpreter\n")
    broken.chmod(0o755)
    assert said([str(broken)]) == (127, f"{broken}: No such file or directory\n")


def test_a_program_that_cannot_be_started_is_an_error_and_no_descriptor_leaks():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ToolError, match="^true: Argument list too long"):
            run(["true", "x" * 200_000])
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_reach_a_program_as_they_are():
    hostile = os.fsdecode(b"$(touch x) '\"\\\n\xff\xfe -h")
    ran = run(["printf", "%s|", hostile, "-h"])
    assert ran.tail == os.fsencode(hostile) + b"|-h|"
