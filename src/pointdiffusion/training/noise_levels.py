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
        """Return the quantile function of the distribution.

        Args:
            u: Probabilities in [0, 1], any shape.

        Returns:
            Noise levels below which a draw lies with these probabilities, of the shape of `u`.
        """

    def sample(self, num_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw noise levels, one from each of `num_samples` slices of equal probability, in random order.

        Each level follows the distribution; together they cover it evenly, which removes most of the variance of a
        step's loss.

        Args:
            num_samples: Number of noise levels.
            generator: Source of randomness, on the CPU.
            dtype: Type of the result.

        Returns:
            Noise levels, shape `(num_samples,)`, in units of the data.

        Examples:
            >>> sigma = LogUniformSampler(0.01, 100.0).sample(4, torch.Generator().manual_seed(0))
            >>> sigma.log10().floor().sort().values  # one from each of four decades
            tensor([-2., -1.,  0.,  1.])
        """
        slices = torch.randperm(num_samples, generator=generator)
        u = (slices + torch.rand(num_samples, generator=generator, dtype=torch.float64)) / num_samples
        return self.quantile(u).to(dtype)


class LogUniformSampler(NoiseSampler):
    """Noise levels uniform in their logarithm: every octave is drawn equally often.

    Args:
        sigma_min: Lowest noise level, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.
    """

    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level at the probability `u`, of its shape."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


class LogNormalSampler(NoiseSampler):
    """Noise levels normal in their logarithm, truncated to `sigma_min` and `sigma_max`.

    Karras et al. (2022, table 1, arXiv 2206.00364) draw ln sigma from N(-1.2, 1.2^2) for data of standard deviation
    0.5. They do not truncate; here it keeps each level in the range that sampling uses.

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
        """Return the noise level at the probability `u`, of its shape."""
        edges = torch.tensor([self.sigma_min, self.sigma_max], dtype=torch.float64, device=u.device).log()
        low, high = torch.special.ndtr((edges - self.mean) / self.std)
        level = torch.exp(self.mean + self.std * torch.special.ndtri(low + u * (high - low)))
        return level.clamp(self.sigma_min, self.sigma_max)  # rounding must not lead out of the range


class LikelihoodSampler(NoiseSampler):
    r"""Noise levels drawn in proportion to their weight in the likelihood of data of standard deviation 1.

    The variational bound weights the error of the denoised points by :math:`d \log \sigma / \sigma^2`; for a Gaussian
    of standard deviation 1 that is :math:`d \log \sigma / (1 + \sigma^2)`, the density of these levels. The remaining
    weight is :math:`(1 + \sigma^2) / \sigma^2`, that of the loss `karras`: with it, and the weighting `uniform`,
    training minimises the bound, by importance sampling.

    Args:
        sigma_min: Lowest noise level, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.

    References:
        Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), sections 4.2 and 5,
        https://arxiv.org/abs/2101.09258
    """

    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise level at the probability `u`, of its shape."""
        return importance_levels(u, self.sigma_min, self.sigma_max)


NOISE_SAMPLERS: dict[str, type[NoiseSampler]] = {
    "log-uniform": LogUniformSampler,
    "log-normal": LogNormalSampler,
    "likelihood": LikelihoodSampler,
}
"""Distributions of the noise levels of training by name."""
