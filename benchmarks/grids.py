"""Learn the noise levels of `auto` again, and write them to the file that the library reads.

    python benchmarks/grids.py --budgets 5 8 10                       # print what would change
    python benchmarks/grids.py --budgets 5 8 10 --write               # src/pointdiffusion/sampling/grids.json
    python benchmarks/grids.py --budgets 5 8 10 --networks --write

For each budget and each candidate solver, the noise levels with the least mean logarithm of the error over the mixtures
of `problems.LEARNED_FROM`, of which the solver is taken that is best on those of `problems.MORE`; with `--networks`,
over networks that are first trained on the data of `problems.NETWORKS`, for each solver that the file has at the
budget. Each descent starts from a power of the step number and from the levels of the file, and what the file has stays
unless something is better on the same points. One line each: budget, candidate, the mean, the levels. Minutes to an
hour for all.

The levels that the library comes with are older than this choice. Those for networks from 10 to 28 evaluations were
found by several runs, one starting where another had ended; those at 35 are of such a run for 28, stretched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from problems import LEARNED_FROM, MORE, NETWORKS, START, case
from torch import Tensor
from work_precision import LOWEST, model_cases, trained

import pointdiffusion as ptd
from pointdiffusion.sampling.grids import FILE, LearnedGrids, Levels, read_grids, write_grids
from pointdiffusion.sampling.plans import CANDIDATES, candidate
from pointdiffusion.sampling.tuning import Case, learn_sigmas

BUDGETS = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20]
LOCAL = [name for name, choices in CANDIDATES.items() if choices["final"] == "local"]
"""Candidates whose levels are learned; the others take theirs."""


def mean_error(cases: Sequence[Case], name: str, levels: Levels, lowest: float) -> float:
    """Return the mean logarithm of the rms errors of the rows, over all cases."""
    solver, grid, means = candidate(name, 1.0, lowest), grid_of(levels), []
    for each in cases:
        rows = ptd.sample(each.denoiser, each.x, grid, solver=solver) - each.exact
        means.append(float(rows.square().mean(dim=1).sqrt().clamp(min=1e-14).log().mean()))
    return sum(means) / len(means)


def grid_of(levels: Levels) -> Tensor:
    """Return the grid from the start to 0 with these levels in between."""
    return torch.tensor([START, *levels, 0.0], dtype=torch.float64)


def learn(
    cases: Sequence[Case], name: str, budget: int, known: Levels | None, lowest: float, max_iterations: int
) -> tuple[float, Levels]:  # fmt: skip
    """Return the mean error and the inner levels of a solver, to four digits; those known unless they are beaten."""
    ramp = torch.linspace(1, 0, budget, dtype=torch.float64) ** 0.9
    starts = [torch.cat([0.03 * (START / 0.03) ** ramp, torch.zeros(1).double()])]
    if known is not None:
        starts.append(grid_of(known))
    solver = candidate(name, 1.0, lowest)
    grid = learn_sigmas(cases, solver, starts, sigma_min=lowest, max_iterations=max_iterations)
    found = [tuple(float(f"{level:.4g}") for level in grid[1:-1].tolist()), *([] if known is None else [known])]
    mean, levels = min((mean_error(cases, name, levels, lowest), levels) for levels in found)
    print(budget, name, f"{mean:.3f}", *(f"{level:g}" for level in levels), flush=True)
    return mean, levels


def learn_exact(grids: LearnedGrids, budgets: Sequence[int], num_points: int, max_iterations: int) -> LearnedGrids:
    """Return the grids with those of some budgets learned on mixtures."""
    cases, others = ([case(make(), num_points, seed=11)[0] for make in each.values()] for each in (LEARNED_FROM, MORE))
    exact = dict(grids.exact)
    for budget in budgets:
        name, levels = exact.get(budget, ("", ()))
        found = {
            each: learn(cases, each, budget, levels if each == name else None, 0.0, max_iterations)[1] for each in LOCAL
        }
        best = min(found, key=lambda each: mean_error(others, each, found[each], 0.0))
        exact[budget] = best, found[best]
    return replace(grids, exact=exact)


def learn_networks(grids: LearnedGrids, budgets: Sequence[int], num_points: int, max_iterations: int) -> LearnedGrids:
    """Return the grids with those of some budgets learned on trained networks."""
    cases = [model_cases(trained(name), num_points)[0] for name in NETWORKS]
    networks = {name: dict(by_budget) for name, by_budget in grids.networks.items()}
    for budget in budgets:
        for name in [name for name in LOCAL if budget in networks.get(name, {})] or LOCAL:
            by_budget = networks.setdefault(name, {})
            by_budget[budget] = learn(cases, name, budget, by_budget.get(budget), LOWEST, max_iterations)[1]
    return replace(grids, networks=networks)


def main(arguments: list[str] | None = None) -> None:
    """Learn, print and, where that is asked for, write the grids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--points", type=int, default=48, help="points a problem (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=40, help="most steps of a descent (default: %(default)s)")
    parser.add_argument("--networks", action="store_true", help="networks in place of the mixtures")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=FILE, metavar="JSON", help="write to a file (default: the library's)"
    )
    args = parser.parse_args(arguments)
    if min(args.budgets) < 2:
        parser.error("a budget is at least 2: with one evaluation there is nothing to place")
    start = read_grids(args.write if args.write and args.write.exists() else FILE)
    found = (learn_networks if args.networks else learn_exact)(start, args.budgets, args.points, args.iterations)
    if args.write:
        write_grids(found, args.write)
        print(f"wrote {args.write}; build the page again: python tools/dev.py web")


if __name__ == "__main__":
    main()
