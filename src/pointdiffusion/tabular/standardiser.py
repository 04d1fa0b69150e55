"""The standardisation of training: mean 0 and variance 1 in each column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points, column_names

_SHOWN = 5
"""Largest number of columns that a message names."""

MIN_TRAINING_ROWS = 10
"""Least number of rows to train on."""


LEAST_SCALE = 1e-152
"""Least standard deviation of a column: the squares of smaller numbers lose their digits in float64, or are 0."""


@dataclass(frozen=True)
class Standardiser:
    """Shift and scale of each column, so that the network sees mean 0 and variance 1.

    Args:
        mean: Means of the columns, shape `(D,)`.
        scale: Standard deviations of the columns, shape `(D,)`, positive.

    Raises:
        ValueError: If shapes differ, a number is not finite or a scale is not positive.

    Examples:
        >>> standardiser = Standardiser(np.array([5.0, 0.0]), np.array([2.0, 1.0]))
        >>> standardiser.transform([[7.0, -1.0]])
        array([[ 1., -1.]])
        >>> standardiser.inverse([[1.0, -1.0]])
        array([[ 7., -1.]])
    """

    mean: Array
    scale: Array

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape:
            raise ValueError(f"mean and scale must have one shape (D,), got {self.mean.shape} and {self.scale.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("mean and scale must be finite and the scale positive")

    @classmethod
    def fit(cls, data: Any) -> Standardiser:
        """Return the standardiser of a table.

        Args:
            data: Rows, shape `(N, D)`: a data frame, an array or a tensor.

        Returns:
            Mean and standard deviation of each column.

        Raises:
            ValueError: If there are fewer than ten rows, a column is constant, or its squares leave the range of
                float64; also as for `as_points`.
        """
        points = as_points(data)
        columns = column_names(data, points.shape[1])
        if len(points) < MIN_TRAINING_ROWS:
            raise ValueError(f"too few rows to learn from: {len(points)}; give at least {MIN_TRAINING_ROWS}")
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = points.mean(axis=0), points.std(axis=0)
        constant = np.flatnonzero(points.min(axis=0) == points.max(axis=0))
        if len(constant) == 1:
            name, value = columns[constant[0]], points[0, constant[0]]
            raise ValueError(f"column {name!r} is constant ({value}), so there is nothing to learn; leave it out")
        if len(constant):
            some = ", ".join(f"{columns[index]!r}" for index in constant[:_SHOWN])
            some += f" and {len(constant) - _SHOWN} more" if len(constant) > _SHOWN else ""
            raise ValueError(f"columns {some} are constant, so there is nothing to learn from them; leave them out")
        for name, spread in zip(columns, scale, strict=True):
            if not np.isfinite(spread):
                raise ValueError(f"column {name!r} is too large for float64; divide it by a power of ten")
            if spread < LEAST_SCALE:
                raise ValueError(f"column {name!r} is too small for float64; multiply it by a power of ten")
        return cls(mean, scale)

    def equals(self, other: Standardiser) -> bool:
        """Return whether another standardiser has the same mean and scale, up to rounding."""
        return self.mean.shape == other.mean.shape and bool(
            np.allclose(self.mean, other.mean) and np.allclose(self.scale, other.scale)
        )

    @property
    def log_scale(self) -> float:
        """Sum of the logarithms of the scales: log-densities in units of the table are that much lower, in nats."""
        return float(np.log(self.scale).sum())

    def transform(self, data: Any, *, missing: bool = False) -> Array:
        """Return a table in standardised units.

        Args:
            data: Rows, shape `(N, D)`: a data frame, an array or a tensor.
            missing: Allow missing values, as NaN.

        Returns:
            Standardised points, shape `(N, D)`, float64.

        Raises:
            ValueError: If it has another number of columns; also as for `as_points`.
        """
        points = as_points(data, missing=missing)
        if points.shape[1] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)} columns, got {points.shape[1]}")
        points -= self.mean  # in place: a table of gigabytes is not copied more than once
        points /= self.scale
        return points

    def inverse(self, points: Any) -> Array:
        """Return standardised points in the units of the table.

        Args:
            points: Standardised points, shape `(N, D)`: an array, a tensor or nested lists.

        Returns:
            Points, shape `(N, D)`, float64.
        """
        if isinstance(points, Tensor):
            points = points.detach().to("cpu", torch.float64).numpy()
        return np.asarray(points, dtype=np.float64) * self.scale + self.mean
