"""Metrics by nearest neighbours: copies of training rows, and how much of each set the other one covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from pointdiffusion.metrics.distances import two_tables
from pointdiffusion.runtime.arrays import Array

NEIGHBOURS = 5
"""Neighbours that span the manifold of `precision_recall`."""


def nearest_distances(points: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of each point to its nearest reference row.

    Args:
        points: Points, shape `(N, D)`.
        reference: Rows, shape `(M, D)`.

    Returns:
        Euclidean distances in units of the points, shape `(N,)`.

    Raises:
        ValueError: If the columns differ.

    Examples:
        >>> nearest_distances([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0]]).tolist()
        [0.0, 5.0]
    """
    distances, _ = KDTree(np.asarray(reference, dtype=np.float64)).query(np.asarray(points, dtype=np.float64))
    return np.asarray(distances)


def copy_share(points: ArrayLike, training: ArrayLike, radius: float) -> float:
    """Return the share of points that lie nearer than `radius` to a training row.

    Compare it with the same share of fresh points: only the excess is copied.

    Args:
        points: Points, shape `(N, D)`.
        training: Rows that the model was trained on, shape `(M, D)`.
        radius: Distance in units of the points.

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: If the columns differ.

    Examples:
        >>> copy_share([[0.0], [1.0]], [[0.1]], radius=0.2)
        0.5
    """
    return float(np.mean(nearest_distances(points, training) < radius))


@dataclass(frozen=True)
class Copies:
    """How many samples lie nearer to a training row than fresh points do, and whether chance explains it.

    Args:
        share: Share of samples within `radius` of a training row.
        share_fresh: The same for fresh points, about one in a hundred by the choice of the radius.
        radius: Distance that one fresh point in a hundred stays within, in units of the points.
        p_value: Probability of at least that many if samples were fresh points, exact.
        standard_error: Standard error of `excess`.
    """

    share: float
    share_fresh: float
    radius: float
    p_value: float
    standard_error: float

    @property
    def excess(self) -> float:
        """Share of samples that are copies beyond those that are near by chance, at least 0."""
        return max(0.0, (self.share - self.share_fresh) / (1 - self.share_fresh))


def copies_test(samples: ArrayLike, training: ArrayLike, fresh: ArrayLike) -> Copies:
    """Test whether samples lie nearer to training rows than fresh points do.

    The radius is the k-th smallest distance of m fresh points, k = m / 100. If samples were fresh points, all orders of
    the n + m distances would be equally likely, so the number of samples before the k-th fresh point follows a
    hypergeometric distribution, whatever the distribution of the points.

    Args:
        samples: Generated points, shape `(n, D)`.
        training: Rows that the model was trained on, shape `(N, D)`.
        fresh: Points of the population that it was not trained on, shape `(m, D)`.

    Returns:
        Shares, radius and p-value.

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
    distances, by_fresh = nearest_distances(samples, training), np.sort(nearest_distances(fresh, training))
    n, m = len(distances), len(by_fresh)
    k = max(1, m // 100)
    near = int((distances < by_fresh[k - 1]).sum())
    p_value = float(hypergeom.cdf(k - 1, n + m, m, near + k - 1)) if near else 1.0
    share, by_chance = near / n, k / (m + 1)
    error = np.hypot(np.sqrt(share * (1 - share) / n), np.sqrt(by_chance * (1 - by_chance) / m)) / (1 - by_chance)
    return Copies(share, by_chance, float(by_fresh[k - 1]), p_value, float(error))


class Manifold(NamedTuple):
    """How much of each of two sets lies on the manifold of the other: its balls up to the k-th neighbour.

    Args:
        precision: Share of samples within a ball of some fresh row.
        recall: Share of fresh rows within a ball of some sample.
        density: Mean number of balls of fresh rows that a sample lies in, over k.
        coverage: Share of fresh rows whose own ball holds a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(samples: ArrayLike, fresh: ArrayLike, *, neighbours: int = NEIGHBOURS) -> Manifold:
    """Return precision, recall, density and coverage of samples.

    Fresh rows in place of the samples do not reach 1, so compare with their values. Density and coverage are more
    robust to outliers than precision and recall. Quadratic in the number of rows.

    Args:
        samples: Generated points, shape `(N, D)`.
        fresh: Points of the population, shape `(M, D)`.
        neighbours: The k of the k-th neighbour, a row itself not counted.

    Returns:
        Four numbers, all but the density between 0 and 1.

    Raises:
        ValueError: If the columns differ or a table has no more than `neighbours` rows.

    References:
        Improved precision and recall metric for assessing generative models (Kynkaanniemi et al., 2019),
        https://arxiv.org/abs/1904.06991; reliable fidelity and diversity metrics for generative models (Naeem et al.,
        2020), https://arxiv.org/abs/2002.09797

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> narrow, fresh = 0.3 * rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
        >>> shares = precision_recall(narrow, fresh)
        >>> shares.precision > 0.95, shares.recall < 0.5
        (True, True)
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    a, b = two_tables(samples, fresh, min_rows=neighbours + 1)
    return manifold(cdist(a, a), cdist(b, b), cdist(a, b), k=neighbours)


def manifold(within_samples: Array, within_fresh: Array, across: Array, *, k: int = NEIGHBOURS) -> Manifold:
    """Return the same from distances of samples `(N, N)`, of fresh rows `(M, M)` and between them `(N, M)`."""
    own, other = (np.partition(within, k, axis=1)[:, k] for within in (within_samples, within_fresh))
    inside = across <= other  # of the balls of fresh rows
    return Manifold(
        precision=float(inside.any(axis=1).mean()),
        recall=float((across <= own[:, None]).any(axis=0).mean()),
        density=float(inside.sum(axis=1).mean() / k),
        coverage=float(inside.any(axis=0).mean()),
    )
