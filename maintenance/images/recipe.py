"""Which tools work on images here, and how: what an optimised image is booked under."""

import hashlib
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from maintenance.errors import ToolError
from maintenance.images.plan import Plan
from maintenance.programs import find, run
from maintenance.settings import Optimize

FORMAT = 2  # raised when our own part changes what comes out
PACKAGES = {"oxipng": "oxipng-pybind", "mozjpeg": "mozjpeg-lossless-optimization"}
CANDIDATES = {"png": ("oxipng", "optipng"), "jpeg": ("mozjpeg", "jpegtran")}  # the best first
SECOND = {"oxipng": "optipng", "mozjpeg": "jpegtran"}
PROGRAMS = {"optipng": ("optipng", "--version"), "jpegtran": ("jpegtran", "-version")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# At import: after dropping privileges the packages may be out of reach.
_VERSIONS = {name: _version(package) for name, package in PACKAGES.items()}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The tools chosen; a changed ``fingerprint`` makes every image due again."""

    plan: Plan
    fingerprint: str
    stand_ins: tuple[str, ...] = ()  # what works in the place of a better tool that is missing

    @classmethod
    def of(cls, settings: Optimize) -> Self:
        """Choose by what is installed; raises ToolError when a tool asked for is not."""
        png, jpeg = chosen("png", settings.png), chosen("jpeg", settings.jpeg)
        plan = Plan(png, jpeg, _second(png), _second(jpeg), frozenset(settings.keep_metadata),
                    float(settings.min_gain))
        # Who steps in for a tool now and then does not make all images due.
        facts = [FORMAT, replace(plan, png_second="", jpeg_second="").as_text(), _identity(png),
                 _identity(jpeg)]
        stand_ins = [stand_in("png", settings.png), stand_in("jpeg", settings.jpeg)]
        return cls(plan, hashlib.sha256(repr(facts).encode()).hexdigest()[:32],
                   tuple(filter(None, stand_ins)))


def chosen(kind: str, wish: str) -> str:
    """Return the tool for a kind of images; raises ToolError when the one asked for is missing."""
    if wish in {"off", "strip"}:
        return wish
    if wish == "auto":
        return next((tool for tool in CANDIDATES[kind] if _installed(tool)), "strip")
    if not _installed(wish):
        raise ToolError(f"{PACKAGES.get(wish, wish)} is not installed")
    return wish


def stand_in(kind: str, wish: str) -> str:
    """Say what works in the place of the best tool; empty: it is there, or not wished for."""
    best, tool = CANDIDATES[kind][0], chosen(kind, wish)
    if wish != "auto" or tool == best:
        return ""
    done = f"{kind.upper()}s are only stripped" if tool == "strip" else f"{tool} works in its place"
    return f"{PACKAGES[best]} is not installed: {done}"


def _second(tool: str) -> str:
    """Return what takes over where ``tool``, which works inside the worker, fails or dies."""
    if tool not in SECOND:
        return tool
    return SECOND[tool] if _installed(SECOND[tool]) else "strip"


def _installed(tool: str) -> bool:
    return bool(_VERSIONS[tool]) if tool in PACKAGES else find(tool) is not None


def _identity(tool: str) -> str:
    if tool in PACKAGES:
        return f"{tool} {_VERSIONS[tool]}"
    if tool not in PROGRAMS:
        return tool
    return run(PROGRAMS[tool]).tail.decode("ascii", "replace")
