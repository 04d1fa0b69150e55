"""The order of the house: a file imports only from files below it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import pointdiffusion

# Bottom to top; a package stands for its __init__.
ORDER = [
    "version",
    "files",
    "config",
    "randomness",
    "progress",
    "noise",
    "distributions",
    "closed_forms",
    "networks",
    "evaluation.distances",
    "evaluation.marginals",
    "evaluation.neighbours",
    "evaluation.relabelling",
    "evaluation.two_sample",
    "evaluation.metrics",
    "visuals.inline",
    "visuals.summary",
    "visuals.page",
    "visuals.plotting",
    "visuals.diagnosis",
    "visuals.animation",
    "data.densities",
    "data.base",
    "data.curves",
    "data.datasets",
    "data.schema",
    "data.tables",
    "data.cells",
    "data.classes",
    "data.sources",
    "data.text_files",
    "data.collecting",
    "data.reading",
    "data.writing",
    "data.splitting",
    "evaluation.judging",
    "evaluation.comparing",
    "conditions",
    "denoisers",
    "empirical",
    "adapters",
    "guidance",
    "observation",
    "losses",
    "solvers.base",
    "solvers.runge_kutta",
    "solvers.quadrature",
    "solvers.multistep",
    "solvers.singlestep",
    "solvers.stochastic",
    "solvers.adaptive",
    "solvers",
    "auto",
    "sampling",
    "grids",
    "likelihood",
    "bound",
    "particles",
    "twisted",
    "flow",
    "evaluation.certify",
    "model_file",
    "model",
    "evaluation.unusual",
    "evaluation.explain",
    "evaluation.optima",
    "evaluation.truth",
    "evaluation.noise_range",
    "evaluation.diagnose",
    "evaluation.findings",
    "evaluation.portraits",
    "evaluation.report",
    "evaluation.conditioning",
    "checkpoints",
    "training",
    "fitting",
    "ensembles",
    "members",
    "selection",
    "estimator",
    "web.limits",
    "web.registry",
    "web.export",
    "web.protocol",
    "web.trainer",
    "web.walks",
    "web.sessions",
    "web.uploads",
    "web.server",
    "cli.terminal",
    "cli.options",
    "cli.settings",
    "cli.runs",
    "cli.tables",
    "cli.datasets",
    "cli.judge",
    "cli.train",
    "cli.sample",
    "cli.score",
    "cli.explain",
    "cli.impute",
    "cli.export",
    "cli.play",
    "cli.info",
    "cli.app",
    "__main__",
]
EMPTY_PACKAGES = {"cli", "data", "evaluation", "visuals", "web"}  # their __init__ holds a docstring and nothing else

ROOT = Path(pointdiffusion.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
    for path in sorted(ROOT.rglob("*.py"))
}


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


def lower_modules(module: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    path = FILES[module]
    found = {_module_of(name) for name in _imports(ast.parse(path.read_text()), module, path.stem == "__init__")}
    return {name for name in found if name is not None}


def test_every_file_has_its_place() -> None:
    """A file that is not in the list has no place in the house, and the list names no file that is gone."""
    assert set(FILES) - EMPTY_PACKAGES - {""} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_down_only(module: str) -> None:
    """No file imports from its own height or above, nor from the package's face, at the top or in a function."""
    below = set(ORDER[: ORDER.index(module)])
    assert lower_modules(module) <= below, f"{module} imports from above itself"


@pytest.mark.parametrize("package", sorted(EMPTY_PACKAGES))
def test_packages_without_a_place_hold_nothing(package: str) -> None:
    """The `__init__` of a package that only groups files is a docstring."""
    body = ast.parse(FILES[package].read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body, [])) is not None


def test_the_face_of_the_package_imports_the_version_alone() -> None:
    """Everything else is loaded when it is used; imports for type checkers do not count."""
    tree = ast.parse(FILES[""].read_text())
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    ours = {_module_of(name) for name in _imports(tree, "", True)} - {None}
    assert ours == {"version"}


@pytest.mark.parametrize("module", ORDER)
def test_no_import_is_hidden_from_this_test(module: str) -> None:
    """Modules are imported by statements that can be read, not by calls; the package's face is the one exception."""
    called = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)
    }
    assert not called & {"__import__", "importlib.import_module", "import_module"}


def test_the_reader_of_imports_sees_what_it_must() -> None:
    """The test of the tests: plain, dotted, relative, aliased and function-level imports are all found."""
    source = """
import pointdiffusion.noise as n
from pointdiffusion import progress, sample
from .base import Solver
from ..model import load
def f():
    from pointdiffusion.solvers import SOLVERS
    from pointdiffusion.data.tables import Standardiser
    import torch
"""
    found = {_module_of(name) for name in _imports(ast.parse(source), "solvers.runge_kutta", False)}
    assert found == {"noise", "progress", "", "solvers.base", "model", "solvers", "data.tables", None}


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
