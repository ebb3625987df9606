"""Kills a script at one file operation after the other: run by the checkout's interpreter.

Arguments: the script, the checkout, a site's directory to copy, a directory for the
copies, how many processes share the work and which of them this is ("2/0"), and the
script's own. Every step gets a copy of the site, dies at its own operation, and is
followed by a run that must complete; what each left is in one JSON object a line.
"""

import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 2000  # steps after which something else is wrong


def main(script: str, checkout: str, site: str, work: str, part: str, words: list[str]) -> None:
    sys.path.insert(0, checkout)
    for module in ("maintenance.shell.main", "maintenance.jobs.rescan",
                   "maintenance.jobs.definitions", "maintenance.jobs.optimize",
                   "maintenance.ledger.ledger"):
        __import__(module)
    share, mine = map(int, part.split("/"))
    step = 1 + mine
    while step < PATIENCE:
        copy = Path(work, str(step))
        shutil.copytree(site, copy, symlinks=True)
        config = copy / "imagewarden.toml"
        config.write_text(config.read_text().replace(site, str(copy)))
        config.chmod(0o644)
        argv = [script, *words, "--json", "--config", str(config)]
        died, told, _ = one(argv, step)
        *made, where = told.split("\n")
        between = left(copy)
        after = one(argv, 0)
        while after[0] == 75 and died:  # a child of the dead run had a moment left
            time.sleep(0.1)
            after = one(argv, 0)
        sys.stdout.write(json.dumps({"step": step, "died": died, "where": where, "made": made,
                                     "between": between, "left": left(copy),
                                     "status": after[0], "result": after[2]}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(copy)
        if died != -signal.SIGKILL:
            return
        step += share


def left(copy: Path) -> list[str]:
    return sorted(str(path.relative_to(copy)) for path in copy.rglob("*")
                  if not str(path).endswith(("-wal", "-shm")))


def one(argv: list[str], step: int) -> tuple[int, str, dict]:
    """Run the script in a fork; ``step`` 0: to its end."""
    out_r, out_w = os.pipe()
    where_r, where_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.dup2(out_w, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for fd in (out_r, out_w, where_r):
            os.close(fd)
        sys.argv = argv
        if step:
            trap(step, where_w)
        status = 70
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(out_w)
    os.close(where_w)
    out, where = drain(out_r), drain(where_r)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return ended, where.decode(), json.loads(out or "{}")


def drain(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def trap(step: int, where: int) -> None:
    seen, me = 0, os.getpid()

    def hook(event: str, args: tuple) -> None:
        nonlocal seen
        if os.getpid() != me or not event.startswith(("os.", "open", "sqlite3.", "subprocess.",
                                                      "tempfile.", "shutil.")):
            return
        if event == "open" and harmless(args[0], args[2]):
            return
        if event == "tempfile.mkdtemp":
            os.write(where, f"{args[0]}\n".encode())  # a victim cannot remove it
        seen += 1
        if seen == step:
            os.write(where, f"{event} {args!r}"[:200].encode())
            os.kill(me, signal.SIGKILL)
    sys.addaudithook(hook)


def harmless(path: object, flags: int) -> bool:
    """Reading of what is no part of the site changes nothing and is not tried."""
    return not flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith((
        "/proc", "/usr", sys.prefix, str(Path(sys.argv[0]).parents[1])))


if __name__ == "__main__":
    main(*sys.argv[1:6], sys.argv[6:])
