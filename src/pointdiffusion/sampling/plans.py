r"""The best known solver and grid for a budget of evaluations.

Solver and grid must be chosen together. Up to 20 evaluations the grids are learned: for each number and candidate, the
noise levels with the least mean logarithm of the error over twelve mixtures in 2, 3, 4, 8 and 16 dimensions; of the
candidates that one is taken which is best on others (`benchmarks/grids.py`). They are stated in standard deviations of
the data for a start at 10 of them; for other starts the part above 1 is stretched in the logarithm. Between the learned
budgets levels are interpolated; above 20, log sigma is a power of the step number.

The candidates interpolate the output of Karras' network along the angle :math:`\\arctan(\\sigma / \\sigma_d)`, or the
velocity of rectified flow along its time: what data of one Gaussian make of these is nearly constant, so steps may be
long. All end by the local Gaussian (see `solvers.base`).

A network may not be asked below the noise levels that it was trained at, and is rougher than an exact denoiser. With
`sigma_min` solvers and grids are therefore those of `LEARNED_ON_NETWORKS`, and end at that level; above the largest
budget there, its levels are stretched.
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

LEARNED_ON_NETWORKS: dict[str, dict[int, tuple[float, ...]]] = {
    "angular-3": {
        2: (0.2873,),
        3: (0.7686, 0.1468),
        4: (1.06, 0.3113, 0.09844),
        5: (1.707, 0.6307, 0.2614, 0.1018),
        6: (2.153, 0.8066, 0.3902, 0.1762, 0.07129),
        7: (2.539, 1.033, 0.568, 0.3047, 0.1583, 0.07397),
        8: (3.139, 1.291, 0.7455, 0.4553, 0.2707, 0.1515, 0.07423),
        10: (3.243, 1.413, 0.8347, 0.5318, 0.3406, 0.2165, 0.1299, 0.07131, 0.0305),
        12: (3.864, 1.71, 1.052, 0.7121, 0.4863, 0.3368, 0.2274, 0.1464, 0.08853, 0.04431, 0.02364),
        15: (
            4.827, 2.168, 1.382, 0.9826, 0.7189, 0.5363, 0.3986, 0.3012, 0.2186, 0.1572, 0.1103, 0.07096, 0.04174,
            0.02127,
        ),
    },
    "angular-3 corrected": {
        8: (1.983, 0.9722, 0.5591, 0.3366, 0.197, 0.1189, 0.07052),
        10: (2.653, 1.278, 0.7939, 0.5243, 0.3342, 0.2409, 0.1421, 0.08103, 0.03813),
        12: (2.845, 1.422, 0.8828, 0.6254, 0.4327, 0.3189, 0.2397, 0.1764, 0.1017, 0.05365, 0.02501),
        15: (
            3.593, 1.813, 1.164, 0.8404, 0.6394, 0.5285, 0.391, 0.3107, 0.2503, 0.1836, 0.1425, 0.0839, 0.04491,
            0.0177,
        ),
    },
    "angular-4 corrected": {
        10: (2.506, 1.202, 0.7079, 0.4522, 0.2896, 0.2184, 0.1035, 0.04774, 0.02708),
        12: (3.221, 1.556, 0.9236, 0.6454, 0.4394, 0.3166, 0.2236, 0.1528, 0.08105, 0.03642, 0.02179),
        15: (
            4.468, 2.261, 1.372, 0.9587, 0.7354, 0.5553, 0.4157, 0.3288, 0.2573, 0.177, 0.1153, 0.06742, 0.03142,
            0.01755,
        ),
        20: (
            7.08, 4.31, 2.408, 1.659, 1.269, 0.9647, 0.7638, 0.616, 0.4941, 0.4052, 0.327, 0.2592, 0.1995, 0.1524,
            0.1056, 0.06633, 0.03405, 0.01523, 0.01157,
        ),
        28: (
            6.975, 4.168, 2.693, 2.02, 1.65, 1.346, 1.105, 0.958, 0.8014, 0.6843, 0.6066, 0.5195, 0.4413, 0.3952,
            0.3257, 0.2789, 0.2327, 0.1864, 0.1551, 0.1214, 0.09233, 0.06917, 0.04582, 0.02935, 0.01535, 0.01158,
            0.01052,
        ),
    },
    "velocity-4 corrected": {
        10: (4.166, 1.703, 0.8255, 0.5066, 0.3093, 0.2099, 0.1068, 0.04749, 0.02587),
        12: (5.165, 2.424, 1.193, 0.7456, 0.5144, 0.3617, 0.253, 0.1602, 0.08914, 0.03676, 0.02151),
        15: (
            6.03, 3.367, 1.752, 1.124, 0.8015, 0.632, 0.4625, 0.3551, 0.2669, 0.1835, 0.1247, 0.06799, 0.02797,
            0.01677,
        ),
        20: (
            7.429, 4.951, 2.628, 1.744, 1.292, 0.9882, 0.7822, 0.6376, 0.5175, 0.4213, 0.3423, 0.2676, 0.2047, 0.1508,
            0.1027, 0.06316, 0.03358, 0.01552, 0.01173,
        ),
        28: (
            8.256, 6.193, 4.051, 2.928, 2.22, 1.718, 1.347, 1.088, 0.8946, 0.7487, 0.6251, 0.5324, 0.4471, 0.3798,
            0.3175, 0.2662, 0.2209, 0.1819, 0.1463, 0.1165, 0.08812, 0.06254, 0.04154, 0.02365, 0.01344, 0.01107,
            0.0104,
        ),
        35: (
            8.431, 6.878, 5.362, 4.093, 3.296, 2.524, 1.971, 1.577, 1.296, 1.095, 0.9403, 0.8148, 0.7084, 0.6149,
            0.5327, 0.467, 0.4094, 0.3562, 0.3062, 0.2639, 0.2244, 0.1904, 0.161, 0.1349, 0.1105, 0.08741, 0.06629,
            0.04858, 0.03504, 0.02494, 0.01746, 0.01305, 0.01081, 0.01,
        ),
    },
}  # fmt: skip
"""The same for trained networks, for each solver that is worth a try at a budget. Learned on networks of seventeen data
sets, those that are judged not among them, that may be asked down to 0.01 (`benchmarks/grids.py --networks`)."""

USUAL_ON_NETWORKS = {1: "angular-3", 10: "velocity-4 corrected"}
"""The solver that a network is asked by where it cannot be tried, by the least number of evaluations."""

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
    return next(iter(plans(nfe, sigma_max, sigma_data, sigma_min).values()))


def plans(
    nfe: int, sigma_max: float, sigma_data: float = 1.0, sigma_min: float = 0.0
) -> dict[str, tuple[Solver, Tensor]]:  # fmt: skip
    """Return the plan for a number of evaluations by the name of its solver, and for a network others worth a try.

    The first is that of `plan`; the arguments are its own.

    Raises:
        ValueError: As `plan`.
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
    found: dict[str, tuple[Solver, Tensor]] = {}
    lowest = sigma_min / sigma_data
    for name, levels in (_on_network(nfe, lowest) if lowest else _on_exact(nfe)).items():
        if len(levels) and float(levels[-1]) < lowest:
            levels = _ending_at(lowest, levels)
        stretch = math.log(sigma_max / sigma_data) / math.log(_START)
        inner = torch.where(levels > 1, levels**stretch, levels) * sigma_data
        grid = torch.cat([inner.new_tensor([sigma_max]), inner, inner.new_zeros(1)])
        found[name] = candidate(name, sigma_data, sigma_min), grid
    return found


