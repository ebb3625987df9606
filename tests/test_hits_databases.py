"""Hits in real databases, and what killing flush-hits anywhere does to them: nothing."""

import itertools
import os
import subprocess

import pytest

from tests.postgres import Postgres
from tests.test_hits import application, counted, flush, hit

pytestmark = [pytest.mark.server, pytest.mark.once]

CHANGING = ("write", "pwrite64", "rename", "renameat", "renameat2", "unlink", "unlinkat", "fsync",
            "fdatasync", "ftruncate", "sendto", "mkdir")
WRITERS, EACH, IMAGES = 8, 20_000, 50
ROUNDS, SECONDS = 100, 20  # in how many bursts the hits come, and how long that takes
STRIDE = 7  # between the calls at which one run and the next are killed


@pytest.fixture(scope="module")
def postgres():
    with Postgres() as running:
        yield running


@pytest.fixture
def counting(site, postgres, request):
    """A site that counts into a database of its own in PostgreSQL."""
    name = f"hits{abs(hash(request.node.name))}"
    url = postgres.make(name)
    site.settings["hits"] = {"database": url}
    site.write_config()
    flush(site)
    site.database = name
    return site


def counts(postgres, site):
    return {image: int(total) for image, total in postgres.sql(
        site.database, "SELECT image, sum(count) FROM hits GROUP BY image")}


def test_hits_are_counted_in_postgresql(counting, postgres):
    hit(counting, "view('a'); view('a'); view('/ünï'); view('x' * 4096)")
    assert flush(counting).json["hits"] == 4
    assert counts(postgres, counting)["a"] == 2
    kinds = dict(postgres.sql(counting.database, "SELECT column_name, data_type FROM"
                              " information_schema.columns WHERE table_name = 'hits'"))
    assert kinds == {"image": "text", "day": "date", "count": "bigint"}


def test_a_database_that_is_away_comes_back_and_nothing_is_missing(counting, postgres):
    hit(counting, "view('a')")
    postgres.stop()
    try:
        ended = flush(counting, 1)
        assert ended.err.count("\n") == 1
        assert "refused" in ended.err
    finally:
        postgres.start()
    hit(counting, "view('a')")
    assert flush(counting).json["hits"] == 2
    assert counts(postgres, counting) == {"a": 2}


def test_without_rights_the_spool_stays_and_one_line_says_so(counting, postgres):
    hit(counting, "view('a')")
    postgres.sql(counting.database, "CREATE ROLE stranger LOGIN")
    counting.settings["hits"]["database"] = postgres.url(counting.database, "stranger")
    counting.write_config()
    ended = flush(counting, 1)
    assert ended.err.count("\n") == 1
    assert "permission denied" in ended.err
    counting.settings["hits"]["database"] = postgres.url(counting.database)
    counting.write_config()
    assert flush(counting).json["hits"] == 1


def test_a_secret_url_is_read_from_its_file_by_the_job_alone(counting, postgres):
    secret = counting.root / "url"
    secret.write_text(postgres.url(counting.database) + "\n")
    secret.chmod(0o600)
    counting.settings["hits"]["database"] = f"@{secret}"
    counting.write_config()
    hit(counting, f"""
import os
real = os.open
def watched(path, *words, **more):
    assert str(path) != {str(secret)!r}
    return real(path, *words, **more)
os.open = watched
view("a")
""")
    assert flush(counting).json["hits"] == 1


def test_immediate_hits_reach_postgresql_from_threads_and_children(counting, postgres):
    counting.settings["hits"]["mode"] = "immediate"
    counting.write_config()
    hit(counting, """
import os, threading
view("a")
for _ in range(2):
    if os.fork() == 0:
        threads = [threading.Thread(target=lambda: [view("a") for _ in range(20)])
                   for _ in range(4)]
        for one in threads: one.start()
        for one in threads: one.join()
        os._exit(0)
for _ in range(2): os.wait()
view("a")
""")
    assert counts(postgres, counting) == {"a": 162}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_at_every_changing_call_each_hit_counts_once(site, postgres, kind):
    if kind == "postgresql":
        site.settings["hits"] = {"database": postgres.make("killed")}
        site.write_config()
    flush(site)
    code = f"""
for burst in range({ROUNDS}):
    for number in range({EACH // ROUNDS}): view(f"gallery/{{number % {IMAGES}}}.jpg")
    time.sleep({SECONDS / ROUNDS})
"""
    writers = [application(site, code) for _ in range(WRITERS)]
    # Each run is killed at another call; a number that no run reaches begins again.
    at, deaths, longest = 1, 0, 0
    for turn in itertools.count():
        if all(writer.poll() is not None for writer in writers):
            break
        status = killed(site, at)
        deaths += status == -9 or status == 137
        longest = max(longest, at)
        at = at + STRIDE if status in {-9, 137} else 1 + turn % STRIDE
    assert deaths > 10
    assert longest > 40
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
    flush(site)
    per_image = WRITERS * EACH // IMAGES
    expected = {f"gallery/{number}.jpg": per_image for number in range(IMAGES)}
    if kind == "postgresql":
        rows = postgres.sql("killed", "SELECT image, sum(count) FROM hits GROUP BY image")
    else:
        rows = list(counted(site).items())
    assert {image: int(total) for image, total in rows} == expected


def killed(site, at):
    """Run flush-hits, and kill it at the ``at``-th system call that changes something."""
    inject = f"inject={','.join(CHANGING)}:signal=SIGKILL:when={at}"
    return subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={','.join(CHANGING)}", "-e",
         inject, *site.command("flush-hits", "--json")], cwd="/", stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=False,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": os.environ.get("TMPDIR", "/tmp")}).returncode
