"""What a Zabbix server answers, read as if anybody could have written it."""

import json
import re

from maintenance.monitoring.server import Server
from maintenance.text import show

SHOWN = 300  # characters of a server's own words in a message


class Nonsense(Exception):  # noqa: N818 - of the peer
    """An answer that no Zabbix server gives."""


def read(answer: bytes, offered: int) -> int | Server:
    """Return how many values were taken, or who is to be asked instead."""
    try:
        told = json.loads(answer)
        response, info = told["response"], str(told.get("info", ""))
        instead = told["redirect"]["address"] if "redirect" in told else None
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise Nonsense("its answer is not one of Zabbix") from None
    if instead is not None:
        return _redirected(instead)
    counts = re.search(r"processed: (\d{1,9});", info)
    if response != "success" or counts is None:
        raise Nonsense(f"refuses: {show(info or str(told))[:SHOWN]}")
    taken = int(counts[1])
    if taken > offered:
        raise Nonsense(f"claims to have taken {taken} of {offered} values")
    return taken


def _redirected(address: object) -> Server:
    text = str(address)
    if not text.isprintable() or not re.fullmatch(r"(\[.+\]|[^:\[\]]+)(:\d{1,5})?", text):
        raise Nonsense(f"redirects us to {show(text)[:SHOWN]}")
    return Server.parse(text)
