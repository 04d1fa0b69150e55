r"""The variational bound on the likelihood, and what each noise level has of it.

With :math:`p_T` the Gaussian at the far end and :math:`x_\sigma = x_0 + \sigma \epsilon`, the mean over
:math:`\epsilon` of the log-density that the reverse stochastic equation of the denoiser gives to
:math:`x_0 + \sigma_{min} \epsilon` is at least

.. math:: E \log p_T(x_0 + \sigma_{max} \epsilon) + d \log \frac{\sigma_{max}}{\sigma_{min}}
    - \int_{\sigma_{min}}^{\sigma_{max}} E\,|D(x_\sigma; \sigma) - x_0|^2 \, \frac{d \log \sigma}{\sigma^2}

(Song et al. 2021, arXiv 2101.09258, theorem 3 in denoising form; Kingma et al. 2021, arXiv 2107.00630, equation 15).
Averaged over the data it is their own expected log-density, blurred, if the denoiser is exact. Unlike the density of
the flow it needs no derivative and no solver, and it is what training can minimise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction


class Bound(NamedTuple):
    """A lower bound on log-densities, in nats, by Monte Carlo.

    Args:
        log_prob: Bound of each row, shape `(B,)`.
        standard_error: Its standard error over the draws, shape `(B,)`.
        mean: Mean of the bound over the rows.
        mean_error: Standard error of the mean over the draws, the rows being what they are.
        edges: Noise levels between which shares are taken, increasing, shape `(L + 1,)`.
        shares: Nats that each range of noise levels takes off the bound, mean over the rows, shape `(L,)`.
    """

    log_prob: Tensor
    standard_error: Tensor
    mean: float
    mean_error: float
    edges: Tensor
    shares: Tensor


def importance_levels(u: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    r"""Return quantiles of the density :math:`d \log \sigma / (1 + \sigma^2)` on a range of noise levels.

    Args:
        u: Shares between 0 and 1, any shape.
        sigma_min: Lowest noise level, in standard deviations of the data.
        sigma_max: Highest noise level, in standard deviations of the data.

    Returns:
        Noise levels, shape of `u`.
    """
    low, high = (-0.5 * math.log1p(1 / level**2) for level in (sigma_min, sigma_max))
    level = torch.expm1(-2 * (low + u * (high - low))).rsqrt()
    return level.clamp(sigma_min, sigma_max)  # rounding must not lead out of the range


@torch.no_grad()
def variational_bound(
    denoiser: DenoiserFunction, x: Tensor, *, sigma_min: float, sigma_max: float, generator: torch.Generator,
    mean: Any = 0.0, covariance: Any = 1.0, sigma_data: float = 1.0, num_draws: int = 64, num_ranges: int = 12,
) -> Bound:  # fmt: skip
    """Return the variational bound of rows, with its standard error and the share of each range of noise levels.

    Noise levels are drawn in pairs, one pair in each of `num_draws / 2` slices that matter alike for data of standard
    deviation `sigma_data`; the differences within pairs tell the error.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`.
        x: Clean rows, shape `(B, D)`.
        sigma_min: The blur of the density that is bounded, above 0.
        sigma_max: Noise level at which the density is taken for that of a Gaussian.
        generator: Where noise and noise levels come from.
        mean: Mean of the data, a number or of shape `(D,)`.
        covariance: Covariance of the data, a variance or of shape `(D, D)`.
        sigma_data: Standard deviation of the data, for the choice of the levels alone.
        num_draws: Draws a row; even.
        num_ranges: Ranges of noise levels, even in their logarithm, whose shares are told.

    Raises:
        ValueError: If a level or a number is out of range, or `x` is no table of finite numbers.
    """
    if x.ndim != 2 or len(x) == 0 or not bool(x.isfinite().all()):
        raise ValueError(f"points must be finite and of shape (B, D), got {tuple(x.shape)}; drop rows with NaN")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"sigma_min must lie above 0 and below sigma_max, got {sigma_min} and {sigma_max}")
    if num_draws < 4 or num_draws % 2 or num_ranges < 1:
        raise ValueError(f"num_draws must be even and at least 4, num_ranges at least 1, got {num_draws}, {num_ranges}")
    count, n_dims = x.shape
    edges = torch.logspace(math.log10(sigma_min), math.log10(sigma_max), num_ranges + 1, dtype=torch.float64)
    # The levels have density 1 / (1 + sigma^2) over log sigma, up to the width of the range in that measure.
    width = 0.5 * math.log1p((sigma_data / sigma_min) ** 2) - 0.5 * math.log1p((sigma_data / sigma_max) ** 2)
    total, squares = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    shares, slices = torch.zeros(num_ranges, dtype=torch.float64), num_draws // 2
    for k in range(slices):
        pair = []
        for _ in range(2):
            u = (k + torch.rand(count, generator=generator, dtype=torch.float64)) / slices
            sigma = sigma_data * importance_levels(u, sigma_min / sigma_data, sigma_max / sigma_data)  # (B,)
            noise = torch.randn(count, n_dims, generator=generator, dtype=torch.float64)
            y = x + (sigma[:, None] * noise).to(x)
            error = (denoiser(y, sigma.to(x)) - x).double().square().sum(dim=1).cpu()
            nats = width * error / sigma**2 * (1 + (sigma / sigma_data) ** 2)
            place = (torch.bucketize(sigma, edges) - 1).clamp(0, num_ranges - 1)
            shares.index_add_(0, place, nats / (num_draws * count))
            pair.append(nats)
        total += (pair[0] + pair[1]) / num_draws
        squares += (pair[0] - pair[1]).square() / num_draws**2
    value = _far_end(x, sigma_max, mean, covariance) + n_dims * math.log(sigma_max / sigma_min) - total
    spread = float(squares.sum().sqrt()) / count
    return Bound(value, squares.sqrt(), float(value.mean()), spread, edges, shares)


def _far_end(x: Tensor, sigma: float, mean: Any, covariance: Any) -> Tensor:
    """Return the mean of the far end's log-density over the noise, shape `(B,)`, in closed form."""
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    spread = torch.as_tensor(covariance, dtype=torch.float64).cpu()
    noisy = (spread if spread.ndim else spread * eye) + sigma**2 * eye
    centre = torch.as_tensor(mean, dtype=torch.float64).cpu().expand(x.shape[1])
    normal = torch.distributions.MultivariateNormal(centre, noisy)
    return normal.log_prob(x.double().cpu()) - 0.5 * sigma**2 * torch.linalg.inv(noisy).trace()
