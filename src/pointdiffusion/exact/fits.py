r"""Distributions in closed form, fitted to rows: what a network may start from, and what it is weighed against.

All of them are Gaussian mixtures, so density, denoiser and samples are exact at every noise level:

- one Gaussian, its covariance shrunk as far as few rows ask for (Ledoit and Wolf 2004);
- a mixture, the number and the kind of its components by the Bayesian information criterion;
- a broad Student t, as a sum of Gaussians of growing width: a few outlying rows cost it little.

Weights of such parts come from rows that none of them was fitted to (Smyth and Wolpert 1999, stacking of densities):
the weights that make those rows most likely, found by expectation maximisation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.isolation import ignored_warnings

MOST_ROWS = 20_000
"""Rows that a mixture is fitted to, at most; more tell it nothing new."""

_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_FLOOR = 1e-4
"""Variance that is added along every axis, in units of the data: a component on one row would have none."""


def fit_gaussian(rows: Array) -> GaussianMixture:
    """Return the Gaussian of rows, with the covariance shrunk towards a sphere as Ledoit and Wolf (2004) do.

    Args:
        rows: Shape `(N, D)`, in standard units.
    """
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(rows)
    return GaussianMixture([1.0], rows.mean(axis=0)[None], covariance[None] + _FLOOR * np.eye(rows.shape[1]))


def fit_mixture(rows: Array, random_state: int = 0) -> GaussianMixture:
    """Return the Gaussian mixture of rows that the Bayesian information criterion prefers.

    Components are as many, and of full, common or (beyond three dimensions) diagonal covariance, as it says; their
    number is raised until it has said no twice.

    Args:
        rows: Shape `(N, D)`, in standard units.
        random_state: Seed of the starts, and of the choice of rows where there are more than `MOST_ROWS`.
    """
    from sklearn import config_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Fitted

    rng = np.random.default_rng(random_state)
    if len(rows) > MOST_ROWS:
        rows = rows[rng.choice(len(rows), MOST_ROWS, replace=False)]
    best: tuple[float, Any] | None = None
    distinct = len(np.unique(rows, axis=0))
    for kind in ("full", "tied") if rows.shape[1] <= 3 else ("full", "tied", "diag"):
        refused, least = 0, math.inf
        for count in _COUNTS:
            if refused == 2 or count > min(len(rows) // 5, distinct):
                break
            mixture = Fitted(
                count, covariance_type=kind, reg_covar=_FLOOR, n_init=2 if count <= 8 else 1, random_state=random_state
            )
            # Under array_api_dispatch scikit-learn's mixtures have no k-means start.
            with ignored_warnings(ConvergenceWarning), config_context(array_api_dispatch=False):
                criterion = mixture.fit(rows).bic(rows)
            refused = 0 if criterion < least else refused + 1
            least = min(least, criterion)
            if best is None or criterion < best[0]:
                best = criterion, mixture
    if best is None:
        return fit_gaussian(rows)
    return GaussianMixture.from_sklearn(best[1])


def student_t(mean: Array, covariance: Array, degrees: float = 2.0, widest: float = 64.0) -> GaussianMixture:
    r"""Return a Student t as a sum of Gaussians: :math:`N(\mu, s^2 C)` over the law of :math:`s^2 = \nu / \chi^2_\nu`.

    Args:
        mean: Centre, shape `(D,)`.
        covariance: C, shape `(D, D)`.
        degrees: Degrees of freedom :math:`\nu`.
        widest: Largest s; beyond it the tails are those of a Gaussian.
    """
    from scipy.stats import chi2

    scales = np.geomspace(0.5, widest, 1 + int(3 * math.log2(2 * widest)))
    middles = np.sqrt(scales[1:] * scales[:-1])
    edges = np.concatenate([[0.0], middles, [np.inf]])
    with np.errstate(divide="ignore"):
        weights = np.diff(chi2.sf(degrees / edges**2, degrees))  # s below an edge is chi^2 above its image
    kept = weights > 1e-12
    weights, scales = weights[kept] / weights[kept].sum(), scales[kept]
    return GaussianMixture(weights, np.tile(mean, (len(scales), 1)), scales[:, None, None] ** 2 * covariance)


def joined(parts: list[GaussianMixture], weights: Array, labels: list[int] | None = None) -> GaussianMixture:
    """Return the sum of mixtures, as one mixture; parts of no weight are left out.

    Args:
        parts: The mixtures.
        weights: Their weights, which sum to one, shape `(len(parts),)`.
        labels: Class of each part; by default the components keep their own.
    """
    kept = [k for k, weight in enumerate(weights) if weight > 0]
    return GaussianMixture(
        torch.cat([weights[k] * parts[k].weights for k in kept]),
        torch.cat([parts[k].means for k in kept]),
        torch.cat([parts[k].covariances for k in kept]),
        torch.cat([parts[k].labels if labels is None else torch.full_like(parts[k].labels, labels[k]) for k in kept]),
    )


def stacking_weights(log_probs: Array, *, steps: int = 500) -> Array:
    r"""Return the weights of densities whose sum makes rows most likely, by expectation maximisation, shape `(K,)`.

    Each weight starts even and carries one row of prior evidence, so none is zero by chance alone.

    Args:
        log_probs: Log-densities of rows that the densities were not fitted to, shape `(N, K)`.
        steps: Steps of the iteration.

    Examples:
        >>> stacking_weights(np.log([[0.2, 0.1], [0.2, 0.1], [0.2, 0.1]])).round(2)
        array([0.78, 0.22])
    """
    from scipy.special import softmax

    count, parts = log_probs.shape
    weights = np.full(parts, 1 / parts)
    for _ in range(steps):
        shares = softmax(log_probs + np.log(weights), axis=1)
        weights = (shares.sum(axis=0) + 1 / parts) / (count + 1)
    return np.asarray(weights)
