r"""The exact optimum on a finite set of points.

For data :math:`x_1, \dots, x_N` the denoiser that minimises every denoising loss is known in closed form,

.. math:: D(x; \sigma) = \sum_i w_i x_i, \qquad w = \mathrm{softmax}_i \bigl(-|x - x_i|^2 / 2 \sigma^2\bigr)

(Karras et al. 2022, equation 57). Sampling with it gives the training points back, so it is the measure of what a
network would do that only memorises; on many fresh points it is the measure of what a perfect network would do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pointdiffusion.noise import sigma_rows

_BLOCK = 2**21
"""Entries of one block of distances, 16 MiB in float64: bounds the memory and still fits a processor's cache."""


def _logits(x: Tensor, points: Tensor, sigma: Tensor) -> Tensor:
    r"""Return :math:`-|x - x_i|^2 / 2 \sigma^2`, shape `(B, N)`, for `sigma` of shape `(B, 1)`."""
    # By differences: |x|^2 + |y|^2 - 2xy in float32 is wrong by 1e-2 sigma^2 and more at low noise levels.
    distances = torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")
    scale = -0.5 / sigma**2
    return distances**2 * scale if distances.requires_grad else distances.square_().mul_(scale)


class EmpiricalDenoiser:
    """The exact optimal denoiser of a finite set of points, in blocks so that memory stays bounded.

    Args:
        points: The set, shape `(N, D)`, of any float type.

    Raises:
        ValueError: If the points are not a table of finite numbers with at least one row.

    Examples:
        >>> truth = EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> truth(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(0.5)
        tensor([[0.4621]])
    """

    def __init__(self, points: Tensor) -> None:
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(f"points must be a table with at least one row and column, got {tuple(points.shape)}")
        if not (points.is_floating_point() and bool(points.isfinite().all())):
            raise ValueError("points must be finite floating-point numbers")
        self.points = points

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:  # noqa: ARG002
        """Return the expected clean points, shape `(B, D)`, in the type of `x`."""
        points = self.points.to(x)
        sigma = sigma_rows(sigma, x)  # (B, 1)
        columns = min(len(points), _BLOCK // 64)
        rows = max(1, _BLOCK // columns)
        pieces = [
            self._block(x[start : start + rows], sigma[start : start + rows], points, columns)
            for start in range(0, len(x), rows)
        ]
        return torch.cat(pieces) if pieces else x.clone()

    @staticmethod
    def _block(x: Tensor, sigma: Tensor, points: Tensor, columns: int) -> Tensor:
        """Return the weighted mean for few rows by one running pass over all points."""
        top = x.new_full((len(x), 1), -torch.inf)
        mass = x.new_zeros(len(x), 1)
        total = torch.zeros_like(x)
        for part in points.split(columns):
            logits = _logits(x, part, sigma)  # (rows, columns)
            new_top = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            weights = torch.exp(logits - new_top)
            shrink = torch.exp(top - new_top)
            mass = mass * shrink + weights.sum(dim=1, keepdim=True)
            total = total * shrink + weights @ part
            top = new_top
        return total / mass


def posterior_mean(x: Tensor, sigma: Tensor, reference: Tensor) -> Tensor:
    r"""Return :math:`E[x_0 \mid x]` if the data were `reference`, in one piece.

    As a training target for points noised from rows of `reference` it has far less variance than the clean row, and
    the bias falls as one over the number of rows.

    Args:
        x: Noisy points, shape `(B, D)`.
        sigma: Noise levels, shape `(B,)`.
        reference: Clean rows, shape `(N, D)`; those that `x` was made from belong to them.

    References:
        Stable Target Field for Reduced Variance Score Estimation in Diffusion Models (Xu et al., 2023), equation 6,
        https://arxiv.org/abs/2302.00670
    """
    return _logits(x, reference, sigma_rows(sigma, x)).softmax(dim=1) @ reference
