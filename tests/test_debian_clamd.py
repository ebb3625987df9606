"""Debian's own clamd, as its package sets it up, in a namespace that spares the host's."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import Namespace, reachable
from tests.site import BAD, LATER, answers, body_signature, wait_until

pytestmark = [pytest.mark.server, pytest.mark.once,
              pytest.mark.may_skip("only root can be clamav"),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root can be clamav")]
CONF = Path("/etc/clamav/clamd.conf")


@pytest.fixture
def debian(site):
    """A site on the packaged clamd; its databases and socket are in the namespace only."""
    reachable(site.root)
    for name in ("lib", "run", "log"):
        (site.root / name).mkdir(mode=0o755)
        shutil.chown(site.root / name, "clamav", "clamav")
    site.top["user"] = "www-data"
    site.settings["clamav"] = {"engine": "system", "databases": "/var/lib/clamav"}
    site.write_config()
    mounts = " && ".join(
        f"mkdir -p {at} && mount --bind {site.root / name} {at}" for name, at in (
            ("lib", "/var/lib/clamav"), ("run", "/run/clamav"), ("log", "/var/log/clamav")))
    with Namespace(f"mount -t tmpfs -o mode=755 tmpfs /run && {mounts}") as room:
        yield site, room


def job(debian, script, *arguments):
    site, room = debian
    return site.run(script, "--json", *arguments, wrap=room.wrap)


def test_the_packaged_clamd_is_proven_and_finds_what_is_bad(debian):
    site, room = debian
    for name, content in (("bad.jpg", BAD), ("a.jpg", b"clean"), ("later.jpg", LATER)):
        site.image(name, content)
        (site.store / name).chmod(0o644)
    for name, size in (("below.jpg", 25 * 2**20 - 1), ("limit.jpg", 25 * 2**20),
                       ("large.jpg", 26 * 2**20)):
        (site.store / name).write_bytes(bytes(size - len(BAD)) + BAD)
        (site.store / name).chmod(0o644)
    first = job(debian, "update-definitions", "--no-rescan")
    assert (first.status, first.json["engine"]) == (1, "unproven")
    daemon = subprocess.Popen([*room.wrap, "/usr/sbin/clamd", "--foreground=true"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(site.root / "run/clamd.ctl"))
        second = job(debian, "update-definitions", "--no-rescan")
        assert second.json.get("engine") == "reloaded", second
        canary = site.root / "lib/imagewarden-canary.hdb"
        assert (canary.owner(), canary.stat().st_mode & 0o777) == ("clamav", 0o644)
        assert (site.root / "lib/test.ndb").owner() == "clamav"
        ended = job(debian, "rescan-store")
        assert ended.status == 4, ended
        assert [(one["path"], one["signature"]) for one in ended.json["infected"]] == [
            ("bad.jpg", "Test.Bad.UNOFFICIAL"), ("below.jpg", "Test.Bad.UNOFFICIAL")]
        assert ended.json["stores"][0]["clean"] == 2
        hides = "AlertExceedsMax yes" not in CONF.read_text()
        assert ended.json.get("limits") == ("hidden" if hides else None)
        assert [one["path"] for one in ended.json["undone"]] == ["large.jpg"] + (
            ["limit.jpg"] if hides else [])
        site.feed(body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER))
        assert job(debian, "update-definitions", "--no-rescan").json["engine"] == "reloaded"
        assert job(debian, "rescan-store").json["infected_total"] == 3
        seen = {one["check"]: one for one in job(debian, "doctor").json["checks"]}
        assert seen["engine"]["state"] == "ok"
        assert ("AlertExceedsMax yes" in seen["limits"]["repair"]) == hides
        assert job(debian, "scan-upload", site.store / "bad.jpg").status == 4
    finally:
        daemon.kill()
        daemon.wait()
    assert not (Path("/var/lib/clamav") / canary.name).exists(), "the host's was spared"
