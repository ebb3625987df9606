"""Worker processes: what one image may cost, and what they may see and leave behind."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from maintenance.errors import ConfigError, NoRoom, ToolError
from maintenance.images import bundle, process, workers
from maintenance.images.outcomes import Damaged, Kept, Smaller
from maintenance.images.plan import Allowance
from maintenance.images.recipe import Recipe
from maintenance.images.workers import Source, Workers
from maintenance.settings import Optimize
from tests.images import (
    CHANNELS,
    SIGNATURE,
    chunk,
    colours,
    jpeg,
    pixels,
    plan,
    png,
    samples,
    with_segments,
)
from tests.processes import (
    ENVIRONMENT,
    NOBODY,
    family,
    hidden,
    lives,
    reachable,
    status_of,
)
from tests.site import wait_until

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv/bin/python3"
PHOTO = with_segments(jpeg(), (0xFE, b"here"))
OPEN = Optimize(sandbox="off")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    return tmp_path_factory.mktemp("album")


@pytest.fixture
def image(album):
    """A function that puts an image into a file and opens it."""
    opened = []

    def make(data):
        path = album / str(len(list(album.iterdir())))
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDONLY))
        return Source(path.name, opened[-1])
    yield make
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            continue


def team(count=1, settings=OPEN, **allowance):
    return Workers(Recipe(plan(allowance=Allowance(**allowance)), ""), settings, count)


def outcomes(hands, *sources):
    return {result.what: result.outcome for result in hands.over(iter(sources))}


def content(outcome):
    with os.fdopen(outcome.result, "rb") as stream:
        return stream.read()


def bomb(side, colour=0):
    """A picture of so many pixels a side that is small as a file."""
    rows, row = zlib.compressobj(9), bytes(1 + side * CHANNELS[colour])
    coded = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
    return SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", side, side, 8, colour, 0, 0, 0)) + \
        chunk(b"IDAT", coded) + chunk(b"IEND")


@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_each_image_comes_back_with_what_came_of_it(image, sandbox):
    picture = png(samples(6, 8), 6, 8)
    sources = [image(PHOTO), image(picture), image(b"text"), image(PHOTO[:900]),
               image(bomb(20000))]
    with team(2, Optimize(sandbox=sandbox)) as hands:
        found = outcomes(hands, *sources)
    photo, drawing, *rest = [found[source.what] for source in sources]
    assert rest == [Kept("not a JPEG, PNG or WebP"), Damaged("it ends in the middle"),
                    Damaged("too many pixels")]
    assert photo.size < len(PHOTO)
    assert pixels(content(photo)) == pixels(PHOTO)
    assert colours(content(drawing)) == colours(picture)


def test_a_result_cannot_be_changed_any_more(image):
    with team() as hands:
        [result] = hands.over(iter([image(PHOTO)]))
    assert os.lseek(result.outcome.result, 0, os.SEEK_CUR) == 0
    with pytest.raises(PermissionError):
        os.write(result.outcome.result, b"x")
    assert len(content(result.outcome)) == result.outcome.size


def test_images_are_taken_only_when_a_worker_is_free(image):
    taken = []

    def sources():
        for number in range(6):
            taken.append(number)
            yield image(PHOTO[:900])
    with team(2) as hands:
        for given, _ in enumerate(hands.over(sources()), 1):
            assert len(taken) <= given + 1
    assert taken == list(range(6))


def test_every_tool_works_inside(image):
    picture = png(samples(6, 8), 6, 8)
    for sandbox in ("auto", "off"):
        settings = Optimize(sandbox=sandbox, png="optipng", jpeg="jpegtran")
        with Workers(Recipe.of(settings), settings, 1) as hands:
            one, other = image(PHOTO), image(picture)
            found = outcomes(hands, one, other)
        assert pixels(content(found[one.what])) == pixels(PHOTO)
        assert len(PHOTO) - found[one.what].size > 64, "no more than the comment went"
        assert colours(content(found[other.what])) == colours(picture)


def test_a_picture_that_needs_too_much_memory_costs_only_itself(image):
    big, fine = image(bomb(9000, 2)), image(PHOTO)
    with team(memory=250 * 2**20) as hands:
        found = outcomes(hands, big, fine)
    assert isinstance(found[big.what], Damaged)
    assert "memory" in found[big.what].reason
    assert isinstance(found[fine.what], Smaller)
    os.close(found[fine.what].result)


def test_a_picture_that_takes_too_much_processor_time_costs_only_itself(image):
    big, fine = image(slow()), image(PHOTO)
    with team(cpu=1) as hands:
        found = outcomes(hands, big, fine)
    assert found[big.what] == Damaged(process.TOO_LONG)
    assert isinstance(found[fine.what], Smaller)
    os.close(found[fine.what].result)


def slow():
    """16 bits and the filter that takes longest: seconds of work."""
    rows = zlib.compress((b"\4" + bytes(6 * 2200)) * 2200)
    return SIGNATURE + chunk(b"IHDR", struct.pack(">2I5B", 2200, 2200, 16, 2, 0, 0, 0)) + \
        chunk(b"IDAT", rows) + chunk(b"IEND")


def test_a_worker_that_gives_no_answer_in_time_is_ended(image):
    big, fine = image(slow()), image(PHOTO)
    with team(seconds=0.2) as hands:
        [late] = hands.over(iter([big]))
        assert late.outcome == Damaged(process.TOO_LONG)
        assert family(os.getpid()) == []
    with team() as hands:
        [good] = hands.over(iter([fine]))
        os.close(good.outcome.result)


@pytest.mark.parametrize("sandbox", ["auto", "off"])
@pytest.mark.parametrize(("how", "times"), [(signal.SIGKILL, 1), (signal.SIGSEGV, 2),
                                            (signal.SIGTERM, 2)])
def test_a_worker_that_dies_costs_one_image(image, how, times, sandbox):
    big, fine = image(slow()), image(PHOTO)
    killer = Thread(target=kill_readers_of, args=(big, how, times))

    def sources():
        yield image(PHOTO[:900])
        killer.start()  # only now: on its way to exec a starting child has all our files
        yield from (big, fine)
    with team(1, Optimize(sandbox=sandbox)) as hands:
        found = {result.what: result.outcome for result in hands.over(sources())}
    killer.join()
    assert isinstance(found[big.what], Damaged)
    assert found[big.what].reason.startswith("reading it ")
    assert isinstance(found[fine.what], Smaller)
    os.close(found[fine.what].result)


def readers(job):
    """Those below ``job`` that have nobody below them: they read the images."""
    return [pid for pid in family(job) if not family(pid)]


def reading(source):
    """The worker that has this image open."""
    file = os.fstat(source.fd)
    for pid in readers(os.getpid()):
        if any(os.path.samestat(file, found) for found in files(pid)):
            return pid
    return None


def files(pid):
    """What a process has open."""
    found = []
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            found.append(fd.stat())
    except OSError:  # it ended, or closed the file
        pass
    return found


def kill_readers_of(source, how, times):
    """Kill the worker that has this image, and so often the next one that gets it."""
    found = [None]
    for _ in range(times):
        wait_until(lambda: found.append(reading(source)) or found[-1] not in {None, found[-2]})
        os.kill(found[-1], how)


def broken(monkeypatch, lines):
    """Have each worker run some lines before it serves."""
    monkeypatch.setattr(bundle, "UNPACK", bundle.UNPACK.replace(
        "worker.serve(", f"{lines}\nworker.serve("))


DEATHS = {"exit(1), as of mozjpeg": "os._exit(1)", "panic": "raise BaseException('panicked')",
          "abort": "os.abort()", "crash": "os.kill(os.getpid(), 11)"}


@pytest.mark.parametrize("sandbox", ["auto", "off"])
@pytest.mark.parametrize("death", DEATHS)
def test_what_the_first_tool_dies_of_is_left_to_the_second(image, monkeypatch, death, sandbox):
    broken(monkeypatch, f"import os\nfrom maintenance.images import tools\ndef die(*_):"
           f" {DEATHS[death]}\ntools.PNG['oxipng'] = tools.JPEG['mozjpeg'] = die")
    picture = png(samples(6, 8), 6, 8)
    photo, drawing, text = image(PHOTO), image(picture), image(b"text")
    with team(1, Optimize(sandbox=sandbox)) as hands:
        found = outcomes(hands, photo, drawing, text)
    assert len(PHOTO) - found[photo.what].size > 64, "no more than the comment went"
    assert pixels(content(found[photo.what])) == pixels(PHOTO)
    assert colours(content(found[drawing.what])) == colours(picture)
    assert found[text.what] == Kept("not a JPEG, PNG or WebP")


def test_without_a_second_tool_what_the_first_one_dies_of_is_stripped(image, monkeypatch):
    broken(monkeypatch, "import os\nfrom maintenance.images import tools\n"
           "tools.JPEG['mozjpeg'] = lambda bare: os._exit(1)")
    photo = image(PHOTO)
    recipe = Recipe(plan(jpeg_second="strip"), "")
    with Workers(recipe, OPEN, 1) as hands:
        [result] = hands.over(iter([photo]))
    assert content(result.outcome) == jpeg()


def test_a_worker_that_dies_of_one_image_twice_costs_it_a_line(image, monkeypatch):
    broken(monkeypatch, "import os\nreal = worker.shrink\nworker.shrink = lambda data, plan:"
           " os._exit(1) if data.startswith(b'kill') else real(data, plan)")
    sources = [image(b"kill" + bytes([one])) for one in range(3)] + [image(b"text")]
    monkeypatch.setattr(workers, "DEATHS", 3)  # a good image in between shows: it is not the host
    starts = []
    real = process.Process
    monkeypatch.setattr(workers, "Process", lambda *a: starts.append(1) or real(*a))
    with team() as hands:
        found = outcomes(hands, *sources)
    assert list(found.values()) == [Damaged("reading it ended the program that reads")] * 3 + [
        Kept("not a JPEG, PNG or WebP")]
    assert len(starts) == 1 + 2 * 3, "one more for each that died; the probe's goes on working"


def test_workers_that_die_of_any_image_end_the_run(image, monkeypatch):
    broken(monkeypatch, "def die(*_): raise SystemExit('no such thing')\nworker.shrink = die")
    monkeypatch.setattr(workers, "DEATHS", 3)
    with pytest.raises(ToolError, match="3 images in a row .* no such thing"), team() as hands:
        for result in hands.over(image(PHOTO) for _ in range(5)):
            assert isinstance(result.outcome, Damaged)
            os.close(result.fd)
    assert family(os.getpid()) == []


def test_a_good_image_that_takes_too_long_ends_the_run(image, monkeypatch):
    broken(monkeypatch, "import os, time\nworker.shrink = lambda data, plan:"
           " os._exit(1) if data == b'kill' else time.sleep(600)")
    monkeypatch.setattr(workers, "DEATHS", 1)
    with pytest.raises(ToolError, match="takes too long"), team(seconds=1.0) as hands:
        list(hands.over(iter([image(b"kill")])))
    assert family(os.getpid()) == []


def test_deaths_between_good_images_are_the_images_fault(image, monkeypatch):
    monkeypatch.setattr(workers, "DEATHS", 3)
    monkeypatch.setattr(workers, "require_works", lambda *_: pytest.fail("nothing to ask"))
    read, write = os.pipe()  # no file at all: nothing that a worker is made for
    with team() as hands:
        found = [type(result.outcome) for result in hands.over(iter(
            [Source("pipe", read), image(b"text"), Source("pipe", os.dup(read)), image(b"text")]))]
    assert found == [Damaged, Kept] * 2
    os.close(read)
    os.close(write)


def test_a_result_beyond_the_cap_on_files_costs_only_its_image(image, monkeypatch):
    broken(monkeypatch, "real = worker.shrink\nworker.shrink = lambda data, plan:"
           " bytes(3 * 2**24) if data.startswith(b'big') else real(data, plan)")
    big, fine = image(b"big"), image(PHOTO)
    with team(size=2**24) as hands:
        found = outcomes(hands, big, fine)
    assert isinstance(found[big.what], Damaged)
    assert isinstance(found[fine.what], Smaller)
    os.close(found[fine.what].result)


def test_workers_that_cannot_start_end_the_run_with_their_last_words(image, monkeypatch):
    monkeypatch.setattr(bundle, "UNPACK", "raise SystemExit('no such thing')")
    starts = []
    real = process.Process
    monkeypatch.setattr(workers, "Process", lambda *a: starts.append(1) or real(*a))
    with pytest.raises(ToolError, match="no worker for images: no such thing"), team() as hands:
        list(hands.over(iter([image(PHOTO)])))
    assert len(starts) == workers.TRIES


def test_no_room_for_results_ends_the_run(image, monkeypatch):
    monkeypatch.setattr(bundle, "UNPACK", bundle.UNPACK.replace(
        "worker.serve(", "import errno\ndef full(*_): raise OSError(errno.ENOSPC, 'full')\n"
        "worker.shrink = full\nworker.serve("))
    with pytest.raises(NoRoom), team() as hands:
        list(hands.over(iter([image(PHOTO)])))


LIARS = {
    "empty": "b''",
    "larger": "data + b'x'",
    "another kind": "b'GIF89a'",
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_worker_that_was_taken_over_is_not_believed(image, monkeypatch, lie):
    monkeypatch.setattr(bundle, "UNPACK", bundle.UNPACK.replace(
        "worker.serve(", f"worker.shrink = lambda data, plan: {LIARS[lie]}\nworker.serve("))
    with team() as hands:
        [result] = hands.over(iter([image(PHOTO)]))
    assert result.outcome == Damaged("reading it gave no sensible answer")


@pytest.mark.parametrize("answer", ["b'junk'", "b'[]'", "b'{}'", "b'{\"size\": 10**9}'"])
def test_nonsense_is_no_answer(image, monkeypatch, answer):
    monkeypatch.setattr(bundle, "UNPACK", bundle.UNPACK.replace(
        "worker.serve(", "worker.json.dumps = lambda told: type('', (), dict(encode=lambda s: "
        f"{answer}))()\nworker.serve("))
    with team() as hands:
        [result] = hands.over(iter([image(PHOTO)]))
    assert result.outcome == Damaged("reading it gave no sensible answer")


def test_a_caller_that_stops_early_leaves_nothing_open(image):
    before = set(os.listdir("/proc/self/fd"))
    with team(2) as hands:
        with closing(hands.over(image(data) for data in [PHOTO[:900], slow(), slow()])) as results:
            os.close(next(results).fd)
        [again] = hands.over(iter([image(PHOTO)]))
        os.close(again.fd)
        os.close(again.outcome.result)
    assert set(os.listdir("/proc/self/fd")) == before
    assert family(os.getpid()) == []


def test_leaving_the_block_ends_work_that_nobody_waits_for(image):
    with team(2) as hands:
        results = hands.over(image(data) for data in [PHOTO[:900], slow(), slow()])
        os.close(next(results).fd)
    assert family(os.getpid()) == []
    results.close()


def test_a_worker_sees_no_host_and_no_network(image, tmp_path):
    if not workers.cage("auto"):
        pytest.skip("bubblewrap does not work here")
    monitor = {}

    def sources():
        yield image(PHOTO[:900])
        [pid] = readers(os.getpid())
        for kind in ("net", "mnt", "pid", "ipc", "uts"):
            monitor[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")
        monitor["status"] = status_of(pid)
        monitor["environ"] = Path(f"/proc/{pid}/environ").read_bytes()
        monitor["root"] = sorted(os.listdir(f"/proc/{pid}/root"))
        monitor["limits"] = Path(f"/proc/{pid}/limits").read_text()
        monitor["etc"] = os.listdir(f"/proc/{pid}/root/etc")
        monitor["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
    with team(settings=Optimize(sandbox="required")) as hands:
        assert hands.sandbox == "bubblewrap"
        list(hands.over(sources()))
    for kind in ("net", "mnt", "pid", "ipc", "uts"):
        assert monitor[kind] != os.readlink(f"/proc/self/ns/{kind}")
    assert int(monitor["status"]["CapEff"], 16) == 0
    assert int(monitor["status"]["CapBnd"], 16) == 0
    check_limits(monitor)
    assert b"HOME" not in monitor["environ"]
    assert set(monitor["root"]) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin",
                                    "tmp", "usr", sys.base_prefix.split("/")[1]}
    assert set(monitor["etc"]) <= {"ld.so.cache"}


def check_limits(monitor):
    assert monitor["status"]["NoNewPrivs"] == "1"
    assert monitor["nice"] >= 10 or os.nice(0) >= 10
    limits = {line[:25].strip(): line[25:].split()[0] for line in monitor["limits"].splitlines()}
    assert limits["Max address space"] == str(Allowance().memory)
    assert int(limits["Max file size"]) == 2 * Allowance().size
    assert int(limits["Max cpu time"]) <= Allowance().cpu + 5
    assert limits["Max core file size"] == "0"


def test_without_a_cage_a_worker_has_limits_all_the_same(image, monkeypatch):
    own = f"imagewarden-{os.getpid()}-"
    monkeypatch.setattr(bundle, "UNPACK", bundle.UNPACK.replace("imagewarden-", own))
    monitor = {}

    def sources():
        yield image(PHOTO[:900])
        [pid] = readers(os.getpid())
        monitor["status"] = status_of(pid)
        monitor["environ"] = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        monitor["limits"] = Path(f"/proc/{pid}/limits").read_text()
        monitor["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
    with team() as hands:
        assert hands.sandbox == "off"
        list(hands.over(sources()))
    check_limits(monitor)
    assert {line.partition(b"=")[0] for line in monitor["environ"] if line} == {
        b"PATH", b"LC_ALL", b"RAYON_NUM_THREADS", b"MALLOC_ARENA_MAX"}
    assert list(Path("/tmp").glob(f"{own}*")) == []


SCRIPT = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from maintenance.errors import ConfigError
from maintenance.images.recipe import Recipe
from maintenance.images.workers import Source, Workers
from maintenance.settings import Optimize
user, sandbox, *paths = sys.argv[2:]
if user != "-":
    os.setgroups([])
    os.setresgid(int(user), int(user), int(user))
    os.setresuid(int(user), int(user), int(user))
    assert not os.access(sys.argv[1] + "/maintenance/errors.py", os.R_OK)
settings = Optimize(sandbox=sandbox)
try:
    with Workers(Recipe.of(settings), settings, 2) as hands:
        print(hands.sandbox, flush=True)
        for result in hands.over(Source(p, os.open(p, os.O_RDONLY)) for p in paths):
            print(type(result.outcome).__name__, flush=True)
except ConfigError as error:
    print(int(error.status), error)
"""


