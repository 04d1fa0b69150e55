r"""The best known solver and grid for a budget of evaluations.

Solver and grid must be chosen together. Up to 20 evaluations the grids are learned: for each number and candidate, the
noise levels with the least mean logarithm of the error over twelve mixtures in 2, 3, 4, 8 and 16 dimensions; of the
candidates that one is taken which is best on others (`benchmarks/grids.py`). They are stated in standard deviations of
the data for a start at 10 of them; for other starts the part above 1 is stretched in the logarithm. Between the learned
budgets levels are interpolated; above 20, log sigma is a power of the step number.

The candidates interpolate the output of Karras' network along the angle :math:`\\arctan(\\sigma / \\sigma_d)`, or the
velocity of rectified flow along its time: what data of one Gaussian make of these is nearly constant, so steps may be
long. All end by the local Gaussian (see `solvers.base`).

A network may not be asked below the noise levels that it was trained at, and is rougher there than an exact denoiser.
With `sigma_min`, grids of more than 8 evaluations are therefore those of `LEARNED_ON_NETWORKS`, above 20 even in log
sigma, and end by the denoised point.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.solvers import Multistep, Solver

CANDIDATES: dict[str, dict[str, Any]] = {
    "angular-3": {"order": 3, "quantity": "F", "variable": "atan", "final": "local"},
    "angular-3 corrected": {"order": 3, "quantity": "F", "variable": "atan", "corrector": True, "final": "local"},
    "velocity-4 corrected": {
        "order": 4, "quantity": "velocity", "variable": "flow", "corrector": True, "final": "local",
    },
}  # fmt: skip
"""Solvers that a budget chooses from."""

ON_NETWORKS: dict[str, dict[str, Any]] = {
    "angular-3": CANDIDATES["angular-3"],
    "angular-3 denoised": {**CANDIDATES["angular-3"], "final": "denoise"},
    "velocity-4 corrected denoised": {**CANDIDATES["velocity-4 corrected"], "final": "denoise"},
}
"""Those that a trained network chooses from; two of them end by the denoised point."""

LEARNED: dict[int, tuple[str, tuple[float, ...]]] = {
    2: ("angular-3", (0.5138,)),
    3: ("angular-3", (0.79, 0.1783)),
    4: ("angular-3", (1.1, 0.3237, 0.1016)),
    5: ("angular-3", (1.769, 0.6355, 0.2769, 0.1119)),
    6: ("angular-3", (2.166, 0.8129, 0.3901, 0.1757, 0.07086)),
    7: ("angular-3", (2.635, 1.051, 0.5581, 0.314, 0.1562, 0.06826)),
    8: ("angular-3", (3.287, 1.321, 0.7622, 0.4651, 0.2809, 0.1495, 0.07364)),
    9: ("angular-3", (3.556, 1.491, 0.8793, 0.5737, 0.3729, 0.2349, 0.134, 0.07138)),
    10: ("angular-3 corrected", (2.563, 1.61, 0.9184, 0.6522, 0.4332, 0.3371, 0.2008, 0.1202, 0.07068)),
    12: ("angular-3 corrected", (
        4.25, 2.165, 1.312, 0.9374, 0.6226, 0.5167, 0.3459, 0.2659, 0.1639, 0.1061, 0.05664,
    )),
    15: ("angular-3 corrected", (
        4.693, 2.63, 1.743, 1.232, 0.9375, 0.7049, 0.5711, 0.4495, 0.343, 0.2704, 0.2078, 0.128, 0.07812,
        0.04222,
    )),
    20: ("velocity-4 corrected", (
        7.799, 5.626, 3.448, 2.484, 1.669, 1.372, 1.041, 0.8357, 0.6738, 0.5579, 0.4472, 0.3583, 0.291, 0.2164,
        0.1644, 0.1147, 0.07373, 0.04434, 0.02946,
    )),
}  # fmt: skip
"""Solver and inner noise levels, between 10 standard deviations and 0, by the number of evaluations."""

LEARNED_ON_NETWORKS: dict[int, tuple[float, ...]] = {
    9: (4.055, 1.46, 0.7127, 0.4102, 0.2239, 0.1205, 0.05173, 0.03453),
    10: (4.135, 1.7, 0.8397, 0.4833, 0.2943, 0.1743, 0.08729, 0.03631, 0.02206),
    15: (
        5.765, 2.815, 1.454, 0.9096, 0.6716, 0.4969, 0.3777, 0.2759, 0.1989, 0.1491, 0.1004, 0.05897, 0.03481,
        0.01927,
    ),
    20: (
        7.368, 5.309, 3.782, 2.785, 2.035, 1.561, 1.162, 0.8867, 0.6604, 0.4868, 0.3631, 0.2688, 0.1955, 0.1344,
        0.08753, 0.0568, 0.03791, 0.02355, 0.01425,
    ),
}  # fmt: skip
"""The same for trained networks, with `velocity-4 corrected` and the denoised point at the end. Learned on networks of
seven data sets, the ones that are judged not among them, down to 0.01 (`benchmarks/grids.py --networks`)."""

_START = 10.0


def plan(
    nfe: int, sigma_max: float, sigma_data: float = 1.0, sigma_min: float = 0.0
) -> tuple[Solver, Tensor]:  # fmt: skip
    """Return solver and grid for a number of evaluations.

    Args:
        nfe: Number of evaluations.
        sigma_max: Noise level of the start.
        sigma_data: Standard deviation of the data, in the same units.
        sigma_min: Lowest noise level at which the denoiser may be asked: for a network, the lowest that it was trained
            at; 0 for an exact denoiser.

    Returns:
        The solver, and decreasing noise levels from `sigma_max` to 0, shape `(nfe + 1,)`, float64.

    Raises:
        ValueError: If a number is out of range, or `sigma_max` lies below two standard deviations of the data.

    Examples:
        >>> solver, sigmas = plan(4, sigma_max=10.0)
        >>> len(sigmas), float(sigmas[0]), float(sigmas[-1])
        (5, 10.0, 0.0)
    """
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}")
    if not (0 < sigma_data < math.inf and 2 * sigma_data <= sigma_max < math.inf):
        raise ValueError(
            f"sigma_max must be at least twice sigma_data, the standard deviation of the data, got {sigma_max} "
            f"and {sigma_data}; for a walk from lower noise give sigmas"
        )
    lowest = sigma_min / sigma_data
    if not 0 <= lowest < 1:
        raise ValueError(
            f"sigma_min must lie between 0 and sigma_data, the standard deviation of the data, got {sigma_min}"
        )
    if lowest and nfe >= min(LEARNED_ON_NETWORKS):
        choices = ON_NETWORKS["velocity-4 corrected denoised"]
        if nfe <= max(LEARNED_ON_NETWORKS):
            levels = _between(LEARNED_ON_NETWORKS, nfe)
        else:
            levels = _powers(nfe, max(lowest, 0.3 / nfe), min(1.0, 0.75 + nfe / 200))
    else:
        name, levels = _levels(nfe)
        choices = CANDIDATES[name]
    ratio = math.log(sigma_max / sigma_data) / math.log(_START)
    least = float(levels[-1]) if len(levels) else 1.0
    below = math.log(lowest) / math.log(least) if least < lowest else 1.0
    inner = torch.where(levels > 1, levels**ratio, levels**below) * sigma_data
    ends = inner.new_tensor([sigma_max]), inner.new_zeros(1)
    return Multistep(sigma_data=sigma_data, **choices), torch.cat([ends[0], inner, ends[1]])


def _powers(nfe: int, low: float, power: float) -> Tensor:
    """Return inner noise levels down to `low`, of which log sigma is a power of the step number."""
    ramp = torch.linspace(1, 0, nfe, dtype=torch.float64) ** power
    return (low * (_START / low) ** ramp)[1:]


def _levels(nfe: int) -> tuple[str, Tensor]:
    """Return the name of the solver and the inner noise levels in standard deviations of the data."""
    if nfe == 1:
        return "angular-3", torch.zeros(0, dtype=torch.float64)
    if nfe > max(LEARNED):
        return "velocity-4 corrected", _powers(nfe, 0.02 * min(1.0, 50 / nfe), 0.7)
    below = max(n for n in LEARNED if n <= nfe)
    return LEARNED[below][0], _between({n: levels for n, (_, levels) in LEARNED.items()}, nfe)


def _between(table: dict[int, tuple[float, ...]], nfe: int) -> Tensor:
    """Return inner noise levels between those of the two nearest budgets."""
    below, above = max(n for n in table if n <= nfe), min(n for n in table if n >= nfe)
    share = (nfe - below) / max(above - below, 1)
    parts = []
    for known in (below, above):
        logs = torch.tensor([_START, *table[known]], dtype=torch.float64).log()
        parts.append(_resampled(logs, nfe))
    return torch.lerp(parts[0], parts[1], share).exp()[1:]


def _resampled(values: Tensor, count: int) -> Tensor:
    """Return `count` values at equal steps along the line through the given ones."""
    place = torch.linspace(0, len(values) - 1, count, dtype=torch.float64)
    left = place.floor().clamp(max=max(len(values) - 2, 0)).long()
    return torch.lerp(values[left], values[(left + 1).clamp(max=len(values) - 1)], place - left)
