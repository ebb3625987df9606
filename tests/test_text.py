"""A name in a message: printable, one line, and no two names alike."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maintenance.text import show

# What escapes are made of, what needs them, and bytes that combine into characters.
PIECES = (b"\\", b'"', b"x", b"u", b"{", b"}", b"ff", b"85", b"\xff", b"\x85", b"\xc2",
          "\x85".encode(), "é".encode(), b"\n", b"\xed\xa0\x80", "\u202e".encode())
ODD = [b"\\", b'"', b"\\x", b"\\u{", b"}", b"ff", b"9b", b"\xff", b"\x9b", "\x9b".encode(),
       "\u2028".encode(), "\u202e".encode(), "\U000e0001".encode(), "é".encode(), b"\xc2",
       b"\xf0\x9f", b"\n", b"\r", b"\t", b"\x1b[31m", b"\x7f", b" ", "\xa0".encode()]
names = st.one_of(st.binary(max_size=12), st.lists(st.sampled_from(ODD), max_size=6).map(b"".join))


def test_no_two_names_look_alike_whatever_escapes_they_imitate():
    shown = {}
    for length in range(5):
        for pieces in itertools.product(PIECES, repeat=length):
            name = b"".join(pieces)
            assert shown.setdefault(show(name), name) == name


@given(names)
def test_every_name_is_one_printable_line(name):
    text = show(name)
    assert text.isprintable()
    assert len(text.splitlines()) <= 1
    assert bool(text) == bool(name)


@given(names, names)
def test_two_names_are_shown_alike_only_when_they_are_one(one, other):
    assert (show(one) == show(other)) == (one == other)


@given(names)
def test_a_name_reads_the_same_as_bytes_text_and_path(name):
    assert show(os.fsdecode(name)) == show(name)
    plain = name.replace(b"\0", b"").strip(b"/") or b"x"
    assert show(Path(os.fsdecode(plain))) == show(os.fsencode(Path(os.fsdecode(plain))))


@given(st.text(st.characters(exclude_categories=())))
def test_text_that_is_no_name_can_be_shown_too(text):
    assert show(text).isprintable()


@pytest.mark.parametrize(("name", "text"), [
    (b"holiday 1.jpg", "holiday 1.jpg"), ("größe.png".encode(), "größe.png"),
    (b"\xff", r"\xff"), (rb"\xff", r"\\xff"), (b"a\nb", r"a\u{a}b"), (b'"', r"\""),
    (b"\x1b[2J", r"\u{1b}[2J"), ("\u202egpj".encode(), r"\u{202e}gpj"), (b"", "")])
def test_names_are_shown_as_the_documents_say(name, text):
    assert show(name) == text
