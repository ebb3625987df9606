"""The words in which the template is described; everything else here is tables of them."""

import hashlib
import re
from dataclasses import dataclass, field

TEMPLATE = "imagewarden"
PREFIX = "imagewarden."


def uuid(kind: str, name: str) -> str:
    """Return the UUID of a part; one of the same name is the same part to every import."""
    digest = bytearray(hashlib.sha256(f"{TEMPLATE}/{kind}/{name}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40  # what Zabbix insists on: the form of version 4
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


def with_paths(expression: str) -> str:
    """Write ``@outbox.waiting`` out as the item's path in a trigger's expression."""
    return re.sub(r"@([a-z_.]+(?:\[[^\]]*\])?)", rf"/{TEMPLATE}/{PREFIX}\1", expression)


@dataclass(frozen=True, slots=True)
class Master:
    """A trapper item, which holds a whole JSON result."""

    key: str
    name: str
    about: str
    history: str = "31d"


@dataclass(frozen=True, slots=True)
class Item:
    """A member of a master item's JSON; without a ``path`` the script gets all of it.

    ``kind``: number, share (with a fraction, or below zero), flag (yes or no), time,
    text (long) or word. ``otherwise``: what a member that is missing or null counts as;
    None: then there is no value.
    """

    key: str
    name: str
    master: str
    path: str
    kind: str = "number"
    units: str = ""
    otherwise: str | None = None
    script: str = ""  # JavaScript over what the path found
    trends: str = "365d"


@dataclass(frozen=True, slots=True)
class Trigger:
    """An alarm. ``mark`` stays when its name changes; ``after``: marks that silence it."""

    mark: str
    name: str
    expression: str
    severity: str
    happened: str
    todo: str
    after: tuple[str, ...] = ()
    opdata: str = ""  # beside the name: a number, for the frontend shows little of a text
    more: str = ""  # what the name of a problem says besides
    by_hand: bool = False  # stays until somebody closes it

    @property
    def about(self) -> str:
        """Return what the person reads who was called."""
        return f"{self.happened}\n\nWhat to do: {self.todo}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Items in one picture; ``lines``: key and colour."""

    name: str
    lines: tuple[tuple[str, str], ...]
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A discovery rule, and what is made for each thing that it finds."""

    key: str
    name: str
    about: str
    without: tuple[str, str] | None = None  # macro and regular expression: found, but left out
    masters: tuple[Master, ...] = ()
    items: tuple[Item, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    graphs: tuple[Graph, ...] = ()


@dataclass(frozen=True, slots=True)
class Macro:
    """A threshold; ``context``: the job it is for."""

    name: str
    value: str
    about: str
    context: str = ""

    @property
    def written(self) -> str:
        """Return it as expressions have it."""
        inner = f':"{self.context}"' if self.context else ""
        return f"{{${PREFIX.upper()}{self.name}{inner}}}"


@dataclass(frozen=True, slots=True)
class Widget:
    """A rectangle of a dashboard; it shows a graph, the graphs of a rule, or an item."""

    kind: str  # graph, graphs, item
    shows: str
    place: tuple[int, int, int, int]  # x, y, width, height
    title: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of widgets."""

    name: str
    widgets: tuple[Widget, ...] = field(default=())
