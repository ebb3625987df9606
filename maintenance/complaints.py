"""What is said of a setting that is not as it should be."""

from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import msgspec

from maintenance.kinds import Job, Url
from maintenance.settings import Store, is_reference
from maintenance.units import Duration, Share, Size, Timeout


def decode(kind: type, value: object) -> object:
    """Turn a text into a kind of ours, for msgspec; raises ValueError or TypeError."""
    if not isinstance(value, str):
        raise TypeError
    if kind is not Path or is_reference(value):
        return kind(value)
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts or "\0" in value:
        raise ValueError(f'{value!r} is not an absolute path without ".."')
    return path


def complaint(raw: object, kind: object, error: msgspec.ValidationError) -> str:
    """Return what is wrong with a value, in words for an admin."""
    if isinstance(error.__cause__, ValueError):
        return str(error.__cause__)
    wanted = f"expected {expected(kind)}"
    wrong_type = error.__cause__ is not None or ", got `" in str(error)
    fault = "has the wrong type" if wrong_type else "is not allowed"
    shown = str(raw).lower() if isinstance(raw, bool) else repr(raw)
    if not isinstance(raw, str | int | float):
        shown = f"a {type(raw).__name__}"
    return f"{'its value' if private_part(kind) else shown} {fault}: {wanted}"


def expected(kind: object) -> str:
    """Return what a setting of this kind looks like."""
    if meta := _meta(kind):
        return str(meta.description)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "a table of settings"
    return _EXPECTED.get(kind, "a list")


_EXPECTED: dict[object, str] = {
    str: "a text",
    bool: "true or false",
    Path: 'a text such as "/srv/uploads"',
    Path | None: 'a text such as "/srv/uploads"',
    Duration: 'a text such as "120s"',
    Timeout: 'a text such as "120s"',
    Size: 'a text such as "10M"',
    Share: 'a text such as "0.5%"',
    tuple[Store, ...]: "tables, each headed [[store]]",
    dict[Job, Url]: "a table of URLs",
}


def private_part(kind: object) -> str:
    """Return which part of such a setting is a secret: "", "url", "path" or "whole"."""
    meta = _meta(kind)
    return str(meta.extra.get("private", "")) if meta and meta.extra else ""


def _meta(kind: object) -> msgspec.Meta | None:
    return get_args(kind)[1] if get_origin(kind) is Annotated else None
