"""How much memory is there for an engine, asked of real and of unusual hosts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maintenance import memory
from maintenance.clamav.databases import snapshot
from maintenance.clamav.private import memory_of

ROOT = Path(__file__).parent.parent
MB = 2**20


def test_on_this_host_it_is_no_more_than_the_kernel_says():
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines()
                if line.startswith("MemTotal"))
    assert 0 < memory.available() < int(line.split()[1]) * 1024


@pytest.mark.may_skip("only root can make a cgroup, where there is one for memory")
def test_a_real_cgroup_with_less_counts():
    group, limit = new_group()
    try:
        limit.write_text(str(64 * MB))
        code = ("import sys, os; sys.path.insert(0, sys.argv[1])\n"
                "open(sys.argv[2] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
                "from maintenance import memory; print(memory.available())")
        ended = subprocess.run([sys.executable, "-c", code, ROOT, group], check=True,
                               capture_output=True, text=True)
    finally:
        group.rmdir()
    assert 16 * MB < int(ended.stdout) <= 64 * MB


def new_group():
    """A memory cgroup of our own, and the file that holds its limit."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for root, limit, paths in (
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes",
             [path for _, which, path in lines if which == "memory"]),
            ("/sys/fs/cgroup", "memory.max", [path for _, which, path in lines if not which])):
        for path in (*paths, "/"):
            group = Path(root, path.lstrip("/"), f"imagewarden-test-{os.getpid()}")
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / limit).exists():
                return group, group / limit
            group.rmdir()
    pytest.skip("no cgroup for memory can be made here")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host described by files, with 1000 MB available."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroups")

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", f"MemFree: 5 kB\nMemAvailable:   {1000 * 1024} kB\nCached: 7 kB\n")
    write("proc/self/cgroup", "5:cpu:/other\n0::/a/b\n")
    return write


def test_without_a_cgroup_for_memory_the_host_counts(host):
    assert memory.available() == 1000 * MB


@pytest.mark.parametrize("group", ["", "a/", "a/b/"])
def test_every_cgroup_above_us_counts(host, group):
    for one, limit in (("a/b/", "max"), ("a/", "max"), (group, str(500 * MB))):
        host(f"cgroups/{one}memory.max", f"{limit}\n")
        host(f"cgroups/{one}memory.current", f"{450 * MB}\n")
    host(f"cgroups/{group}memory.stat", f"anon 9\ninactive_anon 8\ninactive_file {30 * MB}\n")
    assert memory.available() == 80 * MB


def test_the_older_kind_of_cgroup_counts_with_what_lies_below_it(host):
    host("proc/self/cgroup", "4:cpu:/other\n3:hugetlb,memory:/a:b\n")
    host("cgroups/memory/a:b/memory.limit_in_bytes", f"{500 * MB}\n")
    host("cgroups/memory/a:b/memory.usage_in_bytes", f"{600 * MB}\n")
    host("cgroups/memory/a:b/memory.stat", f"inactive_file 1\ntotal_inactive_file {200 * MB}\n")
    assert memory.available() == 100 * MB
    host("cgroups/memory/a:b/memory.stat", "")
    assert memory.available() == 0


def test_a_host_that_tells_nothing_is_no_obstacle(host, tmp_path):
    (tmp_path / "proc/meminfo").unlink()
    assert memory.available() > 2**40


def test_the_official_definitions_want_what_was_measured_with_them(tmp_path):
    for name, size in (("main.cvd", 160 * MB), ("daily.cld", 70 * MB), ("own.hdb", 10 * MB)):
        with (tmp_path / name).open("wb") as file:
            file.write(b"ClamAV-VDB:x:1:1:90:X:X:m:1".ljust(512))
            file.truncate(size)
    assert memory_of(snapshot(tmp_path)) == pytest.approx(1200 * MB, rel=0.05)
