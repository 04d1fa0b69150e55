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


@dataclass(frozen=True)
class Copies:
    """How many samples lie nearer to a training row than fresh points do, and whether chance explains it.

    Args:
        share: Share of samples within `radius` of a training row.
        share_fresh: The same for fresh points, about one in a hundred by the choice of the radius.
        radius: Distance that one fresh point in a hundred stays within, in units of the points.
        p_value: Probability of so many if samples were fresh points, exact.
        standard_error: Of `excess`.
    """

    share: float
    share_fresh: float
    radius: float
    p_value: float
    standard_error: float

    @property
    def excess(self) -> float:
        """Share of samples that are copies beyond what falls near by chance, at least 0."""
        return max(0.0, (self.share - self.share_fresh) / (1 - self.share_fresh))


def copies_test(samples: ArrayLike, training: ArrayLike, fresh: ArrayLike) -> Copies:
    """Test whether samples lie nearer to training rows than fresh points do.

    The radius is the k-th smallest distance of m fresh points, k = m / 100. If samples were fresh points, all orders of
    the n + m distances would be equally likely, so how many samples come before the k-th fresh point follows a
    hypergeometric law, whatever the distribution.

    Args:
        samples: Generated points, shape `(n, D)`.
        training: Rows that the model was trained on, shape `(N, D)`.
        fresh: Points of the population that it was not trained on, shape `(m, D)`.

    Raises:
        ValueError: If a table is empty.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> training, fresh = rng.normal(size=(100, 2)), rng.normal(size=(400, 2))
        >>> copies_test(training + 1e-6, training, fresh).p_value < 1e-9
        True
    """
    from scipy.stats import hypergeom

    if not (len(np.asarray(samples)) and len(np.asarray(training)) and len(np.asarray(fresh))):
        raise ValueError("samples, training rows and fresh points are needed, each at least one row")
    distances, known = nearest_distances(samples, training), np.sort(nearest_distances(fresh, training))
    n, m = len(distances), len(known)
    k = max(1, m // 100)
    near = int((distances < known[k - 1]).sum())
    p_value = float(hypergeom.cdf(k - 1, n + m, m, near + k - 1)) if near else 1.0
    share, by_chance = near / n, k / (m + 1)
    error = np.hypot(np.sqrt(share * (1 - share) / n), np.sqrt(by_chance * (1 - by_chance) / m)) / (1 - by_chance)
    return Copies(share, by_chance, float(known[k - 1]), p_value, float(error))


def energy_distance(a: ArrayLike, b: ArrayLike) -> float:
    r"""Return the squared energy distance of two samples, without bias; so it may come out below 0.

    :math:`2 E|a - b| - E|a - a'| - E|b - b'|`, zero only for equal distributions, in the units of the points.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.

    Raises:
        ValueError: If a table has fewer than two rows, or the columns differ.

    References:
        Energy statistics (Szekely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018

    Examples:
        >>> energy_distance([[0.0], [1.0]], [[2.0], [2.0]])  # 2 * 1.5 - 1 - 0
        2.0
    """
    a, b = _two_tables(a, b)
    within = [cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * cdist(a, b).mean() - sum(within))


def energy_test(a: ArrayLike, b: ArrayLike, *, permutations: int = 999, random_state: int = 0) -> float:
    """Return the probability of an energy distance so large if both samples were of one distribution, by permutation.

    Right at any number of rows, unlike a bootstrap of a distance: rows drawn twice are no fresh rows. The least value
    is 1 / (permutations + 1).

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(N, D)`.
        permutations: Random relabellings of the 2N rows.
        random_state: Seed of these.

    Raises:
        ValueError: If the shapes differ, or there are fewer than two rows or no permutation.
    """
    a, b = _two_tables(a, b)
    if a.shape != b.shape or permutations < 1:
        raise ValueError(f"two tables of one shape and a permutation are needed, got {a.shape}, {b.shape}")
    pool = np.concatenate([a, b])
    rng = np.random.default_rng(random_state)
    signs = np.repeat(np.array([1.0, -1.0], dtype=np.float32), len(a))
    labels = np.stack([signs, *(rng.permutation(signs) for _ in range(permutations))], axis=1)  # (2N, P + 1)
    # With signs s the distance is -s'Ms / N^2 and a constant; the mean is taken off, so that float32 will do.
    scores = np.zeros(permutations + 1)
    for start in range(0, len(pool), 1024):
        part = cdist(pool[start : start + 1024], pool)
        part = (part - part.mean(axis=1, keepdims=True)).astype(np.float32)
        scores -= np.einsum("ip,ip->p", labels[start : start + 1024], part @ labels, dtype=np.float64)
    return float(np.mean(scores >= scores[0] - 1e-6 * abs(scores[0])))


def _two_tables(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"two tables of two rows or more and the same columns are needed, got {a.shape} and {b.shape}")
    return a, b
