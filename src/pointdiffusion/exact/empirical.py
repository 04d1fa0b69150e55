r"""The exact optimum on a finite set of points.

For data :math:`x_1, \dots, x_N` the denoiser that minimises every denoising loss is known in closed form,

.. math:: D(x; \sigma) = \sum_i w_i x_i, \qquad w = \mathrm{softmax}_i \bigl(-|x - x_i|^2 / 2 \sigma^2\bigr)

(Karras et al. 2022, equation 57). Sampling with it gives the training points back, so it is the measure of what a
network would do that only memorises; on many fresh points it is the measure of what a perfect network would do.

Of a large set only neighbours matter at low noise. With :math:`d` the distance to the nearest point, all points beyond
:math:`r = \sqrt{d^2 + 2 \sigma^2 \log(N / \tau)}` together weigh less than :math:`\tau` times the nearest one, so
leaving them out moves the mean by less than :math:`\tau` times the extent of the set, and the log-density by less than
:math:`\tau`. A tree finds the rest.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.contract import sigma_rows

_BLOCK = 2**21
"""Entries of one block of distances, 16 MiB in float64: bounds the memory and still fits a processor's cache."""


def _logits(x: Tensor, points: Tensor, sigma: Tensor) -> Tensor:
    r"""Return :math:`-|x - x_i|^2 / 2 \sigma^2`, shape `(B, N)`, for `sigma` of shape `(B, 1)`."""
    # By differences: |x|^2 + |y|^2 - 2xy in float32 is wrong by 1e-2 sigma^2 and more at low noise levels.
    distances = torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")
    scale = -0.5 / sigma**2
    return distances**2 * scale if distances.requires_grad else distances.square_().mul_(scale)


_TREE_FROM = 20_000
"""Number of points from which building a tree pays off."""

_LEFT_OUT = 1e-9
"""Total weight of all points that are skipped, as a share of the weight of the nearest point, at most."""


