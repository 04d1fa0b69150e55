r"""The range of noise levels that fits a set of points.

**sigma_max.** Sampling starts from the Gaussian of the mean and the covariance of the noisy data. How well the two can
be distinguished is a closed form over pairs of rows: with :math:`\lambda_j` the variance along principal axis j,
:math:`t_j = \lambda_j / (\lambda_j + \sigma^2)` and coordinates u of unit variance, Mehler's formula gives

.. math:: 1 + \chi^2 = E_{u, u'} \prod_j (1 - t_j^2)^{-1/2} \exp \frac{2 t_j u_j u'_j - t_j^2 (u_j^2 + u_j'^2)}
    {2 (1 - t_j^2)} .

Moments up to the second agree, so their terms are omitted, and pairs are of different rows, so there is no bias. No
test that sees N draws gains more over guessing than :math:`\sqrt{N \chi^2 / 2}` (Pinsker, with KL below chi-square).
sigma_max is the least level at which that is `gain` for as many draws as there are rows.

**sigma_min.** A held-out row is denoised from the others with a loss above the least loss on the population, and a row
of the set itself with one below. At high noise levels the two agree. At lower levels they diverge, until the other rows
say less about where a noisy point came from than the point itself does: there the leave-one-out loss exceeds that of
the best linear denoiser, and below it there is nothing to learn but the rows. sigma_min is that level, or lower:
stopping at sigma takes :math:`\sigma^2 / (\lambda + \sigma^2)` of the variance along an axis, which N rows determine to
:math:`\sqrt{2 / N}`, so :math:`\sigma^2` stays below that share of the least :math:`\lambda`.

**In between**, training pays where much of the target's variance can be learned: one minus the weighted leave-one-out
loss. Noise levels are drawn log-normally with the mean and spread of that curve, or log-uniformly where that fits
better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.exact.optimal import left_out_mean
from pointdiffusion.tabular.points import as_points
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.training.losses import karras_loss
from pointdiffusion.training.noise_levels import LogNormalSampler, LogUniformSampler, NoiseSampler

PAIR_ROWS, LOSS_ROWS, LEVELS = 1024, 512, 36
LOWEST, HIGHEST = 1e-3, 100.0
"""Range of the search, in standard deviations of the data."""


@dataclass(frozen=True)
class NoiseRange:
    """A range of noise levels, and the losses that it was chosen from.

    All levels are in standard deviations of the data, column by column, as `TrainingConfig` and `InferenceConfig` take
    them; or in units of the points where `choose_noise_range` was asked for that.

    Args:
        sigma_min: Lowest level; below it, the other rows carry no information about a row.
        sigma_max: Highest level; above it, noisy data cannot be distinguished from the Gaussian that sampling starts
            from.
        sigma_data: Standard deviation of the data, the root of the mean variance of the columns.
        log_mean: Mean of log sigma, weighted by what can be learned.
        log_std: Standard deviation of log sigma, weighted likewise.
        sampler: `"log-normal"` or `"log-uniform"`, a name of `NOISE_SAMPLERS`.
        sigmas: Noise levels of the losses, shape `(L,)`.
        left_out_loss: Weighted leave-one-out loss, of the optimal denoiser of the other rows, shape `(L,)`; 1 for the
            best linear denoiser.
        left_out_error: Its standard error, shape `(L,)`.
        memorised_loss: Weighted loss of the optimal denoiser of all rows, shape `(L,)`.
    """

    sigma_min: float
    sigma_max: float
    sigma_data: float
    log_mean: float
    log_std: float
    sampler: str
    sigmas: NDArray[np.float64]
    left_out_loss: NDArray[np.float64]
    left_out_error: NDArray[np.float64]
    memorised_loss: NDArray[np.float64]

    def noise_sampler(self) -> NoiseSampler:
        """Return the distribution of the noise levels of training."""
        if self.sampler == "log-uniform":
            return LogUniformSampler(self.sigma_min, self.sigma_max)
        return LogNormalSampler(self.sigma_min, self.sigma_max, self.log_mean, self.log_std)

    def __str__(self) -> str:
        return (
            f"sigma_min {self.sigma_min:.3g}, sigma_max {self.sigma_max:.3g}, sigma_data {self.sigma_data:.3g}, "
            f"{self.sampler} (log sigma {self.log_mean:.2f} ± {self.log_std:.2f})"
        )

    def plot(self, ax: Any) -> Any:
        """Plot the losses by noise level and the range.

        Args:
            ax: Axes of Matplotlib.

        Returns:
            The axes.
        """
        from pointdiffusion.visuals.diagnosis import plot_noise_range

        return plot_noise_range(ax, self)


def start_divergence(points: Tensor, sigma: float) -> float:
    r"""Estimate :math:`\chi^2` of noisy points from the Gaussian of their mean and covariance, without bias.

    Args:
        points: Rows, shape `(N, D)`, float64; at most the first `PAIR_ROWS` are used.
        sigma: Noise level, in units of the points.

    Returns:
        The estimate, which may be negative.
    """
    x = points - points.mean(dim=0)
    variances, axes = torch.linalg.eigh(x.T @ x / len(x))
    positive = variances > 1e-12 * variances.max()
    variances, u = variances[positive], x[:PAIR_ROWS] @ axes[:, positive] / variances[positive].sqrt()
    t = variances / (variances + sigma**2)
    inner = (u * t) @ u.T  # (N, N)
    own = (u**2 * t**2).sum(dim=1)
    second = 0.5 * (inner**2 - own[:, None] - own + (t**2).sum())
    weight = t / (1 - t**2)
    shrunk = 0.5 * (u**2 * t * weight).sum(dim=1)
    exponent = (u * weight) @ u.T - shrunk[:, None] - shrunk
    kernel = torch.expm1(exponent - 0.5 * torch.log1p(-(t**2)).sum()) - inner - second
    count = len(u)
    return float((kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1)))


def _sigma_max(x: Tensor, gain: float) -> float:
    """Return the level at which a test gains no more than `gain`, by bisection of its logarithm."""
    limit = 2 * gain**2 / len(x)
    low, high = math.log(2.0), math.log(HIGHEST)  # below two standard deviations no solver of `auto` starts
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if start_divergence(x, math.exp(middle)) > limit else (low, middle)
    return math.exp(high)


def choose_noise_range(
    points: Any, *, gain: float = 0.1, standardise: bool = True, seed: int = 0
) -> NoiseRange:  # fmt: skip
    """Choose the range and the distribution of noise levels from the points alone.

    Args:
        points: Rows, shape `(N, D)`, in any units.
        gain: Largest gain in accuracy over guessing of a test that distinguishes N starting points of sampling from N
            noisy rows; it determines `sigma_max`.
        standardise: Return levels in standard deviations of each column, as `fit` takes them; otherwise the points are
            taken as they are, and levels are in their units.
        seed: Seed of the noise.

    Returns:
        The range, the distribution of noise levels, and the losses that they were chosen from.

    Raises:
        ValueError: If there are fewer than ten rows, a column is constant, or `gain` is not in (0, 1); also as for
            `as_points`.

    Examples:
        >>> from pointdiffusion import DATASETS
        >>> chosen = choose_noise_range(DATASETS["moons"](1000, random_state=0))
        >>> 0 < chosen.sigma_min < chosen.sigma_data < chosen.sigma_max
        True
    """
    if not 0 < gain < 1:
        raise ValueError(f"gain must lie between 0 and 1, got {gain}")
    scale = Standardiser.fit(points)
    x = torch.from_numpy(scale.transform(points) if standardise else as_points(points) - scale.mean)
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(len(x), generator=generator)]
    unit = float(x.square().mean().sqrt())
    sigmas = torch.from_numpy(np.geomspace(LOWEST, 20.0, LEVELS)) * unit
    left_out, errors, memorised = _losses(x, sigmas, unit, generator)
    sigma_min = min(_first_below_one(sigmas.numpy(), left_out), _unnoticed_stop(x))
    sigma_max = _sigma_max(x.div_(unit), gain) * unit  # in place: the table may be of gigabytes
    inside = (sigmas.numpy() >= sigma_min) & (sigmas.numpy() <= sigma_max)
    learnable = np.where(inside, np.clip(1 - left_out, 0, None), 0.0)
    mean, std, sampler = _distribution(np.log(sigmas.numpy()[inside]), learnable[inside])
    return NoiseRange(
        sigma_min, sigma_max, unit, mean, std, sampler, sigmas.numpy(), left_out, errors, memorised
    )  # fmt: skip


def complete_range(
    sigma_min: float | None, sigma_max: float | None, points: Any, *, least_max: float = 0.0, standardise: bool = True
) -> tuple[float, float]:  # fmt: skip
    """Return both ends of a range of noise levels; those that are None are chosen from the points.

    Args:
        sigma_min: Lowest level, or None.
        sigma_max: Highest level, or None.
        points: Rows, shape `(N, D)`.
        least_max: Lower bound of a chosen highest level.
        standardise: As in `choose_noise_range`.

    Returns:
        Lowest and highest level.

    Raises:
        ValueError: If the chosen end lies on the wrong side of the given one; also as for `choose_noise_range`.
    """
    if sigma_min is not None and sigma_max is not None:
        return sigma_min, sigma_max
    chosen = choose_noise_range(points, standardise=standardise)
    low = chosen.sigma_min if sigma_min is None else sigma_min
    high = max(chosen.sigma_max, least_max) if sigma_max is None else sigma_max
    if low >= high:
        raise ValueError(
            f"sigma_min {low:g} and sigma_max {high:g}, one of them chosen for the points, leave no range; give both"
        )
    return low, high


def _unnoticed_stop(x: Tensor) -> float:
    """Return the level at which stopping removes no more of the variance along any axis than its standard error."""
    variances = torch.linalg.eigvalsh(x.T @ x / len(x))
    thinnest = float(variances[variances > 1e-6 * variances.max()].min())
    return math.sqrt(thinnest * math.sqrt(2 / len(x)))


def _first_below_one(sigmas: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """Return the level at which the loss, from the bottom up, first falls below 1; the lowest if it begins there."""
    index = int(np.argmax(losses < 1))
    if index == 0:
        return float(sigmas[0])
    above, below = np.log(losses[index - 1]), np.log(losses[index])
    return float(sigmas[index - 1] * (sigmas[index] / sigmas[index - 1]) ** (above / (above - below)))


def _losses(x: Tensor, sigmas: Tensor, unit: float, generator: torch.Generator) -> tuple[NDArray[np.float64], ...]:
    """Return weighted leave-one-out losses, their standard errors, and losses of memorised rows, shapes `(L,)`."""
    points, curves = x[:4096], []
    owner = torch.arange(min(len(points), LOSS_ROWS))
    noise = torch.randn(len(owner), x.shape[1], generator=generator, dtype=x.dtype)
    for sigma in sigmas:
        clean, weight = points[owner], karras_loss(sigma, unit)
        noisy = clean + sigma * noise
        width = sigma.expand(len(owner), 1)
        # The best linear denoiser has expected weighted loss 1: its sampling error is subtracted from the others.
        line = weight * (noisy * (unit**2 / (unit**2 + sigma**2)) - clean).square().mean(dim=1) - 1
        others, mass = left_out_mean(noisy, points, width, owner)
        own = torch.sigmoid(-0.5 * noise.square().sum(dim=1) - mass)[:, None]  # share of the row itself among all
        losses = [
            weight * (mean - clean).square().mean(dim=1) - line for mean in (others, others + own * (clean - others))
        ]
        curves.append((losses[0].mean(), losses[0].std() / math.sqrt(len(owner)), losses[1].mean()))
    return tuple(np.array([float(row[k]) for row in curves]) for k in range(3))


def _distribution(logs: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[float, float, str]:
    """Return mean and spread of log sigma, and whether a log-normal or a log-uniform law is nearer to the weights."""
    if weights.sum() <= 0:
        return float(logs.mean()), float(logs.std()), "log-uniform"
    weights = weights / weights.sum()
    mean = float(weights @ logs)
    std = math.sqrt(float(weights @ (logs - mean) ** 2))
    normal = np.exp(-0.5 * ((logs - mean) / std) ** 2)
    normal /= normal.sum()
    uniform = np.full(len(logs), 1 / len(logs))
    off = [float(np.abs(weights - law).sum()) for law in (normal, uniform)]
    return mean, std, "log-normal" if off[0] < off[1] else "log-uniform"
