"""Everything an admin can set: one frozen structure for each section of the file.

Attributes are called as in the file and have its defaults. A text that still reads
"@/file" is in a section the job did not ask for; no check looks at it.
"""

import re
from itertools import product
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import msgspec
from msgspec import Meta

from maintenance.errors import ConfigError
from maintenance.text import show


class Duration(float):
    """Seconds; read from and printed as "90s", "10m", "4h", "7d" or "0"."""

    example: ClassVar = 'a duration such as "90s", "10m", "4h" or "7d"'
    units: ClassVar = {"d": 86400, "h": 3600, "m": 60, "s": 1}

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take seconds; ValueError says what is wrong."""
        number = _read(value, cls.units, cls.example)
        if number > 36500 * 86400:  # a date that long ago can still be computed
            raise ValueError(f'{value!r} is longer than "36500d"')
        return super().__new__(cls, number)

    def __str__(self) -> str:
        return _write(self, self.units) if self else "0"


class Timeout(Duration):
    """A duration one can wait for: above zero, at most the day that a socket takes."""

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take seconds; ValueError says what is wrong."""
        self = super().__new__(cls, value)
        if 0 < self <= 86400:
            return self
        raise ValueError(f'{value!r} must be above zero and at most "1d"')


class Size(int):
    """Bytes, or pixels; read from and printed as "10M". K, M, G and T are powers of 1024."""

    example: ClassVar = 'a size such as "10M" or "2G"'
    units: ClassVar = {"T": 2**40, "G": 2**30, "M": 2**20, "K": 2**10, "": 1}

    def __new__(cls, value: str | int) -> Self:
        """Read a text or take a number; ValueError says what is wrong."""
        number = _read(value, cls.units, cls.example)
        if number >= 2**53:  # what a float no longer counts one by one, nor the system takes
            raise ValueError(f"{value!r} is larger than any file")
        return super().__new__(cls, number)

    def __str__(self) -> str:
        return _write(self, self.units) if self else "0"


class Share(float):
    """A part of one; read from and printed as "0.5%"."""

    example: ClassVar = 'a share such as "0.5%"'

    def __new__(cls, value: str | float) -> Self:
        """Read a text or take a fraction; ValueError says what is wrong."""
        part = _read(value, {"%": 1}, cls.example) / 100 if isinstance(value, str) else value
        if part > 1:
            raise ValueError(f"{value!r} is more than 100%")
        return super().__new__(cls, part)

    def __str__(self) -> str:
        return f"{self * 100:.12g}%"


def _read(value: str | float, units: dict[str, int], example: str) -> float:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([A-Za-z%]?)", value)
    if match and match[2] in units:
        return float(match[1]) * units[match[2]]
    if value == "0":
        return 0
    raise ValueError(f"{value!r} is not {example}")


def _write(number: float, units: dict[str, int]) -> str:
    unit = next((unit for unit, worth in units.items() if number % worth == 0), "s")
    return f"{number / units[unit]:.3f}".rstrip("0").rstrip(".") + unit


def _like(pattern: str, example: str, *, private: str = "") -> Meta:
    return Meta(pattern=rf"\A(?:@/.*|{pattern})\Z", description=example, extra={"private": private})


_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)"
_TCP = rf"tcp://({_HOST}):({_PORT})"

