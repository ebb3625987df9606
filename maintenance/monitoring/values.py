"""A value for Zabbix: what it is, how long it may be, how zabbix_sender reads it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 65_535  # characters of a text that Zabbix keeps; it cuts what is longer
ROWS = {"stores", "databases", "jobs"}  # lists that have an item for every entry
_ENOUGH = 1000  # characters left of a text when lists alone do not make a value short enough


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the item ``key``; no two of an item may share both ``clock`` and ``ns``."""

    host: str
    key: str
    value: str
    clock: int  # epoch seconds
    ns: int

    def members(self) -> dict[str, object]:
        """Return it as Zabbix's protocol has it."""
        return {"host": self.host, "key": self.key, "value": self.value, "clock": self.clock,
                "ns": self.ns}

    def line(self) -> str:
        """Return it as a line of ``zabbix_sender --with-timestamps --with-ns``."""
        return (f"{_quoted(self.host)} {_quoted(self.key)} {self.clock} {self.ns}"
                f" {_quoted(self.value)}")


def _quoted(text: str) -> str:
    r"""Quote a text; inside quotes zabbix_sender knows \\, \" and \n."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def fitted(text: str, longest: int = LONGEST) -> str:
    """Return a JSON object as short as Zabbix wants it, and as long as it may be.

    Only lists lose entries, from the end of the longest one first, and what items are
    made of (stores, databases, jobs) last: numbers such as totals stay exact, and
    ``"truncated": true`` says what happened. Where lists are not what makes it long,
    long texts are cut as well: better than a value cut somewhere by Zabbix, which no
    JSONPath can read.
    """
    if len(text) <= longest:
        return text
    whole = json.loads(text)
    whole["truncated"] = True
    while len(text := json.dumps(whole, ensure_ascii=False)) > longest:
        lists = sorted(_lists(whole), key=lambda one: (one[0] not in ROWS, _length(one[1])))
        if lists:
            longest_list = lists[-1][1]
            del longest_list[-max(1, len(longest_list) // 8):]
        elif not _cut_texts(whole):
            break
    return text


def parts(text: str, member: str, longest: int = LONGEST) -> Sequence[str]:
    """Return a JSON object as several that are short enough, each with some of a list.

    Every part has all other members; items that find nothing of theirs in it keep
    what they have. Nothing is lost. One part is the text itself.
    """
    if len(text) <= longest:
        return [text]
    whole = json.loads(text)
    rows, size = whole[member], len(whole[member])
    while size > 1:
        size = -(-size // 2)
        made = [json.dumps({**whole, member: rows[at:at + size], "truncated": True},
                           ensure_ascii=False) for at in range(0, len(rows), size)]
        if max(map(len, made)) <= longest:
            return made
    return [fitted(text, longest)]


def _lists(node: object, name: str = "") -> Iterator[tuple[str, list[Any]]]:
    if isinstance(node, dict):
        for inner_name, inner in node.items():
            yield from _lists(inner, inner_name)
    elif isinstance(node, list) and node:
        yield name, node


def _length(node: object) -> int:
    return len(json.dumps(node, ensure_ascii=False))


def _cut_texts(node: dict[str, Any]) -> bool:
    """Cut every long text; tell whether there was one."""
    found = False
    for name, inner in node.items():
        if isinstance(inner, dict):
            found |= _cut_texts(inner)
        elif isinstance(inner, str) and len(inner) > _ENOUGH:
            node[name] = inner[:_ENOUGH - 1] + "…"
            found = True
    return found
