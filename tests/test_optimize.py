"""optimize-images from end to end: real tools, real workers, an engine of its own."""

import fcntl
import io
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from maintenance import config as configuration
from maintenance.clamav.connection import Clamd
from maintenance.errors import EngineError
from maintenance.jobs import draft_scan
from maintenance.jobs.draft_scan import DraftScan, NotClean
from maintenance.jobs.engines import Engine
from maintenance.ledger.ledger import Ledger
from tests.peers import Peer
from tests.processes import (
    ROOT,
    Namespace,
    family,
    hidden,
    killed_at_every_step,
    lives,
    named,
    on_terminal,
    reachable,
    started,
)
from tests.site import BAD, BIN, body_signature, wait_until
from tests.test_hostile_names import HOSTILE

pytestmark = pytest.mark.server

CLAMD = Path("/usr/sbin/clamd")
FAKETIME = "/usr/$LIB/faketime/libfaketime.so.1"
DRAFT = b".imagewarden-shrunk-0123456789abcdef"


def jpeg(seed=0, waste=5000, side=64, **more):
    """A JPEG that loses at least ``waste`` bytes; 0, and under 2000 bytes: it cannot lose any."""
    noise = Image.frombytes("L", (side, side), bytes((seed * 7919 + n * n) % 251
                                                     for n in range(side * side)))
    stream = io.BytesIO()
    comment = {"comment": b"w" * waste} if waste else {}
    noise.convert("RGB").save(stream, "JPEG", **comment, **more)
    return stream.getvalue()


def infected_jpeg():
    """One that is smaller and infected still after it was optimised."""
    return jpeg(icc_profile=BAD)


@pytest.fixture
def site(site):
    site.settings["optimize"] = {"window": ""}
    site.write_config()
    return site


def optimize(site, *arguments, **how):
    """Run optimize-images; its status and JSON result, whose sums are right."""
    ended = site.run("optimize-images", "--json", *arguments, **how)
    assert ended.out, ended
    assert "Traceback" not in ended.err
    result = ended.json
    for one in result["stores"]:
        assert one["considered"] == sum(one[way] for way in (
            "shrunk", "kept", "current", "undone", "left"))
    assert sum(result["kept_reasons"].values()) == sum(one["kept"] for one in result["stores"])
    assert result["undone_total"] == sum(one["undone"] for one in result["stores"])
    assert result["bytes_saved"] == result["bytes_before"] - result["bytes_after"]
    return ended.status, result


def counts(result):
    store, = result["stores"]
    return {way: store[way] for way in ("shrunk", "kept", "current", "undone", "left")
            if store[way]}


def pixels(path):
    with Image.open(os.fsdecode(path)) as picture:
        return picture.mode, picture.size, picture.tobytes()


def same_file(path):
    info = os.stat(path, follow_symlinks=False)
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode,
            info.st_uid, info.st_gid)


def drafts(site):
    return [path for path in site.store.rglob(".imagewarden-*")]


# --- what becomes of images


def test_an_image_becomes_smaller_shows_the_same_and_is_known_to_be_clean(site):
    path = site.image("sub/a.jpg", jpeg())
    site.image("bad.jpg", BAD)
    site.update()
    site.rescan()
    os.chmod(path, 0o2640)
    os.utime(path, ns=(10**18 + 1, 10**18 + 2))
    before, shown, size = os.stat(path), pixels(path), os.stat(path).st_size
    status, result = optimize(site)
    after = os.stat(path)
    assert (status, counts(result)) == (0, {"shrunk": 1, "kept": 1})
    assert result["kept_reasons"] == {"infected": 1}
    assert (result["job"], result["outcome"], result["undone"], result["left"]) == (
        "optimize", "done", [], 0)
    assert after.st_ino != before.st_ino
    assert 0 < after.st_size <= size - 5000
    assert (result["bytes_before"], result["bytes_after"]) == (size, after.st_size)
    assert pixels(path) == shown
    for fact in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
        assert getattr(after, fact) == getattr(before, fact)
    assert not drafts(site)
    known = site.coverage()
    assert (known["clean_current"], known["infected"], known["bytes_saved"]) == (
        1, 1, size - after.st_size)
    status, result = site.rescan()
    assert (status, result["stores"][0]["full"]) == (4, 0), "it was scanned before it was published"


def test_a_required_sandbox_that_is_missing_is_a_fault_of_the_configuration(site):
    site.image("a.jpg", jpeg())
    site.settings["optimize"]["sandbox"] = "required"
    site.write_config()
    with hidden("/usr/bin/bwrap") as nowhere:
        ended = site.run("optimize-images", wrap=nowhere.wrap)
    assert (ended.status, ended.err.count("\n")) == (78, 1), ended
    assert optimize(site)[1]["sandbox"] == "bubblewrap"


def test_outside_the_window_the_sandbox_is_not_said_to_be_off(site):
    site.settings["optimize"] = {"window": f"{clock(2)}-{clock(3)}"}
    site.write_config()
    status, result = optimize(site)
    assert (status, result["outcome"], result["sandbox"]) == (0, "closed", "bubblewrap")


def test_a_sandbox_that_is_missing_is_said_in_the_log(site):
    site.image("a.jpg", jpeg())
    with hidden("/usr/bin/bwrap") as nowhere:
        status, result = optimize(site, wrap=nowhere.wrap)
    assert (status, result["sandbox"], counts(result)) == (0, "off", {"shrunk": 1})
    assert (site.root / "logs/optimize.log").read_text().count("under limits only") == 1


