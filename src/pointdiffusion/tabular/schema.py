"""The schema of a table: its columns in order, by which points become rows again; see `encoding` for one column."""

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
        columns: All columns but the label, in the table's order.
        label: The label column, if any.
        container: The library whose data frames hold the rows: `"pandas"`, `"polars"` or `"pyarrow"`.

    Raises:
        ValueError: If there is no column to model, or too many, or a name is repeated.

    Examples:
        >>> from pointdiffusion import table_of
        >>> schema = table_of([{"n": 1, "x": 0.5}, {"n": 4, "x": 2.25}]).schema
        >>> schema.names, schema.discrete
        (['n', 'x'], [0])
        >>> schema.decode([[3.2, 0.126]])  # integers are rounded, other columns to the table's decimals
           n     x
        0  3  0.13
    """

    columns: tuple[Column, ...]
    label: LabelColumn | None = None
    container: str = PANDAS

    def __post_init__(self) -> None:
        every = [column.name for column in self.columns] + ([self.label.name] if self.label else [])
        require(len(set(every)) == len(every), "the names of the columns of a schema must be distinct")
        require(1 <= len(self.names) <= LARGEST_TABLE, f"a schema must have 1 to {LARGEST_TABLE} columns to model")
        require(self.container in CONTAINERS, f"container must be one of {CONTAINERS}, got {self.container!r}")
        natives = [(column.name, column.native) for column in self.columns]
        for name, native in [*natives, *([(self.label.name, self.label.native)] if self.label else [])]:
            known = native is None or fits(native, self.container)
            require(known, f"column {name!r} has a type that {self.container} does not have")
        place = self.label.position if self.label else 0
        require(
            place <= len(self.columns), f"the label cannot have the index {place} beside {len(self.columns)} columns"
        )

    @property
    def modelled(self) -> list[Column]:
        """The modelled columns, those of the points: all but the constant ones."""
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
        """Indices, among the modelled columns, of those that must be dequantised."""
        return [place for place, column in enumerate(self.modelled) if column.kind != "real"]

    def to_mapping(self) -> dict[str, Any]:
        """Return the schema as a dict of plain values, for JSON."""
        label = None if self.label is None else _plain(self.label)
        if label is not None:
            label["classes"] = list(label["classes"])
        container = {} if self.container == PANDAS else {"container": self.container}
        return {"columns": [_plain(column) for column in self.columns], "label": label, **container}

    @classmethod
    def from_mapping(cls, mapping: Any) -> Schema:
        """Return the schema that `to_mapping` wrote, with all values checked.

        Args:
            mapping: What a file holds; anything.

        Returns:
            The schema.

        Raises:
            ValueError: If an entry is missing, unknown, or of the wrong type.
        """
        parts = _parts(mapping, ("columns", "label"), "a schema", {"container": PANDAS})
        require(isinstance(parts["columns"], list), "the columns of a schema must be a list")
        columns = tuple(Column(**_floats(_column_parts(each, Column, "a column"))) for each in parts["columns"])
        label = parts["label"]
        if label is not None:
            label = _column_parts(label, LabelColumn, "a label column")
            require(isinstance(label["classes"], list), "the classes of a label column must be a list")
            require(
                all(isinstance(each, (str, int)) for each in label["classes"]), "classes must be strings or integers"
            )
            label = LabelColumn(**{**label, "classes": tuple(label["classes"])})
        return cls(columns, label, parts["container"])

    def plain(self) -> Schema:
        """Return the schema with plain types and pandas as its container, for rows that are written to a file."""
        label = None if self.label is None else replace(self.label, native=None)
        return Schema(tuple(replace(column, native=None) for column in self.columns), label)

    def dequantise(self, values: Array, random_state: Any) -> Array:
        """Add uniform noise in [-1/2, 1/2) to integers and booleans, so that they have a density.

        Args:
            values: Points of the modelled columns, shape `(N, D)`; NaN stays NaN.
            random_state: A seed, or a NumPy generator.

        Returns:
            A new array, shape `(N, D)`; `decode` rounds it back to the same integers.
        """
        generator = random_state if hasattr(random_state, "uniform") else np.random.default_rng(random_state)
        table = np.asarray(values, dtype=np.float64)
        parts = [encoding.encode(table[:, k], generator) for k, encoding in enumerate(self.encodings)]
        return np.concatenate(parts, axis=1)

    def decode(self, points: Any, labels: Any = None, *, within_bounds: bool = False, rounding: bool = True) -> Any:
        """Return points as rows of the table: its columns in their order and types, constant columns included.

        Args:
            points: Points of the modelled columns, shape `(N, D)`; NaN for a missing value.
            labels: Class of each row, shape `(N,)`; without it there is no label column.
            within_bounds: Clip values to the least and the largest of the table.
            rounding: Round integers and booleans, and other columns to the decimals of the table; otherwise all stay
                floats.

        Returns:
            A data frame of N rows, of the library of the table; of pandas for files, arrays and records.

        Raises:
            ValueError: If the points do not fit the columns, hold an infinite value, or a label is not a class.
        """
        return build_frame(self.cells(points, labels, within_bounds=within_bounds, rounding=rounding), self.container)

    def decode_array(self, points: Any) -> Array:
        """Return points as rows of a table of numbers.

        Integers are rounded, constant columns included; real columns keep all their digits.

        Args:
            points: Points of the modelled columns, shape `(N, D)`.

        Returns:
            Rows, shape `(N, number of columns)`, float64.

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
        """Return the columns that `decode` makes a data frame of.

        Args:
            points: Points of the modelled columns, shape `(N, D)`.
            labels: Class of each row, shape `(N,)`.
            within_bounds: As in `decode`.
            rounding: As in `decode`.
            exact: Which coordinates of real columns are not rounded, booleans, shape `(N, D)`.

        Returns:
            By the name of a column, its values in NumPy's type, shape `(N,)`, and its type in its own library.

        Raises:
            ValueError: As for `decode`.
        """
        table = np.asarray(points, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != len(self.names):
            raise ValueError(f"expected points in {len(self.names)} columns, got an array of shape {table.shape}")
        if np.isinf(table).any():
            raise ValueError("points must be finite or NaN to become rows of a table")
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
                raise ValueError("labels require a table with a label column; drop them")
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
        raise ValueError(f"{unknown.pop()!r} is not a class of column {label.name!r}; its classes are {shown}")
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
    """Return the entries of a dict that has these names and no others but optional ones, which have defaults."""
    require(isinstance(mapping, Mapping), f"{what} must be a dict, got {type(mapping).__name__}")
    missing = [name for name in names if name not in mapping]
    require(not missing, f"{what} lacks {', '.join(missing)}")
    more = set(mapping) - {*names, *optional}
    require(not more, f"{what} must have no other entries than {', '.join((*names, *optional))}")
    return {**optional, **mapping}


def _floats(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a column with its floats as such: JSON writers may write 1.0 as 1."""
    wanted = ["low", "high"] + (["value"] if parts["dtype"] in FLOATS else [])
    return {
        name: float(value) if name in wanted and type(value) is int and abs(value) <= LARGEST_INTEGER else value
        for name, value in parts.items()
    }
