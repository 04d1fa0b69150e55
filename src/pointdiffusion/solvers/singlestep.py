r"""Singlestep DPM-Solver and DPM-Solver++: exponential Runge-Kutta methods in :math:`\lambda = -\log \sigma`.

Stages lie at fractions :math:`r` of the step in :math:`\lambda`. With :math:`q` the noise (DPM-Solver) or the denoised
point (DPM-Solver++), :math:`h` the width and :math:`\Phi = \int q`'s kernel over the step, the published methods take

- order 2: :math:`q_0 + (q_1 - q_0) / (2 r_1)` for all of the step;
- order 3: :math:`q_0` for all of it and :math:`(q_2 - q_0) / r_2` by the exact integral of a line, where stage 2 itself
  is corrected the same way by stage 1.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.solvers.base import Solver
from pointdiffusion.solvers.quadrature import Form, combine


class Singlestep(Solver):
    """DPM-Solver-2 and -3 (Lu et al. 2022, arXiv 2206.00927, algorithms 1 and 2) and their ++ forms (2211.01095).

    Args:
        order: 2 or 3, which is also the number of evaluations a step.
        quantity: `"eps"` for DPM-Solver, `"denoised"` for DPM-Solver++.
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If the order or the quantity is another.
    """

    def __init__(self, order: int = 2, *, quantity: str = "denoised", final: str = "denoise") -> None:
        super().__init__(final=final)
        if order not in (2, 3):
            raise ValueError(f"the order of a singlestep method must be 2 or 3, got {order!r}")
        if quantity not in ("eps", "denoised"):
            raise unknown_name("quantity", quantity, ("eps", "denoised"))
        self.stages = order
        self.form = Form(quantity, "log-sigma")

    @property
    def order(self) -> float:
        """Order of the global error."""
        return self.stages

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            return self.land(x, denoised), state
        start, ratio = float(sigma), float(sigma_next) / float(sigma)
        first = self.form.value(x, denoised, start)

        def to(share: float, values: tuple[Tensor, ...], nodes: tuple[float, ...], rule: str = "exact") -> Tensor:
            """Return the points after the share of the step, by a polynomial through the nodes."""
            level = start * ratio**share
            factor, weights = self.form.weights(start, level, nodes, rule)
            return combine(x, factor, weights, values)

        def value(share: float, y: Tensor) -> Tensor:
            """Return the quantity at points after the share of the step."""
            level = start * ratio**share
            return self.form.value(y, denoiser(y, sigma * ratio**share), level)

        if self.stages == 2:
            half = value(0.5, to(0.5, (first,), (start,)))
            return to(1.0, (first, half), (start, start * math.sqrt(ratio)), "midpoint"), state
        one, two = start * ratio ** (1 / 3), start * ratio ** (2 / 3)
        value_1 = value(1 / 3, to(1 / 3, (first,), (start,)))
        value_2 = value(2 / 3, to(2 / 3, (first, value_1), (start, one)))
        return to(1.0, (first, value_2), (start, two)), state
