r"""What is unusual about a row: each column against what the others say of it.

Along the line on which only column j changes, the density of the model is that of the column given the others, up to a
factor:

.. math:: p(x_j \mid x_{-j}) = \frac{p(x_j, x_{-j})}{\int p(t, x_{-j}) \, dt} .

It is taken on a grid over the range of the data that is made finer, twice, where the density is, and integrated by the
trapezoidal rule. Nothing is drawn and nothing but the density is asked for. A column is unusual by how many nats the
row would gain if it were what the others make most likely; in a row with one wrong value the wrong column gains most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points

if TYPE_CHECKING:
    from pointdiffusion.model.diffusion_model import DiffusionModel

REACH = 4.0
"""Standard deviations on each side of the mean that a line covers at least."""

NODES, REFINEMENTS, NUM_STEPS = 33, 2, 24


@dataclass(frozen=True)
class Surprise:
    """A value and what the other columns say of it.

    Args:
        column: Name of the column.
        value: The row's own value.
        expected: Its most likely value given the others, within the range of the data.
        low: Its quantile at 5 %.
        high: Its quantile at 95 %.
        gain: Nats that the row would gain with the most likely value in this column.
        p_value: Probability of a value so far out, on either side, given the others.
    """

    column: str
    value: float
    expected: float
    low: float
    high: float
    gain: float
    p_value: float

    def __str__(self) -> str:
        said = f"{self.expected:.4g}, 90 % within {self.low:.4g} to {self.high:.4g}"
        return f"{self.column} = {self.value:.6g}, where the others say {said} ({self.gain:.1f} nats)"


def unusual(model: DiffusionModel, rows: Any, *, labels: Any = None) -> list[list[Surprise]]:
    """Return for each row its columns, the most unusual first.

    Args:
        model: The model.
        rows: Rows in the user's own units, shape `(N, D)`.
        labels: A class for all rows, or one for each: the density is then that of the class.

    Raises:
        ValueError: If the table does not fit or holds NaN.
    """
    points, scale = as_points(rows), model.standardiser
    z = scale.transform(points)
    each = None if labels is None else np.repeat(np.broadcast_to(np.asarray(labels), len(points)), model.n_dims)

    def log_density(lines: Array) -> Array:
        """Return log-densities along lines of points in standard units, shape `(L, M, D)` to `(L, M)`."""
        given = None if each is None else np.repeat(each, lines.shape[1])
        table = scale.inverse(lines.reshape(-1, model.n_dims))
        return model.log_prob(table, labels=given, num_steps=NUM_STEPS).reshape(lines.shape[:2])

    found = conditionals(log_density, z)
    names, out = model.columns, []
    for row, values in enumerate(points):
        mine = []
        for j, name in enumerate(names):
            here = np.array([found.modes[row, j], *found.quantiles[row, j]])
            expected, low, high = map(float, here * scale.scale[j] + scale.mean[j])
            gain, p_value = found.gains[row, j], found.p_values[row, j]
            mine.append(Surprise(name, float(values[j]), expected, low, high, float(gain), float(p_value)))
        out.append(sorted(mine, key=lambda surprise: -surprise.gain))
    return out


@dataclass(frozen=True)
class Conditionals:
    """The distribution of each column given the others.

    Args:
        modes: The most likely value, shape `(N, D)`.
        quantiles: Quantiles at 5 % and 95 %, shape `(N, D, 2)`.
        gains: Nats from the row's own value to the most likely one, shape `(N, D)`.
        p_values: Two-sided tail probability of the own value, shape `(N, D)`.
    """

    modes: Array
    quantiles: Array
    gains: Array
    p_values: Array


def conditionals(log_density: Callable[[Array], Array], z: Array) -> Conditionals:
    """Return the distribution of each column of rows given the others, from a density alone.

    Args:
        log_density: Log-densities along lines, shape `(L, M, D)` to `(L, M)`.
        z: Rows in standard units, shape `(N, D)`.
    """
    n, d = z.shape
    own = z.reshape(-1)  # line i * d + j is row i with column j changing
    line = np.linspace(0, 1, NODES)
    low, high = np.minimum(-REACH, own - 1), np.maximum(REACH, own + 1)
    nodes = np.concatenate([own[:, None], low[:, None] + line * (high - low)[:, None]], axis=1)  # (L, M)
    values = log_density(_lines(z, nodes))
    at_own = values[:, 0]
    nodes, values = _sorted(nodes, values)
    for _ in range(REFINEMENTS):
        targets = (np.arange(NODES) + 0.5) / NODES
        more = np.stack([_quantile(t, v, targets) for t, v in zip(nodes, values, strict=True)])
        nodes, values = _sorted(
            np.concatenate([nodes, more], axis=1), np.concatenate([values, log_density(_lines(z, more))], axis=1)
        )
    wanted = np.array([0.05, 0.95])
    quantiles = np.stack([_quantile(t, v, wanted) for t, v in zip(nodes, values, strict=True)])
    below = np.array([np.interp(x, t, _cdf(t, v)) for x, t, v in zip(own, nodes, values, strict=True)])
    modes = np.take_along_axis(nodes, values.argmax(axis=1)[:, None], axis=1)
    gains, tails = values.max(axis=1) - at_own, 2 * np.minimum(below, 1 - below)
    shape = (n, d)
    return Conditionals(
        modes.reshape(shape), quantiles.reshape(n, d, 2), gains.reshape(shape), tails.reshape(shape).clip(0, 1)
    )


def _lines(z: Array, nodes: Array) -> Array:
    """Return rows with one column at a time put to the nodes, shape `(N * D, M, D)`."""
    n, d = z.shape
    lines = np.repeat(z, d, axis=0)[:, None, :].repeat(nodes.shape[1], axis=1)
    lines[np.arange(n * d), :, np.tile(np.arange(d), n)] = nodes
    return lines


def _sorted(nodes: Array, values: Array) -> tuple[Array, Array]:
    order = nodes.argsort(axis=1, kind="stable")
    return np.take_along_axis(nodes, order, axis=1), np.take_along_axis(values, order, axis=1)


def _cdf(nodes: Array, values: Array) -> Array:
    density = np.exp(values - values.max())
    mass = np.concatenate([[0.0], np.cumsum(np.diff(nodes) * (density[1:] + density[:-1]) / 2)])
    return mass / max(mass[-1], 1e-300)


def _quantile(nodes: Array, values: Array, targets: Array) -> Array:
    return np.interp(targets, _cdf(nodes, values), nodes)
