"""Imports point down only."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "maintenance"
MIDDLE = {"clamav", "images", "store", "monitoring", "hits"}
BESIDE = {"upload", "serve"}  # what an application asks, joined of others below
TOP = {"jobs", "shell", "demo"}
# Package -> the packages its modules may import from; "" are the modules at the top level.
ALLOWED = {
    "bin": TOP | {"provision", ""},
    **dict.fromkeys(TOP, TOP | BESIDE | MIDDLE | {"ledger", ""}),
    "demo": TOP | BESIDE | MIDDLE | {"ledger", "provision", ""},
    "upload": {"upload", "clamav", ""},
    "serve": {"serve", "upload", "clamav", ""},
    **{name: {name, ""} for name in MIDDLE},
    "store": {"store", "ledger", ""},
    "monitoring": {"monitoring", "ledger", ""},
    "ledger": {"ledger", ""},
    "provision": {"provision", ""},
    "": {""},
}
# The one way from a script to the shell, taken at run time.
EXCEPTIONS = {("maintenance/launch.py", "shell")}
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "bin").iterdir()), ROOT / "zabbix/import-template"]


def imported(path):
    """Every module that a file imports, wherever in it, those by name included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
              and isinstance(node.args[0], ast.Constant)):
            yield node.args[0].value


def package_of(name):
    """The package below ours that a dotted name leads to; None when it is not ours."""
    first, *rest = name.split(".")
    if first != "maintenance":
        return None
    return rest[0] if rest and (PACKAGE / rest[0]).is_dir() else ""


def belongs_to(path):
    if path in SCRIPTS:
        return "bin"
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = belongs_to(path)
    assert own in ALLOWED, f"{own}: a package that the layers do not know"
    for name in imported(path):
        package = package_of(name)
        if package is not None and (str(path.relative_to(ROOT)), package) not in EXCEPTIONS:
            assert package in ALLOWED[own], f"imports {name}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script_is_at_most_fifteen_lines(path):
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize(
    "path", [PACKAGE / "launch.py", PACKAGE / "keeper.py", PACKAGE / "errors.py",
             *sorted((PACKAGE / "provision").glob("*.py")), *SCRIPTS], ids=lambda p: p.name)
def test_what_runs_before_set_up_needs_only_the_standard_library(path):
    for name in imported(path):
        first = name.split(".")[0]
        assert first in sys.stdlib_module_names or first == "maintenance", name


def test_what_set_up_imports_of_ours_is_of_the_standard_library_too():
    seen, todo = set(), [*(PACKAGE / "provision").glob("*.py"), PACKAGE / "__init__.py"]
    while todo:
        path = todo.pop()
        seen.add(path)
        for name in imported(path):
            first, *rest = name.split(".")
            assert first in sys.stdlib_module_names or first == "maintenance", (path, name)
            for length in range(1, len(rest) + 1):
                module = PACKAGE.joinpath(*rest[:length]).with_suffix(".py")
                if first == "maintenance" and module.is_file() and module not in seen:
                    todo.append(module)


def test_the_keeper_imports_nothing_of_ours():
    assert not [name for name in imported(PACKAGE / "keeper.py") if package_of(name) is not None]
