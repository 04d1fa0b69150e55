r"""Densities in closed form, fitted to rows: bases of a network, and components that its density is mixed with.

All of them are Gaussian mixtures, so density, denoiser and samples are exact at every noise level:

- one Gaussian, its covariance shrunk as far as few rows ask for (Ledoit and Wolf 2004);
- a mixture whose number and kind of components the Bayesian information criterion chooses;
- a broad Student t, as a sum of Gaussians of growing width: a few outlying rows cost it little.

Mixing weights are estimated on held-out rows (Smyth and Wolpert 1999, stacking of densities): the weights that maximise
their likelihood, by expectation maximisation.
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
"""Largest number of rows that a mixture is fitted to; more hardly change the fit."""

_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_FLOOR = 1e-4
"""Variance added along every axis, in squared units of the data: a component on a single row would have none."""


def fit_gaussian(rows: Array) -> GaussianMixture:
    """Fit one Gaussian, its covariance shrunk towards a sphere.

    Args:
        rows: Rows, shape `(N, D)`, standardised.

    Returns:
        A mixture of one component, with a variance of at least 1e-4 along every axis.

    Examples:
        >>> rows = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> fit_gaussian(rows).mean
        tensor([0., 0.], dtype=torch.float64)

    References:
        A well-conditioned estimator for large-dimensional covariance matrices (Ledoit and Wolf, 2004),
        https://doi.org/10.1016/S0047-259X(03)00096-4
    """
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(rows)
    return GaussianMixture([1.0], rows.mean(axis=0)[None], covariance[None] + _FLOOR * np.eye(rows.shape[1]))


def fit_mixture(rows: Array, random_state: int = 0) -> GaussianMixture:
    """Fit the Gaussian mixture that the Bayesian information criterion prefers.

    The number of components is raised until the criterion has risen twice; covariances are full, tied or (beyond three
    dimensions) diagonal, whichever has the lowest criterion.

    Args:
        rows: Rows, shape `(N, D)`, standardised.
        random_state: Seed of the initialisations, and of the subset where there are more than `MOST_ROWS` rows.

    Returns:
        The mixture; `fit_gaussian(rows)` where there are too few rows for any.
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
    r"""Approximate a Student t by a Gaussian mixture, :math:`N(\mu, s^2 C)` with :math:`s^2 \sim \nu / \chi^2_\nu`.

    Args:
        mean: Centre, shape `(D,)`.
        covariance: Scale matrix C, shape `(D, D)`.
        degrees: Degrees of freedom :math:`\nu`.
        widest: Largest s; beyond it the tails are those of a Gaussian.

    Returns:
        The mixture, its components from narrow to wide.

    Examples:
        >>> round(float(student_t(np.zeros(1), np.eye(1)).log_prob(torch.zeros(1, 1)).exp()), 2)  # 1 / sqrt(8)
        0.35
    """
    from scipy.stats import chi2

    scales = np.geomspace(0.5, widest, 1 + int(3 * math.log2(2 * widest)))
    middles = np.sqrt(scales[1:] * scales[:-1])
    edges = np.concatenate([[0.0], middles, [np.inf]])
    with np.errstate(divide="ignore"):
        weights = np.diff(chi2.sf(degrees / edges**2, degrees))  # s below an edge is chi^2 above its image
    positive = weights > 1e-12
    weights, scales = weights[positive] / weights[positive].sum(), scales[positive]
    return GaussianMixture(weights, np.tile(mean, (len(scales), 1)), scales[:, None, None] ** 2 * covariance)


def joined(parts: list[GaussianMixture], weights: Array, labels: list[int] | None = None) -> GaussianMixture:
    """Return a weighted sum of mixtures as one mixture; parts of weight 0 are dropped.

    Args:
        parts: The mixtures.
        weights: Their weights, which sum to one, shape `(len(parts),)`.
        labels: Class of each part; by default the components keep their own labels.

    Returns:
        The mixture of all components.
    """
    used = [k for k, weight in enumerate(weights) if weight > 0]
    return GaussianMixture(
        torch.cat([weights[k] * parts[k].weights for k in used]),
        torch.cat([parts[k].means for k in used]),
        torch.cat([parts[k].covariances for k in used]),
        torch.cat([parts[k].labels if labels is None else torch.full_like(parts[k].labels, labels[k]) for k in used]),
    )


def stacking_weights(log_probs: Array, *, steps: int = 500) -> Array:
    r"""Return the mixing weights that maximise the likelihood of held-out rows, by expectation maximisation.

    Weights start equal, and a prior worth one row, spread evenly, keeps each above zero.

    Args:
        log_probs: Log-densities in nats of rows that none of the K densities was fitted to, shape `(N, K)`.
        steps: Number of iterations.

    Returns:
        Weights, shape `(K,)`; they sum to one.

    Examples:
        >>> stacking_weights(np.log([[0.2, 0.1], [0.2, 0.1], [0.2, 0.1]])).round(2)
        array([0.78, 0.22])

    References:
        Linearly Combining Density Estimators via Stacking (Smyth and Wolpert, 1999),
        https://doi.org/10.1023/A:1007511322260
    """
    from scipy.special import softmax

    count, parts = log_probs.shape
    weights = np.full(parts, 1 / parts)
    for _ in range(steps):
        shares = softmax(log_probs + np.log(weights), axis=1)
        weights = (shares.sum(axis=0) + 1 / parts) / (count + 1)
    return np.asarray(weights)
