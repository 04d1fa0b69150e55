r"""Guidance: denoisers made of denoisers, which solvers do not know of.

All of it is one formula, :math:`D_w = D_0 + w (D_1 - D_0)`, so a strength w of 1 is none:

- classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): :math:`D_1` knows the condition, :math:`D_0` does
  not. It is said to draw from :math:`p(x | c) p(c | x)^{w - 1}`, and does not, see `benchmarks/guidance.py`; what does
  is `particles.feynman_kac`;
- in an interval of noise levels (Kynkaanniemi et al. 2024, arXiv 2404.07724): outside of it :math:`D_1` alone;
- autoguidance (Karras et al. 2024, arXiv 2406.02507): :math:`D_0` is a worse model of the same thing;
- classifier guidance (Dhariwal and Nichol 2021, arXiv 2105.05233):
  :math:`D_0 + w \sigma^2 \nabla \log p(c | x; \sigma)`, the first kind by Bayes' rule if both models are exact.

Each wrapper tells in `cost` how many denoisers its last call evaluated, which samplers count.

**Where guided sampling starts.** The guided flow has its own distribution at every noise level, which is neither that
of the class nor that of all data, and a start is forgotten only from levels far above the width of the data: from the
class's own Gaussian, for standard deviation 1 and means m of the class and 0 of the rest, the flow ends at
:math:`w m - (w - 1) m / \sqrt{1 + \sigma_{max}^2}` in place of :math:`w m`. `guided_gaussian` has the moments to start
from. In :math:`y = x / \sigma` and :math:`s = 1 / \sigma` every flow is :math:`dy / ds = D(y / s; 1 / s)`, which begins
at s = 0 with standard normal y. For the linear denoisers of two Gaussians it is

.. math:: dy / ds = s \sum_i w_i C_i (I + s^2 C_i)^{-1} y + \sum_i w_i (I + s^2 C_i)^{-1} \mu_i ,
    \qquad w_1 = w, \; w_0 = 1 - w ,

smooth at s = 0 and affine in y, so that two matrices solve it: :math:`y = N z + K (\mu_1 - \mu_0) s + \mu_0 s`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction, sigma_rows

EVERYWHERE = (0.0, math.inf)
"""The interval of all noise levels."""


def _cost(denoiser: DenoiserFunction) -> int:
    """Return the number of evaluations that the last call of a denoiser made; wrappers may be wrapped again."""
    return int(getattr(denoiser, "cost", 1))


def _check_scale(scale: float) -> float:
    if not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, got {scale}; 1 is no guidance")
    return float(scale)


def _check_interval(interval: tuple[float, float]) -> None:
    if not 0 <= interval[0] < interval[1]:
        raise ValueError(f"the interval must be its lowest and its highest noise level, got {interval}; swap them?")


class Guided:
    """The denoiser `base + scale (target - base)`.

    Args:
        target: What is wanted, for instance the denoiser of a class.
        base: What it is moved away from.
        scale: Strength w; 1 is the target alone, 0 the base alone.
        interval: Noise levels at which the strength holds, above the first and up to the second; elsewhere it is 1.

    Raises:
        ValueError: If the strength is not a number or the interval is empty.
    """

    def __init__(
        self, target: DenoiserFunction, base: DenoiserFunction, scale: float, *,
        interval: tuple[float, float] = EVERYWHERE,
    ) -> None:  # fmt: skip
        _check_interval(interval)
        self.target, self.base, self.scale, self.interval = target, base, _check_scale(scale), interval
        self.cost = 0

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points, shape of `x`."""
        target = self.target(x, sigma, **condition)
        self.cost = _cost(self.target)
        levels = sigma_rows(sigma, x)
        inside = (levels > self.interval[0]) & (levels <= self.interval[1])  # (B, 1, ...)
        if self.scale == 1 or not bool(inside.any()):
            return target
        base = self.base(x, sigma, **condition)
        self.cost += _cost(self.base)
        return torch.where(inside, base + self.scale * (target - base), target)


