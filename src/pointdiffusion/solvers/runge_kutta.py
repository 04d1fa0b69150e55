"""Explicit one-step methods in sigma."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pointdiffusion.denoisers import DenoiserFunction, noise_prediction
from pointdiffusion.solvers.base import Solver


class EulerODE(Solver):
    r"""Euler's method: :math:`x' = x + (\sigma' - \sigma)\,(x - D) / \sigma`, one evaluation a step.

    In the variables x and sigma it is DDIM (Song et al. 2021, arXiv 2010.02502) and DPM-Solver-1 (Lu et al. 2022,
    arXiv 2206.00927). A step to sigma 0 lands on the denoised point.
    """

    order = 1

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        return x + (sigma_next - sigma) * noise_prediction(denoiser, x, sigma), state


class HeunODE(Solver):
    r"""Heun's method: the mean of the slopes at both ends of the step, two evaluations.

    A step to sigma 0, where the slope is not defined, is a step of Euler's method.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 1,
        https://arxiv.org/abs/2206.00364
    """

    order = 2

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        width = sigma_next - sigma
        slope = noise_prediction(denoiser, x, sigma)
        x_next = x + width * slope
        if sigma_next > 0:
            x_next = x + width * (slope + noise_prediction(denoiser, x_next, sigma_next)) / 2
        return x_next, state
