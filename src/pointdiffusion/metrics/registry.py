"""The metrics that samples are evaluated by, by name, each with what it measures and what it is blind to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pointdiffusion.metrics import permutation
from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.metrics.marginals import column_std
from pointdiffusion.metrics.permutation import Pool, Signs, per_assignment
from pointdiffusion.runtime.arrays import Array


@dataclass(frozen=True)
class Metric:
    """A metric of two tables with the same number of rows; call it with both.

    Args:
        statistic: Maps a pool of rows and R assignments of them to two groups, see `metrics.permutation`, to R values.
        explanation: What it measures, and what it is blind to, a sentence.
        larger_is_better: Whether samples of lower quality get a smaller value.
        tested: Whether a p-value by permutation is affordable.
        fewest: Fewest rows of each set that it needs.
        most: Most rows of each set that it is computed on, since it takes too long on more.
        columns: Fewest columns that it needs.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> samples, fresh = rng.normal(size=(2, 100, 3))
        >>> METRICS["largest KS"](samples, fresh) < METRICS["largest KS"](samples + 1, fresh)
        True
    """

    statistic: Callable[[Pool, Signs], Array]
    explanation: str
    larger_is_better: bool = False
    tested: bool = True
    fewest: int = 10
    most: int = 1_000_000
    columns: int = 1

    def __call__(self, samples: ArrayLike, fresh: ArrayLike, *, random_state: int = 0) -> float:
        """Return the metric, in standard deviations of the fresh rows where it has a unit.

        Args:
            samples: Generated rows, shape `(N, D)`.
            fresh: Fresh rows of the population, shape `(N, D)`.
            random_state: Seed of random directions.

        Returns:
            The value; what is best depends on the metric, so read it beside the value of fresh rows.

        Raises:
            ValueError: If the shapes differ, or there are too few rows or columns.
        """
        a, b = two_tables(samples, fresh)
        if a.shape != b.shape or len(a) < self.fewest or a.shape[1] < self.columns:
            raise ValueError(
                f"two tables of one shape, of {self.fewest} rows and {self.columns} columns or more are needed, got "
                f"{a.shape} and {b.shape}"
            )
        rows = (np.concatenate([a, b]) - b.mean(axis=0)) / column_std(b)
        signs = np.repeat(np.array([1, -1], dtype=np.int8), len(a))[:, None]
        return float(self.statistic(Pool(rows, random_state), signs)[0])


def _on_manifold(name: str, explanation: str) -> Metric:
    statistic = permutation.share_on_manifold(name)
    return Metric(statistic, explanation, larger_is_better=True, fewest=30, most=500)


METRICS: dict[str, Metric] = {
    "energy distance": Metric(
        permutation.energy,
        "Squared, unbiased, so about 0 for fresh rows; sensitive to any difference, to fine structure least.",
    ),
    "MMD": Metric(
        permutation.kernel_discrepancy,
        "Squared, unbiased, with Gaussian kernels around the median distance; insensitive in many dimensions.",
    ),
    "sliced W2": Metric(
        permutation.sliced, "Transport distance of the rows projected on random directions; blind to fine structure."
    ),
    "W2": Metric(
        per_assignment(permutation.transport),
        "Exact transport distance of the rows; in many dimensions its floor is high and hides differences.",
        tested=False, most=500,
    ),
    "largest KS": Metric(
        lambda pool, signs: permutation.marginal(pool, signs)[0].max(axis=1),
        "Largest difference of the distribution functions of any column; blind to dependence between columns.",
    ),
    "mean W1": Metric(
        lambda pool, signs: permutation.marginal(pool, signs)[1].mean(axis=1),
        "Transport distance of the values of a column, mean over columns; blind to dependence between columns.",
    ),
    "correlations": Metric(
        lambda pool, signs: np.sqrt(np.mean(np.square(permutation.correlation_errors(pool, signs)), axis=1)),
        "Error of the correlations, root mean square over pairs; blind to nonlinear dependence.", columns=2,
    ),
    "rank correlations": Metric(
        per_assignment(permutation.rank_correlation_error),
        "The same for Spearman's, which is robust to outliers; blind to dependence that is not monotone.",
        tested=False, columns=2,
    ),
    "precision": _on_manifold(
        "precision", "Share of samples near fresh rows; blind to missing modes, and inflated by outliers."
    ),
    "recall": _on_manifold(
        "recall", "Share of fresh rows near samples; blind to implausible samples, inflated by too wide ones."
    ),
    "density": _on_manifold("density", "How densely fresh rows lie around samples; above the floor if too narrow."),
    "coverage": _on_manifold(
        "coverage", "Share of fresh rows with a sample among their neighbours; low if modes are missing."
    ),
}  # fmt: skip
"""Metrics of two sets of rows by name, all in standard deviations of the columns."""