class Conditioned:
    """A denoiser with its condition, so that solvers need not know of it.

    Args:
        denoiser: A denoiser that takes the condition.
        condition: For instance `labels=3`: a number stands for all rows, tensors are handed on as they are.
    """

    def __init__(self, denoiser: DenoiserFunction, **condition: Any) -> None:
        self.denoiser, self.condition = denoiser, condition

    @property
    def cost(self) -> int:
        """Number of evaluations that the last call made."""
        return _cost(self.denoiser)

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points given the condition, shape of `x`."""
        rows = {name: _rows(value, x) for name, value in self.condition.items()}
        return self.denoiser(x, sigma, **rows, **condition)


def _rows(value: Any, x: Tensor) -> Any:
    """Return a number as one a row of `x`, whole numbers as int64; anything else as it is."""
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.ndim == 0):
        dtype = x.dtype if isinstance(value, float) else None
        return torch.as_tensor(value, dtype=dtype, device=x.device).expand(len(x))
    return value


def bind(denoiser: DenoiserFunction, **condition: Any) -> DenoiserFunction:
    """Return the denoiser with a condition bound: `bind(denoiser, labels=3)`; the denoiser itself if there is none."""
    return Conditioned(denoiser, **condition) if condition else denoiser


def classifier_free(
    denoiser: DenoiserFunction, scale: float, *, interval: tuple[float, float] = EVERYWHERE, **condition: Any
) -> Guided:  # fmt: skip
    """Return classifier-free guidance towards a condition.

    Args:
        denoiser: A denoiser that takes the condition, and does without.
        scale: Strength w.
        interval: Noise levels at which it holds.
        condition: For instance `labels=3`, or a tensor of one label a row.

    Raises:
        ValueError: If there is no condition.

    Examples:
        >>> from pointdiffusion.exact.mixtures import GaussianMixture
        >>> mixture = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.0]], [[0.0]]])
        >>> guided = classifier_free(mixture.denoise, 2.0, labels=1)
        >>> guided(torch.tensor([[0.5]]), torch.tensor(1.0))  # 2 - tanh(0.5)
        tensor([[1.5379]])
        >>> guided.cost
        2
    """
    if not condition:
        raise ValueError("there is nothing to guide to: give a condition, for instance labels=3")
    return Guided(bind(denoiser, **condition), denoiser, scale, interval=interval)


def autoguidance(
    denoiser: DenoiserFunction, worse: DenoiserFunction, scale: float, *,
    interval: tuple[float, float] = EVERYWHERE, **condition: Any,
) -> Guided:  # fmt: skip
    """Return guidance of a denoiser away from a worse one, both under the same condition, if any.

    Args:
        denoiser: The better model.
        worse: A smaller or less trained one of the same data.
        scale: Strength w.
        interval: Noise levels at which it holds.
        condition: For instance `labels=3`.
    """
    return Guided(bind(denoiser, **condition), bind(worse, **condition), scale, interval=interval)


class ClassifierGuided:
    r"""The denoiser :math:`D + w \sigma^2 \nabla_x \log p(c | x; \sigma)`.

    The classifier's own passes are not in `cost`.

    Args:
        denoiser: A denoiser that does not know the condition.
        log_likelihood: Log-probability of the condition for noisy points `(B, D)` and their levels, shape `(B,)`; each
            row's its own, and differentiable.
        scale: Strength w; 1 is Bayes' rule, 0 none.

    Raises:
        ValueError: If the strength is not a number.
    """

    def __init__(
        self, denoiser: DenoiserFunction, log_likelihood: Callable[[Tensor, Tensor], Tensor], scale: float
    ) -> None:  # fmt: skip
        self.denoiser, self.log_likelihood, self.scale = denoiser, log_likelihood, _check_scale(scale)

    @property
    def cost(self) -> int:
        """Number of evaluations of the denoiser that the last call made."""
        return _cost(self.denoiser)

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points, shape of `x`."""
        with torch.enable_grad():  # samplers turn it off
            y = x.detach().requires_grad_()
            value = self.log_likelihood(y, sigma)
            if value.shape != (len(x),) or not value.requires_grad:
                raise ValueError(
                    f"log_likelihood must return one number a row that depends on the points by torch operations, "
                    f"shape ({len(x)},), got {tuple(value.shape)}"
                )
            (slope,) = torch.autograd.grad(value.sum(), y)
        return self.denoiser(x, sigma, **condition) + self.scale * sigma_rows(sigma, x) ** 2 * slope


def classifier_guidance(
    denoiser: DenoiserFunction, log_likelihood: Callable[[Tensor, Tensor], Tensor], scale: float
) -> ClassifierGuided:  # fmt: skip
    """Return classifier guidance; see `ClassifierGuided` for the arguments."""
    return ClassifierGuided(denoiser, log_likelihood, scale)


