"""The configuration as it may be shown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec

from maintenance.complaints import private_part
from maintenance.settings import Config, settings_of
from maintenance.units import Duration, Share, Size


def masked(config: Config) -> dict[str, object]:
    """Return the settings as a file would say them, with secrets as "***".

    What came from a file of its own is "@/file" again, whether it was read or not.
    """
    return {key: _plain(key, getattr(config, key), field.type, config.from_files)
            for key, field in settings_of(Config).items()}


def masked_url(url: str) -> str:
    """Return a URL as it may be printed."""
    return _mask(url, "url")


def _plain(name: str, value: object, kind: object, files: Mapping[str, str]) -> object:
    if name in files:
        return files[name]
    if isinstance(value, msgspec.Struct):
        return {key: _plain(f"{name}.{key}", getattr(value, key), field.type, files)
                for key, field in settings_of(type(value)).items()}
    if isinstance(value, tuple):
        inner = get_args(kind)[0]
        return [_plain(f"{name}[{at}]", item, inner, files) for at, item in enumerate(value)]
    if isinstance(value, dict):
        inner = get_args(kind)[1]
        return {key: _plain(f"{name}.{key}", item, inner, files) for key, item in value.items()}
    if value is None:
        return ""
    if isinstance(value, Path | Duration | Size | Share):
        return str(value)
    return _mask(str(value), private_part(kind)) if private_part(kind) else value


def _mask(text: str, part: str) -> str:
    if part == "whole":
        return "***" if text else ""
    # Greedy on purpose: SQLAlchemy takes a password that holds "/" or "@" as it is.
    text = re.sub(r"(?<=://)([^:/@?#]*):.*@", r"\1:***@", text, flags=re.DOTALL)
    text = re.sub(r"^(https?://)[^:/@?#]+@", r"\1***@", text)
    if part == "path":  # services of this kind put their key into it
        return re.sub(r"(://[^/?#]*[/?#]).+", r"\1***", text, flags=re.DOTALL)
    text = re.sub(r"([?&;][^=&;#]*=)(?!\{path\})[^&;#]+", r"\1***", text)
    text = re.sub(r"([?&;])[^=&;#]+(?=[&;#]|$)", r"\1***", text)
    text = re.sub(r"#.+", "#***", text)
    return re.sub(r"(?<=/)(?=[^/?#]*[0-9])[A-Za-z0-9_-]{20,}(?=[/?#.]|$)", "***", text)
