r"""Grids of noise levels made for one denoiser.

Where to place the noise levels is the largest lever at few evaluations. Two published ways, both against a fine
solution of the probability-flow equation from the same points (the teacher):

- `"teacher"`: the levels that bring the solver's own end points nearest to the teacher's, by descent on the logarithms
  of the ratios of neighbouring levels (Tong et al. 2024, "Learning to Discretize Denoising Diffusion ODEs", arXiv
  2405.15506, section 3). The measure is the mean logarithm of the rows' errors, which, like a median, does not let the
  few rows that lie between two modes decide.
- `"trajectory"`: the levels between which Euler's steps stray least from the teacher's path, in sum, by dynamic
  programming over a fine grid (Chen et al. 2024, "On the Trajectory Regularity of ODE-based Diffusion Sampling", arXiv
  2405.11326, section 4). No solver is asked, so it is quick; it is right for Euler's method, and can mislead others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling.loop import exact_flow, make_solver, trajectory
from pointdiffusion.sampling.plans import CANDIDATES, Plan, candidate, candidate_plans, default_plan
from pointdiffusion.solvers import Solver

METHODS = ("teacher", "trajectory")


def optimise_sigmas(
    denoiser: DenoiserFunction, num_steps: int, solver: str | Solver, *, x: Tensor, sigma_max: float,
    sigma_min: float | None = None, sigma_data: float = 1.0, method: str = "teacher", max_iterations: int = 60,
) -> Tensor:  # fmt: skip
    """Return the grid, ending in 0, at which a solver with this many steps is best for this denoiser.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`; a trained network as well as an exact one.
        num_steps: Intervals of the grid, the one to 0 included.
        solver: A deterministic solver that the grid is for, or a name of `SOLVERS`.
        x: Points at `sigma_max` to learn from, shape `(B, D)`; 64 to 256 are enough. Other points judge the result.
        sigma_max: Noise level of `x`.
        sigma_min: Lowest level at which the denoiser may be asked: for a network, the lowest that it was trained at.
            The reference is then its flow down to there, and its denoised points. By default `"teacher"` has none, and
            finds its own last level; `"trajectory"` takes it for the last level above 0, by default 0.02 of
            `sigma_data`.
        sigma_data: Standard deviation of the data.
        method: One of `METHODS`.
        max_iterations: Most steps of the descent.

    Returns:
        Decreasing noise levels from `sigma_max` to 0, shape `(num_steps + 1,)`, float64.

    Raises:
        ValueError: If a setting is out of range or the solver is stochastic.
    """
    _check("num_steps", num_steps, x, sigma_max)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    best = make_solver(solver)
    if best.noises:
        raise ValueError("a grid is learned for a deterministic solver; set its eta or s_churn to 0, or take another")
    low = 0.02 * sigma_data if sigma_min is None else sigma_min
    _check_low(low, sigma_max)
    start = _by_trajectory(denoiser, x, num_steps, sigma_max, low)
    if method == "trajectory":
        return start
    floor = 0.0 if sigma_min is None else sigma_min
    case = case_of(denoiser, x, sigma_max, floor, sigma_data)
    starts = _starts(start, default_plan(num_steps, sigma_max, sigma_data, floor).sigmas, floor, sigma_data)
    return learn_sigmas([case], best, starts, sigma_min=floor, max_iterations=max_iterations)


def choose_plan(case: Case, plans: Sequence[Plan]) -> Plan:
    """Return the plan that errs least on points whose end is known.

    Args:
        case: The denoiser, points at the highest noise level, and where the exact flow takes them.
        plans: As `candidate_plans` returns them.
    """
    return min(plans, key=lambda plan: _log_error(case, _walk(case, plan.solver, plan.sigmas)[-1][0]))


def optimise_plan(
    denoiser: DenoiserFunction, nfe: int, *, x: Tensor, sigma_max: float, sigma_min: float, sigma_data: float = 1.0,
    max_iterations: int = 60,
) -> Plan:  # fmt: skip
    """Return the solver and the grid that are best together for a trained network: which one is, differs between them.

    Descents for each solver of `candidate_plans`, some of them with the denoised point at their end too, tell which one
    to take (the shorter the more there are and the more evaluations, since a step costs their square), and a long one
    places its levels; at few evaluations from the two best. The arguments are those of `optimise_sigmas`.

    Raises:
        ValueError: As `optimise_sigmas`.
    """
    _check("nfe", nfe, x, sigma_max)
    _check_low(sigma_min, sigma_max)
    case = case_of(denoiser, x, sigma_max, sigma_min, sigma_data)
    path = _by_trajectory(denoiser, x, nfe, sigma_max, sigma_min)
    plans = candidate_plans(nfe, sigma_max, sigma_data, sigma_min)
    for plan in [plan for plan in plans if f"{plan.name} denoised" in CANDIDATES]:
        twin = f"{plan.name} denoised"
        plans.append(Plan(twin, candidate(twin, sigma_data, sigma_min), plan.sigmas))
    begun = [plan._replace(sigmas=start) for plan in plans for start in (path, plan.sigmas)]
    iterations = min(max_iterations, max(3, 60 * max_iterations // (nfe**2 * len(begun))))

    def descend(plan: Plan, most: int) -> tuple[float, Plan]:
        grid = learn_sigmas([case], plan.solver, [plan.sigmas], sigma_min=sigma_min, max_iterations=most)
        return _log_error(case, _walk(case, plan.solver, grid)[-1][0]), plan._replace(sigmas=grid)

    trials = sorted((descend(plan, iterations) for plan in begun), key=lambda trial: trial[0])
    ends = [descend(plan, max_iterations) for _, plan in trials[: 2 if nfe <= 8 else 1]]
    return min(ends, key=lambda end: end[0])[1]


def _check(name: str, count: int, x: Tensor, sigma_max: float) -> None:
    if count < 2:
        raise ValueError(f"{name} must be at least 2, got {count}: with one step there is nothing to place")
    if not 0 < sigma_max < math.inf or len(x) == 0:
        raise ValueError(f"sigma_max must be positive and x hold points at it, got {sigma_max} and {len(x)} rows")


def _check_low(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min must lie between 0 and sigma_max, got {sigma_min} and {sigma_max}")


def case_of(
    denoiser: DenoiserFunction, x: Tensor, sigma_max: float, floor: float, sigma_data: float,
    tolerance: float | None = None,
) -> Case:  # fmt: skip
    """Return the denoiser with points at `sigma_max` and where its exact flow takes them, down to `floor`."""
    tolerance = tolerance or (1e-9 if x.dtype == torch.float64 else 1e-4)
    exact = exact_flow(denoiser, x, sigma_max, floor, tolerance=tolerance, sigma_data=sigma_data).x
    if floor:
        with torch.no_grad():
            exact = denoiser(exact, torch.tensor(floor).to(exact))
    return Case(denoiser, x, exact)


def _starts(path: Tensor, usual: Tensor, floor: float, sigma_data: float) -> list[Tensor]:
    """Return grids to descend from: along the teacher's path, and two of as many steps that need no teacher."""
    power = KarrasSchedule(max(0.03 * sigma_data, 1.01 * floor), float(path[0]), rho=20).sigmas(len(path) - 1)
    return [path, power, usual]


def _by_trajectory(denoiser: DenoiserFunction, x: Tensor, num_steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Return the grid by dynamic programming over the levels of a fine one."""
    fine = KarrasSchedule(sigma_min, sigma_max).sigmas(max(60, 3 * num_steps), final_zero=False)
    path = [step.x for step in trajectory(denoiser, x, fine, solver="heun")]
    count = len(fine)
    slopes = _slopes(denoiser, path, fine)
    cost = np.full((count, count), np.inf)
    for i in range(count - 1):
        for j in range(i + 1, count):
            step = path[i] + float(fine[j] - fine[i]) * slopes[i]
            cost[i, j] = float((step - path[j]).flatten(1).norm(dim=1).mean())
    steps = num_steps - 1  # the last goes to 0
    total, before = np.full(count, np.inf), np.zeros((steps + 1, count), dtype=int)
    total[0] = 0
    for k in range(1, steps + 1):
        candidates = total[:, None] + cost
        before[k], total = candidates.argmin(axis=0), candidates.min(axis=0)
    places = [count - 1]
    for k in range(steps, 0, -1):
        places.append(before[k][places[-1]])
    grid = torch.cat([fine[places[::-1]], fine.new_zeros(1)])
    grid[0] = sigma_max  # to the last digit
    return grid


def _slopes(denoiser: DenoiserFunction, path: list[Tensor], levels: Tensor) -> list[Tensor]:
    """Return the slope of the flow at each point of a path."""
    with torch.no_grad():
        return [(y - denoiser(y, level.to(y))) / float(level) for y, level in zip(path, levels, strict=True)]


class Case(NamedTuple):
    """A denoiser, points at the highest noise level, and where the exact flow takes them."""

    denoiser: DenoiserFunction
    x: Tensor
    exact: Tensor


@torch.no_grad()
def _walk(
    case: Case, solver: Solver, grid: Tensor, before: Sequence[tuple[Tensor, Any]] = ()
) -> list[tuple[Tensor, Any]]:
    """Return points and state of the solver at every level of a grid, given those at its first ones."""
    path = list(before) or [(case.x, solver.initial_state(grid.tolist()))]
    for k in range(len(path) - 1, len(grid) - 1):
        path.append(solver.step(case.denoiser, path[-1][0], grid[k], grid[k + 1], path[-1][1], None))
    return path


def _log_error(case: Case, x: Tensor) -> float:
    """Return the mean logarithm of the rows' errors."""
    rows = (x - case.exact).double().flatten(1).square().mean(dim=1).sqrt()
    return float(rows.clamp(min=1e-14).log().mean())


def learn_sigmas(
    cases: Sequence[Case], solver: Solver, starts: Sequence[Tensor], *, sigma_min: float = 0.0, max_iterations: int = 60
) -> Tensor:
    """Return the grid at which the mean logarithm of the rows' errors, over all cases, is smallest.

    Args:
        cases: What the grid shall be good for; all start at the first level of `starts`.
        solver: The solver that the grid is for.
        starts: Grids to start from, each ending in 0, shape `(num_steps + 1,)`.
        sigma_min: What all levels but the last stay above.
        max_iterations: Most steps of the descent.
    """
    from scipy.optimize import minimize

    sigma_max = float(starts[0][0])
    width = 1e-4 if all(case.x.dtype == torch.float64 for case in cases) else 1e-2

    span = math.log(sigma_max / sigma_min) if sigma_min else math.inf

    def grid(logs: Any) -> Tensor:
        depth = np.cumsum(np.exp(logs))
        if sigma_min:
            depth = -span * np.expm1(-depth / span)  # tends to the span, and is the same far from it
        levels = sigma_max * np.exp(-depth)
        return torch.tensor([sigma_max, *levels, 0.0], dtype=torch.float64)

    def loss_and_slope(logs: Any) -> tuple[float, Any]:
        """Return the loss and its differences; the levels before the one that is moved are walked once."""
        loss, slope = 0.0, np.zeros(len(logs))
        for case in cases:
            path = _walk(case, solver, grid(logs))
            here = _log_error(case, path[-1][0])
            for k, unit in enumerate(np.eye(len(logs))):
                moved = _walk(case, solver, grid(logs + width * unit), path[: k + 1])
                slope[k] += (_log_error(case, moved[-1][0]) - here) / width
            loss += here
        return loss / len(cases), slope / len(cases)

    def descend(logs: Any, iterations: int) -> Any:
        bounds = [(-4.0, 2.0)] * len(logs)
        options = {"maxiter": iterations}
        return minimize(loss_and_slope, logs, jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    first = []
    for start in starts:
        depth = (sigma_max / start[:-1]).log()
        if sigma_min:
            depth = -span * torch.log1p(-(depth / span).clamp(max=0.99))
        first.append(depth.diff().clamp(min=0.02, max=7.0).log().numpy())
    if len(first) > 1:  # the valley has branches: a few steps from each start tell which one to follow
        trials = [descend(logs, max(1, max_iterations // 5)) for logs in first]
        first = [min(trials, key=lambda trial: float(trial.fun)).x]
    return grid(descend(first[0], max_iterations).x)
