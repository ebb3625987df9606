"""What is new between two generations of databases, and when only a full scan tells."""

import hashlib
import io
import tarfile
from contextlib import ExitStack

import pytest

from maintenance.clamav import difference as rules
from maintenance.clamav import fresh as arithmetic
from maintenance.clamav.databases import snapshot
from maintenance.clamav.delta import prepared
from maintenance.clamav.difference import FullNeeded, difference
from maintenance.clamav.facts_store import FactsGone, FactsStore
from maintenance.errors import ToolError

A, B, C = (f"Test.{name}:0:*:{name.encode().hex() * 8}\n" for name in "ABC")
HASH = "{}:12:Test.{}\n"
FP = HASH.format("0" * 32, "Good")
LDB = "Test.L;Engine:81-255,{};0&1;61626364;65666768\n"


@pytest.fixture
def between(tmp_path):
    """Derives the facts of two directories of files, and compares them."""
    def compare(old, new, engine="ClamAV 1", options="", write=False):
        store, prints = FactsStore(tmp_path / "facts"), []
        for name, files in (("old", old), ("new", new)):
            place = tmp_path / name
            place.mkdir()
            for file, content in files.items():
                (place / file).write_bytes(
                    content if isinstance(content, bytes) else content.encode())
            found = (snapshot(place), engine, options) if name == "new" else (
                snapshot(place), "ClamAV 1", "")
            store.derive(place, *found)
            prints.append(found[0].fingerprint(*found[1:]))
        if not write:
            return difference(store, *prints)
        with prepared(store, prints[0], place, snapshot(place), prints[1], write) as delta:
            return {path.name: path.read_text() for path in delta.where.iterdir()
                    if path.name != "filler.ndb"}
    return compare


@pytest.mark.parametrize(("old", "new", "lines"), [
    ({"a.ndb": A}, {"a.ndb": A + B}, 1),
    ({"a.ndb": A + B}, {"a.ndb": B + C + A}, 1),
    ({"a.ndb": A + B}, {"a.ndb": A}, 0),
    ({"a.ndb": A + B}, {"z.ndb": B, "y.ndb": A}, 0),
    ({"a.ndb": A}, {"a.ndb": (A + "# a comment\n" + A + B).replace("\n", "\r\n")}, 1),
    ({"a.ndb": A}, {"a.ndb": (A + B).rstrip("\n")}, 1),
    ({"a.hdb": HASH.format("1" * 32, "A")}, {"a.hsb": HASH.format("1" * 32, "A")}, 0),
    ({"a.ndb": A}, {"a.ndb": A, "a.ndu": B, "new.fp": FP}, 0),
    ({"a.ndb": A, "a.fp": FP}, {"a.ndb": A, "b.sfp": FP}, 0),
    ({"a.ndb": A}, {"a.ndb": A.replace(":0:", ":5:")}, 1),
    ({"a.ndb": A}, {"a.ndb": A, "u.ldb": LDB.format("Target:0")}, 1),
    ({"a.ndb": A, "x.ftm": "0:0:00:N:CL_TYPE_ANY:CL_TYPE_PNG:81\n"},
     {"a.ndb": A + B, "y.ftm": "0:0:00:N:CL_TYPE_ANY:CL_TYPE_PNG:81\n"}, 1),
    ({"a.ndb": A, "x.yara": "rule r {condition: true}"},
     {"a.ndb": A + B, "y.yar": "rule r {condition: true}"}, 1)])
def test_only_lines_that_were_nowhere_are_new(between, old, new, lines):
    assert between(old, new).lines == lines


@pytest.mark.parametrize(("old", "new", "reason"), [
    ({"a.fp": FP}, {"a.ndb": A}, "an exception ended (.fp)"),
    ({"a.ign2": "Test.X\n"}, {"a.ndb": A}, "an exception ended (.ign2)"),
    ({"a.wdb": "M:a:b\n"}, {"a.ndb": A}, "an exception ended (.wdb)"),
    ({"a.ndb": A}, {"a.ndb": A, "x.ftm": "0:0:00:N:CL_TYPE_ANY:CL_TYPE_PNG:81\n"},
     "settings changed (.ftm)"),
    ({"a.ndb": A}, {"a.ndb": A, "x.pwdb": "P;Engine:81-255;0;secret\n"},
     "settings changed (.pwdb)"),
    ({"a.idb": "x\n"}, {"a.idb": "y\n"}, "settings changed (.idb)"),
    ({"a.cfg": "PE:1\n"}, {"a.cfg": "PE:2\n"}, "settings changed (.cfg)"),
    ({"a.ndb": A}, {"a.ndb": A, "r.yara": "rule r {condition: true}"},
     "a database changed that counts only as a whole (.yar)"),
    ({"a.pdb": "R:a:b\n"}, {"a.pdb": "R:a:c\n"},
     "a database changed that counts only as a whole (.pdb)"),
    ({"a.ndb": A}, {"a.ndb": A, "e.ndb": ""}, "e.ndb is empty, and no engine loads such a file"),
    ({"a.ndb": A}, {"a.ndb": A, "h.ldb": LDB.format("Target:0,HandlerType:CL_TYPE_HTML")},
     "signatures with handler types changed"),
    ({"a.ndb": A}, {"a.ndb": A, "h.ldb": "Test.M;Engine:81-255,Target:0;0;${6-7}12$\n"},
     "signatures with macros changed"),
    ({"a.ndb": A}, {"a.ndb": A + "Test.N:0:*:6162[2-4]63646566\n"},
     "signatures with bytes at a distance changed")])
