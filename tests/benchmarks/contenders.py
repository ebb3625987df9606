"""Ours and its peers: how each is told to make the images of a directory smaller."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
BOTH = frozenset({".png", ".jpg", ".jpeg"})
PNG, JPEG = frozenset({".png"}), frozenset({".jpg", ".jpeg"})
JPEGTRAN = """
for file; do
    jpegtran -copy none -progressive -outfile "$file.new" "$file" 2>/dev/null &&
    [ "$(stat -c %s "$file.new")" -lt "$(stat -c %s "$file")" ] && mv "$file.new" "$file" ||
    rm -f "$file.new"
done
"""
OXIPNG = """
import sys, oxipng
for path in sys.argv[1:]:
    try:
        oxipng.optimize(path, level=2, strip="safe")
    except oxipng.PngError:
        pass
"""


@dataclass(frozen=True)
class Contender:
    """A tool; ``argv`` makes its command from the directory and the images of its kinds."""

    name: str
    kinds: frozenset[str]
    argv: Callable[[Path, list[str]], list[str | Path]]


def ours(place: Path, _images: list[str]) -> list[str | Path]:
    """The whole job as cron runs it, in its sandbox, with its proofs; no engine: nothing to ask."""
    home = place.with_name(place.name + ".home")
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "imagewarden.toml"
    user = 'user = "root"\n' if os.geteuid() == 0 else ""
    config.write_text(
        f"{user}state = {json.dumps(str(home / 'state'))}\nlogs = \"\"\n"
        f"[[store]]\nname = \"images\"\npath = {json.dumps(str(place))}\n"
        f"[definitions]\nofficial = false\n"
        f"[clamav]\nengine = \"private\"\ndatabases = {json.dumps(str(home / 'none'))}\n"
        f"[optimize]\nwindow = \"\"\nsandbox = \"required\"\n")
    config.chmod(0o600)
    return [CHECKOUT / "bin/optimize-images", "--now", "--json", "--config", config]


def installed(work: Path, image_optim: str) -> list[Contender]:
    """Return those that are here or can be had; say which are not."""
    found = [Contender("imagewarden", BOTH, ours)]
    if shutil.which("optipng"):
        found.append(Contender("optipng -o2", PNG, lambda _, images: [
            "optipng", "-quiet", "-o2", "--", *images]))
    found.append(Contender("oxipng -o2 --strip safe", PNG, lambda _, images: [
        sys.executable, "-c", OXIPNG, *images]))
    if shutil.which("jpegtran"):
        found.append(Contender("jpegtran -progressive -copy none", JPEG, lambda _, images: [
            "sh", "-c", JPEGTRAN, "sh", *images]))
    if shutil.which("jpegoptim"):
        for words in ([], ["--strip-all"]):
            found.append(Contender(" ".join(["jpegoptim", *words]), JPEG,
                                   lambda _, images, words=words: [
                                       "jpegoptim", "-q", *words, "--", *images]))
    found += picopt(work)
    if shutil.which(image_optim):
        found.append(Contender("image_optim", BOTH, lambda place, _: [
            image_optim, "--no-progress", "--skip-missing-workers", "-r", str(place)]))
    for name in ("optipng", "jpegtran", "jpegoptim", image_optim):
        if not shutil.which(name):
            sys.stderr.write(f"{name}: not installed, left out\n")
    return found


def picopt(work: Path) -> list[Contender]:
    """Install picopt from PyPI where nothing else is."""
    place = work / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    got = subprocess.run([place / "bin/pip", "install", "-q", "picopt"], check=False,
                         stderr=subprocess.DEVNULL)
    if got.returncode:
        sys.stderr.write("picopt: could not be installed, left out\n")
        return []
    return [Contender(" ".join(["picopt", *words]), BOTH,
                      lambda directory, _, words=words: [
                          place / "bin/picopt", "-q", "-r", *words, directory])
            for words in ([], ["-M"])]