def _ending_at(last: float, levels: Tensor) -> Tensor:
    """Return the levels with those below 1 stretched in the logarithm, so that they end at another."""
    return torch.where(levels < 1, levels ** (math.log(last) / math.log(float(levels[-1]))), levels)


def _on_exact(nfe: int) -> dict[str, Tensor]:
    """Return the inner noise levels for an exact denoiser, in standard deviations of the data, by solver."""
    if nfe > max(LEARNED):
        low = 0.02 * min(1.0, 50 / nfe)
        ramp = torch.linspace(1, 0, nfe, dtype=torch.float64) ** 0.7
        return {"velocity-4 corrected": (low * (_START / low) ** ramp)[1:]}
    table = {n: levels for n, (_, levels) in LEARNED.items()}
    return {LEARNED[max(n for n in LEARNED if n <= max(nfe, 2))][0]: _between(table, nfe)}


def _on_network(nfe: int, lowest: float) -> dict[str, Tensor]:
    """Return the inner noise levels for a network that may be asked down to `lowest`; the usual solver comes first."""
    usual = USUAL_ON_NETWORKS[max(least for least in USUAL_ON_NETWORKS if least <= nfe)]
    known = {name: _between(table, nfe) for name, table in LEARNED_ON_NETWORKS.items() if _within(table, nfe)}
    if not known:  # as at the largest budget that is known, and down to where a network still knows more
        levels = _between(LEARNED_ON_NETWORKS[usual], nfe)
        return {usual: _ending_at(max(lowest, min(float(levels[-1]), 0.35 / nfe)), levels)}
    return {usual: known.pop(usual), **known}


def _within(table: dict[int, Any], nfe: int) -> bool:
    return min(table) <= max(nfe, 2) and nfe <= max(table)


def _between(table: dict[int, tuple[float, ...]], nfe: int) -> Tensor:
    """Return inner noise levels between those of the two nearest budgets."""
    below = max((n for n in table if n <= nfe), default=min(table))
    above = min((n for n in table if n >= nfe), default=below)
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
