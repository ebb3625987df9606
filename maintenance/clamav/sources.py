"""Where freshclam gets its databases from, in its own words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maintenance.clamav.databases import SUFFIXES
from maintenance.errors import ToolError
from maintenance.masking import masked_url
from maintenance.text import show

RECEIVE_TIMEOUT = 300  # seconds without progress after which a transfer is given up
# What freshclam's source calls official; of the others it knows these only.
STANDARD, OPTIONAL = ("daily", "main", "bytecode"), frozenset({"safebrowsing", "test", "valhalla"})
_OURS = frozenset({
    "DatabaseDirectory", "DatabaseOwner", "UpdateLogFile", "LogVerbose", "LogSyslog", "LogRotate",
    "LogTime", "LogFileMaxSize", "PidFile", "Foreground", "Checks", "NotifyClamd", "Example",
    "OnUpdateExecute", "OnErrorExecute", "OnOutdatedExecute", "TestDatabases", "Debug"})
_SERVERS = frozenset({"DatabaseMirror", "PrivateMirror"})
_CHOICES = frozenset({"ExtraDatabase", "ExcludeDatabase", "Bytecode"})
_URL = "DatabaseCustomURL"
_CDN = ".clamav.net"  # only its DNS says which versions there are


@dataclass(frozen=True, slots=True)
class Sources:
    """What one run of freshclam fetches, and how."""

    databases: Sequence[str]  # official ones, by name
    servers: Sequence[tuple[str, str]]  # option and value: in the order they are asked
    urls: Sequence[str]  # databases of others
    settings: Sequence[str] = ()  # further lines, such as a proxy's

    @classmethod
    def of(cls, official: bool, mirror: str, urls: Sequence[str], base: Path | None) -> "Sources":
        """Return what the configuration asks for; ``base``: a freshclam.conf to begin with.

        Raises ToolError when that file cannot be read.
        """
        lines = [] if base is None else list(_settings(base))
        chosen = [(name, _plain(value)) for name, value in lines if name in _CHOICES]
        servers = [(name, _plain(value)) for name, value in lines if name in _SERVERS]
        inherited = [_plain(value) for name, value in lines if name == _URL]
        return cls(tuple(_chosen(chosen)) if official else (),
                   # Also needed where only URLs are fetched: without one it exits with 9.
                   servers or [("DatabaseMirror", mirror)],
                   tuple(dict.fromkeys((*inherited, *urls))),
                   [f"{name} {value}" for name, value in lines
                    if name not in {*_SERVERS, *_CHOICES, _URL}])

    @property
    def none(self) -> bool:
        """Tell whether there is nothing to fetch."""
        return not self.databases and not self.urls

    @property
    def files(self) -> list[str]:
        """Return the paths of databases that are copied on this host."""
        return [url.removeprefix("file://") for url in self.urls if url.startswith("file://")]

    def without(self, urls: Sequence[str]) -> "Sources":
        """Return the same less some of the URLs."""
        return Sources(self.databases, self.servers,
                       [url for url in self.urls if url not in urls], self.settings)

    def remote(self) -> list[str]:
        """Return the URLs that some server is asked for."""
        return [url for url in self.urls if not url.startswith("file://")]

    def unusable(self) -> Iterator[tuple[str, str]]:
        """Yield URLs that cannot do what they are for, each with the reason.

        freshclam stores what a URL gives under the text behind its last slash.
        """
        names = Counter(map(_stored, self.urls))
        for url in self.urls:
            name = _stored(url)
            if PurePosixPath(name).suffix.lower() not in SUFFIXES:
                yield url, (f"{masked_url(url)}: freshclam would store it as {_shown(url)},"
                            " which clamd does not load")
            elif names[name] > 1:
                yield url, f"{masked_url(url)}: another URL is stored as {_shown(url)}, too"

    def configuration(self, directory: Path) -> str:
        """Return the text of the freshclam.conf for one run."""
        # Only a freshclam that runs as root looks at the owner: it would become clamav.
        lines = [f'DatabaseDirectory "{directory}"', "DatabaseOwner root", "TestDatabases yes",
                 f"ReceiveTimeout {RECEIVE_TIMEOUT}", *self.settings,
                 *(f"{name} {value}" for name, value in self.servers),
                 *(f"{_URL} {url}" for url in self.urls)]
        return "\n".join(lines) + "\n"

    def arguments(self) -> list[str]:
        """Return the options of one run."""
        dns = self.databases and all(
            name == "DatabaseMirror" and value.endswith(_CDN) for name, value in self.servers)
        # By name: a run over all it knows deletes every other .cvd and .cld it finds.
        wanted = [*self.databases, *(["custom"] if self.urls else [])]
        return ["--stdout", *([] if dns else ["--no-dns"]),
                *(f"--update-db={name}" for name in wanted)]

    def masked(self, text: str) -> str:
        """Return what freshclam said without the secrets that a URL may hold."""
        for url in (*self.urls, *(value for _, value in self.servers)):
            text = text.replace(url, masked_url(url))
            if "?" in _stored(url):
                text = text.replace(_stored(url), _shown(url))
        return text


def _settings(base: Path) -> Iterator[tuple[str, str]]:
    """Yield option and value of every line of ``base`` that is not for us to decide."""
    try:
        text = base.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ToolError(f"definitions.freshclam_config: {show(base)}: {error.strerror}") from None
    for line in map(str.strip, text.splitlines()):
        name, *value = line.split(maxsplit=1) or [""]
        if name and name not in _OURS and not line.startswith("#"):
            yield name, "".join(value)


def _chosen(choices: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the official databases, less those that are not wanted, and the wanted extra ones."""
    out = {value for name, value in choices if name == "ExcludeDatabase"}
    if any(name == "Bytecode" and value.lower() in {"no", "false", "0"} for name, value in choices):
        out.add("bytecode")
    extra = [value for name, value in choices if name == "ExtraDatabase" and value in OPTIONAL]
    yield from (name for name in dict.fromkeys((*STANDARD, *extra)) if name not in out)


def _plain(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _stored(url: str) -> str:
    return url.rpartition("/")[2]


def _shown(url: str) -> str:
    return show(_stored(masked_url(url)))
