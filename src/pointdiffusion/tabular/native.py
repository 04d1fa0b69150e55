"""Types that columns have in their own library, as a frame and a file say them; see `frames` for the way back.

Numbers are held as NumPy's types; what is lost on the way is recorded here by name: pandas' nullable, Arrow-backed and
categorical columns, Decimals, and all types of polars and pyarrow. A name is looked up in a fixed list and never
evaluated, since it may come from a file that anybody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PANDAS, POLARS, PYARROW = "pandas", "polars", "pyarrow"
CONTAINERS = (PANDAS, POLARS, PYARROW)
"""Libraries whose frames are given back; tables of any other kind become frames of pandas."""

MOST_CATEGORIES = 1000
MASKED = (
    "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "boolean",
)  # fmt: skip
_POLARS = (
    "Int8", "Int16", "Int32", "Int64", "Int128", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "Boolean",
    "String", "Categorical", "Enum",
)  # fmt: skip
ARROW = {
    "halffloat": "float16", "float": "float32", "double": "float64", "bool": "bool_", "string": "string",
    "large_string": "large_string", "string_view": "string_view",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}  # fmt: skip
_DECIMAL = re.compile(
    r"Decimal\(precision=(\d{1,2}), scale=(\d{1,2})\)|decimal(?:32|64|128|256)\((\d{1,2}), (\d{1,2})\)"
)
DICTIONARY = re.compile(r"dictionary<values=(\w+), indices=(u?int\d+), ordered=([01])>")
"""Types of pyarrow's dictionaries, as it prints them."""


@dataclass(frozen=True)
class NativeType:
    """The type of a column in its own library.

    Args:
        name: As the library prints it; of pandas `"category"`, `"object"`, `"decimal(2)"` for Decimals with two digits
            after the point, `"string:python"`, and `"arrow:double"` for columns that pyarrow backs.
        categories: The categories of such a column, in order.
        ordered: Whether the categories have an order.

    Raises:
        ValueError: If no such type is known, or the categories are none.
    """

    name: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        known = isinstance(self.name, str) and len(self.name) <= 200 and _is_known(self.name)
        if not known or type(self.ordered) is not bool:
            raise ValueError(f"a column cannot have the type {str(self.name)[:40]!r}")
        if self.categories is None:
            if _needs_categories(self.name):
                raise ValueError(f"a column of the type {self.name!r} must name its categories")
            return
        plain = all(type(each) in (str, int, float, bool) for each in self.categories)
        if not (plain and 1 <= len(self.categories) <= MOST_CATEGORIES and _distinct(self.categories)):
            raise ValueError("categories must be distinct strings or numbers")

    def to_plain(self) -> dict[str, Any]:
        """Return the type as a dict of plain values."""
        return {**vars(self), "categories": None if self.categories is None else list(self.categories)}

    @classmethod
    def from_plain(cls, parts: Any) -> NativeType:
        """Return the type that `to_plain` wrote.

        Args:
            parts: What a file holds; anything.

        Returns:
            The type.

        Raises:
            ValueError: If it is not such a type.
        """
        if not isinstance(parts, dict) or set(parts) != set(cls.__dataclass_fields__):
            raise ValueError("the native type of a column must be a dict with name, categories and ordered")
        categories = parts["categories"]
        if categories is not None and not isinstance(categories, list):
            raise ValueError("the categories of a column must be a list")
        return cls(**{**parts, "categories": None if categories is None else tuple(categories)})


def fits(native: NativeType, container: str) -> bool:
    """Return whether a frame of a library can have a column of a type."""
    return _KNOWN[container](native.name)


def _is_known(name: str) -> bool:
    return any(known(name) for known in _KNOWN.values())


def _is_pandas(name: str) -> bool:
    if name.startswith("arrow:"):
        return _is_arrow(name.removeprefix("arrow:"))
    plain = (*MASKED, "category", "object", "string:python", "string:pyarrow")
    return name in plain or re.fullmatch(r"decimal\(\d{1,2}\)", name) is not None


