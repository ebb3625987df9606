"""Finding, trusting and understanding the configuration file."""

import os
import pwd
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

from maintenance.errors import ConfigError
from maintenance.settings import (
    Config,
    Duration,
    Job,
    Share,
    Size,
    Store,
    Timeout,
    Url,
    is_reference,
)
from maintenance.text import show

USUAL = "/etc/imagewarden.toml"
VARIABLE = "IMAGEWARDEN_CONFIG"
SECTIONS = tuple(field.name for field in fields(Config)
                 if field.name == "store" or isinstance(field.default, msgspec.Struct))

_Section = TypeVar("_Section", bound=msgspec.Struct)
_Shape = TypeVar("_Shape", dict[str, Any], list[Any])


def load(path: str | None, sections: Collection[str] = ()) -> Config:
    """Read the file at ``path``, or else $IMAGEWARDEN_CONFIG, or else the usual one.

    Files named by "@/file" settings are read in ``sections`` only; "store" stands
    for [[store]] and the settings above all sections. Elsewhere a text or path
    keeps its "@/file"; any other setting shows its default. Everything needed
    later is imported by now: jobs drop privileges after this.
    """
    file, named_by = _find(path)
    try:
        content, info = _read(file)
        _refuse_untrusted(file, info)
    except OSError as error:
        raise ConfigError(f"{show(file)} ({named_by}): {error.strerror}; bin/install makes a "
                          "configuration, --config FILE names another") from None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{show(file)}: line {line} is not UTF-8") from None
    return parse(text, sections, file)


def _find(path: str | None) -> tuple[str, str]:
    if path:
        return path, "--config"
    if named := os.environ.get(VARIABLE):
        return named, f"${VARIABLE}"
    return USUAL, f"no --config, no ${VARIABLE}"


def job_user(config: Config) -> pwd.struct_passwd | None:
    """Return whom to become: None unless root started us, root if it says so."""
    if os.geteuid() != 0:
        return None
    if not config.user:
        raise ConfigError('user: required when root starts a job (it may be "root")')
    try:
        return pwd.getpwnam(config.user)
    except KeyError:
        raise ConfigError(f"user: {config.user!r} is not a user of this system") from None


# --- files


def _read(file: str) -> tuple[bytes, os.stat_result]:
    # Checked on the descriptor, so that what is trusted is what is read; a FIFO must not block.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(0, "not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(), info
    finally:
        os.close(descriptor)


def _refuse_untrusted(file: str, info: os.stat_result) -> None:
    if info.st_mode & 0o022:
        raise ConfigError(f"{show(file)}: group or others can write it: chmod go-w {show(file)}")
    if os.geteuid() != 0:
        return
    if info.st_uid != 0:
        raise ConfigError(f"{show(file)}: not root's, but root starts us: chown root {show(file)}")
    for step, seen in _way(file):
        loose = stat.S_ISDIR(seen.st_mode) and seen.st_mode & 0o022
        if seen.st_uid != 0:
            fault, repair = "not root's", "chown -h root"
        elif loose and not seen.st_mode & stat.S_ISVTX:
            fault, repair = "writable by group or others", "chmod go-w"
        else:
            continue
        raise ConfigError(f"{show(file)}: root starts us, but {show(step)} on its way is {fault}: "
                          f"{repair} {show(step)}")