# Annotated kinds: `description` completes "expected …"; a private value is never printed whole.
Name = Annotated[str, _like(r"(?!\.{1,2}\Z)[^/]{1,64}", '1 to 64 characters without "/"')]
Socket = Annotated[str, _like(rf"/[^\0]+|{_TCP}", 'a path, or such as "tcp://127.0.0.1:3310"')]
Server = Annotated[str, _like(rf"{_HOST}(:{_PORT})?", 'a text such as "127.0.0.1:10051"')]
Window = Annotated[
    str, _like(rf"|(?!(.{{5}})-\1\Z){_CLOCK}-{_CLOCK}", 'a text such as "03:00-05:30"')
]
Times = Annotated[str, _like(rf"every [1-9][0-9]{{0,3}}[mh]|{_CLOCK}", '"every 5m" or "03:00"')]
Mode = Annotated[str, _like("0?[0-7]{3}", 'a text such as "0644"')]
Mirror = Annotated[str, _like(r"[^\s/@]+|https?://\S+", "a host or an http URL", private="url")]
Source = Annotated[str, _like(r"(https?|file)://\S+", "an http or file URL", private="url")]
Url = Annotated[str, _like(r"https?://\S+", "an http URL", private="path")]
MaybeUrl = Annotated[str, _like(r"|https?://\S+", 'an http URL or ""', private="url")]
Database = Annotated[str, _like(r"|[a-z][a-z0-9_+]*://.*", "a database URL", private="url")]
Identity = Annotated[str, Meta(description="a text", extra={"private": "whole"})]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1, description="a whole number, 0 or above")]
Natural = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number above 0")]
Quality = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
Load = Annotated[float, Meta(ge=0, description="a number, 0 or above")]
Job = Literal["definitions", "rescan", "optimize", "checks", "hits", "upload"]


def is_reference(value: object) -> bool:
    """Tell whether a setting still names the file that holds its value."""
    return isinstance(value, str | Path) and str(value).startswith("@/")


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tree of images; ``marker`` may be relative to it."""

    name: Name
    path: Path
    quarantine: Path | None = None  # see Config.quarantine_of
    marker: str = ""
    exclude: tuple[str, ...] = ("cache/**",)
    max_side: Count = 0
    png_to_jpeg: bool = False
    redirects: bool = False
    originals: Path | None = None
    originals_keep: Duration = Duration("30d")
    min_age: Duration = Duration("0s")

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ConfigError(f"store {self.name!r}: name: must be printable")
        if (self.max_side or self.png_to_jpeg) and self.originals is None:
            raise ConfigError(f'store "{self.name}": originals: required for lossy steps')


class Clamav(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which engine answers, and for how long it may take."""

    engine: Literal["auto", "system", "private"] = "auto"
    socket: Socket = "/run/clamav/clamd.ctl"
    databases: Path | None = None
    timeout: Timeout = Timeout("120s")
    max_file_size: Size = Size("100M")

    @property
    def address(self) -> Path | tuple[str, int]:
        """Return the system engine's socket: a path, or host and port."""
        tcp = re.fullmatch(_TCP, self.socket)
        return (tcp[1].strip("[]"), int(tcp[2])) if tcp else Path(self.socket)


class Definitions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where signature databases come from, and how old they may become."""

    official: bool = True
    mirror: Mirror = "database.clamav.net"
    custom_urls: tuple[Source, ...] = ()
    freshclam_config: Path | None = None
    warn_age: Duration = Duration("2d")
    fail_age: Duration = Duration("7d")
    start_rescan: bool = True
    user: str = ""


class Rescan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much is scanned again, and what becomes of what is found."""

    action: Literal["report", "quarantine"] = "report"
    quarantine_limit: Count = 20
    quarantine_max: Size = Size("10G")
    window: Window = ""
    full_every: Duration = Duration("30d")
    time_limit: Duration = Duration("0")
    in_flight: Count = 0


class Optimize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When images are made smaller, with what, and what stays in them."""

    window: Window = "03:00-05:30"
    max_load: Load = 0.0
    workers: Count = 0
    png: Literal["auto", "oxipng", "optipng", "off"] = "auto"
    jpeg: Literal["auto", "mozjpeg", "jpegtran", "strip", "off"] = "auto"
    keep_metadata: tuple[
        Literal["icc", "orientation", "copyright", "exif", "xmp", "all"], ...
    ] = ("icc", "orientation")
    min_gain: Share = Share("0.5%")
    sandbox: Literal["auto", "required", "off"] = "auto"


class Upload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules an upload meets, and what happens to it."""

    enabled: bool = True
    observe: bool = False
    timeout: Timeout = Timeout("10s")
    when_unavailable: Literal["refuse", "accept"] = "refuse"
    mode: Mode = "0644"
    spool: Path | None = None  # see Config.upload_spool
    max_size: Size = Size("20M")
    max_pixels: Size = Size("100M")
    types: tuple[Literal["jpeg", "png", "gif", "webp"], ...] = ("jpeg", "png", "gif", "webp")
    max_side: Count = 0
    png_to_jpeg: bool = False
    jpeg_quality: Quality = 85

    def __post_init__(self) -> None:
        if not self.types:
            raise ConfigError("upload.types: at least one type is required")


