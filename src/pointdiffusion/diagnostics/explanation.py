"""One row in the eyes of a model: how likely it is, what it is like, where it comes from, what is unusual about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.diagnostics.anomaly import Surprise, unusual
from pointdiffusion.likelihood import density as likelihood
from pointdiffusion.model.conditions import Known
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.model.flow import Flow
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points

COMPARED = 512
"""Training rows at most whose likelihood a row's is compared with."""

LEVELS = 7
"""Noise levels that are shown of the path."""


class Neighbour(NamedTuple):
    """A training row near a row: its place among them, and its distance in standard deviations of the columns."""

    place: int
    distance: float
    values: Array


@dataclass(frozen=True)
class Explanation:
    """What a model says of one row.

    Args:
        columns: Names of the columns.
        values: The row, shape `(D,)`.
        log_prob: Its log-density in nats, in the user's own units.
        error: What the number may be off by as that of this model's density: by the steps of the solver, and by the
            Gaussian at the far end. It says nothing of how far the model is from the truth.
        less_likely: Share of the training rows that are less likely; None where there are none to compare with.
        latent: Where the flow takes the row, as standard normal numbers, shape `(D,)`.
        latent_p_value: Probability of a latent point so far out, by the chi-squared distribution.
        path: From the latent point to the row: noise level in standard deviations of the data, and point.
        neighbours: The nearest training rows.
        unusual: The columns, the most unusual first.
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
    unusual: list[Surprise]

    def __str__(self) -> str:
        lines = ["row: " + ", ".join(f"{n} {v:.6g}" for n, v in zip(self.columns, self.values, strict=True))]
        lines.append(f"log_prob: {self.log_prob:.3f} ± {self.error:.1g} nats, the error of the calculation alone")
        if self.less_likely is not None:
            lines.append(f"less likely than it: {self.less_likely:.1%} of the training rows")
        lines.append("")
        if self.neighbours:
            lines.append("nearest training rows, distance in standard deviations of the columns:")
            lines += [
                f"  {each.distance:8.3f}  row {each.place}: " + " ".join(f"{value:.6g}" for value in each.values)
                for each in self.neighbours
            ]
            lines.append("")
        lines.append("path from its latent point, noise level in standard deviations of the data:")
        lines += [f"  {sigma:8.3g}  " + " ".join(f"{value:.6g}" for value in point) for sigma, point in self.path]
        shown = " ".join(f"{value:.2f}" for value in self.latent)
        lines += [f"latent point: {shown} (further out by chance: p = {self.latent_p_value:.2g})", ""]
        lines.append("what is unusual, each column against what the others say of it, in nats that the row would gain:")
        lines += [f"  {each}, p = {each.p_value:.2g}" for each in self.unusual]
        return "\n".join(lines)


def explain(
    model: DiffusionModel, row: Any, *, training: Any = None, labels: Any = None, num_neighbours: int = 5
) -> Explanation:
    """Explain one row.

    Args:
        model: The model.
        row: The row in the user's own units, shape `(D,)` or `(1, D)`.
        training: The rows that the model was trained on, shape `(N, D)`, for neighbours and comparison.
        labels: The class of the row: the density is then that of the class.
        num_neighbours: How many training rows to name.

    Raises:
        ValueError: If the row or the table does not fit, or holds NaN.
    """
    values = as_points(np.atleast_2d(np.asarray(row, dtype=np.float64)))
    if len(values) != 1:
        raise ValueError(f"one row is explained at a time, got {len(values)}")
    z = model.standardiser.transform(values)
    flow, x = model.flow, torch.from_numpy(z)
    known = flow.known(1, labels)
    found = likelihood.log_prob_with_errors(flow.bound(known), x.to(flow.like), **flow.ends(1, known))
    error = float(found.solver_error + found.end_error / 8)  # an eighth of it is what is left, see `LogProb`
    log_prob = float(model.log_prob(values, labels=labels)[0])  # of the whole model, what it is mixed with included
    neighbours, less_likely = [], None
    if training is not None:
        rows = as_points(training)
        distances = np.linalg.norm(model.standardiser.transform(rows) - z, axis=1)
        nearest = distances.argsort(kind="stable")[:num_neighbours]
        neighbours = [Neighbour(int(place), float(distances[place]), rows[place]) for place in nearest]
        some = rows[:: -(-len(rows) // COMPARED)]
        less_likely = float((model.log_prob(some) < log_prob).mean()) if labels is None else None
    latent = model.latent(values, labels=labels)[0]
    far = torch.distributions.Chi2(torch.tensor(float(len(latent)), dtype=torch.float64))
    p_value = 1 - float(far.cdf(torch.tensor(float(latent @ latent), dtype=torch.float64)))
    levels = np.geomspace(flow.sigma_max, flow.sigma_min, LEVELS)
    path = [(float(s), model.standardiser.inverse(_at(flow, x, known, float(s)))[0]) for s in levels]
    surprises = unusual(model, values, labels=labels)[0]
    return Explanation(
        model.columns, values[0], log_prob, error, less_likely, latent, max(p_value, 0.0), path, neighbours, surprises
    )


def _at(flow: Flow, x: Tensor, known: Known, sigma: float) -> Tensor:
    """Return where the row is at a noise level of the flow."""
    if math.isclose(sigma, flow.sigma_min):
        return x
    return flow.carried(x, known, flow.sigma_min, sigma, tolerance=1e-6)