def _is_polars(name: str) -> bool:
    digits = decimal_digits(name) if name.startswith("Decimal") else None
    return name in _POLARS or (digits is not None and digits[0] <= 38)


def _is_arrow(name: str) -> bool:
    dictionary = DICTIONARY.fullmatch(name)
    if dictionary is not None:
        return dictionary[1] in ARROW and dictionary[2] in ARROW
    return name in ARROW or (name.startswith("decimal") and decimal_digits(name) is not None)


_KNOWN = {PANDAS: _is_pandas, POLARS: _is_polars, PYARROW: _is_arrow}


def _needs_categories(name: str) -> bool:
    return name in ("category", "Enum") or DICTIONARY.fullmatch(name.removeprefix("arrow:")) is not None


def _distinct(values: Sequence[Any]) -> bool:
    return len(set(values)) == len(values)


def decimal_digits(name: str) -> tuple[int, int] | None:
    """Return precision and scale of a decimal type, None of any other."""
    found = _DECIMAL.fullmatch(name)
    if found is None:
        return None
    precision, scale = (int(digits) for digits in found.groups() if digits is not None)
    return (precision, scale) if 1 <= precision <= 76 and scale <= precision else None


# ------------------------------------------------------------------------------------------------------ from a frame


def container_of(data: Any) -> str:
    """Return the library, of `CONTAINERS`, that rows of a table in memory are given back in."""
    module = type(data).__module__.partition(".")[0]
    return module if module in CONTAINERS else PANDAS


def native_types(data: Any) -> dict[str, NativeType]:
    """Return the own types of the columns of a frame, of those whose NumPy type does not say everything."""
    container = container_of(data)
    found: dict[str, NativeType | None] = {}
    if container == POLARS and hasattr(data, "schema"):
        found = {name: _polars_type(data[name]) for name in data.columns}
    elif container == PYARROW and hasattr(data, "schema"):
        found = {name: _arrow_type(data.column(k)) for k, name in enumerate(data.schema.names)}
    elif container == PANDAS and hasattr(data, "dtypes") and hasattr(data, "columns"):
        found = {str(name): _pandas_type(data.iloc[:, k]) for k, name in enumerate(data.columns)}
    return {name: native for name, native in found.items() if native is not None}


def _made(name: str, categories: Sequence[Any] | None = None, ordered: bool = False) -> NativeType | None:
    """Return a type, None where it is none that can be given back."""
    try:
        return NativeType(name, None if categories is None else tuple(categories), ordered)
    except (ValueError, TypeError):
        return None


def _polars_type(series: Any) -> NativeType | None:
    name = str(series.dtype)
    if name.startswith("Enum("):
        return _made("Enum", series.dtype.categories.to_list())
    return _made("Categorical" if name.startswith("Categorical") else name)


def _arrow_type(column: Any, prefix: str = "") -> NativeType | None:
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return _made(f"{prefix}{column.type}")
    chunks = column.unify_dictionaries().chunks if isinstance(column, pa.ChunkedArray) else [column]
    values = chunks[-1].dictionary.to_pylist() if chunks else []
    return _made(f"{prefix}{column.type}", [value for value in values if value is not None], column.type.ordered)


def _pandas_type(series: Any) -> NativeType | None:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _made("category", dtype.categories.tolist(), bool(dtype.ordered))
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        return _arrow_type(pa.chunked_array(series.array.__arrow_array__()), "arrow:")
    if isinstance(dtype, pd.StringDtype):
        return _made(f"string:{dtype.storage}") if dtype.na_value is pd.NA else None
    if dtype.kind != "O":
        return _made(dtype.name) if dtype.name in MASKED else None
    decimals = [value for value in series if isinstance(value, Decimal) and value.is_finite()]
    if not decimals:
        return _made("object")
    return _made(f"decimal({max(max(-int(value.as_tuple().exponent), 0) for value in decimals)})")
