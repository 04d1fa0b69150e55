r"""Densities of segments, circles and arcs under Gaussian noise, and entropies by quadrature.

A point spread along a curve :math:`c(t)` with the density :math:`w(t)` and moved by noise of standard deviation
:math:`s` has in the plane the density

.. math:: p(x) = \int w(t) \, N(x; c(t), s^2 I) \, dt .

On a segment this is a difference of two normal distribution functions, on a circle of radius :math:`r` a Bessel
function, :math:`p(x) = e^{-(|x|^2 + r^2) / 2 s^2} I_0(r |x| / s^2) / 2 \pi s^2`. On other arcs it is integrated by the
rule of Gauss and Legendre with 16 nodes on each of equal panels, none longer than :math:`2 s` or half a radian. The
nodes do not depend on the points. Within ten standard deviations of the curve, the logarithm is good to 1e-9; further
out the integrand falls within a panel by more than the rule can follow, and the error grows to 1e-4 of the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pointdiffusion.runtime.arrays import Array

PAIRS = 2**22
"""Number of pairs of points and nodes that are held in memory at once."""

TAIL = 9.0
"""Standard deviations at which a Gaussian ends for quadrature: 1e-19 of it lies beyond."""

MOST_CELLS = 2**20
"""Largest number of cells of a grid on which an entropy is computed."""


def require_noise(noise: float) -> None:
    """Raise a ValueError unless there is noise, without which points on a curve or in a dot have no density.

    Args:
        noise: Standard deviation of the noise.

    Raises:
        ValueError: If it is 0.
    """
    if noise == 0:
        raise ValueError("without noise the points lie on a set of area 0, so there is no density; pass noise > 0")


def by_rows(function: Callable[[Array], Array], points: Array, width: int) -> Array:
    """Return `function(points)`, computed for some rows at a time so that memory stays bounded.

    Args:
        function: From points `(b, D)` to numbers `(b,)`.
        points: Points, shape `(B, D)`.
        width: Numbers that the function holds in memory for each row.

    Returns:
        Numbers, shape `(B,)`.
    """
    rows = max(1, PAIRS // width)
    parts = [function(points[start : start + rows]) for start in range(0, len(points), rows)]
    return np.concatenate(parts) if parts else np.zeros(0)


def log_sum_exp(exponents: Array) -> Array:
    """Return the logarithm of the sum of exponentials along the last axis.

    Args:
        exponents: Numbers, shape `(..., K)`, possibly minus infinity.

    Returns:
        Logarithms, shape `(...)`; minus infinity where all exponents are.
    """
    top = exponents.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(exponents - top).sum(axis=-1)) + top[..., 0]


def log_uniform(x: Array, low: float, high: float, noise: float) -> Array:
    """Return the log-density of a uniform number between `low` and `high` plus Gaussian noise.

    Args:
        x: Numbers, any shape.
        low: Lower end.
        high: Upper end.
        noise: Standard deviation of the noise; 0 for none.

    Returns:
        Log-densities in nats, of the shape of `x`.
    """
    from scipy.special import log_ndtr

    if noise == 0:
        return np.where((low <= x) & (x < high), -math.log(high - low), -np.inf)
    near, far = np.abs(x - (low + high) / 2) + np.array([-1.0, 1.0]).reshape(2, *[1] * x.ndim) * (high - low) / 2
    # Phi(-near) - Phi(-far) of logarithms: both tails are on one side, where nothing cancels.
    above, below = log_ndtr(-near / noise), log_ndtr(-far / noise)
    return above + np.log(-np.expm1(below - above)) - math.log(high - low)


def log_circles(points: Array, radii: Array, noise: float) -> Array:
    """Return the log-density of an equal mixture of circles around 0, uniform on each, plus Gaussian noise.

    Args:
        points: Points, shape `(B, 2)`.
        radii: Radii of the circles, shape `(K,)`.
        noise: Standard deviation of the noise, positive.

    Returns:
        Log-densities in nats, shape `(B,)`.
    """
    from scipy.special import i0e

    require_noise(noise)
    distance = np.linalg.norm(points, axis=1)[:, None]
    # i0e is the Bessel function times exp(-argument), which turns the exponent into a square.
    each = np.log(i0e(distance * radii / noise**2)) - (distance - radii) ** 2 / (2 * noise**2)  # (B, K)
    return log_sum_exp(each) - math.log(2 * math.pi * noise**2 * len(radii))


def uniform_entropy(length: float, noise: float) -> float:
    """Return the entropy of a uniform number from an interval plus Gaussian noise.

    Args:
        length: Length of the interval.
        noise: Standard deviation of the noise, positive.

    Returns:
        Entropy in nats.
    """
    low, high = np.array([-TAIL * noise]), np.array([length + TAIL * noise])
    return grid_entropy(lambda x: log_uniform(x[:, 0], 0.0, length, noise), low, high, noise)


@dataclass(frozen=True)
class Arc:
    """A part of a curve in the plane, with the density of its parameter.

    Args:
        start: Lowest parameter t, an angle in radians.
        stop: Highest parameter.
        position: From t, shape `(M,)`, to points, shape `(M, 2)`; smooth.
        speed: Upper bound of the length of the derivative of `position`.
        weight: Density of t, a number or `(M,)` to `(M,)`; it integrates to the share of the arc in the whole set.
    """

    start: float
    stop: float
    position: Callable[[Array], Array]
    speed: float
    weight: float | Callable[[Array], Array]

    def nodes(self, noise: float) -> tuple[Array, Array]:
        """Return nodes and weights with which the density under noise is a sum of Gaussians.

        Args:
            noise: Standard deviation of the noise, positive.

        Returns:
            Nodes in the plane, shape `(M, 2)`, and weights, shape `(M,)`.
        """
        at, weights = panel_rule(self.start, self.stop, min(2 * noise / self.speed, 0.5))
        return self.position(at), weights * (self.weight(at) if callable(self.weight) else self.weight)


def panel_rule(start: float, stop: float, longest: float) -> tuple[Array, Array]:
    """Return a composite Gauss-Legendre rule with 16 nodes on each of equal panels.

    Args:
        start: Lower end of the interval.
        stop: Upper end.
        longest: Largest length of a panel.

    Returns:
        Nodes and weights, each of shape `(M,)`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.linspace(start, stop, math.ceil((stop - start) / longest) + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def log_arcs(points: Array, arcs: Sequence[Arc], noise: float) -> Array:
    """Return the log-density of points on arcs plus Gaussian noise; the module states how exact it is.

    Args:
        points: Points, shape `(B, 2)`.
        arcs: The arcs, whose weights sum to one.
        noise: Standard deviation of the noise, positive; time and memory grow with its inverse.

    Returns:
        Log-densities in nats, shape `(B,)`.

    Raises:
        ValueError: If the noise is 0.
    """
    require_noise(noise)
    parts = [arc.nodes(noise) for arc in arcs]
    centres, log_weights = np.concatenate([part[0] for part in parts]), np.log(np.concatenate([p[1] for p in parts]))
    scaled = centres / noise

    def rows(some: Array) -> Array:
        x, y = (some / noise).T[..., None]  # (B, 1)
        squares = (x - scaled[:, 0]) ** 2 + (y - scaled[:, 1]) ** 2  # (B, M)
        return log_sum_exp(log_weights - squares / 2)

    return by_rows(rows, points, len(centres)) - math.log(2 * math.pi * noise**2)


def grid_entropy(log_density: Callable[[Array], Array], low: Array, high: Array, width: float) -> float:
    """Return the entropy of a density by the trapezoid rule.

    The rule converges exponentially on a smooth function that vanishes at the border. Its step is half of `width`.

    Args:
        log_density: From points, shape `(B, D)`, to the log-density, shape `(B,)`.
        low: Lower corner of a box outside which there is nothing, shape `(D,)`.
        high: Its upper corner, shape `(D,)`.
        width: Standard deviation of the narrowest Gaussian in the density.

    Returns:
        Entropy in nats.

    Raises:
        ValueError: If the grid would be too large.
    """
    counts = np.ceil((high - low) / (width / 2)) + 1
    if counts.prod() > MOST_CELLS:
        raise ValueError(
            f"the grid for this entropy would have {counts.prod():.0e} cells; "
            "estimate it by the mean of -log_prob over many points, or pass a larger noise"
        )
    sides = [np.linspace(a, b, int(n)) for a, b, n in zip(low, high, counts, strict=True)]
    cells = np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], axis=1)
    log_p = log_density(cells)
    cell = np.prod([side[1] - side[0] for side in sides])
    return float(-(np.exp(log_p) * np.where(np.isfinite(log_p), log_p, 0.0)).sum() * cell)
