"""Everything an admin can set: one frozen structure for each section of the file.

Attributes are called as in the file and have its defaults. A text that still reads
"@/file" is in a section the job did not ask for; no check looks at it.
"""

import re
from itertools import product
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import FieldInfo, fields

from maintenance.errors import ConfigError
from maintenance.kinds import (
    TCP,
    Count,
    Database,
    Identity,
    Job,
    Load,
    MaybeUrl,
    Mirror,
    Mode,
    Name,
    Natural,
    Quality,
    Server,
    Socket,
    Source,
    Times,
    Url,
    Window,
)
from maintenance.text import show
from maintenance.units import Duration, Share, Size, Timeout


def is_reference(value: object) -> bool:
    """Tell whether a setting still names the file that holds its value."""
    return isinstance(value, str | Path) and str(value).startswith("@/")


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tree of images; ``marker`` may be relative to it."""

    name: Name
    path: Path
    quarantine: Path | None = None  # see Config.quarantine_of
    marker: str = ""
    exclude: tuple[str, ...] = ()
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
        tcp = re.fullmatch(TCP, self.socket)
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
        return self.uploads.upload_spool

    @property
    def uploads(self) -> "UploadSettings":
        """Return what a scan of an upload reads of it."""
        return UploadSettings(user=self.user, state=self.state, clamav=self.clamav,
                              upload=self.upload)

    @property
    def hits_spool(self) -> Path:
        """Return the directory where hits wait to be counted."""
        return HitsSettings(state=self.state, hits=self.hits).spool

    @property
    def hits_database(self) -> str:
        """Return the SQLAlchemy URL of the database that counts hits."""
        return HitsSettings(state=self.state, hits=self.hits).database


class UploadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload's scan reads: a mistake in any other section must not stop uploads."""

    user: str = ""
    state: Path
    clamav: Clamav = Clamav()
    upload: Upload = Upload()

    @property
    def upload_spool(self) -> Path:
        """Return the directory where uploads leave their counts."""
        return self.upload.spool or self.state / "spool" / "upload"


class HitsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an application reads that counts hits."""

    state: Path
    hits: Hits = Hits()

    @property
    def spool(self) -> Path:
        """Return the directory where hits wait to be counted."""
        return self.hits.spool or self.state / "spool" / "hits"

    @property
    def database(self) -> str:
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


def settings_of(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    """Return the settings of a section, by name."""
    return {field.name: field for field in fields(kind) if field.name != "from_files"}
