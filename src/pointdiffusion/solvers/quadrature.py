r"""The linear part of the flow, solved exactly; what remains, integrated as a polynomial.

The probability flow has forms in which only one quantity :math:`q`, a mixture of :math:`x` and :math:`D`, is left on
the right-hand side:

.. math:: d\,(x / r(\sigma)) = q \, d\tau(\sigma) .

============ ============================= =========================== ================================
quantity     scale r                       time tau                    q
============ ============================= =========================== ================================
`eps`        1                             sigma                       (x - D) / sigma
`denoised`   sigma                         1 / sigma                   D
`velocity`   sigma_d + sigma               sigma / (sigma_d + sigma)   (x - D) / sigma - D / sigma_d
`F`          sqrt(sigma^2 + sigma_d^2)     atan(sigma / sigma_d)       -F, the output of Karras' network
============ ============================= =========================== ================================

If :math:`q` is a polynomial in some variable :math:`u(\sigma)` through values at known nodes, the step is
:math:`x' = (r' / r) x + \sum_j w_j q_j` with weights :math:`w_j = r' \int \ell_j(u) \, d\tau` that depend on the grid
alone. They are integrated here once a grid, by Gauss-Legendre quadrature that is exact to rounding.

With `eta` above 0 the `denoised` form becomes that of the stochastic equation (Lu et al. 2022, arXiv 2211.01095,
section 5): scale :math:`\sigma^{1 + \eta}`, and noise of variance :math:`\sigma'^2 (1 - (\sigma' / \sigma)^{2 \eta})`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pointdiffusion.runtime.arrays import Array

QUANTITIES = ("eps", "denoised", "velocity", "F")
"""What may be interpolated."""

VARIABLES: dict[str, Callable[[Array, float, float], Array]] = {
    "log-sigma": lambda s, _sigma_data, _rho: np.log(s),
    "sigma": lambda s, _sigma_data, _rho: s,
    "atan": lambda s, sigma_data, _rho: np.arctan(s / sigma_data),
    "flow": lambda s, sigma_data, _rho: s / (s + sigma_data),
    "power": lambda s, _sigma_data, rho: s ** (1 / rho),
}
"""Variable of the polynomial, as functions of (sigma, sigma_data, rho)."""

RULES = ("exact", "midpoint", "half-curvature")
"""How the polynomial is integrated: exactly; a line by its value in the middle of the step; a parabola with half its
curvature."""

GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(40)
"""Nodes and weights of the Gauss-Legendre rule; exact to rounding for a step over a factor of 1000 in sigma."""


@dataclass(frozen=True)
class Form:
    """One of the forms of the flow, and the variable in which its quantity is taken for a polynomial.

    Args:
        quantity: One of `QUANTITIES`.
        variable: A name of `VARIABLES`.
        sigma_data: Standard deviation of the data, the only scale in `velocity`, `F`, `atan` and `flow`.
        rho: Exponent of the variable `power`.
        eta: Share of noise, for `denoised` alone; 0 is the probability flow.
    """

    quantity: str
    variable: str
    sigma_data: float = 1.0
    rho: float = 7.0
    eta: float = 0.0

    def value(self, x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
        """Return the quantity at points, shape `(B, D)`."""
        if self.quantity == "denoised":
            return denoised
        if self.quantity == "eps":
            return (x - denoised) / sigma
        scale = self.sigma_data
        if self.quantity == "velocity":
            return (x - (1 + sigma / scale) * denoised) / sigma
        root = math.hypot(sigma, scale)
        return ((scale / root) * x - (root / scale) * denoised) / sigma

    def scale(self, sigma: float) -> float:
        """Return r."""
        d = self.sigma_data
        return {
            "eps": 1.0, "denoised": sigma ** (1 + self.eta), "velocity": d + sigma, "F": math.hypot(sigma, d),
        }[self.quantity]  # fmt: skip

    def _density(self, s: Array, sigma_next: float) -> Array:
        """Return r' times d tau / d log s."""
        d = self.sigma_data
        if self.quantity == "denoised":
            return -(1 + self.eta) * (sigma_next / s) ** (1 + self.eta)
        if self.quantity == "eps":
            return s
        bottom = (d + s) ** 2 if self.quantity == "velocity" else s**2 + d**2
        return self.scale(sigma_next) * d * s / bottom

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (forms are values, few and small)
    def weights(
        self, sigma: float, sigma_next: float, nodes: tuple[float, ...], rule: str = "exact"
    ) -> tuple[float, tuple[float, ...]]:
        """Return the factor of x and the weights of the quantity at the nodes, for a step to `sigma_next` above 0.

        Args:
            sigma: Noise level at which the step starts.
            sigma_next: Noise level at which it ends.
            nodes: Noise levels at which the quantity is known, the one at `sigma` first.
            rule: One of `RULES`.
        """
        low, high = math.log(sigma_next), math.log(sigma)
        s = np.exp((low + high) / 2 + (high - low) / 2 * GAUSS_NODES)
        mass = -(high - low) / 2 * GAUSS_WEIGHTS * self._density(s, sigma_next)  # minus: from sigma down to sigma_next
        u, points, ends = map(self._variable, (s, np.array(nodes), np.array([sigma, sigma_next])))
        if rule == "midpoint" and len(nodes) == 2:
            u, mass = ends.mean(keepdims=True), mass.sum(keepdims=True)
        weights = []
        for j, node in enumerate(points):
            others = np.delete(points, j)
            basis = np.prod((u[:, None] - others) / (node - others), axis=1)
            if rule == "half-curvature" and len(nodes) == 3:
                basis -= (u - points[0]) ** 2 / (2 * np.prod(node - others))
            weights.append(float(mass @ basis))
        return self.scale(sigma_next) / self.scale(sigma), tuple(weights)

    def _variable(self, s: Array) -> Array:
        """Return the polynomial's variable at noise levels."""
        return VARIABLES[self.variable](s, self.sigma_data, self.rho)

    def noise_level(self, sigma: float, sigma_next: float) -> float:
        """Return the standard deviation of the noise that a step adds."""
        return sigma_next * math.sqrt(-math.expm1(2 * self.eta * math.log(sigma_next / sigma))) if self.eta else 0.0


def combine(x: Tensor, factor: float, weights: tuple[float, ...], values: tuple[Tensor, ...]) -> Tensor:
    """Return `factor x + sum of weights times values`."""
    x = x * factor
    for weight, value in zip(weights, values, strict=True):
        x.add_(value, alpha=weight)
    return x
