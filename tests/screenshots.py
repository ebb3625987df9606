#!/usr/bin/env python3
"""Makes zabbix/screenshots: the template on a real Zabbix, by a headless browser.

    .venv/bin/python3 tests/screenshots.py

Real jobs tell of a small store; two months of nights are told in their words, with times of
their own. Needs what bin/check installs, chromium, locales, imagemagick and optipng.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "zabbix")]

from maintenance.monitoring import trapper  # noqa: E402
from maintenance.monitoring.server import Server  # noqa: E402
from maintenance.monitoring.values import Value  # noqa: E402
from maintenance.times import DAY, Deadline, iso  # noqa: E402
from tests.images import jpeg  # noqa: E402
from tests.site import BAD, wait_until  # noqa: E402
from tests.watched import Watched  # noqa: E402
from tests.zabbix import ENVIRONMENT, Zabbix  # noqa: E402

DIRECTORY = ROOT / "zabbix/screenshots"
NIGHTS = 60
WIDE, HIGH = 1500, 900
PAGES = {"store-health": ("imagewarden: Store health", "now-30d"),
         "night": ("imagewarden: A night's work", "now-14d"),
         "bytes-saved": ("imagewarden: Bytes saved", "now-60d")}
# Guests see everything here: so the browser needs no session.
GUEST = """
UPDATE users SET roleid = 3, theme = 'blue-theme' WHERE username = 'guest';
DELETE FROM users_groups WHERE userid = (SELECT userid FROM users WHERE username = 'guest');
INSERT INTO users_groups (id, usrgrpid, userid)
    SELECT 9000, 7, userid FROM users WHERE username = 'guest';
"""


def nights(host: str, results: dict[str, dict], state: dict) -> Iterator[Value]:
    """Yield two months of what the jobs told just now, in other numbers."""
    chance, now = random.Random(4), time.time()
    images, saved = 90_000, 0
    for at in range(int(now - NIGHTS * DAY), int(now), 3600):
        hour, night = time.gmtime(at).tm_hour, (at - now) / DAY + NIGHTS
        images += chance.randrange(40)
        if hour == 3:
            shrunk = int(12_000 * math.exp(-night / 9)) + chance.randrange(300, 500)
            before, after = shrunk * 210_000, int(shrunk * 187_000 * chance.uniform(0.98, 1.02))
            left = max(0, int(80_000 * math.exp(-night / 9)) - 400)
            saved += before - after
            stores = [{"name": "uploads", "considered": images, "shrunk": shrunk, "left": left,
                       "kept": 900 + at % 100, "current": images - shrunk - left, "undone": 3}]
            yield value(host, results["optimize"], at, seconds=min(9000, shrunk / 1.4),
                        stores=stores, bytes_before=before, bytes_after=after,
                        bytes_saved=before - after, undone_total=3, left=left)
        if hour == 5:
            full, delta = images // 30, images - images // 30
            yield value(host, results["rescan"], at, seconds=full / 76 + delta / 900, stores=[{
                "name": "uploads", "images": images, "full": full, "delta": delta, "current": 0,
                "infected": 0, "left": 0}], bytes=full * 190_000, infected_total=0, infected=[])
        yield value(host, results["definitions"], at, seconds=chance.uniform(2, 9))
        yield value(host, results["checks"], at, seconds=chance.uniform(0.2, 0.5))
        older = images // 3 if hour in {4, 5} else 0
        never = chance.randrange(60) if hour > 5 else 0
        yield Value(host, "imagewarden.state", json.dumps({
            **state, "definitions": definitions(at), "jobs": [
                {"job": job, "outcome": "done", "finished": iso(at), "last_success": iso(at)}
                for job in results], "stores": [{
                    **state["stores"][0], "images": images, "clean_older": older, "never": never,
                    "clean_current": images - older - never, "unknown": 0, "infected": 0,
                    "never_since": iso(at - 3600), "previous_images": images - 30,
                    "bytes": images * 190_000 - saved, "bytes_saved": saved}]}), at, 1)


def value(host: str, result: dict, at: int, **members: object) -> Value:
    """Return a run's result as it would have been at another time."""
    told = {**result, "outcome": "done", "started": iso(at), **members}
    told.pop("error", None)
    return Value(host, f"imagewarden.run[{told['job']}]", json.dumps(told), at, 0)