def guided_gaussian(
    mean: Any, covariance: Any, base_mean: Any, base_covariance: Any, scale: float, sigma: float, *,
    interval: tuple[float, float] = EVERYWHERE,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return mean and covariance of noisy points under the guided flow of two Gaussians, in float64.

    It is where sampling by a guided denoiser starts, for data that are nearly Gaussian once the noise is added. For
    stochastic solvers, which draw other covariances, it is right up to the square of variance over noise variance.

    Args:
        mean: Of the clean data of the target, shape `(D,)`, or `(B, D)`.
        covariance: Of the same, shape `(D, D)`, or `(B, D, D)`.
        base_mean: Of the clean data of the base, shapes as the target's.
        base_covariance: Of the same.
        scale: Strength w; at 1 the result is the target's, at 0 the base's.
        sigma: Noise level at which the moments are wanted, above 0.
        interval: Noise levels at which the strength holds, as in `Guided`.

    Returns:
        Mean, shape `(D,)` or `(B, D)`, and covariance, noise included, shape `(D, D)` or `(B, D, D)`.

    Raises:
        ValueError: If the noise level or the strength is out of range.

    Examples:
        >>> one = torch.eye(1)
        >>> mean, covariance = guided_gaussian([3.0], one, [0.0], one, 2.0, sigma=2.0)
        >>> mean.round(decimals=6), covariance.round(decimals=6)
        (tensor([6.], dtype=torch.float64), tensor([[5.]], dtype=torch.float64))
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be a positive number, got {sigma}")
    _check_interval(interval)
    _check_scale(scale)
    m, c, m_0, c_0 = (
        torch.as_tensor(value, dtype=torch.float64) for value in (mean, covariance, base_mean, base_covariance)
    )
    noise = sigma**2 * torch.eye(c.shape[-1], dtype=torch.float64, device=c.device)
    (m, m_0), (c, c_0) = torch.broadcast_tensors(m, m_0), torch.broadcast_tensors(c, c_0)
    if scale == 1 or sigma >= interval[1] or (torch.equal(m, m_0) and torch.equal(c, c_0)):
        return m, c + noise
    if scale == 0 and interval[0] < sigma and interval[1] == math.inf:
        return m_0, c_0 + noise
    pairs = torch.cat([c, c_0], dim=-1) / sigma**2  # (..., D, 2 D)
    each, of_row = torch.unique(pairs.reshape(-1, *pairs.shape[-2:]), dim=0, return_inverse=True)
    begin, end = sigma / interval[1], min(1.0, sigma / interval[0]) if interval[0] else 1.0
    parts = [_guided_map(pair.cpu().numpy().tobytes(), float(scale), begin, end) for pair in each]
    n, k = (torch.from_numpy(np.stack(part)).to(c.device)[of_row].reshape(c.shape) for part in zip(*parts, strict=True))
    spread = sigma**2 * (n @ n.mT)
    return m_0 + (k @ (m - m_0)[..., None])[..., 0], (spread + spread.mT) / 2


@functools.lru_cache(maxsize=256)
def _guided_map(pair: bytes, scale: float, begin: float, end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrices N and K of the module's docstring at s = 1, shape `(D, D)` each.

    Args:
        pair: The bytes of the two covariances in units of the noise level, side by side, shape `(D, 2 D)`: noise
            levels, too, are then 1 / s.
        scale: Strength w between the next two.
        begin: Where it begins to hold, in s; before it, the strength is 1.
        end: Where it ends.
    """
    from scipy.integrate import solve_ivp

    flat = np.frombuffer(pair)
    n_dims = math.isqrt(len(flat) // 2)
    axes = [np.linalg.eigh(c) for c in np.split(flat.reshape(n_dims, 2 * n_dims), 2, axis=1)]

    def slope(s: float, flat: NDArray[np.float64], w: float) -> NDArray[np.float64]:
        (c, u), (c_0, u_0) = axes
        pull = w * (u * (c / (1 + s**2 * c))) @ u.T + (1 - w) * (u_0 * (c_0 / (1 + s**2 * c_0))) @ u_0.T
        change: NDArray[np.float64] = s * pull @ flat.reshape(n_dims, 2 * n_dims)
        change[:, n_dims:] += w * (u / (1 + s**2 * c)) @ u.T
        return change.ravel()

    c, u = axes[0]  # up to `begin` the flow is the target's alone, which is known
    state = np.hstack([(u * np.sqrt(1 + begin**2 * c)) @ u.T, begin * np.eye(n_dims)]).ravel()
    for w, low, high in ((scale, begin, end), (1.0, end, 1.0)):
        if low < high:
            found = solve_ivp(slope, (low, high), state, method="DOP853", rtol=1e-10, atol=1e-12, args=(w,))
            state = found.y[:, -1]
    both = state.reshape(n_dims, 2 * n_dims)
    return both[:, :n_dims], both[:, n_dims:]
