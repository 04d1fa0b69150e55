"""Errors of each column and of each pair of columns: where two tables differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.runtime.arrays import Array


class MarginalErrors(NamedTuple):
    """Errors of the distribution of each column, each of shape `(D,)`.

    Args:
        ks: Largest difference of the distribution functions (Kolmogorov and Smirnov), between 0 and 1.
        w1: 1-Wasserstein distance, in standard deviations of the second table.
    """

    ks: Array
    w1: Array


class PairwiseErrors(NamedTuple):
    """Errors of the dependence of each pair of columns, each of shape `(D, D)`.

    Args:
        correlation: Difference of the correlations, first table less second, between -2 and 2.
        spearman: Difference of the rank correlations, which are robust to outliers and invariant to monotone maps.
    """

    correlation: Array
    spearman: Array


def marginal_errors(a: ArrayLike, b: ArrayLike) -> MarginalErrors:
    """Return the distance of each column of `a` from that of `b`.

    Blind to dependence between columns: a table with each column shuffled independently has no marginal error.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`; a column that is constant in it keeps its own unit.

    Returns:
        Kolmogorov-Smirnov and 1-Wasserstein distances of the columns, each of shape `(D,)`.

    Raises:
        ValueError: If the columns differ, or a table has fewer than two rows.

    Examples:
        >>> marginal_errors([[0.0], [1.0]], [[0.0], [2.0]]).ks
        array([0.5])
    """
    a, b = two_tables(a, b)
    scale = column_std(b)
    ks, w1 = np.empty(a.shape[1]), np.empty(a.shape[1])
    for k, (one, other) in enumerate(zip(np.sort(a, axis=0).T, np.sort(b, axis=0).T, strict=True)):
        values = np.sort(np.concatenate([one, other]))
        below = [np.searchsorted(column, values, side="right") / len(column) for column in (one, other)]
        apart = np.abs(below[0] - below[1])
        ks[k], w1[k] = apart.max(), (apart[:-1] * np.diff(values)).sum() / scale[k]
    return MarginalErrors(ks, w1)


def pairwise_errors(a: ArrayLike, b: ArrayLike) -> PairwiseErrors:
    """Return the differences of the correlations of `a` from those of `b`; that of a constant column is 0.

    Blind to dependence that is not monotone: of two columns on a ring both correlations are 0, whatever fills it.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.

    Returns:
        Differences of Pearson's and of Spearman's correlations, each of shape `(D, D)`.

    Raises:
        ValueError: If the columns differ, or a table has fewer than two rows.

    Examples:
        >>> errors = pairwise_errors([[0, 0], [1, 1], [2, 2]], [[0, 2], [1, 1], [2, 0]])
        >>> errors.correlation[0, 1].round(6), errors.spearman[0, 1].round(6)
        (np.float64(2.0), np.float64(2.0))
    """
    from scipy.stats import rankdata

    a, b = two_tables(a, b)
    return PairwiseErrors(
        correlations(a) - correlations(b), correlations(rankdata(a, axis=0)) - correlations(rankdata(b, axis=0))
    )


def correlations(x: Array) -> Array:
    """Return the correlations of the columns of `x`, shape `(N, D)` to `(D, D)`, 0 where one is constant."""
    x = (x - x.mean(axis=0)) / column_std(x)
    return np.asarray(np.clip(x.T @ x / len(x), -1, 1))


def column_std(x: Array) -> Array:
    """Return the standard deviation of each column of `x`, shape `(N, D)` to `(D,)`, and 1 for a constant one."""
    std = x.std(axis=0)
    # The deviation of many equal numbers can be a rounding error away from 0.
    return np.where(x.min(axis=0) == x.max(axis=0), 1.0, np.where(std > 0, std, 1.0))
