"""What a worker imports, as one archive in memory.

A worker must not see the checkout, and the user it runs as may not be able to
read it: so all its modules are read when this one is imported, which is before
privileges are dropped, and the worker unpacks them in a place of its own.
"""

import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

OURS = ("__init__.py", "accounts.py", "errors.py", "text.py", "programs.py", "keeper.py",
        "images/*.py")
# Distribution's top-level name -> what of it is never imported by a worker.
THEIRS = {
    "PIL": ("_avif*", "_imagingcms*", "_imagingft*", "_imagingtk*", "_imagingmath*",
            "_imagingmorph*"),
    "oxipng": (), "_oxipng": (), "mozjpeg_lossless_optimization": (), "_cffi_backend": (),
}
# Pillow's wheels bring their libraries; these belong to the modules left out.
LIBRARIES = ("pillow.libs", ("libavif*", "libharfbuzz*", "libfreetype*", "liblcms2*",
                             "libbrotli*", "libpng*"))
UNPACK = """
import shutil, socket, sys, tempfile, zipfile
link = socket.socket(fileno=0)
order, files, _, _ = socket.recv_fds(link, 65536, 1)
place = tempfile.mkdtemp(prefix='imagewarden-')
try:
    with open(files[0], 'rb') as stream, zipfile.ZipFile(stream) as archive:
        archive.extractall(place)
    sys.path.insert(0, place)
    from maintenance.images import worker
finally:
    shutil.rmtree(place, ignore_errors=True)
worker.serve(link, order.decode())
"""


def _files() -> Iterator[tuple[str, Path]]:
    home = Path(__file__).parent.parent
    for pattern in OURS:
        for path in home.glob(pattern):
            yield f"maintenance/{path.relative_to(home)}", path
    for name, without in THEIRS.items():
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        origin = Path(found.origin)
        if found.submodule_search_locations is None:
            yield origin.name, origin
            continue
        yield from _within(origin.parent, without)
        if name == "PIL":
            yield from _within(origin.parent.with_name(LIBRARIES[0]), LIBRARIES[1])


def _within(directory: Path, without: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.glob("*")):
        wanted = path.suffix == ".py" or ".so" in path.name
        if wanted and not any(path.match(pattern) for pattern in without):
            yield f"{directory.name}/{path.name}", path


def _packed() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, path in _files():
            archive.writestr(name, path.read_bytes())
    return stream.getvalue()


_ARCHIVE = _packed()


def archive() -> int:
    """Return a new descriptor of the archive, positioned at its start."""
    fd = os.memfd_create("imagewarden-worker")
    with os.fdopen(fd, "wb", closefd=False) as stream:
        stream.write(_ARCHIVE)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
