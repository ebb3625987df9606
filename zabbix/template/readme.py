"""The README's tables, of the same tables that the template is made of."""

from collections.abc import Iterator, Sequence

from template import items, macros, triggers
from template.parts import PREFIX, Item, Macro, Trigger

BEGIN, END = "<!-- made by generate-template -->\n", "<!-- until here -->\n"


def with_tables(text: str) -> str:
    """Return the README with its tables made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join(_tables())
    return f"{before}{BEGIN}{made}\n\n{END}{after}"


def _tables() -> Iterator[str]:
    rules = items.RULES
    yield from _table("Alarms", ("alarm", "severity", "what happened"), [
        _alarm(one) for one in (*triggers.TRIGGERS, *(one for rule in rules
                                                      for one in rule.triggers))])
    yield from _table("Macros", ("macro", "default", "meaning"), [
        _macro(one) for one in macros.MACROS])
    yield from _table("Trapper items", ("key", "value", "kept"), [
        (f"`{PREFIX}{one.key}`", one.about, one.history)
        for one in (*items.MASTERS, *(one for rule in rules for one in rule.masters))])
    yield from _table("Discovery", ("key", "makes items"), [
        (f"`{PREFIX}{one.key}`", one.about) for one in rules])
    yield from _table("Dependent items", ("key", "name", "from"), [
        _item(one) for one in (*items.ITEMS, *(one for rule in rules for one in rule.items))])


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"\n### {title}\n"
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _alarm(one: Trigger) -> Sequence[str]:
    name = one.name + (" (closed by hand)" if one.by_hand else "")
    return name, one.severity.lower(), one.happened


def _macro(one: Macro) -> Sequence[str]:
    return f"`{one.written}`", one.value, one.about


def _item(one: Item) -> Sequence[str]:
    path = f" `{one.path}`" if one.path else ""
    return f"`{PREFIX}{one.key}`", one.name, f"{one.master}{path}"
