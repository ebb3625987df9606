"""YAML as Zabbix exports it, of what is made of dicts, lists and texts."""

import re
from collections.abc import Iterator, Mapping, Sequence

_PLAIN = re.compile(r"[A-Za-z$/][A-Za-z0-9_.$/()%]*(?: [A-Za-z0-9_.$/()%]+)*")
_WORDS = {"yes", "no", "true", "false", "null", "on", "off", "y", "n"}  # not texts, to YAML

Node = str | Mapping[str, "Node"] | Sequence["Node"]


def dump(node: Node) -> str:
    """Return ``node`` as a YAML document."""
    return "".join(f"{line}\n" if line else "\n" for line in _lines(node, 0))


def _lines(node: Node, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(node, Mapping):
        for key, inner in node.items():
            if isinstance(inner, str):
                yield from _text(f"{indent}{key}:", inner, depth)
            else:
                yield f"{indent}{key}:"
                yield from _lines(inner, depth + 1)
    elif not isinstance(node, str):
        for inner in node:
            if isinstance(inner, str):
                yield from _text(f"{indent}-", inner, depth)
            else:
                first, *rest = _lines(inner, depth + 1)
                yield f"{indent}- {first.lstrip()}"
                yield from rest


def _text(head: str, text: str, depth: int) -> Iterator[str]:
    if "\n" in text:
        yield f"{head} |-"
        yield from (f"{'  ' * (depth + 1)}{line}" if line else "" for line in text.split("\n"))
    else:
        yield f"{head} {_scalar(text)}"


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return "'" + text.replace("'", "''") + "'"
