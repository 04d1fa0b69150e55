r"""Anomalies of a row: each value compared with its conditional distribution given the other columns.

Along the line on which only column j changes, the density of the model is the conditional density of the column given
the others, up to a factor:

.. math:: p(x_j \mid x_{-j}) = \frac{p(x_j, x_{-j})}{\int p(t, x_{-j}) \, dt} .

It is evaluated on a grid over the range of the data, which is refined twice where the density is high, and integrated
by the trapezoidal rule. Nothing is sampled. The size of an anomaly is the number of nats that the row would gain with
the most likely value in that column; in a row with one wrong value the wrong column gains most.
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
class Anomaly:
    """A value of a row and its conditional distribution given the other columns.

    Args:
        column: Name of the column.
        value: Value of the row, in the units of the column, like the next three.
        expected: Most likely value given the other columns, within the range of the data.
        low: Conditional quantile at 5 %.
        high: Conditional quantile at 95 %.
        gain: Nats that the row would gain with the most likely value in this column.
        p_value: Two-sided tail probability of the value, given the other columns.
    """

    column: str
    value: float
    expected: float
    low: float
    high: float
    gain: float
    p_value: float

    def __str__(self) -> str:
        expected = f"{self.expected:.4g} (90 % within {self.low:.4g} to {self.high:.4g})"
        return f"{self.column} = {self.value:.6g}, expected {expected}, {self.gain:.1f} nats"


def anomalies(model: DiffusionModel, rows: Any, *, labels: Any = None) -> list[list[Anomaly]]:
    """Return the columns of each row with their conditional distributions, the most anomalous first.

    Args:
        model: The model.
        rows: Rows in the user's own units, shape `(N, D)`; an array or a data frame.
        labels: A class for all rows, or one for each, shape `(N,)`: the density is then that of the class.

    Returns:
        A list per row of D anomalies, by decreasing `gain`.

    Raises:
        ValueError: If the table does not fit or holds NaN.

    Examples:
        >>> import pointdiffusion as ptd
        >>> x = np.random.default_rng(0).normal(size=(200, 1))
        >>> model = ptd.fit(np.hstack([x, x]), ptd.TrainingConfig(epochs=1), seed=0)
        >>> [first, second] = anomalies(model, [[1.0, -1.0]])[0]
        >>> sorted([first.column, second.column]), first.gain >= second.gain
        (['x', 'y'], True)
    """
    points, scale = as_points(rows), model.standardiser
    z = scale.transform(points)
    each = None if labels is None else np.repeat(np.broadcast_to(np.asarray(labels), len(points)), model.n_dims)

    def log_density(lines: Array) -> Array:
        """Return log-densities along lines of points in standard units, shape `(L, M, D)` to `(L, M)`."""
        given = None if each is None else np.repeat(each, lines.shape[1])
        table = scale.inverse(lines.reshape(-1, model.n_dims))
        return model.log_prob(table, labels=given, num_steps=NUM_STEPS).reshape(lines.shape[:2])

    result = conditionals(log_density, z)
    by_row = []
    for row, values in enumerate(points):
        columns = []
        for j, name in enumerate(model.columns):
            in_z = np.array([result.modes[row, j], *result.quantiles[row, j]])
            expected, low, high = map(float, in_z * scale.scale[j] + scale.mean[j])
            gain, p_value = result.gains[row, j], result.p_values[row, j]
            columns.append(Anomaly(name, float(values[j]), expected, low, high, float(gain), float(p_value)))
        by_row.append(sorted(columns, key=lambda anomaly: -anomaly.gain))
    return by_row


@dataclass(frozen=True)
class Conditionals:
    """The conditional distribution of each column given the others, in standard units.

    Args:
        modes: The most likely value, shape `(N, D)`.
        quantiles: Quantiles at 5 % and 95 %, shape `(N, D, 2)`.
        gains: Nats from the row's value to the most likely one, shape `(N, D)`.
        p_values: Two-sided tail probability of the row's value, shape `(N, D)`.
    """

    modes: Array
    quantiles: Array
    gains: Array
    p_values: Array


def conditionals(log_density: Callable[[Array], Array], z: Array) -> Conditionals:
    """Return the conditional distribution of each column of rows given the others, from a density alone.

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
    levels = np.array([0.05, 0.95])
    quantiles = np.stack([_quantile(t, v, levels) for t, v in zip(nodes, values, strict=True)])
    below = np.array([np.interp(x, t, _cdf(t, v)) for x, t, v in zip(own, nodes, values, strict=True)])
    modes = np.take_along_axis(nodes, values.argmax(axis=1)[:, None], axis=1)
    gains, tails = values.max(axis=1) - at_own, 2 * np.minimum(below, 1 - below)
    shape = (n, d)
    return Conditionals(
        modes.reshape(shape), quantiles.reshape(n, d, 2), gains.reshape(shape), tails.reshape(shape).clip(0, 1)
    )


def _lines(z: Array, nodes: Array) -> Array:
    """Return rows with one column at a time set to the nodes, shape `(N * D, M, D)`."""
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
