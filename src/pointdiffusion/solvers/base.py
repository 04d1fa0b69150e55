r"""What a solver is.

It walks the probability-flow equation :math:`dx / d\sigma = (x - D(x; \sigma)) / \sigma` (Karras et al. 2022,
equation 1 for sigma(t) = t), or a stochastic one with the same marginals, down one interval at a time. A step is a pure
function: what a solver remembers between steps is handed in and out, and so is the noise of those that use any.

At sigma 0 the equation has no slope to offer, so every solver states how its last step ends (`final`):

- `"denoise"` returns the denoised point: first order, and right for any data, curves and finite sets included;
- `"half"` returns the middle of the point and its denoised one. If the density of the data is smooth on the scale of
  the last noise level, the slope falls to 0 linearly there, and this is its exact integral: second order. On data that
  lie on a curve or are finite it leaves half of the last noise in place;
- `"local"` (multistep methods) decides between the two, row by row, by what was seen: around a point whose data have
  standard deviation :math:`s`, the predicted noise falls like :math:`\sigma / \sqrt{s^2 + \sigma^2}` along the flow, so
  the last two values of it tell :math:`s`, and the flow of that Gaussian is known to the end. Where a network may not
  be asked below a noise level, the end is the one that it defines: the denoised point at that level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction

FINALS = ("denoise", "half", "local")
"""Ways of ending at noise level 0."""


class Solver(ABC):
    """One step down the noise levels.

    Args:
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If there is no such way.
    """

    remembers: bool = False
    """Whether the solver keeps the noise that it predicted in the step before."""

    noises: int = 0
    """Standard normal draws of the shape of the points that a step asks for."""

    def __init__(self, *, final: str = "denoise") -> None:
        if final not in FINALS:
            raise unknown_name("final", final, FINALS)
        if final == "local" and not self.remembers:
            raise ValueError(f"final='local' needs a multistep method, {type(self).__name__} has no memory; use 'half'")
        self.final = final

    @property
    @abstractmethod
    def order(self) -> float:
        """Order of the global error in the step size; of the mean and covariance for stochastic solvers."""

    def initial_state(self, sigmas: list[float]) -> Any:  # noqa: ARG002
        """Return the state before the first step of a walk down the grid."""
        return None

    @abstractmethod
    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next`, shape of `x`, and the state for the next step.

        Args:
            denoiser: Called as `denoiser(x, sigma)`; its first call is at `x` and `sigma`.
            x: Points at `sigma`, shape `(B, D)`.
            sigma: Noise level of `x`, a scalar tensor above 0.
            sigma_next: Noise level to go to, a scalar tensor in [0, sigma).
            state: What the previous step returned; None at the first.
            noise: Standard normal numbers, shape `(noises, *x.shape)`, for solvers that ask for them.
        """

    def land(self, x: Tensor, denoised: Tensor) -> Tensor:
        """Return the points at noise level 0."""
        return denoised if self.final == "denoise" else (x + denoised) / 2


def land_locally(
    x: Tensor, denoised: Tensor, sigma: float, eps: Tensor, sigma_before: float, eps_before: Tensor, lowest: float
) -> Tensor:
    r"""Return the points at noise level 0 if the data near each row are a Gaussian of standard deviation s.

    Along its flow :math:`\rho = \epsilon_n / \epsilon_{n-1}` is :math:`(\sigma_n / \sigma_{n-1})
    \sqrt{(s^2 + \sigma_{n-1}^2) / (s^2 + \sigma_n^2)}`, which gives :math:`s^2 = \sigma_n^2 (1 - \rho^2) / (\rho^2 -
    \sigma_n^2 / \sigma_{n-1}^2)`. The flow to the lowest level l and the denoised point there come to
    :math:`D + (x - D) (s / \sigma_n)^2 (\sqrt{(s^2 + \sigma_n^2) / (s^2 + l^2)} - 1)`; l = 0 is the flow's own end.
    """
    ratio = sigma / sigma_before
    tiny = torch.finfo(x.dtype).tiny
    share = (eps * eps_before).flatten(1).sum(1) / eps_before.square().flatten(1).sum(1).clamp(min=tiny)
    square = share.clamp(min=0).square().clamp(ratio**2 * (1 + 1e-4), 1)
    width = ((1 - square) / (square - ratio**2)).reshape(-1, *(1,) * (x.ndim - 1))  # s^2 / sigma^2
    left = min(lowest / sigma, 1.0) ** 2  # l^2 / sigma^2
    kept = width * (1 - left) / (((1 + width) * (width + left)).sqrt() + width + left).clamp(min=tiny)
    return denoised + kept * (x - denoised)


def noises_of(noise: Tensor | None, count: int) -> Tensor:
    """Return the noise handed in, after a look at its number.

    Raises:
        ValueError: If there is none, or not enough of it.
    """
    if noise is None or len(noise) != count:
        given = "none" if noise is None else str(len(noise))
        raise ValueError(f"this solver draws {count} noises a step, got {given}; hand a generator to the loop")
    return noise