def test_what_changes_the_meaning_of_other_lines_needs_a_full_scan(between, old, new, reason):
    with pytest.raises(FullNeeded) as told:
        between(old, new)
    assert str(told.value) == reason


@pytest.mark.parametrize(("how", "reason"), [
    ({"engine": "ClamAV 2"}, "another engine: ClamAV 2, it was ClamAV 1"),
    ({"options": "MaxFileSize 1"}, "other scan options")])
def test_another_engine_needs_a_full_scan(between, how, reason):
    with pytest.raises(FullNeeded, match=reason):
        between({"a.ndb": A}, {"a.ndb": A + B}, **how)


def test_the_delta_has_the_new_lines_and_whole_what_they_need(between):
    beside = {"q.ign2": "Test.C\n", "g.fp": FP, "x.ftm": "0:0:00:N:CL_TYPE_ANY:CL_TYPE_PNG:81\n"}
    written = between({"a.ndb": A + C, **beside}, {"a.ndb": A + B + C, **beside},
                      write=["Test.A.UNOFFICIAL"])
    assert written.pop("other.ndb") == B + A, "B is new, A was asked for"
    assert sorted(written.values()) == sorted(beside.values())


@pytest.mark.parametrize(("line", "reason"), [
    (LDB.format("Target:1,IconGroup1:x"), "a new signature has icon groups (Test.L)"),
    ("Test.L;Engine:81-255,Target:0;0;0(>>4#ib2#>100)\n",
     "a new signature has byte comparisons (Test.L)")])
def test_a_new_line_may_need_all_others(between, line, reason):
    with pytest.raises(FullNeeded) as told:
        between({"a.ndb": A}, {"a.ndb": A, "u.ldb": line}, write=["x"])
    assert str(told.value) == reason


def test_an_exclusion_on_which_others_may_depend_needs_a_full_scan(between):
    macro = "Test.M;Engine:81-255,Target:0;0;${6-7}12$\n"
    with pytest.raises(FullNeeded, match="Test.M is excluded, on which others may depend"):
        between({"a.ldb": macro}, {"a.ldb": macro, "b.ndb": B, "x.ign2": "Test.M\n"}, write=["x"])


def container(**members):
    """A .cud, which is not signed."""
    listing = "ClamAV-VDB:x\n"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in members.items():
            name = name.replace("_", ".")
            listing += f"{name}:{len(text)}:{hashlib.sha256(text.encode()).hexdigest()}\n"
        for name, text in {**members, "x_info": listing}.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    head = "ClamAV-VDB:25 Nov 2026 08-00 +0000:7:2:90:x:x:builder:1764057600"
    return head.ljust(512).encode() + out.getvalue()


def test_lines_that_move_into_a_container_are_not_new(between):
    assert between({"a.ndb": A}, {"b.cud": container(own_ndb=A + B)}).lines == 1


def test_a_container_whose_member_is_not_what_it_lists_is_damaged(between):
    good = container(own_ndb=A)
    with pytest.raises(ToolError, match="damaged"):
        between({"a.ndb": A}, {"b.cud": good.replace(A[:20].encode(), B[:20].encode())})


def test_a_file_that_changed_since_it_was_hashed_gives_no_facts(tmp_path):
    (tmp_path / "a.ndb").write_text(A)
    content = snapshot(tmp_path)
    (tmp_path / "a.ndb").write_text(B)
    with pytest.raises(ToolError, match="it changed while it was read"):
        FactsStore(tmp_path / "facts").derive(tmp_path, content, "x", "")


def test_facts_that_nobody_uses_go_and_damaged_ones_are_not_believed(tmp_path):
    (tmp_path / "a.ndb").write_text(A)
    content, store = snapshot(tmp_path), FactsStore(tmp_path / "facts")
    for engine in "xy":
        store.derive(tmp_path, content, engine, "")
    one, other = (content.fingerprint(engine, "") for engine in "xy")
    assert len(list(store.place.iterdir())) == 3, "what they have in common once"
    store.prune([other])
    assert store.load(other).engine == "y"
    with pytest.raises(FactsGone):
        store.load(one)
    with (store.place / f"{other}.facts").open("r+b") as stream:
        stream.seek(30)
        stream.write(b"\0")
    with pytest.raises(FactsGone):
        store.load(other)


def test_too_much_that_is_new_is_nothing_small(between, monkeypatch):
    monkeypatch.setattr(arithmetic, "MOST", 4)
    monkeypatch.setattr(arithmetic, "_PIECE", 2)
    lines = "".join(f"Test.{n}:0:*:{n:016x}\n" for n in range(6))
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(FullNeeded, match="lines are new"))
        between({"a.ndb": A}, {"a.ndb": A + lines})
    assert rules.MOST > 4
