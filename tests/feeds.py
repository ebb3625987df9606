"""Where a test's site has its definitions from, and what it says of them."""

import gzip
import os
import struct
from pathlib import Path

import pytest

from tests.mirror import Mirror
from tests.site import BAD, LATER, Site, body_signature

SIGNED = Path(os.environ.get("IMAGEWARDEN_TEST_DEFINITIONS", "/nonexistent"))
STANDARD = ("daily", "main", "bytecode")
MORE = body_signature("Test.Bad", BAD) + body_signature("Test.Later", LATER)

needs_signed = pytest.mark.skipif(
    not (SIGNED / "test-1.cvd").exists(),
    reason="IMAGEWARDEN_TEST_DEFINITIONS names no folder with ClamAV's test-1.cvd ...: they are"
           " in unit_tests/input/freshclam_testfiles of its source")
not_shipped = pytest.mark.may_skip("ClamAV's signed test databases are not ours to ship")


def definitions(site: Site, *arguments: str, status: int = 0) -> dict:
    """Run update-definitions without a rescan; its result."""
    ended = site.run("update-definitions", "--no-rescan", "--json", *arguments)
    assert ended.status == status, ended
    assert "Traceback" not in ended.err
    return ended.json


def told(site: Site) -> dict:
    """What store-status says."""
    return site.run("store-status", "--json").json


def base(site: Site, *lines: str) -> None:
    """Give the site a freshclam.conf to begin with; it tries but once, and does not wait."""
    conf = site.root / "base.conf"
    conf.write_text("\n".join(["MaxAttempts 1", *lines]) + "\n")
    conf.chmod(0o644)
    site.settings["definitions"]["freshclam_config"] = str(conf)
    site.write_config()


def official(site: Site, mirror: Mirror, *lines: str, **settings: object) -> None:
    """Have the official databases come from ``mirror``."""
    site.settings["definitions"] = {"official": True, "mirror": mirror.url,
                                    "fail_age": "36500d", **settings}
    base(site, *lines)


def custom(site: Site, *urls: str, **settings: object) -> None:
    """Have only databases of others, from ``urls``."""
    site.settings["definitions"] = {"official": False, "custom_urls": list(urls), **settings}
    base(site)


def content(directory: Path) -> dict[str, bytes]:
    """Every database in a directory; what else lies there must be known."""
    found = {path.name: path for path in directory.iterdir()}
    left = {name for name in found if name.startswith(("tmp.", ".")) or name.endswith(".new")}
    assert not left, "a run left something behind"
    return {name: path.read_bytes() for name, path in found.items()
            if name != "freshclam.dat" and not name.endswith(".sign")}


def cooled(directory: Path) -> float:
    """When freshclam's cool-down ends (epoch)."""
    return float(struct.unpack_from("<q", (directory / "freshclam.dat").read_bytes(), 61)[0])


def end_cool_down(directory: Path) -> None:
    """Let the time of a cool-down be over."""
    dat = directory / "freshclam.dat"
    known = dat.read_bytes()
    dat.write_bytes(known[:61] + struct.pack("<q", 1) + known[69:])


def unpacked(version: int) -> bytes:
    """A signed test database as freshclam leaves it after an incremental update: a .cld."""
    packed = (SIGNED / f"test-{version}.cvd").read_bytes()
    return packed[:512] + gzip.decompress(packed[512:])
