"""clamd's replies: what is not exactly OK or FOUND is neither clean nor infected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.clamav.protocol import STREAM_LIMIT, answer, numbered
from maintenance.verdict import CLEAN, Verdict, infected

MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize("reply", ["fd[10]: OK", "stream: OK", "instream(local): OK",
                                   "instream(127.0.0.1@4711): OK"])
def test_ok_is_clean(reply):
    assert answer(reply) == CLEAN


@pytest.mark.parametrize(("reply", "signature"), [
    ("fd[10]: Win.Test.EICAR_HDB-1 FOUND", "Win.Test.EICAR_HDB-1"),
    ("stream: Test.Bad.UNOFFICIAL FOUND", "Test.Bad.UNOFFICIAL"),
    (f"fd[7]: Test.Bad.UNOFFICIAL({MD5}:53) FOUND", "Test.Bad.UNOFFICIAL"),
    (f"stream: Test.Bad({'0' * 64}:53) FOUND", "Test.Bad"),
    ("fd[7]: OK FOUND", "OK"), ("fd[7]: fd[8]: OK FOUND", "fd[8]: OK"),
    ("fd[7]: no reply from clamd FOUND", "no reply from clamd"),
    ("fd[7]: lstat() failed. ERROR FOUND", "lstat() failed. ERROR"),
    ("fd[7]: a\nb FOUND", "a\nb"), ("fd[7]: Test(1:2) FOUND", "Test(1:2)"),
    ("fd[7]: Heuristics.Broken.Media.PNG FOUND", "Heuristics.Broken.Media.PNG")])
def test_found_is_infected_and_names_the_signature(reply, signature):
    assert answer(reply) == infected(signature)


@pytest.mark.parametrize("limit", ["MaxFileSize", "MaxScanSize", "MaxScanTime", "MaxRecursion",
                                   "MaxFiles", "EmailLineFoldcnt"])
def test_a_limit_is_unknown_not_infected(limit):
    for mark in ("", f"({MD5}:3000000)"):
        found = answer(f"fd[9]: Heuristics.Limits.Exceeded.{limit}{mark} FOUND")
        assert found.verdict is Verdict.UNKNOWN
        assert f"Heuristics.Limits.Exceeded.{limit}" in found.reason


@pytest.mark.parametrize("reply", [
    "", "OK", " OK", "fd[10]:OK", "fd[10]:  OK", "fd[10]: OK ", "fd[10]: OK\n", "fd[10]: ok",
    "fd[10]: NOT OK", "fd[x]: OK", "fd[]: OK", "/store/a.jpg: OK", "x.jpg: OK: fd[10]: OK",
    "1: fd[10]: OK", "stream: OK\0", "FOUND", "x FOUND", "fd[10]: FOUND",
    "fd[10]: Test.BadFOUND", "fd[10]: Test.Bad FOUND ", "fd[10]: Test.Bad found",
    "fd[10]: Can't allocate memory ERROR", "fd[10]: lstat() failed: No such file. ERROR",
    "fd[10]: Access denied. ERROR", "UNKNOWN COMMAND", "PONG", "RELOADING",
    "COMMAND READ TIMED OUT", "No file descriptor received. ERROR", "stream: Size limit ERROR",
    "ClamAV 1.4.6/27000/Mon Nov 23 08:30:00 2026", "\udcff\udcfe", "O" * 100_000])
def test_anything_else_is_unknown(reply):
    found = answer(reply)
    assert found.verdict is Verdict.UNKNOWN
    assert found.signature is None
    assert found.reason


def test_a_stream_over_the_limit_is_told_clearly():
    assert STREAM_LIMIT == "INSTREAM size limit exceeded. ERROR"
    assert "StreamMaxLength" in answer(STREAM_LIMIT).reason


@given(st.text())
def test_no_text_is_clean_by_accident(text):
    assert answer(text).verdict is not Verdict.CLEAN
    if answer(f"fd[4]: {text}").verdict is Verdict.CLEAN:
        assert text == "OK"


@pytest.mark.parametrize(("reply", "split"), [
    ("1: fd[10]: OK", (1, "fd[10]: OK")), ("64: PONG", (64, "PONG")), ("7: ", (7, "")),
    ("12: a\nb", (12, "a\nb")), ("1: 2: OK", (1, "2: OK"))])
def test_a_reply_of_a_session_has_its_number(reply, split):
    assert numbered(reply) == split


@pytest.mark.parametrize("reply", ["", "1", "1:", "1:OK", ": OK", " 1: OK", "-1: OK", "+1: OK",
                                   "x: OK", "1.5: OK", "fd[10]: OK", "\u0663: OK",
                                   "9" * 5000 + ": OK"])
def test_a_reply_without_a_proper_number_has_none(reply):
    assert numbered(reply) is None
