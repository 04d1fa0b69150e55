"""Named point sets, each a function of the number of rows and a seed.

Rows are independent draws in random order, so any part of a set is a set of the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def _check(n_samples: int, noise: float) -> None:
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise must be finite and not negative, got {noise}")


def swiss_roll(
    n_samples: int,
    *,
    n_dims: int = 2,
    noise: float = 0.0,
    scaling_factor: float = 10.0,
    random_state: int | None = None,
) -> Points:
    """Return points of scikit-learn's Swiss roll; in two dimensions the spiral that one sees from its side.

    Args:
        n_samples: Number of rows.
        n_dims: 2 for the spiral, 3 for the roll.
        noise: Standard deviation of Gaussian noise, in units before scaling (the roll is about 25 wide).
        scaling_factor: What coordinates are divided by.
        random_state: Seed; None draws another set each time.

    Returns:
        Array `(n_samples, n_dims)`; in three dimensions the second column is the height.

    Raises:
        ValueError: If an argument is out of range.
    """
    from sklearn.datasets import make_swiss_roll

    _check(n_samples, noise)
    if n_dims not in (2, 3):
        raise ValueError(f"the Swiss roll has 2 or 3 dimensions, not {n_dims}")
    if not 0 < scaling_factor < np.inf:
        raise ValueError(f"scaling_factor must be positive, got {scaling_factor}")
    points, _ = make_swiss_roll(n_samples, noise=noise, random_state=random_state)
    return np.asarray(points[:, [0, 2]] if n_dims == 2 else points) / scaling_factor


def moons(n_samples: int, *, noise: float = 0.05, random_state: int | None = None) -> Points:
    """Return points of two interleaving half circles of radius 1 with Gaussian noise, shape `(n_samples, 2)`."""
    _check(n_samples, noise)
    rng = np.random.default_rng(random_state)
    angle = rng.uniform(0, np.pi, n_samples)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = rng.integers(2, size=(n_samples, 1))
    return np.where(lower, [1.0, 0.5] - circle, circle) + noise * rng.normal(size=(n_samples, 2))


def checkerboard(n_samples: int, *, noise: float = 0.0, random_state: int | None = None) -> Points:
    """Return points uniform on the eight dark squares of side 1 of a 4 x 4 board, shape `(n_samples, 2)`."""
    _check(n_samples, noise)
    rng = np.random.default_rng(random_state)
    column, pair = rng.integers(4, size=n_samples), rng.integers(2, size=n_samples)
    corner = np.stack([column, 2 * pair + column % 2], axis=1) - 2.0
    return corner + rng.uniform(size=(n_samples, 2)) + noise * rng.normal(size=(n_samples, 2))


def eight_gaussians(n_samples: int, *, noise: float = 0.15, random_state: int | None = None) -> Points:
    """Return points of eight equal Gaussians of standard deviation `noise` on a circle of radius 2."""
    _check(n_samples, noise)
    rng = np.random.default_rng(random_state)
    angle = 2 * np.pi * rng.integers(8, size=n_samples) / 8
    return 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + noise * rng.normal(size=(n_samples, 2))


DATASETS: dict[str, Callable[..., Any]] = {
    "swiss-roll": swiss_roll,
    "moons": moons,
    "checkerboard": checkerboard,
    "eight-gaussians": eight_gaussians,
}
