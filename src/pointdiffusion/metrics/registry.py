"""The figures that samples are judged by, by name, each with what it sees and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pointdiffusion.metrics import permutation as relabelling
from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.metrics.marginals import spread_of
from pointdiffusion.metrics.permutation import Pool, Signs, per_relabelling
from pointdiffusion.runtime.arrays import Array


@dataclass(frozen=True)
class Metric:
    """A figure of two tables with the same number of rows; call it with both.

    Args:
        statistic: Of a pool of rows and columns of signs, see `relabelling`; shape `(R,)`.
        explanation: What it says, and what it is blind to, a sentence.
        larger_is_better: Whether samples that are off get less.
        tested: Whether a p-value by permutation is affordable.
        fewest: Rows of each set below which it says nothing.
        most: Rows of each set beyond which it takes too long.
        columns: Columns below which there is nothing to say.
    """

    statistic: Callable[[Pool, Signs], Array]
    explanation: str
    larger_is_better: bool = False
    tested: bool = True
    fewest: int = 10
    most: int = 1_000_000
    columns: int = 1

    def __call__(self, samples: ArrayLike, fresh: ArrayLike, *, random_state: int = 0) -> float:
        """Return the figure, in standard deviations of the fresh rows where it has a unit.

        Raises:
            ValueError: If the shapes differ, or there are too few rows or columns.
        """
        a, b = two_tables(samples, fresh)
        if a.shape != b.shape or len(a) < self.fewest or a.shape[1] < self.columns:
            raise ValueError(
                f"two tables of one shape, of {self.fewest} rows and {self.columns} columns or more are needed, got "
                f"{a.shape} and {b.shape}"
            )
        rows = (np.concatenate([a, b]) - b.mean(axis=0)) / spread_of(b)
        signs = np.repeat(np.array([1, -1], dtype=np.int8), len(a))[:, None]
        return float(self.statistic(Pool(rows, random_state), signs)[0])


def _on_manifold(name: str, explanation: str) -> Metric:
    statistic = relabelling.share_on_manifold(name)
    return Metric(statistic, explanation, larger_is_better=True, fewest=30, most=500)


METRICS: dict[str, Metric] = {
    "energy distance": Metric(
        relabelling.energy,
        "Squared, without bias, so about 0 for fresh rows; sees any difference, fine structure least.",
    ),
    "MMD": Metric(
        relabelling.kernel_discrepancy,
        "Squared, without bias, by Gaussian kernels about the median distance; in many dimensions it sees little.",
    ),
    "sliced W2": Metric(
        relabelling.sliced, "How far rows must be moved, seen along random directions; blind to fine structure."
    ),
    "W2": Metric(
        per_relabelling(relabelling.transport),
        "How far rows must be moved, exact; in many dimensions its floor is high and hides what is off.",
        tested=False, most=500,
    ),
    "largest KS": Metric(
        lambda pool, signs: relabelling.marginal(pool, signs)[0].max(axis=1),
        "Largest difference of the distribution functions of any column; blind to dependence between columns.",
    ),
    "mean W1": Metric(
        lambda pool, signs: relabelling.marginal(pool, signs)[1].mean(axis=1),
        "How far the values of a column must be moved, mean over columns; blind to dependence between columns.",
    ),
    "correlations": Metric(
        lambda pool, signs: np.sqrt(np.mean(np.square(relabelling.correlation_errors(pool, signs)), axis=1)),
        "Error of the correlations, root mean square over pairs; blind to dependence that is no line.", columns=2,
    ),
    "rank correlations": Metric(
        per_relabelling(relabelling.rank_correlation_error),
        "The same for Spearman's, which outliers leave alone; blind to dependence that is not monotone.",
        tested=False, columns=2,
    ),
    "precision": _on_manifold(
        "precision", "Share of samples near fresh rows; blind to what is missing, and fooled by outliers."
    ),
    "recall": _on_manifold(
        "recall", "Share of fresh rows near samples; blind to samples that are off, and too kind to samples too wide."
    ),
    "density": _on_manifold("density", "How densely fresh rows lie around samples; above the floor if too narrow."),
    "coverage": _on_manifold(
        "coverage", "Share of fresh rows with a sample among their neighbours; low if modes are missing."
    ),
}  # fmt: skip
"""Figures of two sets of rows by name, all in standard deviations of the columns."""