def test_the_second_night_touches_nothing_and_starts_no_engine(site):
    for one in range(3):
        site.image(f"{one}.jpg", jpeg(one))
    site.image("small.jpg", jpeg(waste=0, side=32))
    site.image("text.txt", b"no image at all" * 200)
    cut = site.image("cut.jpg", jpeg()[:3000])
    site.update()
    status, result = optimize(site)
    assert (status, counts(result)) == (3, {"shrunk": 3, "kept": 2, "undone": 1})
    assert [one["path"] for one in result["undone"]] == ["cut.jpg"]
    reason = result["undone"][0]["reason"]
    everything = [site.store / name for name in sorted(os.listdir(site.store))]
    before = [same_file(path) for path in everything]
    with hidden(str(CLAMD)) as nowhere:
        status, result = optimize(site, wrap=nowhere.wrap)
    assert (status, counts(result)) == (0, {"kept": 2, "current": 4})
    assert result["kept_reasons"][reason] == 1, "undone once, then kept for the same reason"
    assert [same_file(path) for path in everything] == before
    Path(os.fsdecode(cut)).write_bytes(jpeg(4)[:2900])
    assert counts(optimize(site)[1]) == {"kept": 1, "current": 4, "undone": 1}


def test_what_changed_on_the_outside_only_is_recognised(site):
    images = [Path(os.fsdecode(site.image(f"{one}.jpg", jpeg(one)))) for one in range(4)]
    text = Path(os.fsdecode(site.image("text.txt", b"no image at all" * 200)))
    assert counts(optimize(site)[1]) == {"shrunk": 4, "kept": 1}
    images[0].chmod(0o600)
    os.utime(images[1], ns=(1, 1))
    for path, copy in ((images[2], shutil.copy2), (images[3], shutil.copyfile),
                       (text, shutil.copyfile)):
        copy(path, site.root / "backup")
        path.unlink()
        shutil.move(site.root / "backup", path)
    before = [same_file(path) for path in images]
    for _ in range(2):
        status, result = optimize(site)
        assert (status, counts(result)) == (0, {"kept": 1, "current": 4})
        assert [same_file(path) for path in images] == before
    assert site.coverage()["bytes_saved"] >= 4 * 5000


