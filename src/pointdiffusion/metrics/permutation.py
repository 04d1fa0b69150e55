r"""Statistics of two samples for many permutations of their labels at once.

If samples were fresh rows, all assignments of rows to the two groups would be equally likely. So the share of
permutations with a statistic at least as large is a p-value that is exact at any number of rows, whatever the
distribution and the statistic (Fisher 1935; Phipson and Smyth 2010, https://arxiv.org/abs/1603.05766). The rows of both
groups are in one pool, and an assignment is a column of signs: 1 for a row of the first group, -1 for the second, 0 for
none. Both groups have n rows. Signs have shape `(P, R)`: P rows of the pool, R assignments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from pointdiffusion.metrics.distances import gaussian_kernel, median_bandwidths, unit_vectors, wasserstein2
from pointdiffusion.metrics.marginals import column_std, correlations
from pointdiffusion.metrics.neighbours import Manifold, manifold
from pointdiffusion.runtime.arrays import Array

Signs = NDArray[np.int8]

DIRECTIONS, SPLITS = 64, 24


class Pool:
    """Rows of both groups, and what statistics need of all of them, computed on first access.

    Args:
        rows: All rows, in comparable units, shape `(P, D)`.
        random_state: Seed of random directions.
    """

    def __init__(self, rows: Array, random_state: int = 0) -> None:
        self.rows, self.random_state = rows, random_state
        self._manifolds: dict[bytes, Array] = {}

    @cached_property
    def distances(self) -> Array:
        """Distances of all rows, shape `(P, P)`."""
        return np.asarray(cdist(self.rows, self.rows))

    @cached_property
    def kernel(self) -> Array:
        """The kernel of `mmd`, its bandwidths from all rows, shape `(P, P)`."""
        above = self.distances[np.triu_indices(len(self.rows), 1)]
        return gaussian_kernel(self.distances, median_bandwidths(above))

    def manifolds(self, signs: Signs) -> Array:
        """Return precision, recall, density and coverage for each column of signs, shape `(R, 4)`."""
        key = signs.tobytes()
        if key not in self._manifolds:  # the four are requested one after the other
            shares = []
            for column in signs.T:
                one, other = (np.flatnonzero(column == sign) for sign in (1, -1))
                pairs = ((one, one), (other, other), (one, other))
                shares.append(manifold(*(self.distances[np.ix_(*pair)] for pair in pairs)))
            self._manifolds[key] = np.array(shares)
        return self._manifolds[key]

    @cached_property
    def projections(self) -> Array:
        """Rows along random directions, shape `(P, K)`."""
        return np.asarray(self.rows @ unit_vectors(self.rows.shape[1], DIRECTIONS, self.random_state).T)

    @cached_property
    def products(self) -> Array:
        """Products of the centred columns, pair by pair, own squares first, shape `(P, D + D (D - 1) / 2)`."""
        x = (self.rows - self.rows.mean(axis=0)) / column_std(self.rows)
        i, j = np.triu_indices(x.shape[1], 1)
        return np.concatenate([x, x**2, x[:, i] * x[:, j]], axis=1)


def permuted_labels(n: int, count: int, rng: np.random.Generator) -> Signs:
    """Return the labels as observed, n rows of each group, and `count` permutations, shape `(2n, count + 1)`."""
    signs = np.repeat(np.array([1, -1], dtype=np.int8), n)
    return np.stack([signs, *(rng.permutation(signs) for _ in range(count))], axis=1)


class GroupLabels:
    """Rows of both groups, the permutations of a test, and the splits for value, floor and error; each drawn once.

    Args:
        rows: Samples, then held-out rows, shape `(P, D)`.
        n_test: Number of samples, and of held-out rows to test.
        n: Rows of each set for value and floor.
        permutations: Random permutations of a test.
        rng: Generator of permutations and splits.
        random_state: Seed of directions.
    """

    def __init__(
        self, rows: Array, n_test: int, n: int, permutations: int, rng: np.random.Generator, random_state: int
    ) -> None:
        self.pool, self.n_test, self.n, self.rng = Pool(rows, random_state), n_test, n, rng
        self.permutations = permutations
        self._permuted: dict[int, tuple[Pool, Signs]] = {}
        self._splits: dict[int, list[Signs]] = {}

    def permuted(self, most: int = 1_000_000) -> tuple[Pool, Signs]:
        """Return the first rows of both groups, at most `most` of each, and the permutations of their labels."""
        n = min(self.n_test, most)
        if n not in self._permuted:
            rows = self.pool.rows[np.r_[:n, self.n_test : self.n_test + n]]
            labels = permuted_labels(n, self.permutations, self.rng)
            self._permuted[n] = (Pool(rows, self.pool.random_state), labels)
        return self._permuted[n]

    def splits(self, n: int) -> list[Signs]:
        """Return signs for value, floor and error, four arrays of shape `(P, SPLITS)`.

        Samples against n held-out rows; n other held-out rows against the same; half as many against each other, and
        again half as many of the remaining ones.
        """
        if n not in self._splits:
            signs = np.zeros((4, len(self.pool.rows), SPLITS), dtype=np.int8)
            for k in range(SPLITS):
                own = self.rng.permutation(self.n_test)[:n]
                held_out = self.n_test + self.rng.permutation(len(self.pool.rows) - self.n_test)[: 2 * n]
                one, other = np.split(held_out, 2)
                signs[0, own, k] = signs[1, other, k] = 1
                signs[0, one, k] = signs[1, one, k] = -1
                for index, part in enumerate(np.split(held_out[: n // 2 * 4], 4)):
                    signs[2 + index // 2, part, k] = 1 if index % 2 else -1
            self._splits[n] = list(signs)
        return self._splits[n]


def p_value(values: Array) -> float:
    """Return the share of values that are at least as large as the first, the observed one; it counts, too."""
    return float(np.mean(values >= values[0] - 1e-9 * max(abs(float(values[0])), 1e-300)))


def energy(pool: Pool, signs: Signs) -> Array:
    """Return the squared energy distance for each column of signs, shape `(R,)`."""
    return _between_and_within(pool.distances, signs)


def kernel_discrepancy(pool: Pool, signs: Signs) -> Array:
    """Return the squared maximum mean discrepancy for each column of signs, shape `(R,)`."""
    return -_between_and_within(pool.kernel, signs)


def _between_and_within(matrix: Array, signs: Signs) -> Array:
    """Return twice the mean between the sets less the means within, pairs of a row and itself left out."""
    n = int((signs[:, 0] == 1).sum())
    one, other = (signs == 1).astype(np.float64), (signs == -1).astype(np.float64)
    left, right = matrix @ one, matrix @ other  # (P, R)
    itself = matrix.diagonal() @ (one + other)
    within = (one * left).sum(axis=0) + (other * right).sum(axis=0) - itself
    return np.asarray(2 * (one * right).sum(axis=0) / n**2 - within / (n * (n - 1)))


def sliced(pool: Pool, signs: Signs) -> Array:
    """Return the sliced 2-Wasserstein distance for each column of signs, shape `(R,)`."""
    order = np.argsort(pool.projections, axis=0, kind="stable").T  # (K, P)
    ordered = np.take_along_axis(pool.projections.T, order, axis=1)
    values = np.empty(signs.shape[1])
    for r, labels in enumerate(signs.T):
        sorted_labels = labels[order]
        one, other = (ordered[sorted_labels == sign].reshape(len(order), -1) for sign in (1, -1))  # (K, n)
        values[r] = np.sqrt(np.square(one - other).mean())
    return values


def marginal(pool: Pool, signs: Signs) -> tuple[Array, Array]:
    """Return KS and W1 of each column of the table for each column of signs, shape `(R, D)` each."""
    n = int((signs[:, 0] == 1).sum())
    ks, w1 = (np.empty((signs.shape[1], pool.rows.shape[1])) for _ in range(2))
    for k, column in enumerate(pool.rows.T):
        order = np.argsort(column, kind="stable")
        gaps = np.diff(column[order])
        apart = np.abs(np.cumsum(signs[order], axis=0, dtype=np.int32)[:-1])  # (P - 1, R), times n
        # Among equal values the difference means nothing until the last of them.
        ks[:, k] = apart[gaps > 0].max(axis=0, initial=0) / n
        w1[:, k] = gaps @ apart / n
    return ks, w1


def correlation_errors(pool: Pool, signs: Signs) -> Array:
    """Return the difference of the correlation of each pair of columns, shape `(R, D (D - 1) / 2)`."""
    n, n_dims = int((signs[:, 0] == 1).sum()), pool.rows.shape[1]
    i, j = np.triu_indices(n_dims, 1)
    by_group = []
    for sign in (1, -1):
        moments = (signs == sign).astype(np.float64).T @ pool.products / n  # (R, 2 D + pairs)
        means, squares, products = np.split(moments, [n_dims, 2 * n_dims], axis=1)
        spread = np.sqrt(np.maximum(squares - means**2, 0))
        scale = spread[:, i] * spread[:, j]
        covariance = products - means[:, i] * means[:, j]
        by_group.append(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-12))
    return np.asarray(by_group[0] - by_group[1])


def per_assignment(statistic: Callable[[Pool, NDArray[np.intp], NDArray[np.intp]], float]) -> (
    Callable[[Pool, Signs], Array]
):  # fmt: skip
    """Return a statistic of two lists of row numbers as one of signs."""

    def of(pool: Pool, signs: Signs) -> Array:
        return np.array([statistic(pool, *(np.flatnonzero(s == sign) for sign in (1, -1))) for s in signs.T])

    return of


def transport(pool: Pool, one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Return the exact 2-Wasserstein distance."""
    return wasserstein2(pool.rows[one], pool.rows[other])


def rank_correlation_error(pool: Pool, one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Return the root mean square, over pairs of columns, of the difference of the rank correlations."""
    from scipy.stats import rankdata

    apart = np.subtract(*(correlations(rankdata(pool.rows[rows], axis=0)) for rows in (one, other)))
    return float(np.sqrt(np.mean(np.square(apart[np.triu_indices(len(apart), 1)]))))


def share_on_manifold(name: str) -> Callable[[Pool, Signs], Array]:
    """Return the statistic that is the field `name` of `Manifold`."""
    return lambda pool, signs: pool.manifolds(signs)[:, Manifold._fields.index(name)]