def definitions(at: int) -> dict:
    """Return definitions as they are: main of years ago, daily of the morning."""
    built = {"main.cvd": "2021-09-16T12:32:42Z", "daily.cld": iso(at - at % 86400 - 16 * 3600),
             "bytecode.cvd": "2023-02-22T21:33:21Z"}
    return {"generation": at // 86400 - 20_300, "databases": [
        {"name": name, "version": 27_000 + at // 86400 - 20_300, "signatures": 2_000_000,
         "built": when, "checked": iso(at)} for name, when in built.items()]}


def fill(host: Watched) -> None:
    """Have real jobs work, then tell of the nights before, and end with an infection."""
    site = host.site
    for at in range(12):
        (site.store / f"{at}.jpg").write_bytes(jpeg(size=(600 + at, 400)) if at else BAD * 20)
    site.settings["rescan"] = {"action": "quarantine"}
    site.write_config()
    results = {"definitions": host.run("update-definitions", "--no-rescan")}
    host.discover()
    results["checks"] = host.checks("--discovery")
    site.settings["zabbix"]["servers"] = []
    site.write_config()
    results["optimize"] = host.run("optimize-images", "--now", status=3)
    results["rescan"] = host.run("rescan-store", status=4)
    state = site.run("store-status", "--json").json
    told = [*nights(host.name, results, state)]
    server = Server("127.0.0.1", host.zabbix.port)
    for at in range(0, len(told), 250):
        part = told[at:at + 250]
        wait_until(lambda: trapper.send(server, part, Deadline.after(60)) == len(part),  # noqa: B023
                   60)
    found = value(host.name, results["rescan"], int(time.time())).value
    for key, text in (("imagewarden.run[rescan]", json.dumps(
            json.loads(found) | {"outcome": "infected"})), ("imagewarden.run[definitions]",
            json.dumps({**results["definitions"], "outcome": "failed", "error": "freshclam failed"
                        " with status 5: connection to the mirror timed out"}))):
        assert host.offer(key, text) == 1
    host.wait_for_alarm("found")
    host.wait_for_alarm("failed[definitions]")


@contextmanager
def frontend_in_english(scratch: Path) -> Iterator[Zabbix]:
    """Start a Zabbix whose pages find the locale that they insist on."""
    scratch.chmod(0o755)
    locales = scratch / "locales"
    locales.mkdir()
    subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", locales / "en_US.UTF-8"], check=True)
    ENVIRONMENT["LOCPATH"] = str(locales)
    with Zabbix() as zabbix:
        yield zabbix


def shoot(url: str, name: str, scratch: Path, high: int = HIGH) -> None:
    """Take a picture of a page and make it small."""
    raw, small = scratch / f"{name}.png", DIRECTORY / f"{name}.png"
    subprocess.run(["chromium", "--headless=new", "--no-sandbox", "--hide-scrollbars",
                    f"--user-data-dir={scratch}/profile", f"--window-size={WIDE},{high}",
                    "--virtual-time-budget=30000", f"--screenshot={raw}", url], check=True,
                   capture_output=True, timeout=120)
    subprocess.run(["convert", raw, "-dither", "None", "-colors", "64", f"PNG8:{small}"],
                   check=True)
    subprocess.run(["optipng", "-quiet", "-o5", "-strip", "all", small], check=True)
    sys.stdout.write(f"{small.name}: {small.stat().st_size} bytes\n")


def main() -> None:
    """Run as a script."""
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="iw-shots-") as place, frontend_in_english(
            Path(place)) as zabbix:
        scratch = Path(place)
        (scratch / "site").mkdir()
        host = Watched(zabbix, "web1.example", scratch / "site", {
            "{$IMAGEWARDEN.UPLOAD.WANTED}": "0"})
        fill(host)
        zabbix.sql(GUEST)
        template = zabbix.api("template.get", filter={"host": ["imagewarden"]})[0]["templateid"]
        boards = {one["name"]: one["dashboardid"] for one in zabbix.api(
            "templatedashboard.get", templateids=[template])}
        for name, (board, begin) in PAGES.items():
            shoot(f"{zabbix.frontend}/zabbix.php?action=host.dashboard.view&hostid={host.id}"
                  f"&dashboardid={boards[board]}&from={begin}&to=now-1h&kiosk=1", name, scratch)
        shoot(f"{zabbix.frontend}/zabbix.php?action=problem.view&filter_set=1&show=1"
              f"&hostids[]={host.id}&kiosk=1", "problems", scratch, 260)


if __name__ == "__main__":
    main()
