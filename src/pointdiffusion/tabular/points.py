"""Points: arrays of finite numbers that can be trained on, from tables of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.cells import is_missing
from pointdiffusion.tabular.columns import default_names
from pointdiffusion.tabular.memory import is_arrow, is_tensor, memory_source, own_names, tensor_array

_SHOWN = 5


def column_names(data: Any, n_dims: int) -> list[str]:
    """Return the names of the columns of a table: its own, or x, y, z, and x1, x2, ... beyond three.

    Args:
        data: A table in memory.
        n_dims: Number of its columns.

    Returns:
        One name for each column.
    """
    names = own_names(data)
    return default_names(n_dims) if names is None else names


def _is_number(value: Any) -> bool:
    """Return whether float64 can hold `value`; strings that spell a number count, complex numbers do not."""
    try:
        float(value.real if isinstance(value, complex) else value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, complex)  # NumPy's complex numbers turn into floats with a warning


def _as_array(data: Any) -> NDArray[Any]:
    """Return a table as one array, of objects where it holds strings; masked values are NaN or None."""
    if is_tensor(data):
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


def as_points(data: Any, *, missing: bool = False) -> Array:
    """Return a data frame, an Arrow table, an array, a tensor, nested lists or records (dicts) as an array of floats.

    Args:
        data: Numbers of shape `(N, D)`; masked ones are missing.
        missing: Allow missing values, as NaN.

    Returns:
        Array of shape `(N, D)`, float64.

    Raises:
        ValueError: If it is not a table, is empty, or holds strings, NaN or infinite values, with row and column.

    Examples:
        >>> as_points([{"x": 1, "y": 2.5}, {"x": 3, "y": -1.0}])
        array([[ 1. ,  2.5],
               [ 3. , -1. ]])
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


def _parsed(table: NDArray[Any], names: list[str]) -> Array:
    """Return an array of objects or strings as floats, NaN where a value is missing.

    Raises:
        ValueError: If some are not numbers: the first of each column is named.
    """
    points, wrong = np.full(table.shape, np.nan), []
    for index, name in enumerate(names):
        for row, value in enumerate(table[:, index].tolist()):
            if is_missing(value):
                continue
            if not _is_number(value):
                wrong.append(f"column {name!r} holds {str(value)[:40]!r} in row {row}, which is not a number")
                break
            points[row, index] = float(value)
    if wrong:
        raise ValueError(f"{_listed(wrong)}; leave {'it' if len(wrong) == 1 else 'these columns'} out")
    return points


def _about_bad(name: str, values: Array, bad: NDArray[np.bool_]) -> str:
    """Return where a column holds NaN or an infinite value."""
    row = int(bad.argmax())
    kind = "NaN" if np.isnan(values[row]) else "an infinite value"
    count = int(bad.sum())
    more = f" ({count} such values in all)" if count > 1 else ""
    return f"column {name!r} holds {kind} in row {row}{more}"


def _listed(parts: list[str]) -> str:
    """Return what is wrong with some columns, as one line."""
    some = "; ".join(parts[:_SHOWN])
    return some + (f"; and {len(parts) - _SHOWN} more columns" if len(parts) > _SHOWN else "")
