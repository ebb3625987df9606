"""A production host for tests of install: in a namespace, with an /etc, /srv ... of its own."""

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

from maintenance.provision import packages
from maintenance.provision.interpreter import choose
from tests.processes import Namespace
from tests.site import Ended

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"etc": "/etc", "local": "/usr/local", "lib": "/var/lib", "log": "/var/log",
         "srv": "/srv"}
SPARED = ("install.log", ".pyc")  # what a run that changes nothing may still touch
USER = "www-data"


@dataclass
class Host:
    """A host in ``root``, where its files can be looked at from outside, too."""

    root: Path
    checkout: Path
    wheels: Path
    room: Namespace

    def path(self, absolute: str) -> Path:
        """Where a file of the host lies for us."""
        for name, place in PARTS.items():
            if absolute == place or absolute.startswith(place + "/"):
                return self.root / name / absolute[len(place) + 1:]
        raise AssertionError(absolute)

    def run(self, *argv: str | Path, check: bool = False, **how) -> Ended:
        """Run a command on the host, as root unless ``how`` says otherwise."""
        how = {"env": {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_NO_COMPILE": "1",
                       "PIP_CONFIG_FILE": "/dev/null",
                       "PIP_FIND_LINKS": self.wheels.as_uri()},
               "cwd": "/", "timeout": 200, **how}
        done = subprocess.run([*self.room.wrap, *argv], capture_output=True, check=False, **how)
        ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or ended.status == 0, ended
        return ended

    def install(self, *arguments: str, **how) -> Ended:
        """Run bin/install of the checkout."""
        return self.run(self.checkout / "bin/install", *arguments, **how)

    def steps(self, *arguments: str) -> dict[str, str]:
        """Run bin/install; what it did with each thing."""
        ended = self.install("--json", *arguments, check=True)
        return {one["what"]: one["action"] for one in ended.json["steps"]}

    def tree(self, *but: str) -> dict[str, tuple]:
        """Every file of the host with all that can be told of it."""
        found = {}
        for name, place in PARTS.items():
            for path in (self.root / name).rglob("*"):
                there = f"{place}/{path.relative_to(self.root / name)}"
                if there.startswith(("/var/lib/dpkg", *but)) or there.endswith(SPARED):
                    continue
                info = path.lstat()
                kind = stat.S_IFMT(info.st_mode)
                text = (os.readlink(path) if path.is_symlink() else
                        hashlib.sha256(path.read_bytes()).hexdigest() if kind == stat.S_IFREG
                        else "")
                when = info.st_mtime_ns if kind == stat.S_IFREG else 0
                found[there] = (info.st_mode, info.st_uid, info.st_gid, when, text)
        return found

    def new_version(self, word: str) -> None:
        """Change the checkout as a new version of ours would."""
        with (self.checkout / "CHANGELOG.md").open("a") as stream:
            stream.write(f"{word}\n")

    def cron_lines(self) -> Iterator[tuple[dict[str, str], str, str]]:
        """The jobs of the crontab: environment, user, command."""
        environment = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        for line in self.path("/etc/cron.d/imagewarden").read_text().splitlines():
            if match := re.match(r"\s*([A-Za-z_]+)\s*=\s*(.*)", line):
                environment[match[1]] = match[2].strip().strip("\"'")
            elif line.strip() and not line.lstrip().startswith("#"):
                fields = line.split(None, 2 if line.startswith("@") else 6)
                yield dict(environment), fields[-2], fields[-1]

    def as_cron(self, environment: dict[str, str], user: str, command: str) -> Ended:
        """Run a command of the crontab as cron does."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return self.run(*as_user, environment["SHELL"], "-c", command,
                        env={**environment, "HOME": "/", "LOGNAME": user, "USER": user})


def make(root: Path, checkout: Path) -> None:
    """Lay out a host with a store and a feed of definitions, nothing of ours on it."""
    for name in PARTS:
        (root / name).mkdir(mode=0o755)
    subprocess.run(["cp", "-a", "/etc/.", root / "etc"], check=True)
    for left in ("imagewarden.toml", "cron.d/imagewarden", "logrotate.d/imagewarden"):
        (root / "etc" / left).unlink(missing_ok=True)
    for name in ("cron.d", "logrotate.d"):
        (root / "etc" / name).mkdir(exist_ok=True)
    for name in ("lib/dpkg/info", "lib/dpkg/updates", "local/lib", "local/sbin"):
        (root / name).mkdir(parents=True)
    # What is installed is dpkg-query's to say, by this: apt-get must not be started here.
    names = [*packages.RUNTIME, *choose().venv_package, "cron", "logrotate"]
    (root / "lib/dpkg/status").write_text("".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
        f"Maintainer: nobody\nDescription: made for a test\n\n" for name in names))
    (root / "srv/uploads").mkdir()
    shutil.chown(root / "srv/uploads", USER, USER)
    (root / "srv/feed").mkdir()


def entered(root: Path) -> Namespace:
    """The namespace in which the host's directories are the real ones."""
    return Namespace(" && ".join(
        f"mount --bind {root}/{name} {place}" for name, place in PARTS.items()))


def checkout_with_wheels(place: Path) -> Path:
    """A copy of the checkout whose lock names wheels that lie beside it: no network needed."""
    copy = place / "checkout"
    copy.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name in {"bin", "maintenance", "cron", "docs", "zabbix"}:
            shutil.copytree(entry, copy / entry.name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.is_file():
            shutil.copy(entry, copy / entry.name)
    (place / "wheels").mkdir()
    locked = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    names = {name.lower().replace("_", "-").replace(".", "-") for name in locked}
    packages = next((ROOT / ".venv").glob("lib/python3*/site-packages"))
    lines = [_wheel(info, place / "wheels") for info in sorted(packages.glob("*.dist-info"))
             if _name(info).lower().replace("_", "-").replace(".", "-") in names]
    (copy / "requirements.lock").write_text("".join(lines))
    return copy


def _name(info: Path) -> str:
    return message_from_string((info / "METADATA").read_text())["Name"]


def _wheel(info: Path, wheels: Path) -> str:
    """Pack an installed package again; its line for the lock file."""
    version = message_from_string((info / "METADATA").read_text())["Version"]
    tag = message_from_string((info / "WHEEL").read_text())["Tag"]
    name = info.name.removesuffix(".dist-info")
    wheel = wheels / f"{name}-{tag}.whl"
    with (info / "RECORD").open(newline="") as stream:
        files = [row[0] for row in csv.reader(stream)]
    record = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in files:
            path = info.parent / file
            if file.startswith(("..", "/")) or file.endswith((".pyc", "/RECORD")) or (
                    not path.exists() or path.name in {"INSTALLER", "REQUESTED"}):
                continue
            content = path.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{file},sha256={digest.decode()},{len(content)}\n")
            archive.writestr(file, content)
        archive.writestr(f"{info.name}/RECORD", "".join(record) + f"{info.name}/RECORD,,\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{_name(info)}=={version} --hash=sha256:{digest}\n"


def configure(host: Host, **sections: dict[str, object]) -> None:
    """Add sections to the host's configuration, as its admin would."""
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    with host.path("/etc/imagewarden.toml").open("a") as stream:
        stream.write("\n".join(lines) + "\n")
