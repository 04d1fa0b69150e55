r"""Noise levels of training: how often each level is drawn.

A noise-level sampler is given by its quantile function, so that one draw of :math:`n` levels can be stratified: one
from each of :math:`n` slices of equal probability.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pointdiffusion.likelihood.variational import importance_levels
from pointdiffusion.noise import check_range


class NoiseSampler(ABC):
    """Distribution of the noise levels of training on `[sigma_min, sigma_max]`.

    Args:
        sigma_min: Lowest noise level, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 10.0) -> None:
        check_range(sigma_min, sigma_max)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level below which the share `u` of all draws lies, of the same shape."""

    def sample(self, num_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw noise levels, one from each of `num_samples` slices of equal probability, in random order.

        Every single level follows the distribution; together they cover it evenly, which takes most of the variance
        out of a step's loss.

        Returns:
            Noise levels, shape `(num_samples,)`.
        """
        slices = torch.randperm(num_samples, generator=generator)
        u = (slices + torch.rand(num_samples, generator=generator, dtype=torch.float64)) / num_samples
        return self.quantile(u).to(dtype)


class LogUniformSampler(NoiseSampler):
    """Noise levels uniform in their logarithm: every octave is trained alike."""

    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level at the share `u`."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


class LogNormalSampler(NoiseSampler):
    """Noise levels normal in their logarithm, cut off at `sigma_min` and `sigma_max`.

    Karras et al. (2022, table 1) draw ln sigma from N(-1.2, 1.2^2) for data of standard deviation 0.5. The cut, which
    they do not have, keeps every level inside the range that sampling uses.

    Args:
        sigma_min: Lowest noise level, in units of the data.
        sigma_max: Highest noise level, in units of the data.
        mean: Mean of ln sigma.
        std: Standard deviation of ln sigma.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max and std > 0.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 10.0, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__(sigma_min, sigma_max)
        if not 0 < std < math.inf:
            raise ValueError(f"std must be positive, got {std}")
        self.mean = float(mean)
        self.std = float(std)

    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level at the share `u`."""
        edges = torch.tensor([self.sigma_min, self.sigma_max], dtype=torch.float64, device=u.device).log()
        low, high = torch.special.ndtr((edges - self.mean) / self.std)
        level = torch.exp(self.mean + self.std * torch.special.ndtri(low + u * (high - low)))
        return level.clamp(self.sigma_min, self.sigma_max)  # rounding must not lead out of the range


class LikelihoodSampler(NoiseSampler):
    r"""Noise levels as often as they matter to the likelihood of data of standard deviation 1.

    The variational bound weights the error of the denoised points by :math:`d \log \sigma / \sigma^2`; for a Gaussian
    of standard deviation 1 that is :math:`d \log \sigma / (1 + \sigma^2)`, the density of these levels. What is left as
    a weight is :math:`(1 + \sigma^2) / \sigma^2`, that of the loss `karras`: with it, and the weighting `uniform`,
    training minimises the bound, by importance sampling.

    References:
        Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), sections 4.2 and 5,
        https://arxiv.org/abs/2101.09258
    """

    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level at the share `u`."""
        return importance_levels(u, self.sigma_min, self.sigma_max)


NOISE_SAMPLERS: dict[str, type[NoiseSampler]] = {
    "log-uniform": LogUniformSampler,
    "log-normal": LogNormalSampler,
    "likelihood": LikelihoodSampler,
}
