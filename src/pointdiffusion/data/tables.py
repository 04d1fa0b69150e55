"""Tables of points: what may be trained on, and the standardisation that it is trained under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.data.schema import default_names

Points = NDArray[np.float64]

FEWEST_ROWS = 10
"""Fewer rows than this are no sample of anything."""


def column_names(data: Any, n_dims: int) -> list[str]:
    """Return the names of the columns of `data`: its own, or x, y, z, and x1, x2, ... beyond three."""
    names = getattr(data, "columns", None)
    if names is not None:
        return [str(name) for name in names]
    return default_names(n_dims)


def _is_number(value: Any) -> bool:
    """Return whether float64 can hold `value`; texts that spell a number count, complex numbers do not."""
    try:
        float(value.real if isinstance(value, complex) else value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, complex)  # NumPy's complex numbers turn into floats with a warning


def as_points(data: Any, *, missing: bool = False) -> Points:
    """Return a frame, an array, a tensor or nested lists as a table of floats.

    Args:
        data: Anything of shape `(N, D)` that holds numbers.
        missing: Let NaN stand for a missing value.

    Returns:
        Array `(N, D)`, float64.

    Raises:
        ValueError: If it is no table, is empty, or holds text, NaN or infinite values; row and column are named.
    """
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = (data.double() if data.is_floating_point() else data).numpy()  # NumPy has no bfloat16
    names = getattr(data, "columns", None)
    table = np.asarray(data)
    if table.ndim != 2:
        raise ValueError(f"points must be a table with rows and columns, got {table.ndim} dimensions")
    if 0 in table.shape:
        raise ValueError(f"points must have at least one row and one column, got {table.shape[0]} x {table.shape[1]}")
    columns = column_names(data if names is not None else None, table.shape[1])
    if table.dtype.kind not in "fiub":
        for column, values in zip(columns, table.T, strict=True):
            for row, value in enumerate(values):
                if not _is_number(value):
                    shown = str(value)[:40]
                    raise ValueError(
                        f"column {column!r} holds {shown!r} in row {row}, which is no number; leave it out"
                    )
    points = table.astype(np.float64)
    bad = np.argwhere(np.isinf(points) if missing else ~np.isfinite(points))
    if len(bad):
        row, index = bad[0]
        kind = "NaN" if np.isnan(points[row, index]) else "an infinite value"
        more = f" ({len(bad)} such values in all)" if len(bad) > 1 else ""
        raise ValueError(f"column {columns[index]!r} holds {kind} in row {row}{more}; remove or replace it")
    return points


@dataclass(frozen=True)
class Standardiser:
    """Shift and scale of each column, so that the network sees mean 0 and variance 1.

    Args:
        mean: Means of the columns, shape `(D,)`.
        scale: Their standard deviations, shape `(D,)`, positive.

    Raises:
        ValueError: If the two do not fit or a scale is not positive.
    """

    mean: Points
    scale: Points

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.scale.shape:
            raise ValueError(f"mean and scale must be lists of one length, got {self.mean.shape}, {self.scale.shape}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("mean and scale must be finite and the scale positive")

    @classmethod
    def fit(cls, data: Any) -> Standardiser:
        """Return the standardiser of a table.

        Raises:
            ValueError: If there are fewer than ten rows, or a column is constant; as `as_points` besides.
        """
        points = as_points(data)
        columns = column_names(data, points.shape[1])
        if len(points) < FEWEST_ROWS:
            raise ValueError(f"too few rows to learn from: {len(points)}, give at least {FEWEST_ROWS}")
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = points.mean(axis=0), points.std(axis=0)
        for name, column, spread in zip(columns, points.T, scale, strict=True):
            if column.min() == column.max() or spread == 0:
                raise ValueError(
                    f"column {name!r} is constant ({column[0]}), so there is nothing to learn; leave it out"
                )
            if not np.isfinite(spread):
                raise ValueError(f"column {name!r} is too large for float64; divide it by a power of ten")
        return cls(mean, scale)

    def equals(self, other: Standardiser) -> bool:
        """Return whether the other does the same, to rounding."""
        return self.mean.shape == other.mean.shape and bool(
            np.allclose(self.mean, other.mean) and np.allclose(self.scale, other.scale)
        )

    @property
    def log_scale(self) -> float:
        """Sum of the logarithms of the scales: what a log-density in standard units loses in those of the table."""
        return float(np.log(self.scale).sum())

    def transform(self, data: Any, *, missing: bool = False) -> Points:
        """Return a table in standard units, shape `(N, D)`; NaN may stand for what is missing if `missing` says so.

        Raises:
            ValueError: If it has another number of columns; as `as_points` besides.
        """
        points = as_points(data, missing=missing)
        if points.shape[1] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)} columns, got {points.shape[1]}")
        return (points - self.mean) / self.scale

    def inverse(self, points: Any) -> Points:
        """Return points in standard units in the units of the table, shape `(N, D)`."""
        if isinstance(points, Tensor):
            points = points.detach().to("cpu", torch.float64).numpy()
        return np.asarray(points, dtype=np.float64) * self.scale + self.mean