class EmpiricalDenoiser:
    """The exact optimal denoiser of a finite set of points, computed in blocks so that memory stays bounded.

    Args:
        points: The set, shape `(N, D)`, of any floating-point type.

    Raises:
        ValueError: If the points are not a table of finite numbers with at least one row.

    Examples:
        >>> denoiser = EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]]))
        >>> denoiser(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(0.5)
        tensor([[0.4621]])
        >>> denoiser.log_prob(torch.tensor([[0.0]]), sigma=1.0)  # log N(1; 0, 1)
        tensor([-1.4189])

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), equation 57,
        https://arxiv.org/abs/2206.00364
    """

    def __init__(self, points: Tensor) -> None:
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(f"points must be a table with at least one row and column, got {tuple(points.shape)}")
        if not (points.is_floating_point() and bool(points.isfinite().all())):
            raise ValueError("points must be finite floating-point numbers")
        self.points = points

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:  # noqa: ARG002
        """Return the posterior mean of the clean points.

        Args:
            x: Noisy points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the points.
            condition: Ignored; here because the contract of denoisers has it.

        Returns:
            Denoised points, shape `(B, D)`, in the type and on the device of `x`.

        Raises:
            ValueError: If `sigma` is neither a scalar nor one number for each row.
        """
        return self._both(x, sigma)[0]

    def log_prob(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Return the log-density of the set convolved with Gaussian noise: a kernel density of bandwidth `sigma`.

        Args:
            x: Points, shape `(B, D)`.
            sigma: Bandwidth, a scalar or shape `(B,)`, in units of the points.

        Returns:
            Log-densities in nats, shape `(B,)`.

        Raises:
            ValueError: If `sigma` is neither a scalar nor one number for each row.
        """
        log_mass = self._both(x, sigma)[1]
        widths = sigma_rows(sigma, x)[:, 0]
        return log_mass - math.log(len(self.points)) - x.shape[1] * (widths.log() + 0.5 * math.log(2 * math.pi))

    def optimal_loss(
        self, sigmas: Tensor, num_samples: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the least denoising loss at each noise level, by Monte Carlo, and its standard error.

        The loss is the unweighted squared error of the denoised points, averaged over dimensions. The optimal denoiser
        of these points reaches it; a network reaches it only by memorising them.

        Args:
            sigmas: Noise levels, shape `(L,)`, in units of the points.
            num_samples: Number of draws at each level.
            generator: Source of randomness, on the CPU.

        Returns:
            Mean and standard error, each of shape `(L,)`, float64, in squared units of the points.

        Raises:
            ValueError: If `num_samples` is below 2.
        """
        if num_samples < 2:
            raise ValueError(f"num_samples must be at least 2 for a standard error, got {num_samples}")
        means, errors = [], []
        for sigma in sigmas.double():
            chosen = torch.randint(len(self.points), (num_samples,), generator=generator)
            clean = self.points[chosen.to(self.points.device)].double()
            noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean)
            losses = (self(clean + sigma * noise, sigma) - clean).square().mean(dim=1)
            means.append(losses.mean())
            errors.append(losses.std() / math.sqrt(num_samples))
        return torch.stack(means), torch.stack(errors)

    def _both(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the denoised points, and the log of the sum of the kernels without their constant."""
        points = self.points.to(x)
        widths = sigma_rows(sigma, x)  # (B, 1)
        if len(points) >= _TREE_FROM and x.device.type == "cpu" and not x.requires_grad and len(x):
            nearest, reach = self._reach(x, widths)
            counts = self._tree.query_ball_point(x[:16].double().numpy(), reach[:16], return_length=True)
            if counts.mean() < len(points) / 20:  # a point of the tree costs about twenty of brute force
                rows = min(128, max(1, int(_BLOCK / 2 / max(counts.mean(), 1))))
                return self._by_neighbours(x, widths, points, nearest, reach, rows)
        columns = min(len(points), _BLOCK // 64)
        rows = max(1, _BLOCK // columns)
        pieces = [
            self._block(x[start : start + rows], widths[start : start + rows], points, columns)
            for start in range(0, len(x), rows)
        ]
        if not pieces:
            return x.clone(), x.new_zeros(0)
        return torch.cat([mean for mean, _ in pieces]), torch.cat([log_mass for _, log_mass in pieces])

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self.points.detach().double().cpu().numpy())

    def _reach(self, x: Tensor, sigma: Tensor) -> tuple[Any, Any]:
        """Return distance of the nearest point and radius beyond which nothing counts, each of shape `(B,)`."""
        nearest, _ = self._tree.query(x.double().numpy(), workers=-1)
        margin = 2 * sigma[:, 0].double().numpy() ** 2 * math.log(len(self.points) / _LEFT_OUT)
        return nearest, np.sqrt(nearest**2 + margin)

    def _by_neighbours(
        self, x: Tensor, sigma: Tensor, points: Tensor, nearest: Any, reach: Any, rows: int
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return mean and log mass of the points within reach of each row, `rows` rows at a time."""
        means, masses, centres = [], [], x.double().numpy()
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            neighbours = self._tree.query_ball_point(centres[part], reach[part], workers=-1, return_sorted=True)
            counts = torch.tensor([len(each) for each in neighbours])
            near = points[torch.from_numpy(np.concatenate(neighbours).astype(np.int64))]  # (neighbours of all rows, D)
            owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
            logits = -(x[part][owner] - near).square().sum(dim=1) / (2 * sigma[part][owner, 0] ** 2)
            top = -(torch.from_numpy(nearest[part]).to(x) ** 2) / (2 * sigma[part][:, 0] ** 2)
            weights = torch.exp(logits - top[owner])
            mass = logits.new_zeros(len(counts)).index_add(0, owner, weights)
            total = x.new_zeros(len(counts), x.shape[1]).index_add(0, owner, weights[:, None] * near)
            means.append(total / mass[:, None])
            masses.append(mass.log() + top)
        return torch.cat(means), torch.cat(masses)

    @staticmethod
    def _block(x: Tensor, sigma: Tensor, points: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """Return the weighted mean and the log mass of few rows by one running pass over all points."""
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
        return total / mass, (mass.log() + top)[:, 0]


def posterior_mean(x: Tensor, sigma: Tensor, reference: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Return :math:`E[x_0 \mid x]` if the data were `reference`, in one piece.

    As a training target for points noised from rows of `reference` it has far less variance than the clean row, and
    the bias falls as one over the number of rows.

    Args:
        x: Noisy points, shape `(B, D)`.
        sigma: Noise level, a scalar or shape `(B,)`, in units of the points.
        reference: Clean rows, shape `(N, D)`, among them the rows that `x` was made from.
        allowed: Which rows of the reference each point may come from, given its conditions: booleans, shape `(B, N)`,
            at least one in each row; all by default.

    Returns:
        Posterior means, shape `(B, D)`.

    References:
        Stable Target Field for Reduced Variance Score Estimation in Diffusion Models (Xu et al., 2023), equation 6,
        https://arxiv.org/abs/2302.00670
    """
    logits = _logits(x, reference, sigma_rows(sigma, x))
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return logits.softmax(dim=1) @ reference
