"""The template as it is written: whole, the same at every making, and told in plain words."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from template import dashboards, items, macros, readme, triggers, yaml
from template.export import template
from template.parts import PREFIX, Rule, uuid

ROOT = Path(__file__).resolve().parent.parent
YAML = ROOT / "zabbix/imagewarden.yaml"
TRIGGERS = [*triggers.TRIGGERS, *(one for rule in items.RULES for one in rule.triggers)]
MASTERS = [*items.MASTERS, *(one for rule in items.RULES for one in rule.masters)]
ITEMS = [*items.ITEMS, *(one for rule in items.RULES for one in rule.items)]
KEYS = {one.key for one in (*MASTERS, *ITEMS)}
SCRIPTS = {path.name for path in (ROOT / "bin").iterdir()}


def test_what_is_here_is_what_the_tables_make():
    assert YAML.read_text() == template()
    text = (ROOT / "zabbix/README.md").read_text()
    assert readme.with_tables(text) == text


def test_the_script_makes_it_with_the_systems_python(tmp_path):
    for name in ("generate-template", "README.md"):
        (tmp_path / name).write_bytes((ROOT / "zabbix" / name).read_bytes())
    (tmp_path / "generate-template").chmod(0o755)
    (tmp_path / "template").symlink_to(ROOT / "zabbix/template")
    subprocess.run([tmp_path / "generate-template"], check=True, env={})
    assert (tmp_path / "imagewarden.yaml").read_bytes() == YAML.read_bytes()


def test_every_part_has_a_uuid_of_its_own_that_its_name_makes():
    found = re.findall(r"uuid: '?(\w+)'?", YAML.read_text())
    assert len(found) > 100
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", one) for one in found)
    assert uuid("item", "state") in found
    assert uuid("item", "state") != uuid("trigger", "state")


def test_no_key_name_or_mark_comes_twice():
    for every in (KEYS, {one.name for one in (*MASTERS, *ITEMS)}):
        assert len(every) == len(MASTERS) + len(ITEMS)
    for every in ({one.mark for one in TRIGGERS}, {one.name for one in TRIGGERS}):
        assert len(every) == len(TRIGGERS)


def test_everything_that_is_shown_or_watched_is_there():
    graphs = {one.name: one for one in items.GRAPHS}
    made = {one.name: one for rule in items.RULES for one in rule.graphs}
    used = [re.findall(r"@([a-z_.]+(?:\[[^\]]*\])?)", one.expression) for one in TRIGGERS]
    assert all(used)
    assert {key for keys in used for key in keys} <= KEYS
    assert {key for one in (*graphs.values(), *made.values()) for key, _ in one.lines} <= KEYS
    assert {one.master for one in ITEMS} <= {one.key for one in MASTERS}
    for board in dashboards.DASHBOARDS:
        for widget in board.widgets:
            assert widget.shows in {"item": KEYS, "graph": graphs, "graphs": made}[widget.kind]


def test_what_an_alarm_watches_belongs_to_its_rule():
    for rule in items.RULES:
        own = {one.key for one in rule.items}
        for one in rule.triggers:
            assert any(key in one.expression for key in own), one.mark


def test_one_alarm_silences_another_never_itself():
    after = {one.mark: set(one.after) for one in TRIGGERS}
    assert set().union(*after.values()) <= set(after)
    settled: set[str] = set()
    while ready := {mark for mark, others in after.items() if others <= settled} - settled:
        settled |= ready
    assert settled == set(after), "a circle"


def test_macros_are_declared_and_used():
    text = YAML.read_text().split("macros:")[0] + YAML.read_text().split("dashboards:")[1]
    used = {re.sub(":.*", "", one) for one in re.findall(r"\{\$IMAGEWARDEN\.([A-Z.]+(?::\"[^}]*)?)",
                                                         text)}
    assert used == {one.name for one in macros.MACROS}
    assert all(any(not one.context for one in macros.MACROS if one.name == name) for name in used)


@pytest.mark.parametrize(("name", "value"), [
    ("{$IMAGEWARDEN.DEFINITIONS.AGE.WARN}", "2d"), ("{$IMAGEWARDEN.DEFINITIONS.AGE.HIGH}", "7d"),
    ("{$IMAGEWARDEN.NODATA}", "30m"), ('{$IMAGEWARDEN.RUN.AGE:"definitions"}', "6h"),
    ("{$IMAGEWARDEN.UNCHECKED.AGE}", "2d"), ("{$IMAGEWARDEN.SHRINK.SHARE}", "0.1"),
    ("{$IMAGEWARDEN.OUTBOX.MAX}", "1000")])
def test_thresholds_have_the_names_that_are_promised(name, value):
    assert {one.written: one.value for one in macros.MACROS}[name] == value


@pytest.mark.parametrize("one", TRIGGERS, ids=lambda one: one.mark)
def test_an_alarm_says_what_happened_and_what_to_type(one):
    assert one.happened.endswith(".")
    assert "`" in one.todo or "/etc/imagewarden.toml" in one.todo or one.mark in {
        "dropped", "left[rescan]", "left[optimize]", "shrink"}
    typed = {name.rstrip("-") for name in re.findall(r"imagewarden-([a-z-]+)", one.about)}
    assert typed <= SCRIPTS
    assert "\n\nWhat to do: " in one.about
    assert len(one.name) < 120


def test_only_malware_is_closed_by_hand_alone():
    assert {one.mark for one in TRIGGERS if one.by_hand} == {"found", "infected"}


def test_whole_results_are_kept_for_a_week_at_least():
    assert all(int(one.history.removesuffix("d")) >= 7 for one in MASTERS)
    assert "value_type: TEXT" in template()


def test_jobs_known_by_name_are_not_discovered_a_second_time():
    rule = next(one for one in items.RULES if one.key == "jobs")
    assert isinstance(rule, Rule)
    assert rule.without is not None
    for job in items.KNOWN:
        assert re.search(rule.without[1], job)
    assert not re.search(rule.without[1], "hits")
    assert not re.search(rule.without[1], "rescan2")


@pytest.mark.parametrize(("node", "text"), [
    ({"a": "plain words"}, "a: plain words\n"), ({"a": "yes"}, "a: 'yes'\n"),
    ({"a": "it's: so"}, "a: 'it''s: so'\n"), ({"a": "0"}, "a: '0'\n"), ({"a": ""}, "a: ''\n"),
    ({"a": "one\n\n  two"}, "a: |-\n  one\n\n    two\n"),
    ({"a": [{"b": "x", "c": ["w", "y\nz"]}]}, "a:\n  - b: x\n    c:\n      - w\n      - |-\n"
                                              "        y\n        z\n")])
def test_yaml_as_zabbix_reads_it(node: Mapping[str, yaml.Node], text):
    assert yaml.dump(node) == text


def test_every_key_begins_with_our_name():
    keys = re.findall(r"\n +key: '?([^'\n]+)", YAML.read_text())
    assert keys
    assert all(key.startswith(PREFIX) for key in keys)
