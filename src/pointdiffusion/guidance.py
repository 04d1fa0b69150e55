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
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.denoisers import DenoiserFunction
from pointdiffusion.noise import sigma_rows

EVERYWHERE = (0.0, math.inf)
"""The interval of all noise levels."""


def _cost(denoiser: DenoiserFunction) -> int:
    """Return the number of evaluations that the last call of a denoiser made; wrappers may be wrapped again."""
    return int(getattr(denoiser, "cost", 1))


def _check_scale(scale: float) -> float:
    if not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, got {scale}; 1 is no guidance")
    return float(scale)


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
        if not 0 <= interval[0] < interval[1]:
            raise ValueError(f"the interval must be its lowest and its highest noise level, got {interval}; swap them?")
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


class Bound:
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
    return Bound(denoiser, **condition) if condition else denoiser


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
        >>> from pointdiffusion.distributions import GaussianMixture
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
