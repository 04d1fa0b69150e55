"""Distances between point sets, beside what fresh data of the same number would get.

Arrays in, numbers out. A distance between two finite samples is never zero, so each figure is told together with its
finite-sample floor: the same distance between two fresh samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist


def wasserstein2(a: ArrayLike, b: ArrayLike) -> float:
    r"""Return the exact 2-Wasserstein distance of two samples of the same number.

    For equal numbers the optimal transport is an assignment, which is found exactly:
    :math:`W_2^2 = \min_\pi \frac{1}{N} \sum_i |a_i - b_{\pi(i)}|^2`. Cubic in N; a second or so for N = 2000.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(N, D)`.

    Raises:
        ValueError: If the shapes differ or there is no row.

    Examples:
        >>> wasserstein2([[0.0], [1.0]], [[1.0], [3.0]])  # sqrt((1 + 4) / 2)
        1.5811388300841898
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(f"two tables of the same shape are needed, got {a.shape} and {b.shape}")
    cost = cdist(a, b, "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))


@dataclass(frozen=True)
class Comparison:
    """A distance beside its finite-sample floor.

    Args:
        value: Mean distance of the samples to fresh data.
        floor: Mean distance of fresh data to fresh data of the same number.
        floor_std: Standard deviation of one draw of the floor.
        standard_error: Standard error of the ratio, from the scatter of the floor and the number of independent blocks.
        n_samples: Rows compared in each draw.
    """

    value: float
    floor: float
    floor_std: float
    standard_error: float
    n_samples: int

    @property
    def ratio(self) -> float:
        """Value over floor; 1 cannot be told from fresh data."""
        return self.value / self.floor


def compare_wasserstein2(samples: ArrayLike, fresh: ArrayLike, *, n_samples: int = 1000, draws: int = 6) -> Comparison:
    """Compare samples with fresh data by the 2-Wasserstein distance, averaged over independent draws.

    Args:
        samples: Generated points, shape `(N, D)`; of more than `n_samples` each draw takes the next ones in turn.
        fresh: Fresh points of the population, at least `3 * draws` times as many rows as are compared.
        n_samples: Most rows to compare in one draw.
        draws: Number of draws for each of the two means.

    Raises:
        ValueError: If there are too few fresh rows.
    """
    samples, fresh = np.asarray(samples, dtype=np.float64), np.asarray(fresh, dtype=np.float64)
    n = min(n_samples, len(samples))
    if n < 1 or draws < 2 or len(fresh) < 3 * draws * n:
        raise ValueError(f"{3 * draws} draws of {n} fresh rows are needed, got {len(fresh)} rows in all")
    parts = np.split(fresh[: 3 * draws * n], 3 * draws)
    blocks = len(samples) // n
    values = [wasserstein2(samples[k % blocks * n :][:n], parts[3 * k]) for k in range(draws)]
    floors = [wasserstein2(parts[3 * k + 1], parts[3 * k + 2]) for k in range(draws)]
    value, floor = float(np.mean(values)), float(np.mean(floors))
    scatter = np.std(floors, ddof=1) / floor  # of one draw, relative; only independent blocks of samples average it out
    error = value / floor * scatter * np.hypot(1 / np.sqrt(min(blocks, draws)), 1 / np.sqrt(draws))
    return Comparison(value, floor, float(np.std(floors, ddof=1)), float(error), n)


def nearest_distances(points: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of each point to the nearest row of `reference`, shape `(N,)`."""
    distances, _ = KDTree(np.asarray(reference, dtype=np.float64)).query(np.asarray(points, dtype=np.float64))
    return np.asarray(distances)


def copy_share(points: ArrayLike, training: ArrayLike, radius: float) -> float:
    """Return the share of points that lie nearer than `radius` to a training row.

    To be read beside the same share of fresh points: only what exceeds it is copied.
    """
    return float(np.mean(nearest_distances(points, training) < radius))
