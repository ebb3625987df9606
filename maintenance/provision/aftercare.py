"""What install cannot or must not do itself, told at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from maintenance.provision.children import run
from maintenance.provision.processes import named

ENABLED = Path("/etc/systemd/system/multi-user.target.wants/clamav-freshclam.service")
CRON_DAEMONS = ("cron", "crond", "fcron", "bcron", "systemd-cron")
SYSTEMD = Path("/run/systemd/system")


def hand_over() -> Iterator[str]:
    """Tell how freshclam's daemon hands over to the job, where there is one."""
    enabled = ENABLED.is_symlink() or any(Path("/etc").glob("rc[2-5].d/S*clamav-freshclam"))
    if not enabled and not _daemon_runs():
        return
    commands = ("systemctl disable --now clamav-freshclam" if SYSTEMD.is_dir() else
                "service clamav-freshclam stop; update-rc.d clamav-freshclam disable")
    yield ("freshclam has a service of its own here; as long as it runs, update-definitions leaves "
           f"the fetching to it. To hand over to update-definitions: {commands}")


def _daemon_runs() -> bool:
    for process in named("freshclam"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-d" in words or any(word.startswith(b"--daemon") for word in words):
            return True
    return False


def examined(doctor: Path, config: Path) -> Iterator[str]:
    """Run the installed doctor and tell what is not well."""
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        run([doctor, "--json", "--config", config], output, environment={"LC_ALL": "C.UTF-8"})
        output.seek(0)
        said = output.read().strip()
    try:
        checks = json.loads(said.rpartition("\n")[2])["checks"]
    except (ValueError, KeyError, TypeError):
        yield f"doctor: {said or 'it said nothing'}"
        return
    for one in checks:
        if one["state"] != "ok":
            repair = f"; {one['repair']}" if one["repair"] else ""
            yield f"doctor: {one['state']}: {one['check']}: {one['detail']}{repair}"
