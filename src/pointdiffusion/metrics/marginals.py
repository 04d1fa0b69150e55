"""Errors column by column and pair by pair: where two tables differ, in words of the columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.runtime.arrays import Array


class MarginalErrors(NamedTuple):
    """How far each column is off, each of shape `(D,)`.

    Args:
        ks: Largest difference of the distribution functions (Kolmogorov and Smirnov), between 0 and 1.
        w1: 1-Wasserstein distance, the mean way that a value has to go, in standard deviations of the second table.
    """

    ks: Array
    w1: Array


class PairwiseErrors(NamedTuple):
    """How far the dependence of each pair of columns is off, each of shape `(D, D)`.

    Args:
        correlation: Difference of the correlations, first table less second.
        spearman: Difference of the rank correlations, which outliers and bends of a scale leave alone.
    """

    correlation: Array
    spearman: Array


def marginal_errors(a: ArrayLike, b: ArrayLike) -> MarginalErrors:
    """Return how far each column of `a` is from that of `b`.

    Blind to dependence between columns: a table with each column shuffled for itself has no marginal error.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`; a column that is constant here is left in its own unit.

    Raises:
        ValueError: If the columns differ, or a table has fewer than two rows.

    Examples:
        >>> marginal_errors([[0.0], [1.0]], [[0.0], [2.0]]).ks
        array([0.5])
    """
    a, b = two_tables(a, b)
    scale = spread_of(b)
    ks, w1 = np.empty(a.shape[1]), np.empty(a.shape[1])
    for k, (one, other) in enumerate(zip(np.sort(a, axis=0).T, np.sort(b, axis=0).T, strict=True)):
        places = np.sort(np.concatenate([one, other]))
        below = [np.searchsorted(column, places, side="right") / len(column) for column in (one, other)]
        apart = np.abs(below[0] - below[1])
        ks[k], w1[k] = apart.max(), (apart[:-1] * np.diff(places)).sum() / scale[k]
    return MarginalErrors(ks, w1)


def pairwise_errors(a: ArrayLike, b: ArrayLike) -> PairwiseErrors:
    """Return how far the correlations of `a` are from those of `b`; with a constant column there is none, so 0.

    Blind to dependence that is not monotone: of two columns on a ring both correlations are 0, whatever fills it.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.

    Raises:
        ValueError: If the columns differ, or a table has fewer than two rows.
    """
    from scipy.stats import rankdata

    a, b = two_tables(a, b)
    return PairwiseErrors(
        correlations(a) - correlations(b), correlations(rankdata(a, axis=0)) - correlations(rankdata(b, axis=0))
    )


def correlations(x: Array) -> Array:
    """Return the correlations of the columns, shape `(D, D)`, 0 where one is constant."""
    x = (x - x.mean(axis=0)) / spread_of(x)
    found = x.T @ x / len(x)
    return np.asarray(np.clip(found, -1, 1))


def spread_of(x: Array) -> Array:
    """Return the standard deviation of each column, shape `(D,)`, and 1 for a constant one."""
    spread = x.std(axis=0)
    # The deviation of many equal numbers can be a rounding error away from 0.
    return np.where(x.min(axis=0) == x.max(axis=0), 1.0, np.where(spread > 0, spread, 1.0))
