r"""What the columns of a table are, so that points can be given back as rows of it.

A density needs real numbers. A column of integers k has none until it is dequantised: uniform noise u in [-1/2, 1/2) is
added, and the density p of k + u gives the probability of the integer,

.. math:: P(k) = \int_{-1/2}^{1/2} p(k + u) \, du \ge \exp E_u \log p(k + u) ,

so the log-likelihood of integer columns is that of the dequantised value, a bound on the probability's (Theis et al.
2016, https://arxiv.org/abs/1511.01844, section 3.1). Rounding half up takes k + u back to k for each u. A column that
holds one value only has no density at all: it is left out of the points and put back into the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pointdiffusion.config import require as _require
from pointdiffusion.runtime.arrays import Array

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 64
"""More columns than this are beyond what is called low-dimensional here."""
MOST_CLASSES = 1000
LARGEST_INTEGER = 2**53
"""From here on float64 cannot tell neighbouring integers apart."""

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
    """Return the names of columns that have none: x, y, z, and x1, x2, ... beyond three."""
    return ["x", "y", "z"][:n_dims] if n_dims <= 3 else [f"x{i + 1}" for i in range(n_dims)]


def _check_name(name: Any) -> None:
    """Raise a ValueError unless a name is a text that every format can hold."""
    plain = isinstance(name, str) and "\0" not in name and not any("\ud800" <= sign <= "\udfff" for sign in name)
    _require(plain, f"the name of a column must be a text without NUL characters and halves of others, got {name!r}")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: Its name.
        kind: `"real"`, `"integer"` (whole numbers, of whatever type), `"boolean"` or `"constant"` (one value only).
        dtype: Its type in the table, as NumPy calls it: `"int64"`, `"float32"`, `"bool"`; `"str"` of a constant text.
        low: Least value; 0 for a text.
        high: Greatest value; 0 for a text.
        decimals: Digits after the point, where all values have few; None where they have as many as their type.
        value: The value of a constant column.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    name: str
    kind: str
    dtype: str
    low: float
    high: float
    decimals: int | None = None
    value: Any = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _require(self.kind in KINDS, f"column {self.name!r} is of the unknown kind {self.kind!r}")
        _require(self.dtype in _DTYPES[self.kind], f"column {self.name!r} cannot be {self.kind} and {self.dtype!r}")
        for bound in (self.low, self.high):
            _require(type(bound) is float and math.isfinite(bound), f"column {self.name!r} has no finite bounds")
        _require(self.low <= self.high, f"column {self.name!r} has its bounds in the wrong order")
        places = self.decimals
        known = places is None or (type(places) is int and 0 <= places <= _MOST_DECIMALS)
        _require(known, f"column {self.name!r} cannot have {places!r} decimals")
        if self.kind == "constant":
            _require(_is_of(self.value, self.dtype), f"column {self.name!r} is no {self.dtype}: {self.value!r}")
        else:
            _require(self.value is None, f"column {self.name!r} is not constant, yet holds one value")


@dataclass(frozen=True)
class LabelColumn:
    """The column that names the class of each row.

    Args:
        name: Its name.
        position: Its place among all columns of the table, from 0.
        dtype: `"str"`, `"bool"`, or the type of its numbers.
        classes: The classes, sorted: texts, or integers (0 and 1 for `"bool"`).

    Raises:
        ValueError: If the parts do not fit each other.
    """

    name: str
    position: int
    dtype: str
    classes: tuple[str, ...] | tuple[int, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        _require(self.dtype in ("str", "bool", *INTEGERS, *FLOATS), f"labels cannot be of the type {self.dtype!r}")
        _require(type(self.position) is int and self.position >= 0, f"{self.position!r} is no place of a column")
        kind = str if self.dtype == "str" else int
        _require(all(type(each) is kind for each in self.classes), f"classes of {self.name!r} must be {kind.__name__}")
        distinct = len(set(self.classes)) == len(self.classes)
        _require(distinct and 1 <= len(self.classes) <= MOST_CLASSES, f"classes of {self.name!r} are none, or repeated")
        if kind is int:
            low, high = _range_of(self.dtype)
            _require(
                all(low <= int(each) <= high for each in self.classes), f"a class of {self.name!r} is no {self.dtype}"
            )


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Args:
        columns: All of them but the label, in the table's own order.
        label: The label column, where there is one.

    Raises:
        ValueError: If there is nothing to model, too much, or a name stands twice.
    """

    columns: tuple[Column, ...]
    label: LabelColumn | None = None

    def __post_init__(self) -> None:
        every = [column.name for column in self.columns] + ([self.label.name] if self.label else [])
        _require(len(set(every)) == len(every), "a schema names each of its columns once")
        _require(1 <= len(self.names) <= MOST_COLUMNS, f"a schema models 1 to {MOST_COLUMNS} columns")
        place = self.label.position if self.label else 0
        _require(place <= len(self.columns), f"the label cannot be column {place} of {len(self.columns)} others")

    @property
    def modelled(self) -> list[Column]:
        """The columns that points have: all but the constant ones."""
        return [column for column in self.columns if column.kind != "constant"]

    @property
    def names(self) -> list[str]:
        """Names of the modelled columns."""
        return [column.name for column in self.modelled]

    @property
    def discrete(self) -> list[int]:
        """Places among the modelled columns of those that must be dequantised."""
        return [place for place, column in enumerate(self.modelled) if column.kind != "real"]

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as plain values, as JSON has them."""
        label = self.label and {**vars(self.label), "classes": list(self.label.classes)}
        return {"columns": [dict(vars(column)) for column in self.columns], "label": label}

    @classmethod
    def from_mapping(cls, mapping: Any) -> Schema:
        """Return the schema that `to_mapping` wrote, everything checked for what it is.

        Raises:
            ValueError: If a part is missing, unknown, or of the wrong kind.
        """
        parts = _parts(mapping, ("columns", "label"), "a schema")
        _require(isinstance(parts["columns"], list), "the columns of a schema must be a list")
        fields = tuple(Column.__dataclass_fields__)
        columns = tuple(Column(**_floats(_parts(each, fields, "a column"))) for each in parts["columns"])
        label = parts["label"]
        if label is not None:
            label = _parts(label, tuple(LabelColumn.__dataclass_fields__), "a label column")
            _require(isinstance(label["classes"], list), "the classes of a label column must be a list")
            _require(
                all(isinstance(each, (str, int)) for each in label["classes"]), "classes must be texts or integers"
            )
            label = LabelColumn(**{**label, "classes": tuple(label["classes"])})
        return cls(columns, label)

    def dequantise(self, values: Array, random_state: Any) -> Array:
        """Return points that have a density: integers and booleans plus uniform noise in [-1/2, 1/2).

        Args:
            values: Points `(N, D)` of the modelled columns; NaN stays NaN.
            random_state: A seed, or a NumPy generator.

        Returns:
            A new array `(N, D)`. `decode` rounds it back to the same integers.
        """
        draw = random_state if hasattr(random_state, "uniform") else np.random.default_rng(random_state)
        noisy = np.array(values, dtype=np.float64)
        for place in self.discrete:
            whole = noisy[:, place]
            moved = whole + draw.uniform(-0.5, 0.5, size=len(whole))
            # The sum may round up to the half that belongs to the next integer.
            moved = np.minimum(moved, np.nextafter(whole + 0.5, -np.inf))
            noisy[:, place] = np.where(np.abs(whole) < LARGEST_INTEGER / 4, moved, whole)  # else no digits for noise
        return noisy

    def decode(
        self, points: Any, labels: Any = None, *, within_bounds: bool = False, rounding: bool = True
    ) -> pd.DataFrame:
        """Return points as rows of the table: its columns, order and types, constant columns put back.

        Args:
            points: Points `(N, D)` of the modelled columns; NaN stands for a missing value.
            labels: Class of each row, `(N,)`; without it the label column is left out.
            within_bounds: Move values beyond the least and the greatest of the table to these.
            rounding: Round integers and booleans, and other columns to the decimals of the table. Without it, they stay
                floats as they are.

        Raises:
            ValueError: If the points do not fit the columns, hold an infinite value, or a label is no class.
        """
        import pandas as pd

        table = np.asarray(points, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise ValueError(f"expected points in {len(self.names)} columns, got an array of shape {table.shape}")
        if np.isinf(table).any():
            raise ValueError("points must be finite to become rows of a table")
        values = dict(zip(self.names, table.T, strict=True))
        frame = {
            column.name: np.full(len(table), column.value, dtype=object if column.dtype == "str" else column.dtype)
            if column.kind == "constant"
            else _typed(column, values[column.name], within_bounds, rounding)
            for column in self.columns
        }
        rows = pd.DataFrame(frame, index=range(len(table)))
        if labels is not None:
            if self.label is None:
                raise ValueError("the table has no label column, so its rows take no labels; leave them out")
            rows.insert(self.label.position, self.label.name, _label_values(self.label, labels, len(table)))
        return rows


def _typed(column: Column, values: Array, within_bounds: bool, rounding: bool) -> Any:
    """Return the values of a column in its own type, as far as they fit into it."""
    import pandas as pd

    if within_bounds:
        values = np.clip(values, column.low, column.high)
    if column.kind != "real":
        if not rounding:
            return values
        # Half up, so that each integer owns [k - 1/2, k + 1/2); beyond 2^52 there are no halves.
        values = np.where(np.abs(values) < LARGEST_INTEGER / 2, np.floor(values + 0.5), values)
    elif rounding and column.decimals is not None:
        values = np.round(values, column.decimals) + 0.0  # what was rounded up to -0.0 is written as 0.0
    low, high = _range_of(column.dtype)
    values = np.clip(values, low, high)
    if column.dtype in FLOATS or not np.isnan(values).any():
        return values.astype(column.dtype)
    # NumPy's integers know no missing value, those of pandas do.
    kind: Any = "boolean" if column.dtype == "bool" else column.dtype.replace("int", "Int").replace("uI", "UI")
    return pd.array(values).astype("Float64").astype(kind)


def _range_of(dtype: str) -> tuple[float, float]:
    """Return the least and the greatest number that both the type and float64 hold."""
    if dtype == "bool":
        return 0, 1
    if dtype in FLOATS:
        info = np.finfo(dtype)
        return float(info.min), float(info.max)
    limits = np.iinfo(dtype)
    return max(int(limits.min), -LARGEST_INTEGER), min(int(limits.max), LARGEST_INTEGER)


def _label_values(label: LabelColumn, labels: Any, n_rows: int) -> Any:
    """Return classes in the type of their column."""
    given = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(given) != n_rows:
        raise ValueError(f"labels must have one entry for each of {n_rows} points, got {len(given)}")
    unknown = set(given) - set(label.classes)
    if unknown:
        shown = ", ".join(map(repr, label.classes[:10])) + (", ..." if len(label.classes) > 10 else "")
        raise ValueError(f"{unknown.pop()!r} is no class of column {label.name!r}; its classes are {shown}")
    return np.array(given, dtype=object if label.dtype == "str" else label.dtype)


def _is_of(value: Any, dtype: str) -> bool:
    """Return whether a plain value belongs to a type."""
    wanted: Any = _PLAIN.get(dtype, float)
    if type(value) is not wanted:
        return False
    if dtype in ("bool", "str"):
        return True
    low, high = _range_of(dtype)
    return bool(low <= value <= high)


def _parts(mapping: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """Return the parts of a mapping, which has exactly these names."""
    _require(isinstance(mapping, Mapping), f"{what} must be a mapping, got {type(mapping).__name__}")
    missing = [name for name in names if name not in mapping]
    _require(not missing, f"{what} lacks {', '.join(missing)}")
    _require(len(mapping) == len(names), f"{what} holds more than {', '.join(names)}")
    return dict(mapping)


def _floats(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a column with its floats as such: JSON writers may write 1.0 as 1."""
    wanted = ["low", "high"] + (["value"] if parts["dtype"] in FLOATS else [])
    return {
        name: float(value) if name in wanted and type(value) is int and abs(value) <= LARGEST_INTEGER else value
        for name, value in parts.items()
    }
