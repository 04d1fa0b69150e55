r"""Embedded Runge-Kutta pairs with step sizes that are each row's own.

The flow is integrated in :math:`v = \mathrm{arsinh}(\sigma / s)`, which is :math:`\log \sigma` far above the scale
:math:`s` and :math:`\sigma / s` far below it: both ends of the range are smooth there. A row accepts a step when its
own estimated error is within the tolerance, whatever the other rows do, so no row depends on its batch; the next size
follows from the last two errors (PI control, Gustafsson 1991).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.solvers.base import Solver


@dataclass(frozen=True)
class Pair:
    """An embedded Runge-Kutta pair.

    Args:
        a: Rows of the tableau, one a stage after the first.
        b: Weights of the solution.
        c: Positions of the stages.
        errors: One or two weightings of the slopes (the last is the slope at the end) that estimate the error.
        order: Order of the solution.
        error_order: Order of the estimate.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...]
    order: int
    error_order: int


@functools.cache
def pair_coefficients(name: str) -> Pair:
    """Return the coefficients, which SciPy keeps (Dormand and Prince 1980; Hairer, Norsett and Wanner 1993)."""
    from scipy.integrate import DOP853, RK45

    kind = {"dormand-prince": RK45, "dop853": DOP853}[name]
    stages = kind.n_stages
    estimates = (kind.E,) if name == "dormand-prince" else (kind.E5, kind.E3)

    def numbers(values: Any) -> tuple[float, ...]:
        return tuple(map(float, np.asarray(values)))

    return Pair(
        tuple(numbers(kind.A[i, :i]) for i in range(1, stages)), numbers(kind.B), numbers(kind.C[:stages]),
        tuple(map(numbers, estimates)), kind.order, kind.error_estimator_order,
    )  # fmt: skip


PAIRS = ("dormand-prince", "dop853")


@dataclass(frozen=True)
class Walk:
    """What an adaptive solver hands from one interval to the next.

    Args:
        width: Size of each row's next step in the variable, shape `(B,)`.
        error: Each row's last error over the tolerance, shape `(B,)`.
        accepted: Accepted steps of each row, shape `(B,)`.
        rejected: Rejected steps of each row, shape `(B,)`.
    """

    width: Tensor
    error: Tensor
    accepted: Tensor
    rejected: Tensor


