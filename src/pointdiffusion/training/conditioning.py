r"""Whether a network uses the conditions that it was trained with.

With conditions shuffled among the rows a denoiser :math:`D` that uses them errs more. By Jensen's inequality the rise
is at least what not knowing them costs: over a condition :math:`c'` that has nothing to do with the row,
:math:`\mathbb{E} |D_{c'} - x_0|^2 \ge |\mathbb{E} D_{c'} - x_0|^2`, and the mean on the right is a denoiser without
conditions, which errs no less than the best of them. What not knowing them costs is taken from Gaussians, one a class,
for which both denoisers are known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.model.conditions import Conditions, Known, rows_of
from pointdiffusion.training.losses import denoising_loss, loss_weight

LEAST_SHARE = 0.25
"""A network that gains less than this share of what Gaussians gain is said to ignore its conditions."""


class ConditionUse(NamedTuple):
    """What conditions do for a network and for Gaussians, in units of the loss of Karras et al. (1 is a Gaussian's).

    Args:
        gain: Rise of the network's loss when conditions are shuffled.
        expected: Rise of the Gaussians' loss when conditions are not known.
        gain_error: Standard error of `gain`.
        expected_error: Standard error of `expected`.
    """

    gain: float
    expected: float
    gain_error: float
    expected_error: float

    @property
    def ignored(self) -> bool:
        """Whether conditions matter for Gaussians, and next to nothing for the network, beyond four standard errors."""
        missing = LEAST_SHARE * self.expected - self.gain
        error = math.hypot(LEAST_SHARE * self.expected_error, self.gain_error)
        return self.expected > max(0.01, 4 * self.expected_error) and missing > 4 * error


@torch.no_grad()
def condition_use(
    denoiser: DenoiserFunction, conditions: Conditions, x_0: Tensor, known: Known, sigma: Tensor, eps: Tensor,
    order: Tensor, *, sigma_data: float = 1.0,
) -> ConditionUse:  # fmt: skip
    """Return what conditions do for a denoiser.

    Args:
        denoiser: Takes the conditions by name.
        conditions: What it was trained for.
        x_0: Clean rows in standard units, shape `(B, D)`.
        known: Their conditions.
        sigma: Noise levels, shape `(B,)`.
        eps: Their noise, shape `(B, D)`.
        order: A permutation of the rows, by which conditions are shuffled.
        sigma_data: Standard deviation of the data.

    Returns:
        Gains in the loss by the conditions, measured and expected, with their standard errors.
    """
    x, weight = x_0 + sigma[:, None] * eps, loss_weight(sigma, sigma_data=sigma_data)
    right, wrong = (
        denoising_loss(denoiser(x, sigma, **each), x_0, weight).double() for each in (known, rows_of(known, order))
    )
    z_0, z, levels = (part.double().cpu() for part in (x_0, x, sigma))
    mean, covariance = conditions.moments(len(z), known)
    noisy = covariance + levels[:, None, None] ** 2 * torch.eye(z.shape[1], dtype=torch.float64)
    aware = mean + (covariance @ torch.linalg.solve(noisy, (z - mean)[..., None]))[..., 0]
    groups = slice(1, None) if conditions.classes else slice(0, 1)
    n_dims = conditions.n_dims
    blind = GaussianMixture(
        conditions.shares or [1.0], conditions.means[groups, :n_dims], conditions.covariances[groups, :n_dims, :n_dims]
    ).denoise(z, levels)
    told, untold = (denoising_loss(denoised, z_0, weight.double().cpu()) for denoised in (aware, blind))
    gains = [(wrong - right).cpu(), untold - told]
    (gain, expected), (error, other) = ([float(f(each)) for each in gains] for f in (torch.mean, _error))
    return ConditionUse(gain, expected, error, other)


def _error(values: Tensor) -> Tensor:
    return values.std() / math.sqrt(len(values))
