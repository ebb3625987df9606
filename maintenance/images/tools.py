"""The tools that code a picture anew: its bare picture in, another coding of it out.

Nothing of what they say about their success is believed. No result: an empty one.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from maintenance.errors import ToolError
from maintenance.programs import How, Limits, run

try:  # packages that an installation may do without
    import oxipng
except ImportError:
    oxipng = None  # type: ignore[assignment]
try:
    import mozjpeg_lossless_optimization as mozjpeg  # type: ignore[import-untyped]
except ImportError:
    mozjpeg = None

PRESET = 2  # of oxipng: a tenth of the time of the next ones that gain a point more
ROOM = 2**20  # bytes to spare in the directory for programs
SECONDS = 240.0  # for a program, or for oxipng to stop trying


def by_mozjpeg(bare: bytes) -> bytes:
    """Return it coded by mozjpeg, which ends the process when it meets what it cannot read."""
    try:
        return bytes(mozjpeg.optimize(bare, copy=mozjpeg.COPY_MARKERS.NONE))
    except ValueError:
        return b""


def by_jpegtran(bare: bytes) -> bytes:
    """Return it coded by jpegtran, progressive."""
    return _run(bare, ["jpegtran", "-copy", "none", "-optimize", "-progressive", "-outfile"])


@dataclass(frozen=True, slots=True)
class Freedom:
    """How far the way in which a PNG is coded may change."""

    any_way: bool = True  # else colour type, depth and palette stay as they are
    to_grey: bool = True  # grey and colours may take each other's place


def by_oxipng(bare: bytes, freedom: Freedom, most: int) -> bytes:
    """Return it coded by oxipng; ``most``: bytes it may inflate to."""
    free = freedom.any_way
    try:
        return oxipng.optimize_from_memory(
            bare, level=PRESET, strip="all", interlace="off", optimize_alpha=False,
            bit_depth_reduction=free, palette_reduction=free,
            color_type_reduction=free, grayscale_reduction=free and freedom.to_grey,
            scale_16=False, timeout=SECONDS, max_decompressed_size=most)
    except oxipng.PngError:
        return b""


def by_optipng(bare: bytes, freedom: Freedom, _most: int) -> bytes:
    """Return it coded by optipng."""
    reductions = [] if freedom.to_grey else ["-nc", "-np"]
    reductions = reductions if freedom.any_way else ["-nx"]
    return _run(bare, ["optipng", "-quiet", "-o2", "-i0", *reductions, "-out"])


JPEG = {"mozjpeg": by_mozjpeg, "jpegtran": by_jpegtran}
PNG = {"oxipng": by_oxipng, "optipng": by_optipng}


def _run(bare: bytes, words: Sequence[str]) -> bytes:
    """Run ``words`` with the names of a result and of a source, both in a private directory.

    optipng leaves an empty file and status 0 on a full disk, jpegtran a picture and
    status 2 for a broken original: the caller has to look at what comes out.
    """
    with TemporaryDirectory(prefix="imagewarden-") as box:
        source, result = Path(box, "in"), Path(box, "out")
        if shutil.disk_usage(box).free < 3 * len(bare) + ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), box)
        source.write_bytes(bare)
        try:
            ran = run([*words, str(result), str(source)], How(Limits(seconds=SECONDS)))
        except ToolError:
            return b""
        return result.read_bytes() if ran.status == 0 and result.exists() else b""
