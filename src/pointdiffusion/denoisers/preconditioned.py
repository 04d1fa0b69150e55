r"""Denoisers: :math:`D(x; \sigma) = E[x_0 \mid x_0 + \sigma \epsilon = x]`, and what follows from them.

The one contract is `denoiser(x, sigma, **condition) -> denoised` with `x` of shape `(B, D)` (any `(B, *shape)` works)
and `sigma` of shape `(B,)` or a scalar tensor. Any callable that keeps it is a denoiser; the class below is for those
that have weights. Tweedie's formula turns a denoiser into everything else:

.. math:: \nabla \log p(x; \sigma) = (D - x) / \sigma^2, \qquad \hat\epsilon = (x - D) / \sigma = dx / d\sigma .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pointdiffusion.contract import sigma_rows
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.networks import Average, check_forward


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

    The skip path :math:`c_{skip} x` is the exact denoiser of :math:`N(0, \sigma_{data}^2 I)`. A `base` puts another
    exact denoiser in its place, and the coefficients become the matrices that its mean :math:`\mu` and covariance C ask
    for, symmetric square roots:

    .. math:: D(x; \sigma) = B(x; \sigma) + C_{out} F(C_{in} (x - \mu), c_{noise}), \quad
        C_{in} = (C + \sigma^2 I)^{-1/2}, \quad C_{out} = \sigma C^{1/2} (C + \sigma^2 I)^{-1/2} .

    A network whose last layer is zero is then exactly as good as the base. An average of networks may have a base for
    each member, and is the average of their denoisers.

    Args:
        backbone: The network F.
        sigma_data: Standard deviation of the data; 1 for standardised points.
        bases: Distributions near that of the data, whose denoisers are exact: none, one, or as many as the `Average`
            has members.

    Raises:
        ValueError: If the covariance of the base is singular, or the backbone does not take points and conditioning.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), equation 7 and
        table 1, https://arxiv.org/abs/2206.00364
    """

    def __init__(
        self, backbone: nn.Module, sigma_data: float = 1.0, bases: Sequence[GaussianMixture] = ()
    ) -> None:  # fmt: skip
        super().__init__(backbone, sigma_data)
        check_forward(backbone)
        self.bases = tuple(bases)
        self._axes: list[tuple[Tensor, ...]] = []
        for base in self.bases:
            variances, axes = torch.linalg.eigh(base.covariance)
            if float(variances.min()) <= 1e-12 * float(variances.max()):
                raise ValueError("the covariance of the base is singular; add a small variance to it")
            self._axes.append((base.mean, variances, axes))
        if len(self.bases) > 1 and not (isinstance(backbone, Average) and len(backbone.members) == len(self.bases)):
            raise ValueError(f"{len(self.bases)} bases are for an Average of as many networks, one for any other")

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return c_skip, c_out, c_in and c_noise at `sigma`, each of its shape, as they are without a base."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma * self.sigma_data / total.sqrt()
        return c_skip, c_out, 1 / total.sqrt(), sigma.log() / 4

    def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the expected clean points, of the shape of `x`."""
        if torch.as_tensor(sigma).ndim:
            level = sigma_rows(sigma, x)
            c_noise = (level.log() / 4).flatten()
        else:  # one level for all rows: the network may embed it once
            level = torch.as_tensor(sigma).to(x)
            c_noise = (level.log() / 4).expand(len(x))
        if self.bases:
            networks = [self.backbone] if len(self.bases) == 1 else cast("Average", self.backbone).members
            parts = [self._beside(k, each, x, level, c_noise, condition) for k, each in enumerate(networks)]
            return parts[0] if len(parts) == 1 else torch.stack(parts).mean(dim=0)
        c_skip, c_out, c_in, _ = self.coefficients(level)
        return c_skip * x + c_out * _like(x, self.backbone(c_in * x, c_noise, **condition))

    def _beside(
        self, k: int, network: nn.Module, x: Tensor, level: Tensor, c_noise: Tensor, condition: dict[str, Any]
    ) -> Tensor:  # fmt: skip
        """Return what base k says and what a network adds to it."""
        mean, variances, axes = (part.to(x) for part in self._axes[k])
        total = (variances + level**2).sqrt()  # (D,) or (B, D)
        seen = ((x - mean) @ axes / total) @ axes.T
        added = (_like(x, network(seen, c_noise, **condition)) @ axes) * (level * variances.sqrt() / total)
        return self.bases[k].denoise(x, level.flatten() if level.ndim else level) + added @ axes.T


def _like(x: Tensor, output: Tensor) -> Tensor:
    """Return what a network gave back, once it has the shape of its points: another one would be broadcast."""
    if output.shape != x.shape:
        raise ValueError(
            f"the backbone must return the shape of its points, {tuple(x.shape)}, got {tuple(output.shape)}"
        )
    return output
