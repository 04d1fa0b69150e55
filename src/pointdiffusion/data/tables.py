"""Tables of points: what may be trained on, and the standardisation that it is trained under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.data.cells import is_missing
from pointdiffusion.data.memory import is_arrow, memory_source, own_names, tensor_array
from pointdiffusion.data.schema import default_names

Points = NDArray[np.float64]

FEWEST_ROWS = 10
"""Fewer rows than this are no sample of anything."""
LEAST_SCALE = 1e-150
"""Least standard deviation of a column: the squares of smaller numbers lose their digits in float64, or are 0."""
_SHOWN = 5


def column_names(data: Any, n_dims: int) -> list[str]:
    """Return the names of the columns of `data`: its own, or x, y, z, and x1, x2, ... beyond three."""
    names = own_names(data)
    return default_names(n_dims) if names is None else names


def _is_number(value: Any) -> bool:
    """Return whether float64 can hold `value`; texts that spell a number count, complex numbers do not."""
    try:
        float(value.real if isinstance(value, complex) else value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, complex)  # NumPy's complex numbers turn into floats with a warning


def _as_array(data: Any) -> NDArray[Any]:
    """Return a table as one array, of objects where it holds texts; what a mask hides is NaN or None."""
    if isinstance(data, Tensor):
        data = tensor_array(data, "the table")
    named = is_arrow(data) or (own_names(data) is not None and isinstance(data, (np.ndarray, list, tuple)))
    if named or isinstance(data, np.ma.MaskedArray) or _holds_masks(data):
        source = memory_source(data, "the table")
        batches = source.read(range(source.n_columns))
        parts = [np.column_stack([np.asarray(raw.values) for raw in batch.columns]) for batch in batches]
        return np.concatenate(parts) if parts else np.empty((0, source.n_columns))
    return np.asarray(data)


def _holds_masks(data: Any) -> bool:
    return isinstance(data, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in data)


def as_points(data: Any, *, missing: bool = False) -> Points:
    """Return a frame, an Arrow table, an array, a tensor, nested lists or records (dicts) as a table of floats.

    Args:
        data: Anything of shape `(N, D)` that holds numbers; what a mask hides is missing.
        missing: Let NaN stand for a missing value.

    Returns:
        Array `(N, D)`, float64.

    Raises:
        ValueError: If it is no table, is empty, or holds text, NaN or infinite values; row and column are named.
    """
    table = _as_array(data)
    if table.ndim != 2:
        many = "1 dimension" if table.ndim == 1 else f"{table.ndim} dimensions"
        raise ValueError(f"points must be a table with rows and columns, got {many}")
    if 0 in table.shape:
        raise ValueError(f"points must have at least one row and one column, got {table.shape[0]} x {table.shape[1]}")
    names = column_names(data, table.shape[1])
    if table.dtype.kind not in "fiub":
        table = _parsed(table, names)
    points = table.astype(np.float64)
    bad = np.isinf(points) if missing else ~np.isfinite(points)
    if bad.any():
        parts = [_about_bad(name, points[:, k], bad[:, k]) for k, name in enumerate(names) if bad[:, k].any()]
        raise ValueError(f"{_listed(parts)}; remove or replace {'it' if len(parts) == 1 else 'these'}")
    return points


def _parsed(table: NDArray[Any], names: list[str]) -> Points:
    """Return an array of objects or texts as floats, NaN where a value is missing.

    Raises:
        ValueError: If some are no numbers: the first of each column is named.
    """
    points, wrong = np.full(table.shape, np.nan), []
    for index, name in enumerate(names):
        for row, value in enumerate(table[:, index].tolist()):
            if is_missing(value):
                continue
            if not _is_number(value):
                wrong.append(f"column {name!r} holds {str(value)[:40]!r} in row {row}, which is no number")
                break
            points[row, index] = float(value)
    if wrong:
        raise ValueError(f"{_listed(wrong)}; leave {'it' if len(wrong) == 1 else 'these columns'} out")
    return points


def _about_bad(name: str, values: Points, bad: NDArray[np.bool_]) -> str:
    """Say where a column holds NaN or an infinite value."""
    row = int(bad.argmax())
    kind = "NaN" if np.isnan(values[row]) else "an infinite value"
    count = int(bad.sum())
    more = f" ({count} such values in all)" if count > 1 else ""
    return f"column {name!r} holds {kind} in row {row}{more}"


def _listed(parts: list[str]) -> str:
    """Return what is wrong with some columns, as one line."""
    some = "; ".join(parts[:_SHOWN])
    return some + (f"; and {len(parts) - _SHOWN} more columns" if len(parts) > _SHOWN else "")


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
            ValueError: If there are fewer than ten rows, or a column is constant, or too large or too small for its
                squares; as `as_points` besides.
        """
        points = as_points(data)
        columns = column_names(data, points.shape[1])
        if len(points) < FEWEST_ROWS:
            raise ValueError(f"too few rows to learn from: {len(points)}, give at least {FEWEST_ROWS}")
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
        points -= self.mean  # in place: a table of gigabytes is not copied more than once
        points /= self.scale
        return points

    def inverse(self, points: Any) -> Points:
        """Return points in standard units in the units of the table, shape `(N, D)`."""
        if isinstance(points, Tensor):
            points = points.detach().to("cpu", torch.float64).numpy()
        return np.asarray(points, dtype=np.float64) * self.scale + self.mean