def script(wrap, *words):
    ran = subprocess.run([*wrap, PYTHON, "-Ic", SCRIPT, *words], capture_output=True,
                         text=True, env=ENVIRONMENT, cwd="/")
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def test_without_bubblewrap_limits_have_to_do_or_the_configuration_is_refused(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.write_bytes(PHOTO)
    with hidden("/usr/bin/bwrap") as nowhere:
        assert script(nowhere.wrap, ROOT, "-", "auto", picture) == ["off", "Smaller"]
        assert script(nowhere.wrap, ROOT, "-", "required", picture) == [
            '78 optimize.sandbox: "required", but bubblewrap is not installed']


def test_a_bubblewrap_that_fails_is_none(monkeypatch):
    monkeypatch.setattr("maintenance.images.cage._APART", ("--no-such-option",))
    assert team(settings=Optimize(sandbox="auto")).sandbox == "off"
    with pytest.raises(ConfigError, match="bubblewrap does not work here"):
        team(settings=Optimize(sandbox="required"))


@needs_root
@pytest.mark.may_skip("only root can become somebody else")
@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_after_dropping_privileges_the_checkout_may_be_out_of_reach(tmp_path, sandbox):
    closed, picture = tmp_path / "closed", tmp_path / "a.jpg"
    closed.mkdir(mode=0o700)
    shutil.copytree(ROOT / "maintenance", closed / "maintenance")
    picture.write_bytes(PHOTO)
    reachable(picture)
    told = script([], closed, str(NOBODY), sandbox, picture)
    assert told[-1] == "Smaller"
    assert told[0] in {"bubblewrap", "off"}


@pytest.mark.parametrize("sandbox", ["auto", "off"])
def test_workers_are_gone_soon_after_the_job_is_killed(tmp_path, sandbox):
    paths = []
    for name in "ab":
        paths.append(tmp_path / name)
        paths[-1].write_bytes(slow())
    job = subprocess.Popen([PYTHON, "-Ic", SCRIPT, ROOT, "-", sandbox, *paths],
                           stdout=subprocess.PIPE, env=ENVIRONMENT, cwd="/")
    try:
        work = [path.stat() for path in paths]
        wait_until(lambda: all(any(os.path.samestat(one, found) for pid in readers(job.pid)
                                   for found in files(pid)) for one in work))
        everybody = family(job.pid)
        os.kill(readers(job.pid)[0], signal.SIGSTOP)  # deaf to everything but SIGKILL
    finally:
        job.kill()
        job.communicate()
    wait_until(lambda: not any(map(lives, everybody)), 10)


def test_a_recipe_changes_with_its_tools_and_settings():
    plain = Recipe.of(Optimize())
    assert plain.fingerprint == Recipe.of(Optimize(workers=3, window="", sandbox="off")).fingerprint
    others = [Optimize(png="optipng"), Optimize(jpeg="jpegtran"), Optimize(jpeg="strip"),
              Optimize(png="off"), Optimize(keep_metadata=("icc",)), Optimize(min_gain=0.1)]
    prints = {plain.fingerprint, *(Recipe.of(settings).fingerprint for settings in others)}
    assert len(prints) == 1 + len(others)
    again = json.loads(plain.plan.as_text())
    assert again["png"], again["jpeg"] == ("oxipng", "mozjpeg")


def test_a_new_version_of_a_tool_makes_a_new_recipe(monkeypatch):
    old = Recipe.of(Optimize()).fingerprint
    monkeypatch.setattr("maintenance.images.recipe._VERSIONS", {"oxipng": "99", "mozjpeg": "1"})
    assert Recipe.of(Optimize()).fingerprint != old


def test_what_is_not_installed_is_replaced_or_told(monkeypatch):
    monkeypatch.setattr("maintenance.images.recipe._VERSIONS", {"oxipng": "", "mozjpeg": ""})
    chosen = Recipe.of(Optimize()).plan
    assert (chosen.png, chosen.jpeg) == ("optipng", "jpegtran")
    assert Recipe.of(Optimize()).stand_ins == (
        "oxipng-pybind is not installed: optipng works in its place",
        "mozjpeg-lossless-optimization is not installed: jpegtran works in its place")
    assert Recipe.of(Optimize(png="optipng", jpeg="strip")).stand_ins == ()
    with pytest.raises(ToolError, match="oxipng-pybind is not installed"):
        Recipe.of(Optimize(png="oxipng"))
    monkeypatch.setattr("maintenance.images.recipe.find", lambda _: None)
    chosen = Recipe.of(Optimize()).plan
    assert (chosen.png, chosen.jpeg) == ("strip", "strip")
    assert Recipe.of(Optimize()).stand_ins[1] == (
        "mozjpeg-lossless-optimization is not installed: JPEGs are only stripped")
    with pytest.raises(ToolError, match="jpegtran is not installed"):
        Recipe.of(Optimize(jpeg="jpegtran"))


def test_the_second_tool_is_the_next_best_and_no_part_of_the_recipe(monkeypatch):
    with_all = Recipe.of(Optimize())
    assert with_all.stand_ins == ()
    assert (with_all.plan.careful.png, with_all.plan.careful.jpeg) == ("optipng", "jpegtran")
    assert with_all.plan.careful.careful == with_all.plan.careful
    chosen = Recipe.of(Optimize(png="optipng", jpeg="strip")).plan
    assert chosen.careful == chosen
    monkeypatch.setattr("maintenance.images.recipe.find", lambda _: None)
    without = Recipe.of(Optimize())
    assert (without.plan.careful.png, without.plan.careful.jpeg) == ("strip", "strip")
    assert without.fingerprint == with_all.fingerprint


def test_a_plan_arrives_as_it_was_sent():
    sent = plan(keep={"icc", "xmp"}, allowance=Allowance(pixels=5))
    assert type(sent).from_text(sent.as_text()) == sent
    assert replace(sent, png="off") != sent
