r"""Encodings: how the cells of a column become coordinates of points, and coordinates cells.

An encoding is one class: `fit` decides whether it applies to a column, `encode` returns coordinates, `decode` inverts
it. A column is encoded by the first of `ENCODINGS` that applies.

A density needs real numbers. A column of integers k has none until it is dequantised: uniform noise u in [-1/2, 1/2) is
added, and the density p of k + u gives the probability of the integer,

.. math:: P(k) = \int_{-1/2}^{1/2} p(k + u) \, du \ge \exp E_u \log p(k + u) ,

so the log-likelihood of integer columns is that of the dequantised value, a bound on the probability's (Theis et al.
2016, https://arxiv.org/abs/1511.01844, section 3.1). Rounding half up takes k + u back to k for each u. A column that
holds one value only has no density: it is not modelled, and `decode` restores it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.columns import FLOATS, INTEGERS, LARGEST_INTEGER, Column, range_of


@dataclass(frozen=True)
class Statistics:
    """Statistics of a column over all rows of a table, computed in one pass.

    Args:
        name: Its name.
        dtype: Type of its numbers by its name in NumPy; `"bool"`; `"str"` where all cells are the same string.
        low: Least value; 0 for a string.
        high: Largest value; 0 for a string.
        decimals: Number of decimals that represent all values exactly; 16 where they have more than 15.
        text: That string.
        integers: Whether a column of floats that are all integers counts as one of integers.
    """

    name: str
    dtype: str
    low: float
    high: float
    decimals: int
    text: str = ""
    integers: bool = True


class Encoding(ABC):
    """How one column becomes coordinates of points.

    Args:
        column: Kind, type and bounds of the column; its `kind` determines the encoding.
    """

    width: ClassVar[int] = 1
    """Number of coordinates of a point for each cell."""

    def __init__(self, column: Column) -> None:
        self.column = column

    @classmethod
    @abstractmethod
    def fit(cls, statistics: Statistics) -> Column | None:
        """Return the column as this encoding describes it; None where the encoding does not apply."""

    @abstractmethod
    def encode(self, values: Array, generator: np.random.Generator) -> Array:
        """Return coordinates of cells.

        Args:
            values: The cells as numbers, shape `(N,)`; NaN where one is missing.
            generator: Source of noise, where the encoding adds any.

        Returns:
            Coordinates, shape `(N, width)`, float64; NaN stays NaN.
        """

    @abstractmethod
    def decode(self, points: Array, *, within_bounds: bool = False, rounding: bool = True) -> Any:
        """Return cells from coordinates, in the NumPy type of the column.

        Args:
            points: Coordinates, shape `(N, width)`; NaN becomes a missing value.
            within_bounds: Clip values to the least and the largest of the table.
            rounding: Round to values that cells of the table can have.

        Returns:
            Cells, shape `(N,)`; an array of pandas where integers are missing, which NumPy's cannot be.
        """


class Constant(Encoding):
    """One value in all rows: no coordinate."""

    width = 0

    @classmethod
    def fit(cls, statistics: Statistics) -> Column | None:
        """Return the column where all its values are equal."""
        if statistics.low != statistics.high:
            return None
        name, dtype, low = statistics.name, statistics.dtype, statistics.low
        plain = {"str": str, "bool": bool}.get(dtype, float if dtype in FLOATS else int)
        value = statistics.text if dtype == "str" else plain(low)
        return Column(name, "constant", dtype, low, statistics.high, None, value)

    def encode(self, values: Array, generator: np.random.Generator) -> Array:  # noqa: ARG002
        """Return an empty array, shape `(N, 0)`."""
        return np.empty((len(values), 0))

    def decode(self, points: Array, *, within_bounds: bool = False, rounding: bool = True) -> Any:  # noqa: ARG002
        """Return the constant for each point, shape `(N,)`."""
        dtype = object if self.column.dtype == "str" else self.column.dtype
        return np.full(len(points), self.column.value, dtype=dtype)


class Dequantised(Encoding):
    """Integers and booleans, with uniform noise in [-1/2, 1/2) so that they have a density."""

    @classmethod
    def fit(cls, statistics: Statistics) -> Column | None:
        """Return the column where all its values are booleans or integers, of whatever type."""
        name, dtype, low, high = statistics.name, statistics.dtype, statistics.low, statistics.high
        if dtype == "bool":
            return Column(name, "boolean", "bool", low, high)
        return Column(name, "integer", dtype, low, high) if _is_whole(statistics) else None

    def encode(self, values: Array, generator: np.random.Generator) -> Array:
        """Return integers plus noise, shape `(N, 1)`."""
        moved = values + generator.uniform(-0.5, 0.5, size=len(values))
        # The sum may round up to the half that belongs to the next integer.
        moved = np.minimum(moved, np.nextafter(values + 0.5, -np.inf))
        return np.where(np.abs(values) < LARGEST_INTEGER / 4, moved, values)[:, None]  # else no digits for noise

    def decode(self, points: Array, *, within_bounds: bool = False, rounding: bool = True) -> Any:
        """Return coordinates rounded half up, so that each integer owns [k - 1/2, k + 1/2)."""
        values = _bounded(points[:, 0], self.column, within_bounds)
        if not rounding:
            return values
        values = np.where(np.abs(values) < LARGEST_INTEGER / 2, np.floor(values + 0.5), values)  # no halves from 2^52
        return _typed(values, self.column.dtype)


class Real(Encoding):
    """Floats as they are."""

    @classmethod
    def fit(cls, statistics: Statistics) -> Column | None:
        """Return the column, with its decimals where all values have few of them."""
        low, high, decimals = statistics.low, statistics.high, statistics.decimals
        digits = np.finfo(statistics.dtype if statistics.dtype in FLOATS else "float64").precision
        # As many digits as the type has are no rounding.
        few = decimals <= 15 and decimals + math.ceil(math.log10(max(abs(low), abs(high)))) < digits
        dtype = statistics.dtype if statistics.dtype in FLOATS else "float64"
        return Column(statistics.name, "real", dtype, low, high, decimals if few else None)

    def encode(self, values: Array, generator: np.random.Generator) -> Array:  # noqa: ARG002
        """Return the floats themselves, shape `(N, 1)`."""
        return np.asarray(values, dtype=np.float64)[:, None]

    def decode(self, points: Array, *, within_bounds: bool = False, rounding: bool = True) -> Any:
        """Return coordinates, rounded to the decimals of the table."""
        values = _bounded(points[:, 0], self.column, within_bounds)
        if rounding and self.column.decimals is not None:
            values = np.round(values, self.column.decimals) + 0.0  # what was rounded up to -0.0 is written as 0.0
        return _typed(values, self.column.dtype)


ENCODINGS: dict[str, type[Encoding]] = {
    "constant": Constant, "boolean": Dequantised, "integer": Dequantised, "real": Real,
}  # fmt: skip
"""Encodings by the kind of column, in the order in which they are tried."""


def fit_column(statistics: Statistics) -> Column:
    """Return a column as the first encoding describes it that suits it."""
    for encoding in dict.fromkeys(ENCODINGS.values()):
        column = encoding.fit(statistics)
        if column is not None:
            return column
    raise ValueError(f"column {statistics.name!r} cannot be encoded")


def encoding_of(column: Column) -> Encoding:
    """Return the encoding of a column."""
    return ENCODINGS[column.kind](column)


def _is_whole(statistics: Statistics) -> bool:
    """Return whether all values are integers; large floats, which are all whole, are none."""
    if not statistics.integers:
        return statistics.dtype in INTEGERS
    info = np.finfo(statistics.dtype if statistics.dtype in FLOATS else "float64")
    largest = max(abs(statistics.low), abs(statistics.high))
    return statistics.decimals == 0 and bool(largest < 2.0 ** (info.nmant + 1))


def _bounded(values: Array, column: Column, within_bounds: bool) -> Array:
    return np.clip(values, column.low, column.high) if within_bounds else values


def _typed(values: Array, dtype: str) -> Any:
    """Return numbers in a type, as far as they fit into it."""
    import pandas as pd

    low, high = range_of(dtype)
    values = np.clip(values, low, high)
    if dtype in FLOATS or not np.isnan(values).any():
        return values.astype(dtype)
    # NumPy's integers know no missing value, those of pandas do.
    kind: Any = "boolean" if dtype == "bool" else dtype.replace("int", "Int").replace("uI", "UI")
    return pd.array(values).astype("Float64").astype(kind)
