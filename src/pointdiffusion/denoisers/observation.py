r"""Denoisers of what was observed: :math:`E[x_0 | x, y; \sigma]` for observations :math:`y = A x_0 + s \epsilon`.

By Bayes' rule it is :math:`D + \sigma^2 \nabla_x \log p(y | x; \sigma)`. The likelihood of noisy points is not known.
All of these approximate it by a function of :math:`r = y - A D(x; \sigma)`, and differ in which:

======= =================================================== ====================================================
name    log-likelihood of noisy points                      source
======= =================================================== ====================================================
`dps`   :math:`-2 \zeta |r| / \beta(\sigma)`                Chung et al. 2023, arXiv 2209.14687
`pigdm` Gaussian, covariance :math:`s^2 I + \rho^2 A A^T`,  Song et al. 2023 (ICLR), "Pseudoinverse-guided
        :math:`\rho^2 = \sigma^2 / (1 + \sigma^2 /           diffusion models for inverse problems"
        \sigma_d^2)`
`mmps`  Gaussian, covariance :math:`s^2 I + \sigma^2 A \,   Rozet et al. 2024, arXiv 2405.13712
        \partial_x D \, A^T`, the true one of y given x
======= =================================================== ====================================================

`mmps` is exact where the data are one Gaussian; none is exact for mixtures, see `docs/posteriors.md`. Where we differ
from the papers:

- DPS derives a Gaussian of covariance :math:`s^2 I` (its equation 16), but its algorithm moves by :math:`\zeta / |r|`
  times the gradient of :math:`|r|^2` after each of 1000 steps of DDPM, whatever s is. :math:`\beta(\sigma)`, the
  variance of such a step, makes that a function of the noise level for any grid. `zeta=None` is the derived one;
- Pi-GDM reweights its gradient at each noise level; here it enters Bayes' rule unweighted;
- MMPS inverts the covariance by a few conjugate gradients; here M is small, and it is diagonalised. The derivative
  of a network need not be a covariance: its symmetric part is taken, and directions in which it is negative are left
  alone.

The derivative of the covariance itself is neglected, here as in the papers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction, sigma_rows
from pointdiffusion.exact.mixtures import check_observation
from pointdiffusion.noise import LinearBetaSchedule

OBSERVATIONS = ("dps", "pigdm", "mmps")
"""Names of the approximations to the likelihood of noisy points."""

FLOOR = 1e-6
"""Least variance of what is observed, over that of `pigdm`; it matters only to exact observations of singular data."""


class Twist(NamedTuple):
    r"""What an observation adds to noisy points.

    Args:
        denoised: Denoised points without the observation, shape `(B, D)`.
        shift: :math:`\sigma^2 \nabla_x \log p(y | x; \sigma)`, shape `(B, D)`.
        log_likelihood: :math:`\log p(y | x; \sigma)`, shape `(B,)`; of `dps` up to a constant.
        variance: With a probe, Hutchinson's estimate of the variance of a coordinate of :math:`x_0` given x, the trace
            of :math:`\sigma^2 \partial_x D` over D, shape `(B,)`; it may be negative.
    """

    denoised: Tensor
    shift: Tensor
    log_likelihood: Tensor
    variance: Tensor | None = None


class Observed:
    """The denoiser given an observation.

    A call costs one evaluation and one backward pass, with `mmps` one backward pass for each row of A.

    Args:
        denoiser: The denoiser without the observation; differentiable in its points, each row by itself.
        matrix: A, shape `(M, D)`, or one for each row, `(B, M, D)`.
        y: The observed values, shape `(M,)` for all rows or `(B, M)`.
        noise: Standard deviation s of the observation's noise, in units of y; 0 is an exact observation.
        method: One of `OBSERVATIONS`.
        sigma_data: Standard deviation of the data, for `pigdm`.
        zeta: Step size of `dps`, in units of the observation; None is the Gaussian that the paper derives.

    Raises:
        ValueError: If shapes do not fit, the noise is negative, the method unknown, or a setting not positive.

    Examples:
        >>> from pointdiffusion import GaussianMixture
        >>> prior = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
        >>> denoiser = Observed(prior.denoise, matrix=[[1.0, 0.0]], y=[3.0], noise=0.0)  # the first coordinate is 3
        >>> denoiser(torch.zeros(1, 2), torch.tensor(1.0))
        tensor([[3., 0.]])
    """

    def __init__(
        self, denoiser: DenoiserFunction, matrix: Any, y: Any, noise: float, *, method: str = "mmps",
        sigma_data: float = 1.0, zeta: float | None = 1.0,
    ) -> None:  # fmt: skip
        self.matrix, self.y = (torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (matrix, y))
        check_observation(self.matrix, self.y, self.matrix.shape[-1] if self.matrix.ndim else 0, noise)
        if method not in OBSERVATIONS:
            raise unknown_name("method", method, OBSERVATIONS)
        if not 0 < sigma_data < math.inf or (zeta is not None and not 0 < zeta < math.inf):
            raise ValueError(f"sigma_data and zeta must be positive, got {sigma_data} and {zeta}")
        if method == "dps" and zeta is None and noise == 0:
            raise ValueError("dps without zeta divides by the observation's noise; give it noise, or zeta")
        self.denoiser, self.noise, self.method = denoiser, float(noise), method
        self.sigma_data, self.zeta = float(sigma_data), zeta

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points given the observation.

        Args:
            x: Noisy points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`.
            condition: Other conditions of the denoiser, by name.

        Returns:
            Denoised points, shape `(B, D)`.

        Raises:
            ValueError: If the points do not fit the observation.
        """
        twist = self.twist(x, sigma, **condition)
        return twist.denoised + twist.shift

    def twist(self, x: Tensor, sigma: Tensor | float, probe: Tensor | None = None, **condition: Any) -> Twist:
        """Return the denoised points, what the observation adds to them, and its log-likelihood.

        Args:
            x: Noisy points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`.
            probe: Random numbers of mean 0 and variance 1, shape `(B, D)`, for `variance`; they cost a backward pass.
            condition: Other conditions of the denoiser, by name.

        Returns:
            The parts of the denoised points, see `Twist`.

        Raises:
            ValueError: If the points do not fit the observation.
        """
        self._check(x)
        matrix, y, level = self.matrix.to(x), self.y.to(x), sigma_rows(sigma, x) ** 2  # (B, 1)
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            end = self.denoiser(z, torch.as_tensor(sigma, dtype=x.dtype, device=x.device), **condition)
            denoised = end.detach()
            variance = None if probe is None else level[:, 0] * traced(end, z, probe)
            off = y - (matrix @ denoised[..., None]).squeeze(-1)  # (B, M)
            if self.method == "mmps":
                rows = [row.expand_as(z) for row in matrix.unbind(-2)]
                slopes = torch.stack([torch.autograd.grad(end, z, row, retain_graph=True)[0] for row in rows], dim=1)
                seen = level[..., None] * (slopes @ matrix.mT)  # (B, M, M)
                solved, log_likelihood = self._gaussian((seen + seen.mT) / 2, off, level)
                pulled = (slopes.mT @ solved[..., None]).squeeze(-1)
            else:
                solved, log_likelihood = self._one_pass(matrix, off, level)
                along = (matrix.mT @ solved[..., None]).squeeze(-1)
                (pulled,) = torch.autograd.grad(end, z, along)
        return Twist(denoised, level * pulled, log_likelihood, variance)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.matrix.shape[-1]:
            raise ValueError(
                f"points must have shape (B, {self.matrix.shape[-1]}) as the observation's, got {tuple(x.shape)}"
            )
        rows = {len(part) for part, single in ((self.matrix, 2), (self.y, 1)) if part.ndim > single}
        if rows - {len(x)}:
            raise ValueError(f"got observations of {max(rows)} rows, but {len(x)} points; give one for each point")

    def _one_pass(self, matrix: Tensor, off: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope of the log-likelihood in A D, and itself, of the methods that need no derivative for it."""
        if self.method == "pigdm":
            seen = self._prior(level)[..., None] * (matrix @ matrix.mT)
            return self._gaussian(seen, off, level)
        if self.zeta is None:
            return self._gaussian(off.new_zeros(len(off), off.shape[1], off.shape[1]), off, 0 * level)
        size = off.norm(dim=1, keepdim=True)
        strength = 2 * self.zeta / ddpm_variance(level.sqrt())
        return strength * off / size.clamp(min=torch.finfo(off.dtype).tiny), -(strength * size).squeeze(1)

    def _prior(self, level: Tensor) -> Tensor:
        """Return the variance of a clean coordinate given noisy points, were the data one round Gaussian."""
        return level / (1 + level / self.sigma_data**2)

    def _gaussian(self, seen: Tensor, off: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return S^-1 r and log N(r; 0, S) for S = s^2 I + `seen`, shapes `(B, M)` and `(B,)`."""
        values, axes = torch.linalg.eigh(seen)  # (B, M), (B, M, M)
        scale = self.matrix.square().sum(dim=-1).mean(dim=-1).to(off)  # () or (B,)
        floor = FLOOR * self._prior(level) * scale.reshape(-1, 1)
        total = self.noise**2 + torch.where(level > 0, values.clamp(min=floor), 0.0)
        along = (axes.mT @ off[..., None]).squeeze(-1)
        log_likelihood = -0.5 * (along**2 / total + (2 * math.pi * total).log()).sum(dim=1)
        # Where nothing can vary the data cannot follow; a network's negative variance must not push them off either.
        moving = (values >= floor) | (self.noise > 0) & (values >= 0)
        return (axes @ (moving * along / total)[..., None]).squeeze(-1), log_likelihood


def traced(end: Tensor, z: Tensor, probe: Tensor) -> Tensor:
    """Return Hutchinson's estimate of the trace of the derivative of `end` in `z`, over D.

    Args:
        end: Output of a denoiser, shape `(B, D)`.
        z: Its input, shape `(B, D)`, in the same graph.
        probe: Random numbers of mean 0 and variance 1, shape `(B, D)`.

    Returns:
        Estimates, shape `(B,)`.
    """
    (pulled,) = torch.autograd.grad(end, z, probe, retain_graph=True)
    return (pulled * probe).mean(dim=1)


def ddpm_variance(sigma: Tensor) -> Tensor:
    """Return beta of the one of DDPM's 1000 steps that is taken at a noise level.

    Args:
        sigma: Noise levels, any shape.

    Returns:
        Variances of the steps, of the shape of `sigma`.
    """
    index = LinearBetaSchedule().native_time(sigma).clamp(0, 999)
    return 1e-4 + index / 999 * (0.02 - 1e-4)
