"""The columns of a table: kind, type, range and classes, as plain values that a file can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pointdiffusion.tabular.native import NativeType

MOST_COLUMNS = 64
"""Largest number of modelled columns of tables that are not arrays."""
LARGEST_TABLE = 1024
"""Largest number of columns of a schema; arrays may have more than `MOST_COLUMNS`."""
MOST_CLASSES = 1000
LARGEST_INTEGER = 2**53
"""From here on float64 cannot distinguish neighbouring integers."""

KINDS = ("real", "integer", "boolean", "constant")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
_DTYPES = {
    "real": FLOATS,
    "integer": (*INTEGERS, *FLOATS),
    "boolean": ("bool",),
    "constant": (*INTEGERS, *FLOATS, "bool", "str"),
}
_PLAIN: dict[str, type] = {"bool": bool, "str": str, **dict.fromkeys(INTEGERS, int)}
_MOST_DECIMALS = 15


def default_names(n_dims: int) -> list[str]:
    """Return the names of `n_dims` columns that have none: x, y, z, or x1, x2, ... beyond three."""
    return ["x", "y", "z"][:n_dims] if n_dims <= 3 else [f"x{i + 1}" for i in range(n_dims)]


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with a message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def _check_name(name: Any) -> None:
    """Raise a ValueError unless a name is a string that every format can hold."""
    plain = isinstance(name, str) and "\0" not in name and not any("\ud800" <= sign <= "\udfff" for sign in name)
    require(plain, f"the name of a column must be a string without NUL characters and lone surrogates, got {name!r}")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: Its name.
        kind: `"real"`, `"integer"` (integers, also if stored as floats), `"boolean"` or `"constant"` (one value only).
        dtype: Its type in the table, by its name in NumPy: `"int64"`, `"float32"`, `"bool"`; `"str"` of a constant
            string.
        low: Least value; 0 for a string.
        high: Largest value; 0 for a string.
        decimals: Number of decimals, where all values have few; None where they have as many as their type.
        value: The value of a constant column.
        native: Its type in its own library, where `dtype` is not the whole type.

    Raises:
        ValueError: If the arguments are inconsistent.
    """

    name: str
    kind: str
    dtype: str
    low: float
    high: float
    decimals: int | None = None
    value: Any = None
    native: NativeType | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        require(self.kind in KINDS, f"column {self.name!r} has the unknown kind {self.kind!r}")
        require(self.dtype in _DTYPES[self.kind], f"column {self.name!r} cannot be {self.kind} and {self.dtype!r}")
        for bound in (self.low, self.high):
            require(type(bound) is float and math.isfinite(bound), f"column {self.name!r} has no finite bounds")
        require(self.low <= self.high, f"column {self.name!r} has its bounds in the wrong order")
        places = self.decimals
        known = places is None or (type(places) is int and 0 <= places <= _MOST_DECIMALS)
        require(known, f"column {self.name!r} cannot have {places!r} decimals")
        if self.kind == "constant":
            require(_is_of(self.value, self.dtype), f"column {self.name!r} is not of type {self.dtype}: {self.value!r}")
        else:
            require(self.value is None, f"column {self.name!r} is not constant, yet holds one value")


@dataclass(frozen=True)
class LabelColumn:
    """The column that names the class of each row.

    Args:
        name: Its name.
        position: Its index among all columns of the table, from 0.
        dtype: `"str"`, `"bool"`, or the type of its numbers.
        classes: The classes, sorted: strings, or integers (0 and 1 for `"bool"`).
        native: Its type in its own library, where `dtype` is not the whole type.

    Raises:
        ValueError: If the arguments are inconsistent.
    """

    name: str
    position: int
    dtype: str
    classes: tuple[str, ...] | tuple[int, ...]
    native: NativeType | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        require(self.dtype in ("str", "bool", *INTEGERS, *FLOATS), f"labels cannot have the type {self.dtype!r}")
        require(
            type(self.position) is int and self.position >= 0,
            f"position must be an integer from 0, got {self.position!r}",
        )
        kind = str if self.dtype == "str" else int
        require(all(type(each) is kind for each in self.classes), f"classes of {self.name!r} must be {kind.__name__}")
        distinct = len(set(self.classes)) == len(self.classes)
        require(
            distinct and 1 <= len(self.classes) <= MOST_CLASSES,
            f"classes of {self.name!r} must be 1 to {MOST_CLASSES} distinct values",
        )
        if kind is int:
            low, high = range_of(self.dtype)
            require(
                all(low <= int(each) <= high for each in self.classes),
                f"a class of {self.name!r} is not of type {self.dtype}",
            )


def range_of(dtype: str) -> tuple[float, float]:
    """Return the least and the largest number that both a type and float64 hold."""
    if dtype == "bool":
        return 0, 1
    if dtype in FLOATS:
        info = np.finfo(dtype)
        return float(info.min), float(info.max)
    limits = np.iinfo(dtype)
    return max(int(limits.min), -LARGEST_INTEGER), min(int(limits.max), LARGEST_INTEGER)


def _is_of(value: Any, dtype: str) -> bool:
    """Return whether a plain value is of a type."""
    wanted: Any = _PLAIN.get(dtype, float)
    if type(value) is not wanted:
        return False
    if dtype in ("bool", "str"):
        return True
    low, high = range_of(dtype)
    return bool(low <= value <= high)
