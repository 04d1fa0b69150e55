"""Two-sample tests: p-values that are exact at any number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from pointdiffusion.metrics import permutation
from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.runtime.arrays import Array


def energy_test(a: ArrayLike, b: ArrayLike, *, permutations: int = 999, random_state: int = 0) -> float:
    """Return the p-value of the energy distance of two samples, by a permutation test.

    Exact at any number of rows, unlike a bootstrap of a distance: resampled rows are no fresh rows.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(N, D)`.
        permutations: Random permutations of the 2N labels.
        random_state: Seed of these.

    Returns:
        Probability of a distance at least as large if both samples were of one distribution; the least value is
        1 / (permutations + 1).

    Raises:
        ValueError: If the shapes differ, or there are fewer than two rows or no permutation.

    References:
        Energy statistics (Szekely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 100, 2))
        >>> energy_test(a, b) > 0.05, energy_test(a, b + 1)
        (True, 0.001)
    """
    a, b = two_tables(a, b)
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


def mmd_test(a: ArrayLike, b: ArrayLike, *, permutations: int = 999, random_state: int = 0) -> float:
    """Return the p-value of the maximum mean discrepancy `mmd` of two samples, by a permutation test.

    Quadratic in memory: 2N rows need about 16 (2N)^2 bytes.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(N, D)`.
        permutations: Random permutations of the 2N labels.
        random_state: Seed of these.

    Returns:
        Probability of a discrepancy at least as large if both samples were of one distribution; the least value is
        1 / (permutations + 1).

    Raises:
        ValueError: If the shapes differ, or there are fewer than two rows or no permutation.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 100, 2))
        >>> mmd_test(a, b) > 0.05, mmd_test(a, b + 1)
        (True, 0.001)
    """
    a, b = two_tables(a, b)
    if a.shape != b.shape or permutations < 1:
        raise ValueError(f"two tables of one shape and a permutation are needed, got {a.shape}, {b.shape}")
    signs = permutation.permuted_labels(len(a), permutations, np.random.default_rng(random_state))
    return permutation.p_value(permutation.kernel_discrepancy(permutation.Pool(np.concatenate([a, b])), signs))


@dataclass(frozen=True)
class ClassifierTest:
    """How well a classifier separates two samples, on rows that it was not trained on.

    Args:
        auc: Area under the ROC curve: the probability that a row of the first sample gets a higher score than one of
            the second; 0.5 is guessing.
        accuracy: Share of rows that are assigned to the right sample.
        p_value: Probability of an `auc` at least as high if both were of one distribution.
        standard_error: Standard error of `auc`, if both were of one distribution.
    """

    auc: float
    accuracy: float
    p_value: float
    standard_error: float


def classifier_test(
    a: ArrayLike, b: ArrayLike, *, permutations: int = 999, random_state: int = 0, **settings: Any
) -> ClassifierTest:  # fmt: skip
    """Train a classifier to separate two samples, and test whether it does better than guessing.

    Gradient-boosted trees are trained on each half of the rows and evaluated on the other. Given the classifier of one
    half, all labellings of the other are equally likely if both samples are of one distribution, so the p-value of a
    half is exact, without retraining for each permutation. The two are not independent, so twice the smaller one is
    taken, which is valid under any dependence. The least value is 2 / (permutations + 1).

    Trees split along the axes: structure that is fine and oblique takes many rows to be detected.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.
        permutations: Random permutations of the labels of each half.
        random_state: Seed of the halves, the trees and the permutations.
        settings: Arguments of scikit-learn's `HistGradientBoostingClassifier`, in place of the defaults.

    Returns:
        Area under the ROC curve, accuracy, p-value and standard error.

    Raises:
        ValueError: If the columns differ, a table has fewer than four rows, or there is no permutation.

    References:
        Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(2, 200, 2))
        >>> classifier_test(a, b + 1).p_value < 0.05
        True
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    a, b = two_tables(a, b, min_rows=4)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    rng = np.random.default_rng(random_state)
    rows, first = np.concatenate([a, b]), np.repeat([True, False], [len(a), len(b)])
    half = np.concatenate([rng.permutation(n) * 2 // n for n in (len(a), len(b))])
    defaults = {"max_iter": 100, "max_leaf_nodes": 15, "early_stopping": False, "random_state": random_state}
    aucs, p_values, right = [], [], 0
    for held_out in (0, 1):
        train, test = half != held_out, half == held_out
        trees = HistGradientBoostingClassifier(**{**defaults, **settings}).fit(rows[train], first[train])
        scores = trees.predict_proba(rows[test])[:, 1]
        auc, p = _auc_test(scores, first[test], permutations, rng)
        aucs.append(auc)
        p_values.append(p)
        right += int(((scores > 0.5) == first[test]).sum())
    # Of a half if labels mean nothing (Mann and Whitney 1947); the mean of both is no less sure, whatever they share.
    n, m = len(a) / 2, len(b) / 2
    error = np.sqrt((n + m + 1) / (12 * n * m))
    return ClassifierTest(float(np.mean(aucs)), right / len(rows), min(1.0, 2 * min(p_values)), float(error))


def _auc_test(
    scores: Array, first: NDArray[np.bool_], permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the area under the ROC curve of scores, and its p-value by permutation of the labels."""
    from scipy.stats import rankdata

    ranks, n = rankdata(scores), int(first.sum())
    labels = np.stack([first, *(rng.permutation(first) for _ in range(permutations))])
    sums = labels.astype(np.float64) @ ranks
    auc = (sums[0] - n * (n + 1) / 2) / (n * (len(first) - n))
    return float(auc), permutation.p_value(sums)


def holm(p_values: Sequence[float]) -> Array:
    """Return p-values corrected for the number of tests, so that the family-wise error rate is controlled.

    The probability of any false rejection at a level is at most that level, under any dependence of the tests.

    Args:
        p_values: One p-value per test, shape `(K,)`.

    Returns:
        Corrected p-values in the same order, shape `(K,)`, at most 1.

    References:
        A simple sequentially rejective multiple test procedure (Holm, 1979), https://www.jstor.org/stable/4615733

    Examples:
        >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected
