"""The file of learned noise levels, and the script that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import grids as script
import pytest
import torch

import pointdiffusion as ptd
from pointdiffusion.sampling.grids import FILE, LEARNED, START, read_grids, write_grids
from pointdiffusion.sampling.plans import CANDIDATES, candidate


def test_the_file_is_as_the_writer_writes_it(tmp_path: Path) -> None:
    """Nothing is pasted by hand: what is read and written again is the same file, to the byte."""
    write_grids(read_grids(), tmp_path / "grids.json")
    assert (tmp_path / "grids.json").read_bytes() == FILE.read_bytes()


def test_every_grid_decreases_and_names_a_candidate() -> None:
    by_solver = [(name, {nfe: levels}) for nfe, (name, levels) in LEARNED.exact.items()]
    for name, by_budget in [*by_solver, *LEARNED.networks.items()]:
        assert name in CANDIDATES
        for levels in by_budget.values():
            grid = torch.tensor([START, *levels, 0.0])
            assert bool((grid.diff() < 0).all())
    assert set(LEARNED.default_solvers.values()) <= set(LEARNED.networks)


def test_a_grid_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    data = json.loads(FILE.read_text())
    data["exact"]["4"]["sigmas"].pop()
    (tmp_path / "grids.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="a grid of 4 evaluations has 3 inner levels, got 2"):
        read_grids(tmp_path / "grids.json")


def test_the_script_writes_what_it_has_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poor grid is replaced by one that is nearer to the exact flow, one that cannot be beaten stays."""
    mixture = ptd.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.04]], [[0.04]]])
    monkeypatch.setattr(script, "LEARNED_FROM", {"two": lambda: mixture})
    monkeypatch.setattr(script, "MORE", {"two": lambda: mixture})
    monkeypatch.setattr(script, "LOCAL", ["angular-3"])
    path, poor = tmp_path / "grids.json", (9.0, 8.0)
    LEARNED.exact[3], kept = ("angular-3", poor), LEARNED.exact[3]
    try:
        write_grids(LEARNED, path)
    finally:
        LEARNED.exact[3] = kept
    script.main(["--budgets", "3", "--points", "8", "--iterations", "8", "--write", str(path)])
    learned = read_grids(path)
    problem, _ = script.case(mixture, 8, seed=11)
    solver = candidate("angular-3", 1.0, 0.0)

    def error(levels: tuple[float, ...]) -> float:
        x = ptd.sample(problem.denoiser, problem.x, script.grid_of(levels), solver=solver)
        return float((x - problem.exact).abs().log().mean().exp())

    name, levels = learned.exact[3]
    assert name == "angular-3"
    assert error(levels) < 0.1 * error(poor)
    assert {nfe: grid for nfe, grid in learned.exact.items() if nfe != 3} == {
        nfe: grid for nfe, grid in LEARNED.exact.items() if nfe != 3
    }
    assert learned.networks == LEARNED.networks
    script.main(["--budgets", "3", "--points", "8", "--iterations", "1", "--write", str(path)])
    assert error(read_grids(path).exact[3][1]) <= error(levels) * (1 + 1e-9)
    with pytest.raises(SystemExit):
        script.main(["--budgets", "1"])
