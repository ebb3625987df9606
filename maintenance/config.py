"""Finding, trusting and understanding the configuration file."""

import os
import pwd
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec.structs import fields

from maintenance import complaints, trusted
from maintenance.errors import ConfigError
from maintenance.settings import Config, is_reference, settings_of
from maintenance.text import show

USUAL = "/etc/imagewarden.toml"
VARIABLE = "IMAGEWARDEN_CONFIG"
SECTIONS = tuple(field.name for field in fields(Config)
                 if field.name == "store" or isinstance(field.default, msgspec.Struct))

_Section = TypeVar("_Section", bound=msgspec.Struct)
_Shape = TypeVar("_Shape", dict[str, Any], list[Any])


class Unparsed(ConfigError):
    """The file is not TOML, as one that is half written."""


def load(path: str | None, sections: Collection[str] = ()) -> Config:
    """Read the file at ``path``, or else $IMAGEWARDEN_CONFIG, or else the usual one.

    Files named by "@/file" settings are read in ``sections`` only; "store" stands
    for [[store]] and the settings above all sections. Elsewhere a text or path
    keeps its "@/file"; any other setting shows its default. Everything needed
    later is imported by now: jobs drop privileges after this.
    """
    text, file = _text(path)
    return parse(text, sections, file)


def load_part(path: str | None, sections: Collection[str], kind: type[_Section]) -> _Section:
    """Read only what ``kind`` names of the file that ``load`` would read.

    Whatever else stands there is not looked at, so that it cannot do harm.
    """
    text, file = _text(path)
    known = settings_of(kind)
    table = {key: value for key, value in _table(text, file).items() if key in known}
    return _Reader(sections).section("", table, kind)


def place(path: str | None) -> str:
    """Return which file ``load`` would read."""
    return _find(path)[0]


def lines(path: str | None) -> list[str]:
    """Return the lines of the file that ``load`` would read; raises ConfigError."""
    return _text(path)[0].splitlines()


def _text(path: str | None) -> tuple[str, str]:
    """Return the text of the configuration file, and which file it is."""
    file, named_by = _find(path)
    try:
        content, info = trusted.read(file)
        trusted.refuse_untrusted(file, info)
    except OSError as error:
        raise ConfigError(f"{show(file)} ({named_by}): {error.strerror}; copy docs/imagewarden."
                          "example.toml there, or name another by --config") from None
    try:
        return content.decode(), file
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{show(file)}: line {line} is not UTF-8") from None


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


class _FromFile(str):
    """What a file of its own held: no message may give it away."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "the content of its file"


def parse(text: str, sections: Collection[str] = (), file: str = "configuration") -> Config:
    """Understand the text of a configuration file; see ``load`` for ``sections``."""
    reader = _Reader(sections)
    config = reader.section("", _table(text, file), Config)
    return msgspec.structs.replace(config, from_files=reader.from_files)


def _table(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {text.count(chr(10)) + 1}, the end"
        fault = str(error).replace("at end of document", end)
        raise Unparsed(f"{show(file)}: not TOML: {fault}") from None
    except (ValueError, RecursionError):
        raise Unparsed(f"{show(file)}: not TOML: too long a number or too deep a list") from None


class _Reader:
    """Turns TOML's tables into settings; each fault becomes a line that names its setting."""

    def __init__(self, sections: Collection[str]) -> None:
        self.sections = sections
        self.from_files: dict[str, str] = {}

    def section(self, name: str, raw: object, kind: type[_Section]) -> _Section:
        prefix = f"{name}." if name else ""
        known = settings_of(kind)
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
            return msgspec.convert(raw, kind, dec_hook=complaints.decode)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name}: {complaints.complaint(raw, kind, error)}") from None


def _section_of(name: str) -> str:
    head, dot, _ = name.partition(".")
    return head if dot and not head.startswith("store[") else "store"


def _expect(shape: type[_Shape], name: str, raw: object, kind: object) -> _Shape:
    if not isinstance(raw, shape):  # it is not shown: it may be a URL that lost its brackets
        wanted = complaints.expected(kind)
        raise ConfigError(f"{name}: its value has the wrong type: expected {wanted}")
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
        content, info = trusted.read(file)
        text = content.decode().removesuffix("\n")
    except OSError as error:
        raise ConfigError(f"{name}: {show(file)}: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a name with NUL in it
        raise ConfigError(f"{name}: {show(file)}: not UTF-8 text") from None
    if info.st_mode & 0o066:
        raise ConfigError(f"{name}: {show(file)}: readable or writable by group or others: "
                          f"chmod go-rw {show(file)}")
    return text
