"""The demo keeps to its own directory, and shows what really happened."""

import io
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from maintenance.demo import claim
from maintenance.demo.telling import Story, watch
from maintenance.errors import Busy, ImagewardenError, ToolError, UsageError


@pytest.fixture
def open_way(tmp_path):
    """Let the demo's user pass to the temporary directory, as a claim by root asks for."""
    changed = [step for step in tmp_path.parents if not step.stat().st_mode & 0o001]
    before = {step: step.stat().st_mode for step in changed}
    for step in changed:
        step.chmod(before[step] | 0o011)
    tmp_path.chmod(0o755)
    yield tmp_path
    for step, mode in before.items():
        step.chmod(mode)


def test_a_claimed_directory_is_emptied_at_the_next_claim(open_way):
    with claim.claimed(open_way / "demo") as place:
        (place / "old").mkdir()
        (place / "old" / "file").touch()
        (place / "away").symlink_to("/etc")
    with claim.claimed(open_way / "demo") as place:
        assert [entry.name for entry in place.root.iterdir()] == [claim.MARKER]
    assert Path("/etc/passwd").is_file()


def test_a_directory_with_anything_else_in_it_is_refused_and_stays(open_way):
    theirs = open_way / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("precious")
    with pytest.raises(ImagewardenError, match="not a demo's"), claim.claimed(theirs):
        pass
    assert [entry.name for entry in theirs.iterdir()] == ["file"]


def test_a_link_is_refused_even_to_an_earlier_demo(open_way):
    with claim.claimed(open_way / "demo"):
        pass
    (open_way / "link").symlink_to("demo")
    with pytest.raises(ImagewardenError, match="not a directory"), claim.claimed(open_way / "link"):
        pass


def test_two_demos_do_not_share_a_directory(open_way):
    with (claim.claimed(open_way / "demo") as place, pytest.raises(Busy),
          claim.claimed(open_way / "demo")):
        pass
    with claim.claimed(place.root):
        pass


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\nb", "x" * 120, "a#b", "a%20b"])
def test_names_that_configuration_files_cannot_hold_are_refused(open_way, name):
    with pytest.raises(UsageError) as refused, claim.claimed(open_way / name):
        pass
    assert "\n" not in str(refused.value)
    assert not (open_way / name).exists()


@pytest.mark.may_skip("only root trusts others less than itself")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_trusts_no_way_that_others_can_change(open_way):
    (open_way / "loose").mkdir()
    (open_way / "loose").chmod(0o777)
    with (pytest.raises(ImagewardenError, match="others can change"),
          claim.claimed(open_way / "loose" / "demo")):
        pass
    assert not any((open_way / "loose").iterdir())


def test_a_program_sees_a_terminal_and_its_errors_are_kept_apart():
    seen = watch(["/bin/sh", "-c", "test -t 1 && echo seen; test -t 2 || echo bare >&2; exit 4"])
    assert (seen.status, seen.out, seen.err) == (4, "seen\n", "bare\n")


def test_more_output_than_a_terminal_buffers_is_read():
    seen = watch([sys.executable, "-c", "print('x' * 1000000)"])
    assert len(seen.out) == 1000001


def test_a_program_out_of_time_is_gone(tmp_path):
    before = time.monotonic()
    with pytest.raises(ToolError, match="no result after"):
        watch(["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], seconds=0.5)
    assert time.monotonic() - before < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_program_ended_by_a_signal_has_its_status():
    assert watch(["/bin/sh", "-c", f"kill -{signal.SIGTERM} $$"]).status == 143


def test_what_does_not_hold_ends_the_demo():
    story = Story(io.StringIO())
    story.check("it is", holds=True)
    with pytest.raises(ImagewardenError, match="not so: it is not"):
        story.check("it is not", holds=False)
    assert "\033" not in story.stream.getvalue()
