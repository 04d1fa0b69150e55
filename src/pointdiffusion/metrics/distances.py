"""Distances between point sets: arrays in, numbers out.

A distance between two finite samples is never zero, unless its estimate is unbiased, so compare each with its
finite-sample floor: the same distance between two fresh samples. `evaluate` does so for all metrics.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from pointdiffusion.runtime.arrays import Array

BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0)
"""Bandwidths of the kernels of `mmd`, in units of the median distance; the narrow ones resolve fine structure."""

MAX_ITERATIONS = 10_000_000
"""Limit of POT's network simplex."""


def two_tables(a: ArrayLike, b: ArrayLike, *, min_rows: int = 2) -> tuple[Array, Array]:
    """Return two tables of the same columns as float64.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.
        min_rows: Fewest rows of each.

    Raises:
        ValueError: If they are no two-dimensional tables of the same columns, hold fewer than `min_rows` rows, or hold
            values that are not finite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1] or min(len(a), len(b)) < min_rows:
        count = {1: "one row", 2: "two rows"}.get(min_rows, f"{min_rows} rows")
        raise ValueError(
            f"two tables of {count} or more and the same columns are needed, got shapes {a.shape}, {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("points must be finite numbers, but some are NaN or infinite; drop those rows")
    return a, b


def wasserstein2(a: ArrayLike, b: ArrayLike) -> float:
    r"""Return the exact 2-Wasserstein distance of two samples.

    For equal numbers the optimal transport is an assignment:
    :math:`W_2^2 = \min_\pi \frac{1}{N} \sum_i |a_i - b_{\pi(i)}|^2`. It is cubic in N: about a second for N = 2000. For
    unequal numbers the transport problem is solved by POT where it is installed, else by SciPy's linear programming,
    which is exact as well and fast enough up to some hundred rows.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.

    Returns:
        The distance in units of the points, at least 0.

    Raises:
        ValueError: If the columns differ, there is no row, a value is not finite, or the solver of the transport
            problem stops before the optimum.

    References:
        Computational optimal transport (Peyre and Cuturi, 2019), https://arxiv.org/abs/1803.00567

    Examples:
        >>> wasserstein2([[0.0], [1.0]], [[1.0], [3.0]])  # sqrt((1 + 4) / 2)
        1.5811388300841898
        >>> wasserstein2([[0.0], [1.0]], [[0.0]])  # half of the mass moves by 1
        0.7071067811865476
    """
    a, b = two_tables(a, b, min_rows=1)
    cost = cdist(a, b, "sqeuclidean")
    if len(a) == len(b):  # faster than POT at every number of rows
        rows, columns = linear_sum_assignment(cost)
        return float(np.sqrt(cost[rows, columns].mean()))
    return float(np.sqrt(max(_transport(cost), 0.0)))


def _transport(cost: Array) -> float:
    """Return the least mean cost of moving even weights on the rows to even weights on the columns."""
    n, m = cost.shape
    try:
        import ot
    except ImportError:
        return _transport_by_scipy(cost)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the log holds the same message
        plan, log = ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), cost, numItermax=MAX_ITERATIONS, log=True)
    mass = float(plan.sum())
    if log["warning"] is not None or abs(mass - 1) > 1e-6:  # at its limit it returns a plan that moves less than all
        raise _stopped_early(cost, log["warning"] or f"its plan moves {mass:.6f} of the mass")
    return float((plan * cost).sum())


def _stopped_early(cost: Array, reason: str) -> ValueError:
    n, m = cost.shape
    return ValueError(
        f"the optimal transport of {n} to {m} rows was not solved ({reason.rstrip('. ')}); compare fewer rows, or "
        "equally many"
    )


def _transport_by_scipy(cost: Array) -> float:
    """Return what `_transport` does, by linear programming."""
    from scipy.optimize import linprog
    from scipy.sparse import eye_array, kron, vstack

    n, m = cost.shape
    leaving = kron(eye_array(n), np.ones((1, m)))
    arriving = kron(np.ones((1, n)), eye_array(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    result = linprog(cost.ravel(), A_eq=vstack([leaving, arriving]).tocsr(), b_eq=weights)
    if not result.success:  # its value is None then, or that of a point that is not the optimum
        raise _stopped_early(cost, result.message)
    return float(result.fun)


def sliced_wasserstein2(
    a: ArrayLike, b: ArrayLike, *, directions: int | ArrayLike = 128, random_state: int = 0
) -> float:
    r"""Return the root mean square, over directions, of the 2-Wasserstein distance of the projections.

    :math:`SW_2^2 = E_\theta W_2^2(\theta \cdot a, \theta \cdot b)` over the unit sphere, here over random directions.
    In one dimension the transport is by rank, so this is fast at any number of rows.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.
        directions: Number of random directions, or the unit vectors themselves, shape `(K, D)`.
        random_state: Seed of the directions.

    Returns:
        The distance in units of the points, at least 0.

    Raises:
        ValueError: If the tables or the directions do not fit.

    References:
        Wasserstein barycenter and its application to texture mixing (Rabin et al., 2011),
        https://doi.org/10.1007/978-3-642-24785-9_37

    Examples:
        >>> sliced_wasserstein2([[0.0], [1.0]], [[1.0], [3.0]])  # in one dimension it is W2
        1.5811388300841898
    """
    a, b = two_tables(a, b, min_rows=1)
    units = unit_vectors(a.shape[1], directions, random_state)
    one, other = np.sort(a @ units.T, axis=0), np.sort(b @ units.T, axis=0)
    if len(a) == len(b):
        return float(np.sqrt(np.square(one - other).mean()))
    # The quantile functions are steps: both are constant between neighbours of the union of i / N and j / M.
    edges = np.union1d(np.arange(len(a) + 1) / len(a), np.arange(len(b) + 1) / len(b))
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    apart = one[(middles * len(a)).astype(int)] - other[(middles * len(b)).astype(int)]
    return float(np.sqrt((widths @ np.square(apart)).mean()))


def unit_vectors(n_dims: int, directions: int | ArrayLike, random_state: int) -> Array:
    """Return unit vectors, shape `(K, n_dims)`: those given, or that many random ones."""
    given = np.asarray(directions, dtype=np.float64)
    if given.ndim:
        if given.ndim != 2 or given.shape[1] != n_dims or not np.allclose(np.linalg.norm(given, axis=1), 1):
            raise ValueError(f"directions must be unit vectors of shape (K, {n_dims}), got shape {given.shape}")
        return given
    if given < 1:
        raise ValueError(f"directions must be at least 1, got {given:g}")
    if n_dims == 1:
        return np.ones((1, 1))
    drawn = np.random.default_rng(random_state).normal(size=(int(given), n_dims))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def energy_distance(a: ArrayLike, b: ArrayLike) -> float:
    r"""Return the squared energy distance of two samples, unbiased, so the estimate may be below 0.

    :math:`2 E|a - b| - E|a - a'| - E|b - b'|`, zero only for equal distributions.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.

    Returns:
        The squared distance, in units of the points.

    Raises:
        ValueError: If a table has fewer than two rows, or the columns differ.

    References:
        Energy statistics (Szekely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018

    Examples:
        >>> energy_distance([[0.0], [1.0]], [[2.0], [2.0]])  # 2 * 1.5 - 1 - 0
        2.0
    """
    a, b = two_tables(a, b)
    within = [cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * cdist(a, b).mean() - sum(within))


def mmd(a: ArrayLike, b: ArrayLike, *, bandwidths: ArrayLike | None = None) -> float:
    r"""Return the squared maximum mean discrepancy of two samples, unbiased, so the estimate may be below 0.

    :math:`E k(a, a') + E k(b, b') - 2 E k(a, b)` for the mean of Gaussian kernels
    :math:`k(x, y) = \exp(-|x - y|^2 / 2 h^2)`; between 0 and 2.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.
        bandwidths: The h, in units of the points, shape `(K,)`; by default the median distance of the rows of both
            tables, times `BANDWIDTH_FACTORS`.

    Returns:
        The squared discrepancy, without unit.

    Raises:
        ValueError: If a table has fewer than two rows, the columns differ, or a bandwidth is not positive.

    References:
        A kernel two-sample test (Gretton et al., 2012), lemma 6, https://jmlr.org/papers/v13/gretton12a.html

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 200, 2))
        >>> abs(mmd(a, b)) < mmd(a, b + 1)
        True
    """
    a, b = two_tables(a, b)
    chosen = median_bandwidths(pdist(np.concatenate([a, b]))) if bandwidths is None else np.atleast_1d(bandwidths)
    widths = np.asarray(chosen, dtype=np.float64)
    if widths.ndim != 1 or not len(widths) or not (widths > 0).all():
        raise ValueError(f"bandwidths must be positive numbers, got {bandwidths!r}")
    within = [(gaussian_kernel(cdist(x, x), widths).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(sum(within) - 2 * gaussian_kernel(cdist(a, b), widths).mean())


def median_bandwidths(distances: Array) -> Array:
    """Return the bandwidths of `mmd` for pairwise distances: the median of those above 0 and its neighbours."""
    apart = distances[distances > 0]
    return (float(np.median(apart)) if len(apart) else 1.0) * np.array(BANDWIDTH_FACTORS)


def gaussian_kernel(distances: Array, bandwidths: Array) -> Array:
    """Return the mean over bandwidths of the Gaussian kernel, in the shape of `distances`."""
    return np.asarray(sum(np.exp(-0.5 * np.square(distances / width)) for width in bandwidths) / len(bandwidths))


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
        """Value over floor; 1 is as good as fresh data."""
        return self.value / self.floor


def compare_wasserstein2(samples: ArrayLike, fresh: ArrayLike, *, n_samples: int = 1000, draws: int = 6) -> Comparison:
    """Compare samples with fresh data by the 2-Wasserstein distance, averaged over independent draws.

    Args:
        samples: Generated points, shape `(N, D)`; of more than `n_samples` each draw takes the next ones in turn.
        fresh: Fresh points of the population, shape `(M, D)`, at least `3 * draws` times as many rows as are compared.
        n_samples: Most rows to compare in one draw.
        draws: Number of draws for each of the two means, at least 2.

    Returns:
        Value and floor in units of the points, their ratio, and its standard error.

    Raises:
        ValueError: If there are too few fresh rows.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> samples, fresh = rng.normal(size=(100, 2)), rng.normal(size=(1800, 2))
        >>> compare_wasserstein2(samples + 1, fresh).ratio > 2
        True
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
