"""The tables as Zabbix's export format, version 6.0, which 7.0 imports as well."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from template import dashboards, items, macros, triggers, yaml
from template.parts import (
    PREFIX,
    TEMPLATE,
    Dashboard,
    Graph,
    Item,
    Macro,
    Master,
    Rule,
    Trigger,
    Widget,
    uuid,
    with_paths,
)
from template.yaml import Node

# Zabbix's own group for such templates, under the UUID that it has in every installation.
GROUP = {"uuid": "a571c0d144b14fd4a87a9d9b2aa9fcd6", "name": "Templates/Applications"}
ABOUT = """\
imagewarden keeps a store of uploaded images clean, small and watched. Its jobs send their
results to trapper items of this template; all other items depend on these. Link it to the host
under the name that [zabbix] host of /etc/imagewarden.toml says. How to: zabbix/README.md."""
VALUE_TYPES = {"share": "FLOAT", "text": "TEXT", "word": "CHAR"}  # any other: UNSIGNED
TO_EPOCH = "var at = Date.parse(value);\nreturn isNaN(at) ? 0 : at / 1000;"
YES_NO = "yes or no"


def template() -> str:
    """Return the whole template as YAML."""
    every = [*triggers.TRIGGERS, *(one for rule in items.RULES for one in rule.triggers)]
    known = {one.mark: one for one in every}
    return yaml.dump({"zabbix_export": {
        "version": "6.0", "date": "2026-11-25T00:00:00Z", "groups": [GROUP],
        "templates": [{
            "uuid": uuid("template", TEMPLATE), "template": TEMPLATE, "name": TEMPLATE,
            "description": ABOUT, "groups": [{"name": GROUP["name"]}],
            "items": [*map(_master, items.MASTERS), *map(_item, items.ITEMS)],
            "discovery_rules": [_rule(one, known) for one in items.RULES],
            "macros": [_macro(one) for one in macros.MACROS],
            "dashboards": [_dashboard(one) for one in dashboards.DASHBOARDS],
            "valuemaps": [{"uuid": uuid("valuemap", YES_NO), "name": YES_NO, "mappings": [
                {"value": "0", "newvalue": "no"}, {"value": "1", "newvalue": "yes"}]}]}],
        "triggers": [_trigger("trigger", one, known) for one in triggers.TRIGGERS],
        "graphs": [_graph("graph", one) for one in items.GRAPHS]}})


def _master(one: Master) -> Mapping[str, Node]:
    return {"uuid": uuid("item", one.key), "name": one.name, "type": "TRAP",
            "key": PREFIX + one.key, "delay": "0", "history": one.history, "trends": "0",
            "value_type": "TEXT", "description": one.about, "tags": _tags(one.key)}


def _item(one: Item) -> Mapping[str, Node]:
    kind = VALUE_TYPES.get(one.kind, "UNSIGNED")
    numeric = kind in {"FLOAT", "UNSIGNED"}
    shown: dict[str, Node] = {"units": "unixtime" if one.kind == "time" else one.units}
    if one.kind == "flag":
        shown["valuemap"] = {"name": YES_NO}
    return {"uuid": uuid("item", one.key), "name": one.name, "type": "DEPENDENT",
            "key": PREFIX + one.key, "delay": "0", "history": "31d" if kind == "TEXT" else "90d",
            "trends": one.trends if numeric else "0", "value_type": kind,
            **{name: value for name, value in shown.items() if value},
            "preprocessing": [*_steps(one)], "master_item": {"key": PREFIX + one.master},
            "tags": _tags(one.key)}


def _steps(one: Item) -> Iterable[Mapping[str, Node]]:
    """Yield what makes the member's value of the JSON; null and missing are the same.

    Not so where the whole row of a store may be in another part of a long state.
    """
    script = one.script or (TO_EPOCH if one.kind == "time" else "")
    default = "" if script == TO_EPOCH else one.otherwise
    nothing: dict[str, Node] = {"error_handler": "DISCARD_VALUE"}
    otherwise = nothing if default is None else {
        "error_handler": "CUSTOM_VALUE", "error_handler_params": default}
    if one.path:
        missing = nothing if "{#" in one.path else otherwise
        yield {"type": "JSONPATH", "parameters": [one.path], **missing}
    if script:
        yield {"type": "JAVASCRIPT", "parameters": [script]}
    else:
        yield {"type": "NOT_MATCHES_REGEX", "parameters": ["^null$"], **otherwise}
    if one.kind == "flag":
        yield {"type": "BOOL_TO_DECIMAL", "parameters": [""]}


def _tags(key: str) -> Sequence[Node]:
    return [{"tag": "component", "value": key.partition("[")[0].partition(".")[0]}]


def _trigger(kind: str, one: Trigger, known: Mapping[str, Trigger]) -> Mapping[str, Node]:
    by_hand = {"recovery_mode": "NONE"} if one.by_hand else {}
    after = {"dependencies": [
        {"name": _named(known[mark]), "expression": with_paths(known[mark].expression)}
        for mark in one.after]} if one.after else {}
    return {"uuid": uuid(kind, one.mark), "expression": with_paths(one.expression), **by_hand,
            "name": _named(one), **({"event_name": _named(one) + one.more} if one.more else {}),
            **({"opdata": one.opdata} if one.opdata else {}),
            "priority": one.severity, "description": one.about, "manual_close": "YES", **after,
            "tags": [{"tag": "scope", "value": one.mark.partition("[")[0].partition(".")[0]}]}


def _named(one: Trigger) -> str:
    return f"{TEMPLATE}: {one.name}"


def _graph(kind: str, one: Graph) -> Mapping[str, Node]:
    order = count()
    return {"uuid": uuid(kind, one.name), "name": f"{TEMPLATE}: {one.name}",
            **({"type": "STACKED"} if one.stacked else {}), "graph_items": [
                {"sortorder": str(next(order)), "color": colour,
                 **({} if one.stacked else {"drawtype": "BOLD_LINE"}),
                 "item": {"host": TEMPLATE, "key": PREFIX + key}} for key, colour in one.lines]}


def _rule(one: Rule, known: Mapping[str, Trigger]) -> Mapping[str, Node]:
    without = {} if one.without is None else {"filter": {"conditions": [
        {"macro": one.without[0], "value": one.without[1], "operator": "NOT_MATCHES_REGEX",
         "formulaid": "A"}]}}
    parts: dict[str, Sequence[Node]] = {
        "item_prototypes": [*map(_master, one.masters), *map(_item, one.items)],
        "trigger_prototypes": [_trigger("trigger", each, known) for each in one.triggers],
        "graph_prototypes": [_graph("graph", each) for each in one.graphs]}
    return {"uuid": uuid("rule", one.key), "name": one.name, "type": "TRAP",
            "key": PREFIX + one.key, "delay": "0", **without, "lifetime": "30d",
            "description": one.about, **{name: made for name, made in parts.items() if made}}


def _macro(one: Macro) -> Mapping[str, Node]:
    return {"macro": one.written, "value": one.value, "description": one.about}


def _dashboard(one: Dashboard) -> Mapping[str, Node]:
    return {"uuid": uuid("dashboard", one.name), "name": f"{TEMPLATE}: {one.name}",
            "pages": [{"widgets": [_widget(each) for each in one.widgets]}]}


def _widget(one: Widget) -> Mapping[str, Node]:
    kinds = {"graph": ("GRAPH_CLASSIC", "GRAPH", "graphid"),
             "graphs": ("GRAPH_PROTOTYPE", "GRAPH_PROTOTYPE", "graphid"),
             "item": ("ITEM", "ITEM", "itemid")}
    widget, field, name = kinds[one.kind]
    value = {"key": PREFIX + one.shows} if one.kind == "item" else {
        "name": f"{TEMPLATE}: {one.shows}"}
    x, y, width, height = map(str, one.place)
    fields: list[Node] = [{"type": field, "name": name, "value": {"host": TEMPLATE, **value}}]
    if one.kind == "item":  # per cent of the widget: a time of day has to fit in
        fields += [{"type": "INTEGER", "name": "value_size", "value": "25"}]
    if one.kind == "graphs":
        fields += [{"type": "INTEGER", "name": "columns", "value": "1"},
                   {"type": "INTEGER", "name": "rows", "value": "1"},
                   {"type": "INTEGER", "name": "source_type", "value": "2"}]
    return {"type": widget, **({"name": one.title} if one.title else {}), "x": x, "y": y,
            "width": width, "height": height, "fields": fields}
