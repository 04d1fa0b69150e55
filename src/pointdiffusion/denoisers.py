r"""Denoisers: :math:`D(x; \sigma) = E[x_0 \mid x_0 + \sigma \epsilon = x]`, and what follows from them.

The one contract is `denoiser(x, sigma, **condition) -> denoised` with `x` of shape `(B, D)` (any `(B, *shape)` works)
and `sigma` of shape `(B,)` or a scalar tensor. Any callable that keeps it is a denoiser; the class below is for those
that have weights. Tweedie's formula turns a denoiser into everything else:

.. math:: \nabla \log p(x; \sigma) = (D - x) / \sigma^2, \qquad \hat\epsilon = (x - D) / \sigma = dx / d\sigma .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pointdiffusion.noise import sigma_rows


class DenoiserFunction(Protocol):
    """What solvers, losses and samplers ask of a denoiser."""

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the expected clean points, of the shape of `x`."""
        ...


def noise_prediction(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Return :math:`\hat\epsilon = (x - D) / \sigma`, which is also the slope of the probability flow in sigma."""
    return (x - denoiser(x, sigma)) / sigma_rows(sigma, x)


class Denoiser(nn.Module, ABC):
    """A denoiser with weights.

    Args:
        backbone: The wrapped network.
        sigma_data: Standard deviation of the data; 1 for standardised points.
    """

    def __init__(self, backbone: nn.Module, sigma_data: float = 1.0) -> None:
        super().__init__()
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.backbone = backbone
        self.sigma_data = float(sigma_data)

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the expected clean points, of the shape of `x`."""


class KarrasDenoiser(Denoiser):
    r"""Preconditioned network: :math:`D(x; \sigma) = c_{skip} x + c_{out} F(c_{in} x, c_{noise})`.

    Input and target of the network have unit variance at every noise level, and as little of its error as possible
    reaches the output. `backbone` takes points `(B, D)` and the noise conditioning `(B,)`.

    Args:
        backbone: The network F.
        sigma_data: Standard deviation of the data; 1 for standardised points.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), equation 7 and
        table 1, https://arxiv.org/abs/2206.00364
    """

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return c_skip, c_out, c_in and c_noise at `sigma`, each of its shape."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        return c_skip, c_out, 1 / total.sqrt(), sigma.log() / 4

    def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the expected clean points, of the shape of `x`."""
        if torch.as_tensor(sigma).ndim:
            c_skip, c_out, c_in, c_noise = self.coefficients(sigma_rows(sigma, x))
            c_noise = c_noise.flatten()
        else:  # one level for all rows: the network may embed it once
            c_skip, c_out, c_in, c_noise = self.coefficients(torch.as_tensor(sigma).to(x))
            c_noise = c_noise.expand(len(x))
        return c_skip * x + c_out * self.backbone(c_in * x, c_noise, **condition)
