"""The explanation of one row by a model: its likelihood, nearest training rows, trajectory and anomalies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.diagnostics.anomaly import Anomaly, anomalies
from pointdiffusion.likelihood import density as likelihood
from pointdiffusion.model.conditions import Known
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.model.flow import Flow
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.deprecation import renamed_attribute, warn_of_attribute
from pointdiffusion.tabular.points import as_points

MAX_COMPARED = 512
"""Most training rows whose likelihood the row's is compared with."""

NUM_LEVELS = 7
"""Noise levels of the trajectory that are shown."""


class Neighbour(NamedTuple):
    """A training row near a row.

    Args:
        row: Its index among the training rows.
        distance: Euclidean distance in standard deviations of the columns.
        values: The training row in its own units, shape `(D,)`.
    """

    row: int
    distance: float
    values: Array

    @property
    def place(self) -> int:
        """Deprecated: use `row`."""
        warn_of_attribute("Neighbour", "place", "row")
        return self.row


@dataclass(frozen=True)
class Explanation:
    """The explanation of one row.

    Args:
        columns: Names of the D columns.
        values: The row in its own units, shape `(D,)`.
        log_prob: Log-density in nats, in the user's own units.
        error: Numerical error of `log_prob` in nats, as the density of this model: of the solver's steps, and of the
            Gaussian prior. It does not bound the distance of the model from the population.
        less_likely: Share of the training rows that are less likely; None without training rows.
        latent: Latent point of the row under the flow, standard normal if the model is right, shape `(D,)`.
        latent_p_value: Probability of a latent point at least as far out, by the chi-squared distribution.
        path: Trajectory from the latent point to the row: noise levels in standard deviations of the data, and points
            in the user's own units, shape `(D,)` each.
        neighbours: The nearest training rows.
        anomalies: The columns, the most anomalous first.
    """

    columns: list[str]
    values: Array
    log_prob: float
    error: float
    less_likely: float | None
    latent: Array
    latent_p_value: float
    path: list[tuple[float, Array]]
    neighbours: list[Neighbour]
    anomalies: list[Anomaly]

    unusual = renamed_attribute("unusual", "anomalies")

    def __str__(self) -> str:
        lines = ["row: " + ", ".join(f"{n} {v:.6g}" for n, v in zip(self.columns, self.values, strict=True))]
        lines.append(f"log_prob: {self.log_prob:.3f} ± {self.error:.1g} nats (numerical error)")
        if self.less_likely is not None:
            lines.append(f"less likely than this row: {self.less_likely:.1%} of the training rows")
        lines.append("")
        if self.neighbours:
            lines.append("nearest training rows, distance in standard deviations of the columns:")
            lines += [
                f"  {each.distance:8.3f}  row {each.row}: " + " ".join(f"{value:.6g}" for value in each.values)
                for each in self.neighbours
            ]
            lines.append("")
        lines.append("trajectory from the latent point, noise level in standard deviations of the data:")
        lines += [f"  {sigma:8.3g}  " + " ".join(f"{value:.6g}" for value in point) for sigma, point in self.path]
        shown = " ".join(f"{value:.2f}" for value in self.latent)
        lines += [f"latent point: {shown} (p = {self.latent_p_value:.2g})", ""]
        lines.append("anomalies, each value given the other columns, by the nats that the row would gain:")
        lines += [f"  {each}, p = {each.p_value:.2g}" for each in self.anomalies]
        return "\n".join(lines)


def explain(
    model: DiffusionModel, row: Any, *, training: Any = None, labels: Any = None, num_neighbours: int = 5
) -> Explanation:
    """Explain one row: its likelihood, nearest training rows, trajectory and anomalies.

    Args:
        model: The model.
        row: The row in the user's own units, shape `(D,)` or `(1, D)`.
        training: Rows that the model was trained on, shape `(N, D)`, for neighbours and comparison.
        labels: Class of the row: the density is then that of the class.
        num_neighbours: Number of training rows to list.

    Returns:
        The explanation; `str()` of it is a page of text.

    Raises:
        ValueError: If the row or the table does not fit, or holds NaN.

    Examples:
        >>> import pointdiffusion as ptd
        >>> points = np.random.default_rng(0).normal(size=(200, 2))
        >>> model = ptd.fit(points, ptd.TrainingConfig(epochs=1), seed=0)
        >>> explanation = explain(model, points[7], training=points, num_neighbours=2)
        >>> explanation.neighbours[0].row, explanation.latent.shape, len(explanation.anomalies)
        (7, (2,), 2)
    """
    values = as_points(np.atleast_2d(np.asarray(row, dtype=np.float64)))
    if len(values) != 1:
        raise ValueError(f"one row is explained at a time, got {len(values)}")
    z = model.standardiser.transform(values)
    flow, x = model.flow, torch.from_numpy(z)
    condition = flow.known(1, labels)
    density = likelihood.log_prob_with_errors(flow.bound(condition), x.to(flow.like), **flow.ends(1, condition))
    error = float(density.solver_error + density.end_error / 8)  # an eighth of it remains, see `LogProb`
    log_prob = float(model.log_prob(values, labels=labels)[0])  # of the whole model, its mixture component included
    neighbours, less_likely = [], None
    if training is not None:
        rows = as_points(training)
        distances = np.linalg.norm(model.standardiser.transform(rows) - z, axis=1)
        nearest = distances.argsort(kind="stable")[:num_neighbours]
        neighbours = [Neighbour(int(index), float(distances[index]), rows[index]) for index in nearest]
        compared = rows[:: -(-len(rows) // MAX_COMPARED)]
        less_likely = float((model.log_prob(compared) < log_prob).mean()) if labels is None else None
    latent = model.latent(values, labels=labels)[0]
    chi2 = torch.distributions.Chi2(torch.tensor(float(len(latent)), dtype=torch.float64))
    p_value = 1 - float(chi2.cdf(torch.tensor(float(latent @ latent), dtype=torch.float64)))
    levels = np.geomspace(flow.sigma_max, flow.sigma_min, NUM_LEVELS)
    path = [(float(s), model.standardiser.inverse(_at(flow, x, condition, float(s)))[0]) for s in levels]
    return Explanation(
        model.columns,
        values[0],
        log_prob,
        error,
        less_likely,
        latent,
        max(p_value, 0.0),
        path,
        neighbours,
        anomalies(model, values, labels=labels)[0],
    )


def _at(flow: Flow, x: Tensor, condition: Known, sigma: float) -> Tensor:
    """Return the point of the row's trajectory at a noise level."""
    if math.isclose(sigma, flow.sigma_min):
        return x
    return flow.carried(x, condition, flow.sigma_min, sigma, tolerance=1e-6)