def test_other_content_of_the_same_size_and_time_is_not_taken_for_our_work(site):
    path = Path(os.fsdecode(site.image("a.jpg", jpeg())))
    optimize(site)
    before = path.stat()
    other = jpeg(1, waste=300, side=32)
    other = jpeg(1, waste=300 + before.st_size - len(other), side=32)
    assert len(other) == before.st_size
    path.write_bytes(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert counts(optimize(site)[1]) == {"shrunk": 1}


WITH_FEW = f"""
import runpy, sys
sys.path.insert(0, {str(BIN.parent)!r})
from maintenance.jobs import optimize
optimize.FEW = 3
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_changed_recipe_is_spread_over_nights_unless_now_is_meant(site):
    for one in range(40):
        (site.store / f"{one}.txt").write_bytes(b"%d" % one)
    assert counts(optimize(site)[1]) == {"kept": 40}
    wrap = [BIN.parent / ".venv/bin/python3", "-I", "-c", WITH_FEW]
    site.settings["optimize"]["min_gain"] = "5%"
    site.write_config()
    site.image("new.jpg", jpeg())
    assert counts(optimize(site, wrap=wrap)[1]) == {"shrunk": 1, "kept": 4, "left": 36}
    assert counts(optimize(site, wrap=wrap)[1]) == {"current": 1, "kept": 8, "left": 32}
    assert counts(optimize(site, "--now", wrap=wrap)[1]) == {"current": 1, "kept": 40}
    site.settings["optimize"]["min_gain"] = "6%"
    site.write_config()
    assert counts(optimize(site)[1]) == {"kept": 41}, "so few are no burden for one night"


def test_a_changed_recipe_makes_everything_due_again(site):
    site.image("a.jpg", jpeg())
    site.image("text.txt", b"no image at all" * 200)
    optimize(site)
    site.settings["optimize"]["min_gain"] = "5%"
    site.write_config()
    assert counts(optimize(site, "--dry-run")[1]) == {"left": 2}
    assert counts(optimize(site)[1]) == {"kept": 2}
    assert site.coverage()["bytes_saved"] >= 5000, "what an earlier recipe saved still counts"


def test_hostile_names_are_worked_on_like_any_other(site):
    paths = [site.image(b"d/" + name if name.startswith(b"-") else name, jpeg(one))
             for one, name in enumerate(HOSTILE)]
    site.update()
    shown = [pixels(path) for path in paths]
    sizes = [os.stat(path).st_size for path in paths]
    status, result = optimize(site)
    assert (status, counts(result)) == (0, {"shrunk": len(HOSTILE)})
    assert [pixels(path) for path in paths] == shown
    assert all(os.stat(path).st_size <= size - 5000
               for path, size in zip(paths, sizes, strict=True))
    assert not drafts(site)
    assert sum(len(files) for _, _, files in os.walk(site.store)) == len(HOSTILE)


def test_links_and_what_is_no_file_stay_as_they_are(site):
    outside = site.root / "outside.jpg"
    outside.write_bytes(jpeg())
    (site.store / "link.jpg").symlink_to(outside)
    one = site.image("one.jpg", jpeg())
    os.link(one, site.store / "other.jpg")
    os.mkfifo(site.store / "fifo.jpg")
    before = [same_file(path) for path in (outside, site.store / "link.jpg", one)]
    for _ in range(2):
        status, result = optimize(site)
        assert (status, counts(result)) == (0, {"kept": 2})
        assert result["kept_reasons"] == {"hard link": 2}
    assert [same_file(path) for path in (outside, site.store / "link.jpg", one)] == before
    (site.store / "other.jpg").unlink()
    assert counts(optimize(site)[1]) == {"shrunk": 1}, "it is no longer a hard link"


@pytest.mark.may_skip("not every file system has them")
def test_extended_attributes_stay_or_the_image_does(site):
    path = site.image("a.jpg", jpeg())
    try:
        os.setxattr(path, "user.caption", b"a view")
    except OSError:
        pytest.skip("no user attributes on this file system")
    assert counts(optimize(site)[1]) == {"shrunk": 1}
    assert os.getxattr(path, "user.caption") == b"a view"


def test_a_young_image_waits_for_the_next_run(site):
    site.write_config({"min_age": "1h"})
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    assert counts(optimize(site)[1]) == {"left": 1}
    assert same_file(path) == before
    site.write_config({"min_age": "0s"})
    assert counts(optimize(site)[1]) == {"shrunk": 1}


# --- tools


def png(seed=0):
    """A PNG that can become much smaller."""
    picture = Image.frombytes("RGB", (64, 64), bytes((seed + n // 64) % 256
                                                     for n in range(64 * 64 * 3)))
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=0)
    return stream.getvalue()


OPTIPNG, JPEGTRAN = "/usr/bin/optipng", "/usr/bin/jpegtran"
LIES = {"an empty file": ': > "$result"', "nothing": ":",
        "another picture": 'cp "$other" "$result"',
        "half a picture": 'head -c 900 "$2" > "$result"'}


@pytest.mark.parametrize("lie", LIES)
def test_a_tool_that_reports_success_is_not_believed(site, lie):
    a, b = site.image("a.png", png()), site.image("b.jpg", jpeg())
    with Image.open(os.fsdecode(a)) as picture:
        Image.new("RGB", picture.size).save(site.root / "other.png")
    liar = site.root / "liar"
    liar.write_text('#!/bin/sh\ncase $1 in -*version) exit 0; esac\n'
                    'while case $1 in -out*) false; esac; do shift; done\nshift; result=$1\n'
                    f'other={site.root}/other.png\n{LIES[lie]}\nexit 0\n')
    liar.chmod(0o755)
    site.settings["optimize"] |= {"png": "optipng", "jpeg": "jpegtran", "sandbox": "off"}
    site.write_config()
    shown, before = [pixels(path) for path in (a, b)], same_file(a)
    with Namespace(f"mount --bind {liar} {OPTIPNG} && mount --bind {liar} {JPEGTRAN}") as lying:
        status, result = optimize(site, wrap=lying.wrap)
    assert (status, result["stores"][0]["considered"]) == (0, 2)
    assert [pixels(path) for path in (a, b)] == shown
    assert same_file(a) == before
    site.settings["optimize"] |= {"min_gain": "1%"}  # as it is, it would be kept for what it was
    site.write_config()
    optimize(site)
    assert os.stat(a).st_size < before[1] / 2, "the real one can do it"
    assert [pixels(path) for path in (a, b)] == shown


def test_a_tool_that_is_missing_is_replaced_and_the_log_says_so(site):
    path = site.image("a.jpg", jpeg(waste=0, side=256))
    [package] = (BIN.parent / ".venv/lib").glob("python3.*/site-packages/mozjpeg_*.dist-info")
    with Namespace(f"mount -t tmpfs tmpfs {package}") as without:
        status, result = optimize(site, wrap=without.wrap)
    assert (status, counts(result)) == (0, {"shrunk": 1})
    log = (site.root / "logs/optimize.log").read_text()
    assert log.count("is not installed: jpegtran works in its place") == 1
    with Image.open(os.fsdecode(path)) as image:
        assert image.info["progressive"]


@pytest.mark.parametrize("tool", [OPTIPNG, JPEGTRAN])
def test_a_tool_that_was_asked_for_and_is_missing_is_one_line(site, tool):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    site.settings["optimize"] |= {"png": "optipng", "jpeg": "jpegtran"}
    site.write_config()
    with hidden(tool) as without:
        one_line(site.run("optimize-images", wrap=without.wrap), Path(tool).name)
    assert same_file(path) == before


# --- scanned before it is published


def test_an_infected_draft_is_never_published(site):
    path = site.image("a.jpg", infected_jpeg())
    site.image("b.jpg", jpeg())
    site.update()
    before = same_file(path)
    status, result = optimize(site)
    assert (status, result["outcome"], counts(result)) == (
        3, "incomplete", {"shrunk": 1, "undone": 1})
    assert "infected (Test.Bad.UNOFFICIAL)" in result["undone"][0]["reason"]
    assert same_file(path) == before
    assert not drafts(site)
    status, result = optimize(site)
    assert (status, counts(result)) == (0, {"kept": 1, "current": 1})
    known = site.coverage()
    assert (known["clean_current"], known["never"]) == (1, 1), "the draft's verdict is not its own"
    assert site.rescan()[0] == 4


def test_what_cannot_be_scanned_is_not_published(site):
    path = site.image("a.jpg", jpeg(side=256))
    site.image("b.jpg", jpeg())
    site.settings["clamav"]["max_file_size"] = "8K"
    site.write_config()
    site.update()
    before = same_file(path)
    status, result = optimize(site)
    assert (status, counts(result)) == (3, {"shrunk": 1, "undone": 1})
    assert "not scanned" in result["undone"][0]["reason"]
    assert same_file(path) == before
    assert counts(optimize(site)[1]) == {"kept": 1, "current": 1}


def test_a_scan_that_fails_today_is_tried_again_tomorrow(site):
    def no_memory(talk):
        """Pass everything on to clamd, but for files, which come in a session."""
        if talk.link.recv(100, socket.MSG_PEEK).startswith(b"zIDSESSION"):
            talk.await_scans(1)
            talk.say(b"1: fd[9]: Can't allocate memory ERROR\0")
            talk.drain()
            return
        with socket.socket(socket.AF_UNIX) as clamd:
            clamd.connect(str(site.socket))
            ends = {talk.link: clamd, clamd: talk.link}
            while data := (end := select.select(ends, [], [])[0][0]).recv(65536):
                ends[end].sendall(data)

    site.image("a.jpg", jpeg())
    with with_a_system_clamd(site):
        site.update()
        site.settings["clamav"]["socket"] = str(site.root / "busy.sock")
        site.write_config()
        with Peer(site.root / "busy.sock", no_memory):
            for _ in range(2):
                status, result = optimize(site)
                assert (status, counts(result)) == (3, {"undone": 1}), result
                assert "not scanned: clamd: Can't allocate" in result["undone"][0]["reason"]
        site.settings["clamav"]["socket"] = str(site.socket)
        site.write_config()
        assert counts(optimize(site)[1]) == {"shrunk": 1}


def test_without_an_engine_nothing_is_published_and_the_run_fails_in_one_line(site):
    paths = [site.image(f"{one}.jpg", jpeg(one)) for one in range(4)]
    site.update()
    before = [same_file(path) for path in paths]
    with hidden(str(CLAMD)) as nowhere:
        ended = site.run("optimize-images", "--json", wrap=nowhere.wrap)
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert "clamd is not installed" in ended.err
    assert counts(ended.json) == {"left": 4}
    assert [same_file(path) for path in paths] == before
    assert not drafts(site)
    assert counts(optimize(site)[1]) == {"shrunk": 4}


def test_definitions_that_cannot_be_looked_at_fail_the_run_and_no_image(site):
    site.image("a.jpg", jpeg())
    (site.root / "file").write_text("where a directory should be")
    site.settings["clamav"]["databases"] = str(site.root / "file")
    site.write_config()
    for _ in range(2):
        ended = site.run("optimize-images", "--json")
        assert (ended.status, ended.err.count("\n"), counts(ended.json)) == (1, 1, {"left": 1})
        assert ended.json["error"].endswith("Not a directory")
    del site.settings["clamav"]["databases"]
    site.write_config()
    assert counts(optimize(site)[1]) == {"shrunk": 1}


def test_a_site_without_definitions_yet_is_optimised_and_stays_never_checked(site):
    site.image("a.jpg", jpeg())
    assert counts(optimize(site)[1]) == {"shrunk": 1}
    assert (site.coverage()["never"], site.coverage()["clean_current"]) == (1, 0)
    site.update()
    site.image("b.jpg", jpeg())
    shutil.rmtree(site.databases)
    status, result = optimize(site)
    assert (status, counts(result)) == (1, {"current": 1, "left": 1})
    assert "definitions" in result["error"], "there were some: this is not the same"


def with_a_system_clamd(site):
    site.settings["clamav"]["engine"] = "system"
    site.write_config()
    site.run("update-definitions", "--no-rescan")
    return site.clamd()


def test_a_system_engine_gets_the_draft_by_descriptor_and_has_to_be_proven(site):
    private = site.root / "store/private"
    path = site.image("private/a.jpg", jpeg())
    bad = site.image("bad.jpg", infected_jpeg())
    private.chmod(0o700)
    with with_a_system_clamd(site):
        site.update()
        assert counts(optimize(site)[1]) == {"shrunk": 1, "undone": 1}
        site.image("b.jpg", jpeg(2))
        (site.databases / "more.ndb").write_text(body_signature("Test.More", b"more" * 10))
        status, result = optimize(site)
        assert (status, counts(result)) == (1, {"current": 1, "kept": 1, "left": 1})
        assert "not proven" in result["error"]
    assert os.stat(path).st_size < 5000 < os.stat(bad).st_size


# --- under our hands


def meddling(site, lines):
    """A namespace in which shell lines run when the first draft is ready to be scanned."""
    real = site.root / "clamd-real"
    if not real.exists():
        shutil.copy(CLAMD, real)
    wrapper = site.root / "clamd"
    wrapper.write_text(f"#!/bin/sh\n[ -e {real}.met ] || {{ {lines}; }}\n: > {real}.met\n"
                       f"exec {real} \"$@\"\n")
    wrapper.chmod(0o755)
    return Namespace(f"mount --bind {wrapper} {CLAMD}")


DEEDS = {  # what somebody does meanwhile, what is then there, and what the next run makes of it
    "changed": ("printf changed >> a.jpg", ["a.jpg"], {"shrunk": 1}),
    "replaced": ("cp -p a.jpg new; mv new a.jpg", ["a.jpg"], {"shrunk": 1}),
    "linked": ("ln a.jpg b.jpg", ["a.jpg", "b.jpg"], {"kept": 2}),
    "removed": ("rm a.jpg", [], {}),
    "moved": ("mkdir sub; mv a.jpg sub", ["sub", "sub/a.jpg"], {"shrunk": 1}),
    "a link": ("mv a.jpg b.jpg; ln -s b.jpg a.jpg", ["a.jpg", "b.jpg"], {"shrunk": 1}),
    "a directory": ("mv a.jpg b.jpg; mkdir a.jpg", ["a.jpg", "b.jpg"], {"shrunk": 1}),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_others_do_with_an_image_meanwhile_stands(site, deed):
    lines, there, next_time = DEEDS[deed]
    site.image("a.jpg", jpeg())
    site.image("other.txt", b"that the store is not empty")
    site.update()
    with meddling(site, f"cd {site.store}; {lines}; cd /") as meddler:
        status, result = optimize(site, wrap=meddler.wrap)
    assert (status, counts(result)) == (0, {"kept": 1, "left": 1})
    found = sorted(str(path.relative_to(site.store)) for path in site.store.rglob("*"))
    assert found == sorted([*there, "other.txt"]), "and no droppings"
    for path in site.store.rglob("*.jpg"):
        if path.is_file():
            assert path.read_bytes() == jpeg() + b"changed" * (deed == "changed")
    expected = {"kept": 1 + next_time.get("kept", 0),
                **({"shrunk": 1} if "shrunk" in next_time else {})}
    assert counts(optimize(site)[1]) == expected


def test_drafts_of_a_killed_run_go_and_only_those(site):
    (site.store / "sub").mkdir()
    mine, alive = site.store / "sub" / DRAFT.decode(), site.store / DRAFT.decode()
    others = [site.store / ".imagewarden-upload-0123456789abcdef",
              site.store / (DRAFT.decode() + ".jpg")]
    for path in (mine, alive, *others):
        path.write_bytes(b"half an image")
    link = site.store / "sub" / DRAFT.decode().replace("0", "f")
    link.symlink_to(others[0])
    with alive.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        optimize(site, "--dry-run")
        assert mine.exists()
        status, result = optimize(site)
    assert (status, counts(result)) == (0, {})
    assert not mine.exists()
    assert alive.exists(), "a run that lives holds it"
    assert link.is_symlink()
    assert all(path.exists() for path in others)


# --- full, read-only, not there


def one_line(ended, word):
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert word in ended.err, ended.err


def test_a_read_only_store_is_one_line(site):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    with Namespace(f"mount --bind {site.store} {site.store}"
                   f" && mount -o remount,bind,ro {site.store}") as frozen:
        ended = site.run("optimize-images", "--json", wrap=frozen.wrap)
        one_line(ended, "read-only")
        assert "uploads" in ended.err
        assert counts(ended.json) == {"left": 1}
    assert same_file(path) == before


def small_scratch(site):
    """Mounts that make the temporary directory small; our own files may lie below it."""
    if not ROOT:
        (site.root / "scratch").mkdir()
        return site.root / "scratch", f"mount -t tmpfs -o size=15m tmpfs {site.root}/scratch"
    ours = (BIN.parent, site.root)
    again = " && ".join(f"mkdir -p {path} && mount -c --bind /proc/self/fd/{fd} {path}"
                        for fd, path in enumerate(ours, 8))
    return Path("/tmp"), (f"exec 8<{ours[0]} 9<{ours[1]} && mount -t tmpfs"
                          f" -o size=15m,mode=1777 tmpfs /tmp && {again}")


def test_too_little_scratch_room_ends_the_run(site):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    scratch, mounts = small_scratch(site)
    with Namespace(mounts) as small:
        ended = site.run("optimize-images", "--json",
                         wrap=[*small.wrap, "env", f"TMPDIR={scratch}"])
    one_line(ended, str(scratch))
    assert counts(ended.json) == {"left": 1}
    assert same_file(path) == before


def test_too_little_room_in_the_store_ends_the_run(site):
    site.image("a.jpg", jpeg())
    shutil.copytree(site.store, site.root / "kept")
    with Namespace(f"mount -t tmpfs -o size=15m tmpfs {site.store}"
                   f" && cp -a {site.root}/kept/. {site.store}") as small:
        ended = site.run("optimize-images", "--json", wrap=small.wrap)
        one_line(ended, 'store "uploads"')
        assert counts(ended.json) == {"left": 1}
        assert small.run(f"cmp {site.root}/kept/a.jpg {site.store}/a.jpg && ls -A {site.store}"
                         ) == "a.jpg\n"


def test_a_state_that_is_full_ends_the_run_and_the_next_one_completes(site):
    for one in range(20):
        site.image(f"{one}.jpg", jpeg(one))
    shown = {one: pixels(site.store / f"{one}.jpg") for one in range(20)}
    site.state.mkdir(mode=0o700)
    with Namespace(f"mount -t tmpfs -o mode=700,size=1m tmpfs {site.state}") as room:
        site.run("store-status", wrap=room.wrap)
        room.run(f"dd if=/dev/zero of={site.state}/filler bs=1k 2>&- || :")
        ended = site.run("optimize-images", "--json", wrap=room.wrap)
        assert ended.status == 1
        assert "Traceback" not in ended.err
        assert not drafts(site)
        room.run(f"rm {site.state}/filler")
        status, result = optimize(site, wrap=room.wrap)
        assert (status, counts(result).get("left")) == (0, None)
    assert {one: pixels(site.store / f"{one}.jpg") for one in range(20)} == shown
    assert all((site.store / f"{one}.jpg").stat().st_size < 5000 for one in range(20))


@pytest.mark.parametrize("fault", ["gone", "no marker", "suddenly empty"])
def test_a_store_that_is_not_there_fails_and_is_not_forgotten(site, fault):
    site.image("a.jpg", jpeg())
    optimize(site)
    if fault == "no marker":
        site.write_config({"marker": ".mounted"})
    else:
        site.store.rename(site.root / "elsewhere")
        if fault == "suddenly empty":
            site.store.mkdir()
    ended = site.run("optimize-images", "--json")
    one_line(ended, "uploads")
    assert site.coverage()["images"] == 1


# --- when


def clock(hours):
    return time.strftime("%H:%M", time.localtime(time.time() + hours * 3600))


def test_outside_the_window_nothing_is_even_looked_at(site):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    site.settings["optimize"]["window"] = f"{clock(2)}-{clock(3)}"
    site.write_config()
    site.store.rename(site.root / "elsewhere")
    ended = site.run("optimize-images", "--json")
    assert (ended.status, ended.err, ended.json["outcome"], ended.json["stores"]) == (
        0, "", "closed", [])
    (site.root / "elsewhere").rename(site.store)
    assert same_file(path) == before
    assert counts(optimize(site, "--now")[1]) == {"shrunk": 1}
    site.image("b.jpg", jpeg())
    site.settings["optimize"]["window"] = f"{clock(-1)}-{clock(1)}"
    site.write_config()
    assert counts(optimize(site)[1]) == {"shrunk": 1, "current": 1}


def test_the_window_ends_in_the_middle_and_the_next_night_goes_on(site):
    for one in range(30):
        site.image(f"{one}.jpg", jpeg(one))
    site.update()
    site.settings["optimize"]["window"] = "03:00-05:30"
    site.write_config()
    clock = site.root / "now"
    clock.write_text("@2026-11-20 05:29:00")
    faked = ["env", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1",
             f"LD_PRELOAD={FAKETIME}", "TZ=UTC"]
    with meddling(site, f"echo '@2026-11-20 05:30:00' > {clock}") as meddler:
        status, result = optimize(site, wrap=[*meddler.wrap, *faked])
    done = counts(result)
    assert (status, result["outcome"], done["shrunk"] + done["left"]) == (0, "done", 30)
    assert 0 < done["shrunk"] <= 4 < done["left"], "what was at hand, and no more"
    assert not drafts(site)
    clock.write_text("@2026-11-20 23:00:00")
    assert optimize(site, wrap=faked)[1]["outcome"] == "closed"
    clock.write_text("@2026-11-21 03:00:00")
    assert counts(optimize(site, wrap=faked)[1]) == {
        "shrunk": done["left"], "current": done["shrunk"]}


SKIPPED, TWICE = 1774746000, 1792890000  # when Berlin's clocks go from 2 to 3, and from 3 to 2


@pytest.mark.parametrize(("moment", "opened"), [
    (SKIPPED - 900, False), (SKIPPED, False), (SKIPPED + 900, False),
    (TWICE - 4500, False), (TWICE - 2700, True), (TWICE + 900, True), (TWICE + 3600, False)])
def test_in_the_nights_on_which_clocks_change_the_clock_on_the_wall_decides(site, moment, opened):
    site.image("a.jpg", jpeg())
    site.settings["optimize"]["window"] = "02:00-03:00"
    site.write_config()
    wrap = ["env", "TZ=Europe/Berlin", f"LD_PRELOAD={FAKETIME}",
            f"FAKETIME={moment + 1 - time.time():+.0f}s"]
    status, result = optimize(site, wrap=wrap)
    assert (status, result["outcome"]) == (0, "done" if opened else "closed")
    assert (site.store / "a.jpg").stat().st_size < 5000 or not opened


def test_everybody_else_comes_first_for_the_processor_and_the_disk(site):
    site.image("a.jpg", jpeg())
    site.update()
    told = site.root / "told"
    with meddling(site, f"(nice; ionice -p $$) > {told}") as meddler:
        optimize(site, wrap=meddler.wrap)
    nice, order = told.read_text().splitlines()
    assert int(nice) == min(19, os.nice(0) + 10)
    assert order == "best-effort: prio 7"


def test_a_terminal_shows_what_is_saved_so_far(site):
    for one in range(40):
        site.image(f"{one}.jpg", jpeg(one, waste=60_000))
    status, shown = on_terminal(site.command("optimize-images"))
    assert status == 0, shown
    assert re.search(r"uploads: +\d+%.* (0\.[1-9]|[1-9][0-9.]*) MB saved", shown), shown
    assert "uploads: 40 images, 40 made smaller" in shown
    assert re.search(r"jpeg: 40 made smaller, \d+ bytes saved of \d+ \(9\d\.\d%\)", shown)


def test_a_time_limit_leaves_the_rest_and_changes_no_status(site):
    for one in range(3):
        site.image(f"{one}.jpg", jpeg(one))
    status, result = optimize(site, "--time-limit", "0.001s")
    assert (status, result["outcome"], counts(result), result["left"]) == (
        0, "done", {"left": 3}, 3)


def test_a_busy_host_is_waited_for_and_a_signal_ends_the_wait(site):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    site.settings["optimize"]["max_load"] = 0.5
    site.write_config()
    (site.root / "loadavg").write_text("9999.00 9999.00 9999.00 1/1 1\n")
    with Namespace(f"mount --bind {site.root}/loadavg /proc/loadavg") as busy:
        status, result = optimize(site, "--time-limit", "1s", wrap=busy.wrap)
        assert (status, counts(result)) == (0, {"left": 1})
        with started([*busy.wrap, *site.command("optimize-images", "--json")]) as job:
            log = site.root / "logs/optimize.log"
            wait_until(lambda: log.read_text().count("waiting") == 2)
            job.terminate()
            out, _ = job.communicate(timeout=20)
        assert (job.returncode, counts(json.loads(out))) == (143, {"left": 1})
        assert same_file(path) == before
        assert counts(optimize(site, "--now", wrap=busy.wrap)[1]) == {"shrunk": 1}


# --- PATHs


def test_only_what_is_named_is_worked_on(site):
    a, b = site.image("one/a.jpg", jpeg()), site.image("two/b.jpg", jpeg(1))
    c = site.image("cache/c.jpg", jpeg(2))
    site.write_config({"exclude": ["cache/**"]})
    before = [same_file(path) for path in (b, c)]
    status, result = optimize(site, site.store / "one", a, site.store / "cache")
    assert (status, counts(result)) == (0, {"shrunk": 1, "kept": 1})
    assert result["kept_reasons"] == {"excluded": 1}
    assert [same_file(path) for path in (b, c)] == before
    assert counts(optimize(site, site.store / "one")[1]) == {"current": 1}
    assert counts(optimize(site)[1]) == {"shrunk": 1, "current": 1}


def test_a_path_outside_every_store_is_refused_before_anything_is_done(site):
    path, other = site.image("a.jpg", jpeg()), site.root / "other.jpg"
    other.write_bytes(jpeg())
    before = [same_file(one) for one in (path, other)]
    for strange in (other, site.root / "missing.jpg"):
        ended = site.run("optimize-images", path, strange)
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1), ended
        assert str(strange) in ended.err
    assert [same_file(one) for one in (path, other)] == before
    status, result = optimize(site, site.store / "missing.jpg")
    assert (status, counts(result)) == (3, {"undone": 1})


def test_an_empty_path_is_not_where_one_is(site):
    before = same_file(site.image("a.jpg", jpeg()))
    site.update()
    for script in ("optimize-images", "rescan-store"):
        ended = site.run(script, "", wrap=("env", "-C", site.store))
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert same_file(site.store / "a.jpg") == before


@pytest.mark.parametrize("fault", ["no path", "no marker"])
def test_a_path_in_a_store_that_is_not_there_is_a_failure_and_recorded(site, fault):
    path = site.image("a.jpg", jpeg())
    if fault == "no path":
        site.store.rename(site.root / "elsewhere")
    else:
        site.write_config({"marker": ".mounted"})
    ended = site.run("optimize-images", "--json", path)
    assert (ended.status, ended.err.count("\n")) == (1, 1), ended
    assert ended.json["error"].startswith('store "uploads": ')
    assert site.run("store-status", "--json").json["jobs"][0]["outcome"] == "failed"


def test_a_dry_run_says_what_is_due_and_changes_nothing(site):
    path = site.image("a.jpg", jpeg())
    before = same_file(path)
    for paths in ((), (path,)):
        status, result = optimize(site, "--dry-run", *paths)
        assert (status, counts(result)) == (0, {"left": 1})
    assert same_file(path) == before
    assert site.coverage()["images"] == 0


def test_a_dry_run_counts_what_changed_or_went_since_the_last_run_once(site):
    for one in range(6):
        site.image(f"{one}.jpg", jpeg(one))
    site.image("text.txt", b"no image")
    optimize(site)
    for name in ("0.jpg", "text.txt"):
        site.image(name, jpeg(7))
    site.image("new.jpg", jpeg(8))
    for name in ("1.jpg", "2.jpg"):
        (site.store / name).unlink()
    for arguments in (("--dry-run",), ("--dry-run", site.store)):
        assert counts(optimize(site, *arguments)[1]) == {"left": 3, "current": 3}
    assert counts(optimize(site)[1]) == {"shrunk": 3, "current": 3}


# --- ends


def small(site, names):
    return sum((site.store / name).stat().st_size < 5000 for name in names)


def test_sigterm_abandons_the_images_at_hand_and_records_the_run(site):
    names = [f"{one}.jpg" for one in range(300)]
    content = [jpeg(one, waste=20_000) for one in range(3)]
    for one, name in enumerate(names):
        site.image(name, content[one % 3])
    with started(site.command("optimize-images", "--json")) as job:
        wait_until(lambda: small(site, names) >= 5)
        children = family(job.pid)
        job.send_signal(signal.SIGTERM)
        out, err = job.communicate(timeout=20)
    assert b"Traceback" not in err
    result = json.loads(out)
    assert (job.returncode, result["outcome"]) == (143, "failed")
    done = counts(result)
    assert 5 <= done["shrunk"] < 300
    assert done["shrunk"] + done["left"] == 300
    assert small(site, names) == done["shrunk"], "no image is half done"
    assert not drafts(site)
    wait_until(lambda: not any(map(lives, children)), 10)
    assert site.run("store-status", "--json").json["jobs"][0]["outcome"] == "failed"
    status, result = optimize(site)
    assert (status, counts(result).get("left")) == (0, None)
    assert small(site, names) == 300


def test_an_engine_that_dies_is_replaced_by_another(site):
    names = [f"{one:03}.jpg" for one in range(60)]
    content = jpeg()
    for name in names:
        site.image(name, content)
    site.update()
    with started(site.command("optimize-images", "--json")) as job:
        wait_until(lambda: small(site, names) >= 3)
        os.kill(named(family(job.pid), "clamd")[0], signal.SIGKILL)
        out, err = job.communicate(timeout=120)
    assert b"the engine was lost" in err
    assert (job.returncode, counts(json.loads(out))) == (0, {"shrunk": 60})
    assert site.coverage()["clean_current"] == 60


def test_a_system_engine_that_dies_leaves_the_rest_to_the_next_run(site):
    names = [f"{one:03}.jpg" for one in range(100)]
    content = jpeg()
    for name in names:
        site.image(name, content)
    with with_a_system_clamd(site) as daemon:
        site.update()
        with started(site.command("optimize-images", "--json")) as job:
            wait_until(lambda: small(site, names) >= 3)
            daemon.kill()
            out, err = job.communicate(timeout=120)
    assert b"Traceback" not in err
    result = json.loads(out)
    done = counts(result)
    assert (job.returncode, result["outcome"]) == (3, "incomplete")
    assert done["shrunk"] == small(site, names) == site.coverage()["clean_current"]
    assert done["left"] == 100 - done["shrunk"] > 0
    assert not drafts(site)


@contextmanager
def draft_scanning(site):
    """A DraftScan outside any job, and an open file that is clean."""
    site.image("a.jpg")
    site.update()
    with Ledger.open(site.state) as ledger, (site.store / "a.jpg").open("rb") as stream:
        context = SimpleNamespace(config=configuration.load(str(site.config)), ledger=ledger,
                                  log=logging.getLogger("test"))
        with DraftScan(context) as scan:
            yield scan, stream.fileno()


@pytest.mark.parametrize("fault", ["dies over it", "not what it was"])
def test_a_draft_that_costs_two_engines_is_given_up(site, monkeypatch, fault):
    mortal = site.root / "mortal.sock"
    moved = SimpleNamespace(holds=lambda: False)

    @contextmanager
    def engine(_config, _definitions):
        started_engines.append(1)
        dies = fault == "dies over it"
        yield Engine(Clamd(str(mortal if dies else site.socket)), 1, None, False,
                     None if dies else moved)

    started_engines = []
    monkeypatch.setattr(draft_scan, "proven_engine", engine)
    site.update()
    with site.clamd(), Peer(mortal, lambda talk: talk.await_scans(1)), \
            draft_scanning(site) as (scan, fd):
        for _ in range(2):
            with pytest.raises(NotClean, match="more than one engine"):
                scan.clean_at(fd)
        with pytest.raises(EngineError, match="were lost"):
            scan.clean_at(fd)
    assert len(started_engines) == draft_scan.ENGINES


def test_engines_that_take_no_session_are_no_drafts_fault(site, monkeypatch):
    @contextmanager
    def engine(_config, _definitions):
        yield Engine(Clamd(str(site.root / "nobody.sock")), 1, None, False, None)

    monkeypatch.setattr(draft_scan, "proven_engine", engine)
    with draft_scanning(site) as (scan, fd), pytest.raises(EngineError, match="were lost"):
        scan.clean_at(fd)


def test_definitions_that_come_meanwhile_are_used_from_the_next_draft_on(site):
    with draft_scanning(site) as (scan, fd):
        assert [scan.clean_at(fd), scan.clean_at(fd)] == [1, 1]
        site.feed(body_signature("Test.Clean", b"clean enough"))
        site.update()
        with pytest.raises(NotClean, match="Test.Clean"):
            scan.clean_at(fd)


def test_killed_at_every_file_operation_an_image_is_old_or_new(site, tmp_path_factory):
    old = jpeg()
    site.image("a.jpg", old)
    steps = killed_at_every_step(site, tmp_path_factory.mktemp("copies"), "optimize-images")
    assert len(steps) > 40
    assert {one["status"] for one in steps} == {0}
    ways = {json.dumps(counts(one["result"])) for one in steps}
    assert ways == {'{"shrunk": 1}', '{"current": 1}'}, "what was done is not done again"
    assert {json.dumps(one["left"]) for one in steps} == {json.dumps(steps[-1]["left"])}


# --- other people's images


@pytest.mark.skipif(not ROOT, reason="only root has other people's images to give")
@pytest.mark.may_skip("not everybody is root")
def test_root_keeps_whose_an_image_is(site):
    path = site.image("a.jpg", jpeg())
    os.chown(path, 33, 34)
    os.chmod(path, 0o4644)
    assert counts(optimize(site)[1]) == {"shrunk": 1}
    after = os.stat(path)
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (33, 34, 0o4644)


def test_an_image_that_is_closed_to_us_is_undone_once(site):
    path = Path(os.fsdecode(site.image("a.jpg", jpeg())))
    if ROOT:  # to whom nothing is closed
        reachable(site.root)
        site.top["user"] = "nobody"
        site.write_config()
        for one in (site.store, path):
            os.chown(one, 65534, 65534)
    path.chmod(0)
    status, result = optimize(site)
    assert (status, counts(result), result["undone"][0]["reason"]) == (
        3, {"undone": 1}, "Permission denied")
    status, result = optimize(site)
    assert (status, counts(result), result["kept_reasons"]) == (
        0, {"kept": 1}, {"Permission denied": 1})
    path.chmod(0o644)
    assert counts(optimize(site)[1]) == {"shrunk": 1}


@pytest.mark.skipif(not ROOT, reason="only root has other people's images to give")
@pytest.mark.may_skip("not everybody is root")
def test_another_owners_image_is_kept(site):
    reachable(site.root)
    site.top["user"] = "nobody"
    site.write_config()
    site.store.chmod(0o777)
    paths = [site.image(f"{one}.jpg", jpeg(one)) for one in range(2)]
    os.chmod(paths[1], 0)
    before = [same_file(one) for one in paths]
    for _ in range(2):
        status, result = optimize(site)
        assert (status, result["kept_reasons"]) == (0, {"another owner": 2}), result
    assert [same_file(one) for one in paths] == before
    os.chown(paths[0], 65534, 65534)
    assert counts(optimize(site)[1]) == {"kept": 1, "shrunk": 1}
    locked = site.image("locked/c.jpg", jpeg(3))
    os.chown(locked, 65534, 65534)
    for _ in range(2):
        reasons = optimize(site)[1]["kept_reasons"]
        assert reasons == {"another owner": 1, "its directory is not writable": 1}