class AdaptiveRungeKutta(Solver):
    """Integrates each interval of the grid to a tolerance, each row in steps of its own.

    Args:
        pair: `"dormand-prince"`, of order 5, or `"dop853"`, of order 8.
        rtol: Tolerance of one step, relative to the size of the point.
        atol: Tolerance of one step, in units of the data.
        sigma_data: Scale s of the variable, about the standard deviation of the data.
        max_steps: Most steps, rejected ones included, that a row may take over one interval of the grid.
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If a setting is out of range; and by `step`, if the tolerance cannot be met.
    """

    def __init__(
        self, pair: str = "dormand-prince", *, rtol: float = 1e-5, atol: float = 1e-5, sigma_data: float = 1.0,
        max_steps: int = 2000, final: str = "denoise",
    ) -> None:  # fmt: skip
        super().__init__(final=final)
        if pair not in PAIRS:
            raise unknown_name("Runge-Kutta pair", pair, PAIRS)
        if not (rtol >= 0 and atol >= 0 and rtol + atol > 0):
            raise ValueError(f"rtol and atol must not be negative, and one must be positive, got {rtol} and {atol}")
        if not sigma_data > 0 or max_steps < 1:
            raise ValueError(f"sigma_data and max_steps must be positive, got {sigma_data} and {max_steps}")
        self.pair_name, self.rtol, self.atol = pair, float(rtol), float(atol)
        self.sigma_data, self.max_steps = float(sigma_data), max_steps

    @property
    def order(self) -> float:
        """Order of the pair's solution at fixed steps."""
        return pair_coefficients(self.pair_name).order

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next`, which may also lie above `sigma`, and the walk so far."""
        if sigma_next == 0:
            return self.land(x, denoiser(x, sigma)), state
        self._check_tolerance(x)
        start, end = (float(torch.as_tensor(s).double().div(self.sigma_data).asinh()) for s in (sigma, sigma_next))
        rows = x.new_zeros(len(x), dtype=torch.float64)
        walk = state or Walk(rows + 0.05, rows + 1.0, rows.long(), rows.long())
        return self._integrate(denoiser, x, rows + start, end, walk)

    def _integrate(
        self, denoiser: DenoiserFunction, x: Tensor, v: Tensor, end: float, walk: Walk
    ) -> tuple[Tensor, Walk]:
        """Return the points once every row has reached `end`."""
        pair, sign = pair_coefficients(self.pair_name), 1.0 if end > float(v[0]) else -1.0
        slope = self._slope(denoiser, x, v)
        width, last = walk.width, walk.error
        accepted, rejected = walk.accepted, walk.rejected
        for _ in range(self.max_steps):
            left = (end - v).abs()
            active = left > 0
            if not bool(active.any()):
                break
            taken = torch.minimum(width, left)
            taken = torch.where(left - taken < 1e-3 * taken, left, taken)  # no sliver at the end
            h = sign * taken
            x_new, slope_new, error = self._try(pair, denoiser, x, v, h, slope)
            self._check(error, taken, active, v)
            fits = active & (error <= 1)
            exponent = 1 / (pair.error_order + 1)
            ratio = error.clamp(min=1e-10)
            grow = 0.9 * ratio ** (-0.7 * exponent) * last.clamp(min=1e-10) ** (0.4 * exponent)
            shrink = 0.9 * ratio ** (-exponent)
            change = torch.where(fits, grow.clamp(0.2, 6.0), shrink.clamp(0.1, 0.9))
            column = _rows(fits, x)
            x, slope = torch.where(column, x_new, x), torch.where(column, slope_new, slope)
            v = torch.where(fits, torch.where(taken == left, torch.full_like(v, end), v + h), v)
            # A step cut short by the end of the interval says nothing about the size of the next.
            cut = fits & (taken < width)
            width = torch.where(active & ~cut, taken * change, width)
            last = torch.where(fits & ~cut, ratio, last)
            accepted, rejected = accepted + fits, rejected + (active & ~fits)
        else:
            far = float((end - v).abs().max())
            raise ValueError(
                f"the tolerance {self.rtol:g} cannot be met in {self.max_steps} steps: a row stopped {far:.3g} short "
                f"in arsinh(sigma); raise rtol and atol, or max_steps"
            )
        return x, replace(walk, width=width, error=last, accepted=accepted, rejected=rejected)

    def _slope(self, denoiser: DenoiserFunction, x: Tensor, v: Tensor) -> Tensor:
        """Return dx / dv, shape `(B, D)`."""
        sigma = self.sigma_data * v.sinh()
        width = self.sigma_data * v.cosh()  # d sigma / dv
        return (x - denoiser(x, sigma.to(x))) * _rows((width / sigma).to(x), x)

    def _try(
        self, pair: Pair, denoiser: DenoiserFunction, x: Tensor, v: Tensor, h: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return points and slope after one step of size `h`, and each row's error over its tolerance."""
        slopes, width = [slope], _rows(h.to(x), x)
        for row, place in zip(pair.a, pair.c[1:], strict=True):
            slopes.append(self._slope(denoiser, x + width * _mix(row, slopes), v + place * h))
        x_new = x + width * _mix(pair.b, slopes)
        slopes.append(self._slope(denoiser, x_new, v + h))
        tolerance = self.atol + self.rtol * torch.maximum(x.abs(), x_new.abs())
        norms = [
            ((width * _mix(weights, slopes)) / tolerance).double().square().flatten(1).mean(1)
            for weights in pair.errors
        ]
        if len(norms) == 1:
            return x_new, slopes[-1], norms[0].sqrt()
        # Hairer, Norsett and Wanner (1993, section II.10): the fifth-order estimate, tamed by the third
        return x_new, slopes[-1], norms[0] / (norms[0] + 0.01 * norms[1]).sqrt().clamp(min=1e-300)

    def _check_tolerance(self, x: Tensor) -> None:
        """Raise a ValueError if rounding alone is more than the tolerance."""
        rounding = 4 * torch.finfo(x.dtype).eps * float(x.abs().max()) if x.numel() else 0.0
        wanted = self.atol + self.rtol * float(x.abs().max()) if x.numel() else 1.0
        if wanted < rounding:
            raise ValueError(
                f"an error of {wanted:.2g} cannot be met in {x.dtype}, which rounds to {rounding:.2g}; use float64, or "
                f"raise the tolerance"
            )

    def _check(self, error: Tensor, taken: Tensor, active: Tensor, v: Tensor) -> None:
        """Raise a ValueError where steps cannot get any smaller, or numbers are no longer finite."""
        if not bool(error[active].isfinite().all()):
            raise ValueError("the denoiser returned numbers that are not finite; look at it at this noise level first")
        stuck = active & (error > 1) & (taken < 1e-13 * v.abs().clamp(min=1e-3))
        if bool(stuck.any()):
            raise ValueError(
                f"the tolerance {self.rtol:g} cannot be met: a step of {float(taken[stuck].min()):.1g} still errs by "
                f"{float(error[stuck].max()):.3g} times it; raise rtol and atol, or use float64"
            )


def _rows(values: Tensor, x: Tensor) -> Tensor:
    """Return one value a row, so that it broadcasts against `x`."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _mix(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """Return the sum of weights times slopes."""
    total = slopes[0] * weights[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total.add(slope, alpha=weight)
    return total
