"""Tests whether two samples are of one distribution: p-values that are right at any number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from pointdiffusion.metrics import permutation as relabelling
from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.runtime.arrays import Array


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
    """Return the probability of a discrepancy `mmd` so large if both samples were of one distribution, by permutation.

    Quadratic in memory: 2N rows need 16 (2N)^2 bytes or so. The least value is 1 / (permutations + 1).

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(N, D)`.
        permutations: Random relabellings of the 2N rows.
        random_state: Seed of these.

    Raises:
        ValueError: If the shapes differ, or there are fewer than two rows or no permutation.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html
    """
    a, b = two_tables(a, b)
    if a.shape != b.shape or permutations < 1:
        raise ValueError(f"two tables of one shape and a permutation are needed, got {a.shape}, {b.shape}")
    signs = relabelling.relabellings(len(a), permutations, np.random.default_rng(random_state))
    return relabelling.p_value(relabelling.kernel_discrepancy(relabelling.Pool(np.concatenate([a, b])), signs))


@dataclass(frozen=True)
class ClassifierTest:
    """How well a classifier tells two samples apart, on rows that it was not trained on.

    Args:
        auc: Probability that it takes a row of the first sample for more like the first than one of the second; 0.5 is
            guessing.
        accuracy: Share of rows that it puts in the right sample.
        p_value: Probability of telling them apart so well if both were of one distribution.
        standard_error: Of `auc`, if both were of one distribution.
    """

    auc: float
    accuracy: float
    p_value: float
    standard_error: float


def classifier_test(
    a: ArrayLike, b: ArrayLike, *, permutations: int = 999, random_state: int = 0, **settings: Any
) -> ClassifierTest:  # fmt: skip
    """Train a classifier to tell two samples apart, and ask whether it can.

    Gradient-boosted trees are trained on each half of the rows and asked about the other. Given the classifier of the
    one half, all labellings of the other are equally likely if both samples are of one distribution, so the p-value of
    a half is exact, without training anew for each permutation. The two are not independent, so twice the smaller one
    is taken, which is right whatever they have to do with each other. The least value is 2 / (permutations + 1).

    Trees cut along the axes: structure that is fine and oblique takes many rows to be seen.

    Args:
        a: Points, shape `(N, D)`.
        b: Points, shape `(M, D)`.
        permutations: Random relabellings of each half.
        random_state: Seed of the halves, the trees and the relabellings.
        settings: Of scikit-learn's `HistGradientBoostingClassifier`, in place of ours.

    Raises:
        ValueError: If the columns differ, a table has fewer than four rows, or there is no permutation.

    References:
        Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    a, b = two_tables(a, b, fewest=4)
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    rng = np.random.default_rng(random_state)
    rows, first = np.concatenate([a, b]), np.repeat([True, False], [len(a), len(b)])
    half = np.concatenate([rng.permutation(n) * 2 // n for n in (len(a), len(b))])
    ours = {"max_iter": 100, "max_leaf_nodes": 15, "early_stopping": False, "random_state": random_state}
    aucs, p_values, right = [], [], 0
    for held in (0, 1):
        train, test = half != held, half == held
        trees = HistGradientBoostingClassifier(**{**ours, **settings}).fit(rows[train], first[train])
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
    """Return the area under the curve of scores, and the probability of one so large if labels mean nothing."""
    from scipy.stats import rankdata

    ranks, n = rankdata(scores), int(first.sum())
    labels = np.stack([first, *(rng.permutation(first) for _ in range(permutations))])
    sums = labels.astype(np.float64) @ ranks
    auc = (sums[0] - n * (n + 1) / 2) / (n * (len(first) - n))
    return float(auc), relabelling.p_value(sums)


def holm(p_values: Sequence[float]) -> Array:
    """Return p-values corrected for their number: those below a level are right all at once, but for that chance.

    Right whatever the tests have to do with each other.

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
