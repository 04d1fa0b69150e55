"""Problems whose exact flow is known: those that solvers are judged on, and others that the default grids come from.

Every mixture has a standard deviation of about one; starts are at 10 of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.sampling.tuning import Case

START = 10.0
"""Noise level of the start, in standard deviations of the data."""


def equal(means: Tensor, std: float) -> ptd.GaussianMixture:
    """Return equal round Gaussians."""
    count, n_dims = means.shape
    covariance = std**2 * torch.eye(n_dims, dtype=torch.float64)
    return ptd.GaussianMixture(torch.full((count,), 1 / count), means, covariance.expand(count, n_dims, n_dims))


def ring(count: int, std: float) -> ptd.GaussianMixture:
    """Return Gaussians on a circle of radius 2."""
    angle = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count
    return equal(2 * torch.stack([angle.cos(), angle.sin()], dim=1), std)


def roll(std: float, count: int = 400) -> ptd.GaussianMixture:
    """Return Gaussians equally spaced in the angle along the planar Swiss roll of unit rms."""
    t = torch.linspace(1.5 * math.pi, 4.5 * math.pi, count, dtype=torch.float64)
    means = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    means = means - means.mean(dim=0)
    return equal(means / means.square().mean().sqrt(), std)


def moons(std: float) -> ptd.GaussianMixture:
    """Return Gaussians along two half circles."""
    t = torch.linspace(0, math.pi, 60, dtype=torch.float64)
    upper, lower = torch.stack([t.cos(), t.sin()], dim=1), torch.stack([1 - t.cos(), 0.5 - t.sin()], dim=1)
    return equal(torch.cat([upper, lower]), std)


def s_curve(std: float) -> ptd.GaussianMixture:
    """Return Gaussians along the planar S."""
    t = torch.linspace(-1.5 * math.pi, 1.5 * math.pi, 150, dtype=torch.float64)
    return equal(torch.stack([t.sin(), t.sign() * (t.cos() - 1)], dim=1), std)


def square(count: int, std: float) -> ptd.GaussianMixture:
    """Return Gaussians at distance 1 on a square of `count` a side."""
    side = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    return equal(torch.cartesian_prod(side, side), std)


def lattice(std: float) -> ptd.GaussianMixture:
    """Return 19 Gaussians at distance 1 on a hexagon."""
    places = [(q + r / 2, r * math.sqrt(3) / 2) for q in range(-2, 3) for r in range(-2, 3) if abs(q + r) <= 2]
    return equal(torch.tensor(places, dtype=torch.float64), std)


def random(n_dims: int, count: int, seed: int, low: float, high: float) -> ptd.GaussianMixture:
    """Return Gaussians with standard normal means and full random covariances, axis std between `low` and `high`."""
    generator = torch.Generator().manual_seed(seed)
    means, covariances = torch.randn(count, n_dims, generator=generator).double(), []
    for _ in range(count):
        axes, _ = torch.linalg.qr(torch.randn(n_dims, n_dims, generator=generator).double())
        std = low + (high - low) * torch.rand(n_dims, generator=generator).double()
        covariances.append(axes @ torch.diag(std**2) @ axes.T)
    return ptd.GaussianMixture(torch.full((count,), 1 / count), means, torch.stack(covariances))


JUDGED: dict[str, Any] = {
    "P1 ring of 8": lambda: ring(8, 0.15),
    "P2 roll": lambda: roll(0.05),
    "P3 16-D": lambda: random(16, 10, 0, 0.05, 0.7),
    "P4 25 in a square": lambda: square(5, 0.1),
    "P5 3-D": lambda: random(3, 12, 300, 0.03, 0.4),
    "P6 8-D": lambda: random(8, 8, 301, 0.05, 0.6),
}
"""Judged on; never learned from."""

LEARNED_FROM: dict[str, Any] = {
    "ring of 5": lambda: ring(5, 0.2),
    "ring of 7": lambda: ring(7, 0.1),
    "moons": lambda: moons(0.08),
    "wide S": lambda: s_curve(0.06),
    "narrow S": lambda: s_curve(0.035),
    "2-D": lambda: random(2, 6, 101, 0.05, 0.4),
    "2-D narrow": lambda: random(2, 12, 105, 0.02, 0.2),
    "3-D": lambda: random(3, 8, 102, 0.05, 0.5),
    "4-D": lambda: random(4, 10, 107, 0.03, 0.5),
    "8-D": lambda: random(8, 6, 103, 0.05, 0.7),
    "16-D": lambda: random(16, 12, 104, 0.1, 0.6),
    "16-D narrow": lambda: random(16, 8, 106, 0.03, 0.6),
}
"""What the grids of `auto` come from."""

MORE: dict[str, Any] = {
    "9 in a square": lambda: square(3, 0.1),
    "19 in a hexagon": lambda: lattice(0.09),
    "ring of 12": lambda: ring(12, 0.1),
    "2-D, many": lambda: random(2, 20, 108, 0.04, 0.1),
}
"""Further mixtures; with some of `LEARNED_FROM`, what networks for the grids of `auto` are trained on."""

NETWORKS = (
    "moons", "checkerboard", "eight-gaussians", "spirals", "pinwheel", "s-curve", "ring of 7", "narrow S", "2-D",
    "2-D narrow", "3-D", "4-D", "8-D", *MORE,
)  # fmt: skip
"""Data of these networks, names of `DATASETS` or of the mixtures."""


def points(name: str) -> Any:
    """Return 4096 points of a data set or a mixture."""
    if name in ptd.DATASETS:
        return ptd.DATASETS[name](4096, random_state=0)
    return (LEARNED_FROM | MORE)[name]().sample(4096, torch.Generator().manual_seed(0)).numpy()


def case(mixture: ptd.GaussianMixture, num_points: int, seed: int) -> tuple[Case, float]:
    """Return a problem in standard units, and the standard deviation that they are units of."""
    std, mean = float(mixture.covariance.diag().mean().sqrt()), mixture.mean

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (mixture.denoise(x * std + mean, sigma * std) - mean) / std

    generator = torch.Generator().manual_seed(seed)
    x = START * torch.randn(num_points, mixture.n_dims, generator=generator).double()
    return Case(denoise, x, ptd.exact_flow(denoise, x, START, 0.0).x), std
