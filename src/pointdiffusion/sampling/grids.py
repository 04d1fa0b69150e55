"""The learned noise levels, as a data file beside this module: `grids.json`.

`benchmarks/grids.py --write` learns them and writes the file. Levels are in standard deviations of the data, and stand
between a start at `START` of them and 0, which are both left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pointdiffusion.runtime.files import write_atomic

START = 10.0
"""Noise level at which the learned grids start, in standard deviations of the data."""

FILE = Path(__file__).with_name("grids.json")
"""Where the learned grids are stored."""

Levels = tuple[float, ...]
"""The inner noise levels of a grid, decreasing, one fewer than it has steps."""


@dataclass(frozen=True)
class LearnedGrids:
    """Noise levels that were learned for the solvers of `plans.CANDIDATES`.

    Args:
        exact: Solver and levels for exact denoisers, by number of evaluations.
        networks: Levels for trained networks, by solver and then by number of evaluations.
        default_solvers: The solver for a network on which none can be tried, by the least number of evaluations from
            which on it is taken.
    """

    exact: dict[int, tuple[str, Levels]]
    networks: dict[str, dict[int, Levels]]
    default_solvers: dict[int, str]


def read_grids(path: str | os.PathLike[str] = FILE) -> LearnedGrids:
    """Return the grids of a file.

    Raises:
        ValueError: If a grid has another number of levels than its number of evaluations asks for.
        OSError: If there is no such file.
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    grids = LearnedGrids(
        {int(nfe): (grid["solver"], tuple(grid["sigmas"])) for nfe, grid in data["exact"].items()},
        {
            name: {int(nfe): tuple(levels) for nfe, levels in by_budget.items()}
            for name, by_budget in data["networks"].items()
        },
        {int(nfe): name for nfe, name in data["default_solvers"].items()},
    )
    exact = {nfe: levels for nfe, (_, levels) in grids.exact.items()}
    for nfe, levels in (pair for by_budget in (exact, *grids.networks.values()) for pair in by_budget.items()):
        if len(levels) != nfe - 1:
            raise ValueError(f"{path}: a grid of {nfe} evaluations has {nfe - 1} inner levels, got {len(levels)}")
    return grids


def write_grids(grids: LearnedGrids, path: str | os.PathLike[str] = FILE) -> None:
    """Write grids to a file, each on a line of its own.

    Raises:
        OSError: If the file cannot be written; an earlier one is then untouched.
    """
    exact = {nfe: {"solver": name, "sigmas": levels} for nfe, (name, levels) in sorted(grids.exact.items())}
    networks = {name: _lines(dict(sorted(by_budget.items())), 2) for name, by_budget in grids.networks.items()}
    parts = {
        "exact": _lines(exact, 1),
        "networks": "{\n" + ",\n".join(f'  "{name}": {lines}' for name, lines in networks.items()) + "\n }",
        "default_solvers": _lines(dict(sorted(grids.default_solvers.items())), 1),
    }
    text = "{\n" + ",\n".join(f' "{name}": {lines}' for name, lines in parts.items()) + "\n}\n"
    write_atomic(path, text.encode())


def _lines(by_budget: Mapping[int, object], depth: int) -> str:
    """Return a JSON object of one line a budget, indented by its depth."""
    rows = (f'{" " * (depth + 1)}"{nfe}": {json.dumps(value)}' for nfe, value in by_budget.items())
    return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"


LEARNED = read_grids()
"""The grids that the library comes with."""
