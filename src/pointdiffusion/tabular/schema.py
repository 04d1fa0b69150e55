"""What a table is: its columns in order, and how points become rows of it again; see `encoding` for a single column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.columns import (
    FLOATS,
    LARGEST_INTEGER,
    LARGEST_TABLE,
    Column,
    LabelColumn,
    default_names,
    require,
)  # fmt: skip
from pointdiffusion.tabular.encoding import Encoding, encoding_of
from pointdiffusion.tabular.frames import build_frame
from pointdiffusion.tabular.native import CONTAINERS, PANDAS, NativeType, fits

__all__ = ["Column", "LabelColumn", "Schema", "default_names"]


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Args:
        columns: All of them but the label, in the table's own order.
        label: The label column, where there is one.
        container: The library whose frames hold the rows: `"pandas"`, `"polars"` or `"pyarrow"`.

    Raises:
        ValueError: If there is nothing to model, too much, or a name stands twice.
    """

    columns: tuple[Column, ...]
    label: LabelColumn | None = None
    container: str = PANDAS

    def __post_init__(self) -> None:
        every = [column.name for column in self.columns] + ([self.label.name] if self.label else [])
        require(len(set(every)) == len(every), "a schema names each of its columns once")
        require(1 <= len(self.names) <= LARGEST_TABLE, f"a schema models 1 to {LARGEST_TABLE} columns")
        require(self.container in CONTAINERS, f"a table cannot be a frame of {self.container!r}")
        natives = [(column.name, column.native) for column in self.columns]
        for name, native in [*natives, *([(self.label.name, self.label.native)] if self.label else [])]:
            known = native is None or fits(native, self.container)
            require(known, f"column {name!r} has a type that {self.container} does not know")
        place = self.label.position if self.label else 0
        require(place <= len(self.columns), f"the label cannot be column {place} of {len(self.columns)} others")

    @property
    def modelled(self) -> list[Column]:
        """The columns that points have: all but the constant ones."""
        return [column for column in self.columns if column.kind != "constant"]

    @property
    def names(self) -> list[str]:
        """Names of the modelled columns."""
        return [column.name for column in self.modelled]

    @property
    def encodings(self) -> list[Encoding]:
        """Encodings of the modelled columns."""
        return [encoding_of(column) for column in self.modelled]

    @property
    def discrete(self) -> list[int]:
        """Places among the modelled columns of those that must be dequantised."""
        return [place for place, column in enumerate(self.modelled) if column.kind != "real"]

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as plain values, as JSON has them."""
        label = None if self.label is None else _plain(self.label)
        if label is not None:
            label["classes"] = list(label["classes"])
        container = {} if self.container == PANDAS else {"container": self.container}
        return {"columns": [_plain(column) for column in self.columns], "label": label, **container}

    @classmethod
    def from_mapping(cls, mapping: Any) -> Schema:
        """Return the schema that `to_mapping` wrote, everything checked for what it is.

        Raises:
            ValueError: If a part is missing, unknown, or of the wrong kind.
        """
        parts = _parts(mapping, ("columns", "label"), "a schema", {"container": PANDAS})
        require(isinstance(parts["columns"], list), "the columns of a schema must be a list")
        columns = tuple(Column(**_floats(_column_parts(each, Column, "a column"))) for each in parts["columns"])
        label = parts["label"]
        if label is not None:
            label = _column_parts(label, LabelColumn, "a label column")
            require(isinstance(label["classes"], list), "the classes of a label column must be a list")
            require(all(isinstance(each, (str, int)) for each in label["classes"]), "classes must be texts or integers")
            label = LabelColumn(**{**label, "classes": tuple(label["classes"])})
        return cls(columns, label, parts["container"])

    def plain(self) -> Schema:
        """Return the schema without the types of a library, for rows that are written to a file: a frame of pandas."""
        label = None if self.label is None else replace(self.label, native=None)
        return Schema(tuple(replace(column, native=None) for column in self.columns), label)

    def dequantise(self, values: Array, random_state: Any) -> Array:
        """Return points that have a density: integers and booleans plus uniform noise in [-1/2, 1/2).

        Args:
            values: Points `(N, D)` of the modelled columns; NaN stays NaN.
            random_state: A seed, or a NumPy generator.

        Returns:
            A new array `(N, D)`. `decode` rounds it back to the same integers.
        """
        generator = random_state if hasattr(random_state, "uniform") else np.random.default_rng(random_state)
        table = np.asarray(values, dtype=np.float64)
        parts = [encoding.encode(table[:, k], generator) for k, encoding in enumerate(self.encodings)]
        return np.concatenate(parts, axis=1)

    def decode(self, points: Any, labels: Any = None, *, within_bounds: bool = False, rounding: bool = True) -> Any:
        """Return points as rows of the table: its columns, order, types and container, constant columns put back.

        Args:
            points: Points `(N, D)` of the modelled columns; NaN stands for a missing value.
            labels: Class of each row, `(N,)`; without it the label column is left out.
            within_bounds: Move values beyond the least and the greatest of the table to these.
            rounding: Round integers and booleans, and other columns to the decimals of the table. Without it, they stay
                floats as they are.

        Returns:
            A frame of the library that the table was a frame of; of pandas for files, arrays and records.

        Raises:
            ValueError: If the points do not fit the columns, hold an infinite value, or a label is no class.
        """
        return build_frame(self.cells(points, labels, within_bounds=within_bounds, rounding=rounding), self.container)

    def decode_array(self, points: Any) -> Array:
        """Return points as rows of a table of numbers, shape `(N, number of columns)`, float64.

        Integers are rounded, constant columns put back; real columns keep all their digits.

        Args:
            points: Points `(N, D)` of the modelled columns.

        Raises:
            ValueError: If the points do not fit the columns, or a constant column holds a string.
        """
        cells = self.cells(points, exact=np.ones(np.shape(points), dtype=bool))
        return np.column_stack([np.asarray(values, dtype=np.float64) for values, _ in cells.values()])

    def varying(self, rows: Array) -> Array:
        """Return the modelled columns of rows that have all columns but the label, shape `(N, D)`."""
        return rows[:, [place for place, column in enumerate(self.columns) if column.kind != "constant"]]

    def cells(
        self, points: Any, labels: Any = None, *, within_bounds: bool = False, rounding: bool = True,
        exact: NDArray[np.bool_] | None = None,
    ) -> dict[str, tuple[Any, NativeType | None]]:  # fmt: skip
        """Return what `decode` makes a frame of: the values of each column in NumPy's type, and its own type.

        Args:
            points: Points `(N, D)` of the modelled columns.
            labels: Class of each row, `(N,)`.
            within_bounds: As in `decode`.
            rounding: As in `decode`.
            exact: Which coordinates of real columns are given back as they are, shape `(N, D)`.

        Raises:
            ValueError: As `decode`.
        """
        table = np.asarray(points, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise ValueError(f"expected points in {len(self.names)} columns, got an array of shape {table.shape}")
        if np.isinf(table).any():
            raise ValueError("points must be finite to become rows of a table")
        cells: dict[str, tuple[Any, NativeType | None]] = {}
        start = 0
        for column in self.columns:
            encoding = encoding_of(column)
            own = table[:, start : start + encoding.width]
            start += encoding.width
            values = encoding.decode(own, within_bounds=within_bounds, rounding=rounding)
            if exact is not None and column.kind == "real":
                values = np.where(exact[:, start - 1], own[:, 0].astype(column.dtype), values)
            # Unrounded numbers may be none of the own type.
            cells[column.name] = values, column.native if rounding or not encoding.width else None
        if labels is not None:
            if self.label is None:
                raise ValueError("the table has no label column, so its rows take no labels; leave them out")
            every = list(cells.items())
            own_label = _label_values(self.label, labels, len(table)), self.label.native
            every.insert(self.label.position, (self.label.name, own_label))
            cells = dict(every)
        return cells


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


def _plain(column: Column | LabelColumn) -> dict[str, Any]:
    """Return a column as plain values; its own type only where it has one, so that earlier versions read the rest."""
    parts = dict(vars(column))
    native = parts.pop("native")
    return parts if native is None else {**parts, "native": native.to_plain()}


def _column_parts(mapping: Any, kind: Any, what: str) -> dict[str, Any]:
    """Return the parts of a column, its own type read."""
    names = tuple(name for name in kind.__dataclass_fields__ if name != "native")
    parts = _parts(mapping, names, what, {"native": None})
    native = parts["native"]
    return {**parts, "native": None if native is None else NativeType.from_plain(native)}


def _parts(mapping: Any, names: Sequence[str], what: str, optional: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a mapping, which has exactly these names and some that may be absent, with their defaults."""
    require(isinstance(mapping, Mapping), f"{what} must be a mapping, got {type(mapping).__name__}")
    missing = [name for name in names if name not in mapping]
    require(not missing, f"{what} lacks {', '.join(missing)}")
    more = set(mapping) - {*names, *optional}
    require(not more, f"{what} holds more than {', '.join((*names, *optional))}")
    return {**optional, **mapping}


def _floats(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a column with its floats as such: JSON writers may write 1.0 as 1."""
    wanted = ["low", "high"] + (["value"] if parts["dtype"] in FLOATS else [])
    return {
        name: float(value) if name in wanted and type(value) is int and abs(value) <= LARGEST_INTEGER else value
        for name, value in parts.items()
    }
