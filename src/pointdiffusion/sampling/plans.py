r"""Plans: a solver and a grid for a budget of evaluations.

Solver and grid must be chosen together. Up to 20 evaluations the grids are learned: for each number and candidate, the
noise levels with the least mean logarithm of the error over twelve mixtures in 2, 3, 4, 8 and 16 dimensions; of the
candidates that one is taken which is best on others (`benchmarks/grids.py`). They are stored in `grids.json`, in
standard deviations of the data for a start at 10 of them; for other starts the part above 1 is stretched in the
logarithm. Between the learned budgets levels are interpolated; above 20, log sigma is a power of the step number.

The candidates interpolate the output of Karras' network along the angle :math:`\\arctan(\\sigma / \\sigma_d)`, or the
velocity of rectified flow along its time: what data of one Gaussian make of these is nearly constant, so steps may be
long. All end by the local Gaussian (see `solvers.base`).

A network may not be asked below the noise levels that it was trained at, and is rougher than an exact denoiser. With
`sigma_min` solvers and grids are therefore those of `LearnedGrids.networks`, for each solver that is worth a try at a
budget, and end at that level; above the largest budget there, its levels are stretched. They were learned on networks
of seventeen data sets that may be asked down to 0.01; the data sets that they are evaluated on are not among them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.sampling.grids import LEARNED, START, Levels
from pointdiffusion.solvers import Multistep, Solver

CANDIDATES: dict[str, dict[str, Any]] = {
    "angular-3": {"order": 3, "quantity": "F", "variable": "atan", "final": "local"},
    "angular-3 corrected": {"order": 3, "quantity": "F", "variable": "atan", "corrector": True, "final": "local"},
    "angular-4 corrected": {"order": 4, "quantity": "F", "variable": "atan", "corrector": True, "final": "local"},
    "velocity-4 corrected": {
        "order": 4, "quantity": "velocity", "variable": "flow", "corrector": True, "final": "local",
    },
}  # fmt: skip
"""Solvers that a budget chooses from."""

for _name in ("angular-3", "velocity-4 corrected"):
    CANDIDATES[f"{_name} denoised"] = {**CANDIDATES[_name], "final": "denoise"}  # where the data lie on a curve


def candidate(name: str, sigma_data: float, sigma_min: float) -> Multistep:
    """Return the solver of this name, for data of this scale and a denoiser that may be asked down to `sigma_min`."""
    return Multistep(sigma_data=sigma_data, sigma_min=sigma_min, **CANDIDATES[name])


class Plan(NamedTuple):
    """A solver and a grid for a budget, whether learned beforehand or tuned on one denoiser.

    Args:
        name: Name of the solver, of `CANDIDATES` or `SOLVERS`; of a solver of the user's own, its class.
        solver: The solver.
        sigmas: Decreasing noise levels, shape `(num_steps + 1,)`, float64.
    """

    name: str
    solver: Solver
    sigmas: Tensor


def default_plan(nfe: int, sigma_max: float, sigma_data: float = 1.0, sigma_min: float = 0.0) -> Plan:
    """Return the plan for a number of evaluations that is taken where none can be tried.

    Args:
        nfe: Number of evaluations.
        sigma_max: Noise level of the start.
        sigma_data: Standard deviation of the data, in the same units.
        sigma_min: Lowest noise level at which the denoiser may be asked: for a network, the lowest that it was trained
            at; 0 for an exact denoiser.

    Returns:
        A solver, and noise levels from `sigma_max` to 0, shape `(nfe + 1,)`.

    Raises:
        ValueError: If a number is out of range, or `sigma_max` lies below two standard deviations of the data.

    Examples:
        >>> plan = default_plan(4, sigma_max=10.0)
        >>> plan.name, len(plan.sigmas), float(plan.sigmas[0]), float(plan.sigmas[-1])
        ('angular-3', 5, 10.0, 0.0)
    """
    return candidate_plans(nfe, sigma_max, sigma_data, sigma_min)[0]


def candidate_plans(nfe: int, sigma_max: float, sigma_data: float = 1.0, sigma_min: float = 0.0) -> list[Plan]:
    """Return the plans for a number of evaluations: of an exact denoiser one, of a network all that are worth a try.

    The first is that of `default_plan`; the arguments are its own.

    Raises:
        ValueError: As `default_plan`.
    """
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}")
    if not (0 < sigma_data < math.inf and 2 * sigma_data <= sigma_max < math.inf):
        raise ValueError(
            f"sigma_max must be at least twice sigma_data, the standard deviation of the data, got {sigma_max} "
            f"and {sigma_data}; for a walk from lower noise give sigmas"
        )
    if not 0 <= sigma_min < sigma_data:
        raise ValueError(
            f"sigma_min must lie between 0 and sigma_data, the standard deviation of the data, got {sigma_min}"
        )
    plans = []
    lowest = sigma_min / sigma_data
    for name, levels in (_on_network(nfe, lowest) if lowest else _on_exact(nfe)).items():
        if len(levels) and float(levels[-1]) < lowest:
            levels = _ending_at(lowest, levels)
        stretch = math.log(sigma_max / sigma_data) / math.log(START)
        inner = torch.where(levels > 1, levels**stretch, levels) * sigma_data
        grid = torch.cat([inner.new_tensor([sigma_max]), inner, inner.new_zeros(1)])
        plans.append(Plan(name, candidate(name, sigma_data, sigma_min), grid))
    return plans


def _ending_at(last: float, levels: Tensor) -> Tensor:
    """Return the levels with those below 1 stretched in the logarithm, so that they end at another."""
    return torch.where(levels < 1, levels ** (math.log(last) / math.log(float(levels[-1]))), levels)


def _on_exact(nfe: int) -> dict[str, Tensor]:
    """Return the inner noise levels for an exact denoiser, in standard deviations of the data, by solver."""
    if nfe > max(LEARNED.exact):
        low = 0.02 * min(1.0, 50 / nfe)
        ramp = torch.linspace(1, 0, nfe, dtype=torch.float64) ** 0.7
        return {"velocity-4 corrected": (low * (START / low) ** ramp)[1:]}
    table = {n: levels for n, (_, levels) in LEARNED.exact.items()}
    name, _ = LEARNED.exact[max(n for n in table if n <= max(nfe, 2))]
    return {name: _between(table, nfe)}


def _on_network(nfe: int, lowest: float) -> dict[str, Tensor]:
    """Return the inner noise levels for a network that may be asked down to `lowest`, by solver, the default first."""
    default = LEARNED.default_solvers[max(least for least in LEARNED.default_solvers if least <= nfe)]
    learned = {name: _between(table, nfe) for name, table in LEARNED.networks.items() if _within(table, nfe)}
    if not learned:  # as at the largest learned budget, and down to where a network still knows more
        levels = _between(LEARNED.networks[default], nfe)
        return {default: _ending_at(max(lowest, min(float(levels[-1]), 0.35 / nfe)), levels)}
    return {default: learned.pop(default), **learned}


def _within(table: dict[int, Levels], nfe: int) -> bool:
    return min(table) <= max(nfe, 2) and nfe <= max(table)


def _between(table: dict[int, Levels], nfe: int) -> Tensor:
    """Return inner noise levels between those of the two nearest budgets."""
    below = max((n for n in table if n <= nfe), default=min(table))
    above = min((n for n in table if n >= nfe), default=below)
    share = (nfe - below) / max(above - below, 1)
    parts = []
    for levels in (table[below], table[above]):
        logs = torch.tensor([START, *levels], dtype=torch.float64).log()
        parts.append(_resampled(logs, nfe))
    return torch.lerp(parts[0], parts[1], share).exp()[1:]


def _resampled(values: Tensor, count: int) -> Tensor:
    """Return `count` values at equal steps along the line through the given ones."""
    place = torch.linspace(0, len(values) - 1, count, dtype=torch.float64)
    left = place.floor().clamp(max=max(len(values) - 2, 0)).long()
    return torch.lerp(values[left], values[(left + 1).clamp(max=len(values) - 1)], place - left)