def _way(file: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every directory, symlink and file the kernel passes on its way to ``file``.

    Resolving first and looking at the result would miss a symlink in the middle
    that somebody else can turn round.
    """
    here, pending = Path("/"), [*reversed((Path.cwd() / file).parts[1:])]
    yield here, here.lstat()
    while pending:
        name = pending.pop()
        here = here.parent if name == ".." else here / name
        seen = here.lstat()
        yield here, seen
        if stat.S_ISLNK(seen.st_mode):
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            pending += [part for part in reversed(target.parts) if part != "/"]


# --- settings


class _FromFile(str):
    """What a file of its own held: no message may give it away."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "the content of its file"


def parse(text: str, sections: Collection[str] = (), file: str = "configuration") -> Config:
    """Understand the text of a configuration file; see ``load`` for ``sections``."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, the end"
        fault = str(error).replace("at end of document", end)
        raise ConfigError(f"{show(file)}: not TOML: {fault}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{show(file)}: not TOML: too long a number or too deep a list") from None
    reader = _Reader(sections)
    config = reader.section("", raw, Config)
    return msgspec.structs.replace(config, from_files=reader.from_files)


class _Reader:
    """Turns TOML's tables into settings; each fault becomes a line that names its setting."""

    def __init__(self, sections: Collection[str]) -> None:
        self.sections = sections
        self.from_files: dict[str, str] = {}

    def section(self, name: str, raw: object, kind: type[_Section]) -> _Section:
        prefix = f"{name}." if name else ""
        known = _settings(kind)
        table = _expect(dict, name, raw, kind)
        _refuse_unknown(prefix, table, known)
        for field in known.values():
            if field.required and field.name not in table:
                raise ConfigError(f"{prefix}{field.name}: required, and has no default")
        values = {key: self.value(prefix + key, table[key], known[key].type) for key in table}
        return kind(**{key: value for key, value in values.items() if value is not msgspec.UNSET})

    def value(self, name: str, raw: object, kind: object) -> object:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is tuple:
            items = tuple(self.value(f"{name}[{at}]", item, arguments[0])
                          for at, item in enumerate(_expect(list, name, raw, kind)))
            return msgspec.UNSET if msgspec.UNSET in items else items
        if origin is dict:
            table = _expect(dict, name, raw, kind)
            _refuse_unknown(f"{name}.", table, get_args(arguments[0]))
            return {key: self.value(f"{name}.{key}", table[key], arguments[1]) for key in table}
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.section(name, raw, kind)
        return self.setting(name, raw, kind)

    def setting(self, name: str, raw: object, kind: object) -> object:
        if isinstance(raw, str) and is_reference(raw):
            self.from_files[name] = raw
            if _section_of(name) in self.sections:
                raw = _FromFile(_secret(name, raw[1:]))
            elif getattr(kind, "__origin__", kind) not in (str, Path, Path | None):
                return msgspec.UNSET
        if raw == "" and kind == Path | None:
            return None
        try:
            return msgspec.convert(raw, kind, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}: {_complaint(raw, kind, error)}") from None


def _settings(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    return {field.name: field for field in fields(kind) if field.name != "from_files"}


def _section_of(name: str) -> str:
    head, dot, _ = name.partition(".")
    return head if dot and not head.startswith("store[") else "store"


def _expect(shape: type[_Shape], name: str, raw: object, kind: object) -> _Shape:
    if not isinstance(raw, shape):  # it is not shown: it may be a URL that lost its brackets
        raise ConfigError(f"{name}: its value has the wrong type: expected {_expected(kind)}")
    return raw


def _refuse_unknown(prefix: str, table: Collection[str], known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            import difflib  # slow to import, and no other run than a failing one needs it

            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise ConfigError(f"{prefix}{show(key)}: unknown setting{hint}")


def _secret(name: str, file: str) -> str:
    try:
        content, info = _read(file)
        text = content.decode().removesuffix("\n")
    except OSError as error:
        raise ConfigError(f"{name}: {show(file)}: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a name with NUL in it
        raise ConfigError(f"{name}: {show(file)}: not UTF-8 text") from None
    if info.st_mode & 0o066:
        raise ConfigError(f"{name}: {show(file)}: readable or writable by group or others: "
                          f"chmod go-rw {show(file)}")
    return text


def _decode(kind: type, value: object) -> object:
    if not isinstance(value, str):
        raise TypeError
    if kind is not Path or is_reference(value):
        return kind(value)
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts or "\0" in value:
        raise ValueError(f'{value!r} is not an absolute path without ".."')
    return path


def _complaint(raw: object, kind: object, error: msgspec.ValidationError) -> str:
    if isinstance(error.__cause__, ValueError):
        return str(error.__cause__)
    expected = f"expected {_expected(kind)}"
    wrong_type = error.__cause__ is not None or ", got `" in str(error)
    fault = "has the wrong type" if wrong_type else "is not allowed"
    shown = str(raw).lower() if isinstance(raw, bool) else repr(raw)
    if not isinstance(raw, str | int | float):
        shown = f"a {type(raw).__name__}"
    return f"{'its value' if _private(kind) else shown} {fault}: {expected}"


def _expected(kind: object) -> str:
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


# --- showing


def masked(config: Config) -> dict[str, object]:
    """Return the settings as a file would say them, with secrets as "***".

    What came from a file of its own is "@/file" again, whether it was read or not.
    """
    return {key: _plain(key, getattr(config, key), field.type, config.from_files)
            for key, field in _settings(Config).items()}


def _plain(name: str, value: object, kind: object, files: Mapping[str, str]) -> object:
    if name in files:
        return files[name]
    if isinstance(value, msgspec.Struct):
        return {key: _plain(f"{name}.{key}", getattr(value, key), field.type, files)
                for key, field in _settings(type(value)).items()}
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
    return _mask(str(value), _private(kind)) if _private(kind) else value


def _private(kind: object) -> str:
    """Return which part of such a setting is a secret: "", "url", "path" or "whole"."""
    meta = _meta(kind)
    return str(meta.extra.get("private", "")) if meta and meta.extra else ""


def _meta(kind: object) -> msgspec.Meta | None:
    return get_args(kind)[1] if get_origin(kind) is Annotated else None


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
