"""A set of photographs and PNGs out of Debian's packages: downloaded, unpacked, never installed."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Wallpapers and other photographs, screenshots and diagrams of manuals, icons.
PACKAGES = ("mate-backgrounds", "opencv-doc", "kphotoalbum", "hugin-data", "openshot-qt-doc",
            "imagemagick-6-doc", "gimp-help-en", "gnome-user-docs", "gnome-icon-theme",
            "python3-skimage")
EACH = 40  # of a kind and package
LARGEST = 10**6  # bytes: what people put on the web
KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


def make(place: Path) -> list[str]:
    """Fill ``place``; return the packages with their versions."""
    work = place.with_name(place.name + ".packages")
    work.mkdir()
    place.mkdir()
    told = []
    for package in PACKAGES:
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package],
                       cwd=work, check=True)
        archive = next(work.glob(f"{package}_*.deb"))
        told.append(archive.stem)
        subprocess.run(["dpkg", "-x", archive, work / package], check=True)
        for path in chosen(work / package):
            name = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            target = place / package / (name + path.suffix.lower())
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run(["rm", "-rf", work], check=True)
    return told


def chosen(tree: Path) -> Iterator[Path]:
    """Give some of each kind, by the digest of their content: no hand picks them."""
    found: dict[str, dict[str, Path]] = {"png": {}, "jpeg": {}}
    for path in sorted(tree.rglob("*")):
        kind = KINDS.get(path.suffix.lower())
        if kind is None or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size <= LARGEST:
            found[kind][hashlib.sha256(path.read_bytes()).hexdigest()] = path
    for images in found.values():
        for digest in sorted(images)[:EACH]:
            yield images[digest]
