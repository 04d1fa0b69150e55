r"""Multistep methods: one family.

A published multistep sampler is a choice of the quantity that is interpolated, of the variable of the polynomial (see
`quadrature`), of the order, of a corrector or none, of how the first steps and the last one are made. `PRESETS` is the
table of those that have names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.solvers.base import Solver, land_locally, noises_of
from pointdiffusion.solvers.quadrature import QUANTITIES, RULES, VARIABLES, Form, combine
from pointdiffusion.solvers.runge_kutta import TABLEAUS, runge_kutta

STARTS = ("ramp", "runge-kutta")


@dataclass(frozen=True)
class History:
    """What a multistep method remembers.

    Args:
        sigmas: Noise levels of the values, newest first.
        values: The interpolated quantity there, each of shape `(B, D)`.
        x: Points from which the last step started.
        steps: Steps made so far.
        num_steps: Steps of the whole walk, where known.
        correctable: Whether the last step was one of the polynomial.
        eps: Noise predicted in the last step, kept where the end asks for it.
    """

    sigmas: tuple[float, ...] = ()
    values: tuple[Tensor, ...] = ()
    x: Tensor | None = None
    steps: int = 0
    num_steps: int | None = None
    correctable: bool = False
    eps: Tensor | None = None


class Multistep(Solver):
    r"""Exponential Adams methods: one evaluation a step.

    Args:
        order: Values that the predictor's polynomial goes through, 1 to 4.
        quantity: What is interpolated, one of `QUANTITIES`.
        variable: Variable of the polynomial, a name of `VARIABLES`.
        corrector: Whether each step is integrated again once the value at its end is known (the one that the next step
            needs anyhow), which raises the order by one; UniC of Zhao et al. (2023, arXiv 2302.04867, section 3.1).
        rule: How the polynomial is integrated: `"exact"`; `"midpoint"`, by which a line's value in the middle stands
            for it, as in the published DPM-Solver++(2M) and UniPC; `"half-curvature"`, by which the published
            DPM-Solver++(3M) takes half of the third-order term, so that its order stays 2.
        start: How the first steps are made: `"ramp"` with the orders 1, 2, ... that the history allows, as published,
            which caps the order at 2 (3 with corrector); `"runge-kutta"` by Runge-Kutta steps of one order less, at 1
            to 3 evaluations more each, which keeps it.
        lower_order_final: Whether the order falls to 1 over the last steps of the grid (diffusers does so by default).
        final: How a step to noise level 0 ends, one of `FINALS`.
        sigma_min: With `final="local"`, lowest noise level at which the denoiser may be asked: for a network, the
            lowest that it was trained at; 0 for an exact denoiser.
        eta: Noise, for the quantity `denoised`; 0 is the probability flow, 1 the SDE solver of Lu et al. (2022,
            arXiv 2211.01095, section 5).
        sigma_data: Standard deviation of the data; 1 for standardised points.
        rho: Exponent of the variable `power`.

    Raises:
        ValueError: If a name is unknown, the order is not in 1..4, noise is asked for with another quantity, or a
            number is out of range.
    """

    remembers = True

    def __init__(
        self, order: int = 2, *, quantity: str = "denoised", variable: str = "log-sigma", corrector: bool = False,
        rule: str = "exact", start: str = "ramp", lower_order_final: bool = False, final: str = "denoise",
        sigma_min: float = 0.0, eta: float = 0.0, sigma_data: float = 1.0, rho: float = 7.0,
    ) -> None:  # fmt: skip
        super().__init__(final=final)
        for kind, name, known in (
            ("quantity", quantity, QUANTITIES), ("variable", variable, VARIABLES), ("start", start, STARTS),
            ("rule", rule, RULES),
        ):  # fmt: skip
            if name not in known:
                raise unknown_name(kind, name, known)
        if order not in (1, 2, 3, 4):
            raise ValueError(f"the order of a multistep method must be 1, 2, 3 or 4, got {order!r}")
        if eta < 0 or (eta and (quantity != "denoised" or corrector or start != "ramp")):
            raise ValueError(
                f"eta must be 0, or above it with the quantity 'denoised', no corrector and start 'ramp', got {eta}"
            )
        if not (sigma_data > 0 and rho > 0):
            raise ValueError(f"sigma_data and rho must be positive, got {sigma_data} and {rho}")
        if not 0 <= sigma_min < math.inf:
            raise ValueError(f"sigma_min must be 0 or above it, got {sigma_min}")
        self.points, self.sigma_min = order, float(sigma_min)
        self.form = Form(quantity, variable, float(sigma_data), float(rho), float(eta))
        self.corrector, self.rule, self.start = corrector, rule, start
        self.lower_order_final = lower_order_final
        self.noises = 1 if eta else 0

    @property
    def order(self) -> float:
        """Order of the global error, the cap by the start included; of the weak error where there is noise."""
        full = self.points + self.corrector
        if self.rule == "half-curvature":
            full = min(full, 2)
        if self.form.eta:  # of the moments of a Gaussian; the equation's noise lets no value tell more
            return min(full, 2)
        return full if self.start == "runge-kutta" else min(full, 2 + self.corrector)

    def initial_state(self, sigmas: list[float]) -> History:
        """Return the empty history."""
        return History(num_steps=len(sigmas) - 1)

    def _starter(self) -> str:
        return {1: "euler", 2: "midpoint", 3: "kutta3", 4: "rk4"}[max(1, self.points + self.corrector - 1)]

    def _points(self, history: History) -> int:
        """Return how many values the step uses."""
        points = min(self.points, history.steps + 1)
        if self.lower_order_final and history.num_steps is not None:
            points = min(points, history.num_steps - history.steps)
        return points

    def _corrected(self, x: Tensor, sigma: float, value: Tensor, history: History) -> Tensor:
        """Return the points at `sigma`, integrated again with the value there."""
        if history.x is None or not history.correctable:
            return x
        before = history.sigmas[0]
        nodes, values = (sigma, *history.sigmas), (value, *history.values)
        factor, weights = self.form.weights(before, sigma, nodes, self.rule)
        return combine(history.x, factor, weights, values)

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the history."""
        history = History() if state is None else state
        level, below = float(sigma), float(sigma_next)
        denoised = denoiser(x, sigma)
        value = self.form.value(x, denoised, level)
        if self.corrector:
            x = self._corrected(x, level, value, history)
        local = self.final == "local"
        eps = (x - denoised) / level if local else None
        if below == 0:
            if eps is not None and history.eps is not None:
                before = history.sigmas[0], history.eps
                return land_locally(x, denoised, level, eps, *before, self.sigma_min), history
            return self.land(x, denoised), history
        points = self._points(history)
        nodes, values = (level, *history.sigmas)[:points], (value, *history.values)[:points]
        starting = self.start == "runge-kutta" and history.steps + 1 < self.points
        if starting:
            tableau = TABLEAUS[self._starter()]
            x_next = runge_kutta(tableau, denoiser, x, sigma, sigma_next, (x - denoised) / level)
        else:
            factor, weights = self.form.weights(level, below, nodes, self.rule)
            x_next = combine(x, factor, weights, values)
            if self.noises:
                x_next = x_next + self.form.noise_level(level, below) * noises_of(noise, 1)[0]
        kept = (level, *history.sigmas)[: self.points], (value, *history.values)[: self.points]
        used = kept if starting else (nodes, values)
        correctable = self.corrector and not starting
        return x_next, History(
            *(used if correctable else kept), x if correctable else None, history.steps + 1, history.num_steps,
            correctable, eps,
        )  # fmt: skip


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Lu et al. (2022), arXiv 2211.01095: the middle of the line stands for it, as published; order 3 by exact weights.
    "dpmpp-2m": {"order": 2, "rule": "midpoint"},
    "dpmpp-3m": {"order": 3, "start": "runge-kutta"},
    "dpmpp-3m-stock": {"order": 3, "rule": "half-curvature"},
    # Zhao et al. (2023), arXiv 2302.04867; the published one starts by the ramp and takes B(h) = e^h - 1.
    "unipc-1": {"order": 1, "corrector": True, "rule": "midpoint"},
    "unipc-2": {"order": 2, "corrector": True, "rule": "midpoint"},
    "unipc-3": {"order": 3, "corrector": True, "rule": "midpoint", "start": "runge-kutta"},
    # Zhang and Chen (2023), arXiv 2204.13902: tAB in the variable log sigma, which is exponential Adams-Bashforth.
    "deis-2": {"order": 2, "quantity": "eps"},
    "deis-3": {"order": 3, "quantity": "eps", "start": "runge-kutta"},
    "deis-4": {"order": 4, "quantity": "eps", "start": "runge-kutta"},
    # Adams-Bashforth on uneven grids in sigma, the LMS of Liu et al. (2022), arXiv 2202.09778, and k-diffusion.
    "lms-2": {"order": 2, "quantity": "eps", "variable": "sigma"},
    "lms-3": {"order": 3, "quantity": "eps", "variable": "sigma", "start": "runge-kutta"},
    "lms-4": {"order": 4, "quantity": "eps", "variable": "sigma", "start": "runge-kutta"},
    # The network's own output along the angle, in which data of one Gaussian are solved exactly.
    "angular-2": {"order": 2, "quantity": "F", "variable": "atan"},
    "angular-3": {"order": 3, "quantity": "F", "variable": "atan", "start": "runge-kutta"},
    "angular-4": {"order": 4, "quantity": "F", "variable": "atan", "start": "runge-kutta"},
    # Lu et al. (2022), arXiv 2211.01095, section 5, in the form of Crowson's sample_dpmpp_2m_sde.
    "sde-dpmpp-1": {"order": 1, "eta": 1.0},
    "sde-dpmpp-2m": {"order": 2, "eta": 1.0, "rule": "midpoint"},
    "sde-dpmpp-3m-stock": {"order": 3, "eta": 1.0, "rule": "half-curvature"},
}
"""Published methods, and ours, as choices of the family."""
