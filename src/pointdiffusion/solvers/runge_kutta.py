r"""Explicit Runge-Kutta methods for the probability flow, in the variable sigma.

A tableau :math:`(A, b, c)` is a method: stage :math:`i` takes the slope at :math:`\sigma + c_i h` from the point that
the earlier stages lead to, and the step is their sum weighted by :math:`b` (Butcher 1964). Each stage is an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.solvers.base import Solver


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method.

    Args:
        a: Row i holds what stage i + 1 takes of the slopes before it.
        b: Weights of the slopes in the step.
        order: Order of the global error.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int


TABLEAUS: dict[str, Tableau] = {
    "euler": Tableau((), (1.0,), 1),
    "midpoint": Tableau(((0.5,),), (0.0, 1.0), 2),
    "heun": Tableau(((1.0,),), (0.5, 0.5), 2),
    "ralston": Tableau(((2 / 3,),), (0.25, 0.75), 2),
    "kutta3": Tableau(((0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6), 3),
    "rk4": Tableau(((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}


def runge_kutta(
    tableau: Tableau, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor, slope: Tensor
) -> Tensor:
    """Return the points at `sigma_next`, above 0; `slope` is the one at `x`, already known."""
    width = sigma_next - sigma
    slopes = [slope]
    for row in tableau.a:
        level = sigma + sum(row) * width
        y = _advance(x, width, row, slopes)
        slopes.append((y - denoiser(y, level)) / level)
    return _advance(x, width, tableau.b, slopes)


def _advance(x: Tensor, width: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (weight * width) * slope
    return x


class RungeKutta(Solver):
    r"""An explicit Runge-Kutta method in sigma.

    A step to sigma 0, where the slope is not defined, ends as `final` says after one evaluation.

    Args:
        method: A name of `TABLEAUS`. `"euler"` is DDIM without noise (Song et al. 2021, arXiv 2010.02502) and
            DPM-Solver-1 (Lu et al. 2022, arXiv 2206.00927): in these variables the three are one formula. `"heun"` is
            algorithm 1 of Karras et al. (2022, arXiv 2206.00364).
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If a name is unknown.
    """

    def __init__(self, method: str = "heun", *, final: str = "denoise") -> None:
        super().__init__(final=final)
        if method not in TABLEAUS:
            raise unknown_name("Runge-Kutta method", method, TABLEAUS)
        self.tableau = TABLEAUS[method]

    @property
    def order(self) -> float:
        """Order of the tableau."""
        return self.tableau.order

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            return self.land(x, denoised), state
        return runge_kutta(self.tableau, denoiser, x, sigma, sigma_next, (x - denoised) / sigma), state


def EulerODE(*, final: str = "denoise") -> RungeKutta:  # noqa: N802
    """Return Euler's method, one evaluation a step; see `RungeKutta`."""
    return RungeKutta("euler", final=final)


def HeunODE(*, final: str = "denoise") -> RungeKutta:  # noqa: N802
    """Return Heun's method, two evaluations a step; see `RungeKutta`."""
    return RungeKutta("heun", final=final)
