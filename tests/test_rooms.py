"""The order of the rooms: a room imports only from rooms above its own in this list, and nothing runs in a circle."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import pointdiffusion

# From the ground up: a folder, or one of the few files that are rooms of their own.
ROOMS = [
    "version",
    "config",
    "runtime",
    "noise",
    "contract",
    "networks",
    "exact",
    "denoisers",
    "solvers",
    "sampling",
    "likelihood",
    "data",
    "tabular",
    "metrics",
    "visuals",
    "model",
    "training",
    "diagnostics",
    "table_model",
    "reporting",
    "estimator",
    "web",
    "cli",
    "__main__",
]
ROOT = Path(pointdiffusion.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
    for path in sorted(ROOT.rglob("*.py"))
}
MODULES = sorted(FILES.keys() - {""})
FOLDERS = sorted({path.parent.name for path in FILES.values()} - {ROOT.name})
REGISTRY_FACES = {"solvers"}  # their __init__ holds the registry of the room


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the full names of everything that is imported anywhere in a file, functions included."""
    package = ["pointdiffusion", *module.split(".")] if module else ["pointdiffusion"]
    if not is_package:
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _module_of(name: str) -> str | None:
    """Return the module of ours that an imported name lives in, "" for the package itself, None for others."""
    parts = name.split(".")
    if parts[0] != "pointdiffusion":
        return None
    for length in range(len(parts), 0, -1):
        candidate = ".".join(parts[1:length])
        if candidate in FILES:
            return candidate
    return ""


def imported_modules(module: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    path = FILES[module]
    found = {_module_of(name) for name in _imports(ast.parse(path.read_text()), module, path.stem == "__init__")}
    return {name for name in found if name is not None}


def room_of(module: str) -> str:
    """Return the room that a module stands in."""
    return module.partition(".")[0]


def test_every_file_stands_in_a_room() -> None:
    """A file outside the list has no place in the house, and the list names no room that is gone."""
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_from_rooms_above_them_only(module: str) -> None:
    """No file imports from a later room, nor from the package's face, at the top or in a function."""
    allowed = ROOMS[: ROOMS.index(room_of(module)) + 1]
    assert {room_of(name) for name in imported_modules(module)} <= set(allowed)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Inside a room, too, there is an order."""
    with_arrows = {module: imported_modules(module) - {module} for module in MODULES}
    try:
        TopologicalSorter(with_arrows).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {error.args[1]}")


def test_no_room_bears_the_name_of_a_public_function() -> None:
    """`pointdiffusion.sample` must be the function whatever was imported before it."""
    assert not set(ROOMS) & set(pointdiffusion.__all__)


@pytest.mark.parametrize("room", FOLDERS)
def test_the_face_of_a_room_is_a_docstring(room: str) -> None:
    """Nothing is loaded by the mere mention of a room, but for registries."""
    body = ast.parse(FILES[room].read_text()).body
    assert ast.get_docstring(ast.Module(body, [])) is not None
    assert len(body) == 1 or room in REGISTRY_FACES


def test_the_face_of_the_package_imports_the_version_alone() -> None:
    """Everything else is loaded when it is used; imports for type checkers do not count."""
    tree = ast.parse(FILES[""].read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    ours = {_module_of(name) for name in _imports(tree, "", True)} - {None}
    assert ours == {"version"}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_is_hidden_from_this_test(module: str) -> None:
    """Modules are imported by statements that can be read, not by calls; the package's face is the one exception."""
    called = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)
    }
    assert not called & {"__import__", "importlib.import_module", "import_module"}


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_used(tree: ast.AST) -> set[str]:
    """Return the names with an underscore that a file imports from ours, or takes from anything but itself."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or str(node.module).startswith("pointdiffusion")):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()"):
            used.add(node.attr)
    return {name for name in used if _private(name)}


def private_names_defined(tree: ast.AST) -> set[str]:
    """Return the names with an underscore that a file defines: functions, classes, variables, attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in found if _private(name)}


def test_no_file_uses_what_is_private_to_another() -> None:
    """What another file needs has a public name; private names of other packages are not meant."""
    trees = {module: ast.parse(path.read_text()) for module, path in FILES.items()}
    ours = set().union(*map(private_names_defined, trees.values()))
    foreign = {
        module: (private_names_used(tree) & ours) - private_names_defined(tree) for module, tree in trees.items()
    }
    assert {module: names for module, names in foreign.items() if names} == {}


def test_the_reader_of_private_names_sees_what_it_must() -> None:
    """The test of the tests."""
    source = "from pointdiffusion.noise import _a, b\nimport os\nos._exit(x._c)\nself._d = 1\n_e = y.__f__"
    assert private_names_used(ast.parse(source)) == {"_a", "_c", "_exit"}
    assert private_names_defined(ast.parse(source)) == {"_d", "_e"}


def test_the_reader_of_imports_sees_what_it_must() -> None:
    """The test of the tests: plain, dotted, relative, aliased and function-level imports are all found."""
    source = """
import pointdiffusion.noise as n
from pointdiffusion import runtime, sample
from .base import Solver
from ..model import diffusion_model
def f():
    from pointdiffusion.solvers import SOLVERS
    from pointdiffusion.tabular.standardiser import Standardiser
    import torch
"""
    found = {_module_of(name) for name in _imports(ast.parse(source), "solvers.runge_kutta", False)}
    expected = {"noise", "runtime", "", "solvers.base", "model.diffusion_model", "solvers", "tabular.standardiser"}
    assert found == expected | {None}


def third_party(path: Path) -> set[str]:
    """Return the packages of others that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"pointdiffusion"}


def declared(settings: dict[str, Any]) -> set[str]:
    """Return the names, as pip writes them, of what the library and its extras ask for."""
    asked = settings["dependencies"] + [line for extra in settings["optional-dependencies"].values() for line in extra]
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in asked}


def test_what_is_imported_is_asked_for() -> None:
    """Nothing works only because another package happens to bring it; the two exceptions are asked for in words."""
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    owners = packages_distributions()
    imported = set().union(*(third_party(path) for path in FILES.values())) - {"ot", "polars"}
    missing = {
        name
        for name in imported
        if not {owner.lower().replace("_", "-") for owner in owners[name]} & declared(settings)
    }
    assert missing == set()
