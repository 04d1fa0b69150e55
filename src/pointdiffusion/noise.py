r"""Noise schedules.

A schedule maps time :math:`t \in [0, 1]` to a noise level :math:`\sigma(t)`, continuous and strictly increasing.
Everything else follows: the decreasing grid of a solver, the time that a model of another family expects, the factor
:math:`\alpha` that turns its scaled points :math:`x_t = \alpha x` into ours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


def check_range(sigma_min: float, sigma_max: float) -> None:
    """Raise a ValueError unless 0 < sigma_min < sigma_max < infinity.

    Args:
        sigma_min: Lowest noise level.
        sigma_max: Highest noise level.

    Raises:
        ValueError: If they are out of order or out of range.
    """
    if not (0 < sigma_min < sigma_max < math.inf):
        raise ValueError(f"sigma_min must lie above 0 and below sigma_max, got {sigma_min} and {sigma_max}; swap them?")


class NoiseSchedule(ABC):
    """A strictly increasing `sigma(t)` between `sigma_min` at t = 0 and `sigma_max` at t = 1.

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        check_range(sigma_min, sigma_max)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise level at time `t`.

        Args:
            t: Times in [0, 1], any shape.

        Returns:
            Noise levels, of the shape of `t`, in units of the data.
        """

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the noise level is `sigma`, by bisection; schedules with a formula override it.

        Args:
            sigma: Noise levels between `sigma_min` and `sigma_max`, any shape.

        Returns:
            Times in [0, 1], of the shape of `sigma`.
        """
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        for _ in range(60):  # halves beyond the last digit of float64
            middle = (low + high) / 2
            below = self.sigma(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def alpha(self, sigma: Tensor) -> Tensor:
        """Return the factor of the data at noise level `sigma`; 1 for the variance-exploding form.

        Args:
            sigma: Noise levels, any shape.

        Returns:
            Factors, of the shape of `sigma`.
        """
        return torch.ones_like(sigma)

    def sigmas(self, num_steps: int, *, final_zero: bool = True, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the decreasing grid of noise levels that a solver steps through.

        Args:
            num_steps: Number of intervals.
            final_zero: End in 0, after `sigma_min`; otherwise end in `sigma_min`.
            dtype: Type of the grid.

        Returns:
            Noise levels from `sigma_max` down, shape `(num_steps + 1,)`, in units of the data.

        Raises:
            ValueError: If `num_steps` is below 1.

        Examples:
            >>> KarrasSchedule(sigma_min=0.1, sigma_max=10.0).sigmas(3)
            tensor([10.0000,  1.4507,  0.1000,  0.0000], dtype=torch.float64)
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        levels = num_steps if final_zero else num_steps + 1
        grid = self.sigma(torch.linspace(1, 0, levels, dtype=torch.float64))
        if final_zero:
            grid = torch.cat([grid, grid.new_zeros(1)])
        return grid.to(dtype)


class KarrasSchedule(NoiseSchedule):
    r"""Grid that is linear in :math:`\sigma^{1 / \rho}`.

    Larger `rho` spends more steps near the data; 7 balances the local error of Heun's method.

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.
        rho: Curvature; 1 is linear in sigma.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max and rho > 0.

    Examples:
        >>> KarrasSchedule(sigma_min=0.01, sigma_max=10.0, rho=7.0).sigmas(4)
        tensor([10.0000,  1.9361,  0.2257,  0.0100,  0.0000], dtype=torch.float64)

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), equation 5,
        https://arxiv.org/abs/2206.00364
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        super().__init__(sigma_min, sigma_max)
        if not 0 < rho < math.inf:
            raise ValueError(f"rho must be positive, got {rho}")
        self.rho = float(rho)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise level at time `t`, of its shape."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the noise level is `sigma`, of its shape."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


class LogLinearSchedule(NoiseSchedule):
    """Grid that is linear in log sigma: every octave gets the same number of steps.

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.

    Examples:
        >>> LogLinearSchedule(sigma_min=0.01, sigma_max=10.0).sigmas(4)
        tensor([10.0000,  1.0000,  0.1000,  0.0100,  0.0000], dtype=torch.float64)
    """

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise level at time `t`, of its shape."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time at which the noise level is `sigma`, of its shape."""
        return (sigma / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class FamilySchedule(NoiseSchedule):
    """A schedule of a family of models that measure time in their own unit.

    Their points are `x_t = alpha (x_0 + sigma eps)`, and their networks take the family's time as input. Our time runs
    over the part of it between `sigma_min` and `sigma_max`, at constant speed.

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.
    """

    @abstractmethod
    def native_sigma(self, time: Tensor) -> Tensor:
        """Return the noise level at the family's time.

        Args:
            time: Times in the family's unit, any shape.

        Returns:
            Noise levels, of the shape of `time`, in units of the data.
        """

    @abstractmethod
    def native_time(self, sigma: Tensor) -> Tensor:
        """Return the family's time at which the noise level is `sigma`.

        Args:
            sigma: Noise levels, any shape.

        Returns:
            Times in the family's unit, of the shape of `sigma`.
        """

    def _ends(self) -> tuple[float, float]:
        ends = self.native_time(torch.tensor([self.sigma_min, self.sigma_max], dtype=torch.float64))
        return float(ends[0]), float(ends[1])

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise level at time `t` in [0, 1], of its shape."""
        low, high = self._ends()
        sigma = self.native_sigma(low + t * (high - low))
        # Near sigma_max a rounding error of the family's time is a large one of sigma, so both ends are set exactly.
        return torch.where(t <= 0, self.sigma_min, torch.where(t >= 1, self.sigma_max, sigma)).to(t)

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time in [0, 1] at which the noise level is `sigma`, of its shape."""
        low, high = self._ends()
        return (self.native_time(sigma) - low) / (high - low)


class RectifiedFlowSchedule(FamilySchedule):
    r"""Straight lines from data to noise: :math:`x_t = (1 - t) x_0 + t \epsilon`, so :math:`\sigma = t / (1 - t)`.

    At t = 1 sigma is infinite; sampling starts from `sigma_max` instead (the default is t = 0.9877).

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max.

    Examples:
        >>> schedule = RectifiedFlowSchedule(sigma_min=0.1, sigma_max=9.0)
        >>> schedule.native_time(torch.tensor([1.0, 9.0]))  # t = sigma / (1 + sigma)
        tensor([0.5000, 0.9000])

    References:
        Flow Straight and Fast (Liu et al., 2023), equation 1, https://arxiv.org/abs/2209.03003
    """

    def native_sigma(self, time: Tensor) -> Tensor:
        """Return t / (1 - t), of the shape of `time`."""
        return time / (1 - time)

    def native_time(self, sigma: Tensor) -> Tensor:
        """Return sigma / (1 + sigma), of the shape of `sigma`."""
        return sigma / (1 + sigma)

    def alpha(self, sigma: Tensor) -> Tensor:
        """Return 1 - t = 1 / (1 + sigma), of the shape of `sigma`."""
        return 1 / (1 + sigma)


class CosineSchedule(FamilySchedule):
    r"""Variance-preserving, with :math:`\bar\alpha(u) = \cos^2 \theta(u) / \cos^2 \theta(0)`,
    :math:`\theta = \frac{\pi}{2} (u + s) / (1 + s)`.

    At u = 1 sigma is infinite; sampling starts from `sigma_max` instead.

    Args:
        sigma_min: Lowest noise level above 0, in units of the data.
        sigma_max: Highest noise level, in units of the data.
        offset: The constant s.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max and 0 <= offset < 1.

    Examples:
        >>> CosineSchedule(offset=0.0).native_sigma(torch.tensor(0.5))  # tan(pi / 4)
        tensor(1.)

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), equation 17,
        https://arxiv.org/abs/2102.09672
    """  # noqa: D205

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, offset: float = 0.008) -> None:
        super().__init__(sigma_min, sigma_max)
        if not 0 <= offset < 1:
            raise ValueError(f"offset must lie in [0, 1), got {offset}")
        self.offset = float(offset)

    def native_sigma(self, time: Tensor) -> Tensor:
        """Return the noise level at u in [0, 1), of the shape of `time`."""
        theta = math.pi / 2 * (time + self.offset) / (1 + self.offset)
        # cos^2(first) / cos^2(theta) - 1 without the difference, which loses all digits at small times
        first = math.pi / 2 * self.offset / (1 + self.offset)
        return ((theta + first).sin() * (theta - first).sin()).clamp(min=0).sqrt() / theta.cos()

    def native_time(self, sigma: Tensor) -> Tensor:
        """Return u, of the shape of `sigma`."""
        first = math.pi / 2 * self.offset / (1 + self.offset)
        # sin^2(theta) = (sin^2(first) + sigma^2) / (1 + sigma^2), by its tangent, which is exact at both ends
        theta = torch.atan2((math.sin(first) ** 2 + sigma**2).sqrt(), torch.full_like(sigma, math.cos(first)))
        return 2 / math.pi * (1 + self.offset) * theta - self.offset

    def alpha(self, sigma: Tensor) -> Tensor:
        """Return 1 / sqrt(1 + sigma^2), of the shape of `sigma`."""
        return 1 / (1 + sigma**2).sqrt()


class LinearBetaSchedule(FamilySchedule):
    r"""DDPM: variance-preserving, :math:`\bar\alpha_k = \prod_{i \le k} (1 - \beta_i)` with beta linear in k.

    The family's time is the index, 0 to `num_timesteps` - 1; log sigma is interpolated linearly between integers, and
    extrapolated beyond the ends, where a model was never trained.

    Args:
        sigma_min: Lowest noise level; by default that of index 0 (0.01).
        sigma_max: Highest noise level; by default that of the last index (157.4).
        num_timesteps: Number of the model's noise levels.
        beta_first: Beta at index 0.
        beta_last: Beta at the last index.

    Raises:
        ValueError: Unless 0 < sigma_min < sigma_max and the betas lie in (0, 1).

    Examples:
        >>> schedule = LinearBetaSchedule()
        >>> round(schedule.sigma_min, 4), round(schedule.sigma_max, 1)
        (0.01, 157.4)

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), section 4, https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self, sigma_min: float | None = None, sigma_max: float | None = None, num_timesteps: int = 1000,
        beta_first: float = 1e-4, beta_last: float = 0.02,
    ) -> None:  # fmt: skip
        if num_timesteps < 2 or not 0 < beta_first <= beta_last < 1:
            raise ValueError(
                f"num_timesteps must be at least 2 and 0 < beta_first <= beta_last < 1, got {num_timesteps}, "
                f"{beta_first} and {beta_last}"
            )
        betas = torch.linspace(beta_first, beta_last, num_timesteps, dtype=torch.float64)
        self._logs = torch.expm1(-torch.log1p(-betas).cumsum(0)).log() / 2  # of sigma = sqrt(1 / alpha_bar - 1)
        first, last = float(self._logs[0].exp()), float(self._logs[-1].exp())
        super().__init__(first if sigma_min is None else sigma_min, last if sigma_max is None else sigma_max)

    def native_sigma(self, time: Tensor) -> Tensor:
        """Return the noise level at an index, integer or not, of the shape of `time`."""
        logs = self._logs.to(time.device)
        left = time.floor().long().clamp(0, len(logs) - 2)
        return torch.lerp(logs[left], logs[left + 1], (time - left).double()).exp().to(time)

    def native_time(self, sigma: Tensor) -> Tensor:
        """Return the index, integer or not, of the shape of `sigma`."""
        logs, wanted = self._logs.to(sigma.device), sigma.double().log()
        left = (torch.searchsorted(logs, wanted, right=True) - 1).clamp(0, len(logs) - 2)
        return (left + (wanted - logs[left]) / (logs[left + 1] - logs[left])).to(sigma)

    def alpha(self, sigma: Tensor) -> Tensor:
        """Return 1 / sqrt(1 + sigma^2), of the shape of `sigma`."""
        return 1 / (1 + sigma**2).sqrt()


SCHEDULES: dict[str, type[NoiseSchedule]] = {
    "karras": KarrasSchedule,
    "log-linear": LogLinearSchedule,
    "cosine": CosineSchedule,
    "linear-beta": LinearBetaSchedule,
    "rectified-flow": RectifiedFlowSchedule,
}
"""Noise schedules by name."""