class Zabbix(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which Zabbix is told; nothing is queued while ``servers`` is empty."""

    servers: tuple[Server, ...] = ()
    host: str = ""
    timeout: Timeout = Timeout("3s")
    tls: Literal["off", "psk", "cert"] = "off"
    psk_identity: Identity = ""
    psk_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        needs = {"off": (), "psk": ("psk_identity", "psk_file"),
                 "cert": ("ca_file", "cert_file", "key_file")}[self.tls]
        for setting in needs:
            if not getattr(self, setting):
                raise ConfigError(f'zabbix.{setting}: required with tls = "{self.tls}"')


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who else is told: of runs, and of replaced images."""

    heartbeat_urls: dict[Job, Url] = {}
    purge_url: MaybeUrl = ""


class Hits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How views of images are counted."""

    mode: Literal["spool", "immediate"] = "spool"
    spool: Path | None = None  # see Config.hits_spool
    spool_max: Natural = 10000
    database: Database = ""  # see Config.hits_database


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When run-schedule starts each job."""

    definitions: Times = "every 1h"
    rescan: Times = "05:30"
    optimize: Times = "03:00"
    checks: Times = "every 5m"
    hits: Times = "every 1m"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file, and the places that follow from it."""

    user: str = ""
    state: Path
    logs: Path | None = Path("/var/log/imagewarden")
    store: tuple[Store, ...]
    clamav: Clamav = Clamav()
    definitions: Definitions = Definitions()
    rescan: Rescan = Rescan()
    optimize: Optimize = Optimize()
    upload: Upload = Upload()
    zabbix: Zabbix = Zabbix()
    notify: Notify = Notify()
    hits: Hits = Hits()
    schedule: Schedule = Schedule()
    from_files: dict[str, str] = {}  # no setting: "notify.purge_url" -> "@/path", for masked()

    def __post_init__(self) -> None:
        if not self.store:
            raise ConfigError("store: at least one [[store]] is required")
        for one, other in product(self.store, repeat=2):
            if one is not other:
                if one.name == other.name:
                    raise ConfigError(f'store "{one.name}": name: another store has it too')
                _apart(one, "path", one.path, other)
            _apart(one, "quarantine", self.quarantine_of(one), other)
            _apart(one, "originals", one.originals, other)

    def quarantine_of(self, store: Store) -> Path:
        """Return the directory that takes what is found in ``store``."""
        return store.quarantine or self.state / "quarantine" / store.name

    @property
    def own_databases(self) -> Path:
        """Return where definitions lie when the system keeps none."""
        return self.state / "databases"

    @property
    def upload_spool(self) -> Path:
        """Return the directory where uploads leave their counts."""
        return self.upload.spool or self.state / "spool" / "upload"

    @property
    def hits_spool(self) -> Path:
        """Return the directory where hits wait to be counted."""
        return self.hits.spool or self.state / "spool" / "hits"

    @property
    def hits_database(self) -> str:
        """Return the SQLAlchemy URL of the database that counts hits."""
        return self.hits.database or f"sqlite:///{self.state / 'hits.sqlite'}"


def _apart(one: Store, setting: str, place: Path | None, other: Store) -> None:
    if place is None or is_reference(place):
        return
    if place.is_relative_to(other.path):
        relation = "lies inside"
    elif other.path.is_relative_to(place):
        relation = "contains"
    else:
        return
    raise ConfigError(f'store "{one.name}": {setting}: {show(place)} {relation} '
                      f'the path of store "{other.name}"')
