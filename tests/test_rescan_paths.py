"""One-off scans of trees in which stores, quarantines, mounts and oddities lie."""

import os
import socket
from pathlib import Path

import pytest

from tests.processes import ROOT, Namespace
from tests.site import BAD

pytestmark = pytest.mark.server
TAKE = ("--action", "quarantine")


@pytest.fixture
def srv(site):
    """A site whose store and quarantine lie in one directory, with something else; that."""
    place = site.root / "srv"
    (place / "else").mkdir(parents=True)
    site.store.rename(place / "uploads")
    site.store.symlink_to(place / "uploads")
    site.write_config(store={"quarantine": str(place / ".quarantine")})
    site.image("a.jpg")
    site.image("b.jpg", BAD)
    site.image("sub/c.jpg", BAD)
    (place / "else/d.jpg").write_bytes(BAD)
    site.update()
    return place


def met(result):
    return {(one["store"], one["path"]): one["action"] for one in result["infected"]}


@pytest.mark.parametrize("above", [True, False])
def test_a_path_that_is_or_holds_a_store_is_worked_like_it_and_the_rest_is_left(site, srv, above):
    path = srv if above else srv / "uploads"
    outside = {(None, str(srv / "else/d.jpg")): "reported"} if above else {}
    status, result = site.rescan(*TAKE, path)
    assert (status, met(result)) == (4, outside | {
        ("uploads", "b.jpg"): "quarantined", ("uploads", "sub/c.jpg"): "quarantined"})
    assert (srv / "else/d.jpg").read_bytes() == BAD
    store = next(one for one in result["stores"] if one["name"] == "uploads")
    known = site.coverage()
    assert {key: store[key] for key in ("clean_current", "clean_older", "never", "oldest_check")
            } == {key: known[key] for key in ("clean_current", "clean_older", "never",
                                              "oldest_check")}
    assert store["clean_current"] == 1
    assert all(one["never"] is None for one in result["stores"] if one["name"] is None)
    status, result = site.rescan(*TAKE, path)
    assert (status, result["undone"], met(result)) == (4 if above else 0, [], outside)
    assert site.rescan(srv / ".quarantine")[1]["undone_total"] == (0 if ROOT else 2)


def test_a_named_store_that_is_not_mounted_is_undone_not_fine(site, srv):
    site.write_config(store={"marker": ".mounted"})
    for path in (srv, srv / "uploads"):
        status, result = site.rescan(path)
        assert status == 4
        assert [(one["store"], one["path"]) for one in result["undone"]] == [("uploads", ".")]
        assert "is it mounted" in result["undone"][0]["reason"]
    assert site.rescan(srv / "uploads/a.jpg")[0] == 0
    (srv / "uploads").rename(site.root / "away")
    assert site.rescan(srv)[1]["undone"][0]["reason"].endswith("not there")


@pytest.mark.may_skip("needs a mount of our own")
def test_a_mount_below_a_named_tree_is_undone_and_scanned_when_it_is_named_too(site, srv):
    (srv / "uploads/m").mkdir()
    with Namespace(f"mount -t tmpfs tmpfs {srv}/uploads/m && cp {srv}/uploads/b.jpg"
                   f" {srv}/uploads/m/x.jpg") as room:
        def ran(*paths):
            return site.run("rescan-store", "--json", *TAKE, *paths, wrap=room.wrap).json
        assert [one["path"] for one in ran(srv)["undone"]] == ["m"]
        result = ran(srv, srv / "uploads/m")
        assert met(result)[(None, f"{srv}/uploads/m/x.jpg")] == "reported", "it is of no store"


def test_what_is_no_image_is_undone_when_it_is_named_and_passed_by_in_a_tree(site, srv):
    os.mkfifo(srv / "uploads/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(srv / "uploads")  # a socket's own path may not be long
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        (srv / "uploads/gone").symlink_to("/no/such")
        names = [srv / "uploads/fifo", srv / "uploads/socket", srv / "uploads/gone", "/dev/zero"]
        status, result = site.rescan(*names)
        assert (status, len(result["undone"])) == (3, 4)
        assert {one["reason"] for one in result["undone"]} == {
            "not a regular file", "No such file or directory"}
        assert site.rescan(srv / "uploads")[1]["undone"] == []


def test_names_that_a_pipe_separates_by_lines_are_wrong_usage(site, srv):
    ended = site.run("rescan-store", "-", stdin=os.fsencode(f"{srv}/a.jpg\n{srv}/b.jpg\n"))
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "find -print0" in ended.err
