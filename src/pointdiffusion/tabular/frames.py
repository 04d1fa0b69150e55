"""Frames of pandas, polars and pyarrow, built of columns in NumPy's types with the types that their library has."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from pointdiffusion.tabular.native import (
    ARROW,
    DICTIONARY,
    MASKED,
    POLARS,
    PYARROW,
    NativeType,
    decimal_digits,
)  # fmt: skip


def build_frame(columns: dict[str, tuple[Any, NativeType | None]], container: str) -> Any:
    """Return a frame of a library.

    Args:
        columns: Values and own type of each column by name: an array of NumPy, or one of pandas where integers have
            gaps. Without a type they stay as they are.
        container: One of `CONTAINERS`.

    Returns:
        A data frame of that library.

    Raises:
        ValueError: If the values of a column do not fit its own type, as in a model file of nonsense.
    """
    if container == POLARS:
        import polars as pl

        return pl.DataFrame([_built(_polars_series, name, *column).rename(name) for name, column in columns.items()])
    if container == PYARROW:
        import pyarrow as pa

        return pa.table({name: _built(_arrow_array, name, *column) for name, column in columns.items()})
    import pandas as pd

    count = max((len(values) for values, _ in columns.values()), default=0)
    arrays = {name: _built(_pandas_array, name, *column) for name, column in columns.items()}
    return pd.DataFrame(arrays, index=range(count))


def _built(build: Callable[[Any, NativeType | None], Any], name: str, values: Any, native: NativeType | None) -> Any:
    """Return a column as a library builds it."""
    try:
        return build(values, native)
    except Exception as error:  # each library has errors of its own for values that are none of a type
        if native is None:
            raise
        raise ValueError(f"column {name!r} cannot be of the type {native.name!r}; the model file is wrong") from error


def _cells(values: Any, native: NativeType | None) -> list[Any]:
    """Return values as Python's own, None where one is missing; Decimals and categories where the type has such."""
    gaps = np.asarray(values != values) if isinstance(values, np.ndarray) else np.asarray(values.isna())
    cells = [None if gap else value for value, gap in zip(values.tolist(), gaps.tolist(), strict=True)]
    if native is None:
        return cells
    if native.categories is not None:
        return _as_categories(cells, native.categories)
    bare = native.name.removeprefix("arrow:")
    digits = decimal_digits(bare)
    if digits is not None:
        return [None if cell is None else _decimal(cell, digits[1], digits[0]) for cell in cells]
    if bare.startswith("decimal("):
        return [None if cell is None else _decimal(cell, int(bare[8:-1])) for cell in cells]
    return cells


def _decimal(value: float, scale: int, precision: int = 76) -> Decimal:
    """Return a number as a Decimal, moved to the largest that the type holds where it is beyond that."""
    exact = Decimal(f"{value:.{scale}f}")
    largest = Decimal((0, (9,) * precision, -scale))
    return min(max(exact, largest.copy_negate()), largest)


def _as_categories(cells: list[Any], categories: Sequence[Any]) -> list[Any]:
    """Return cells as categories: numbers as the nearest one."""
    if all(isinstance(each, str) for each in categories):
        return [None if cell is None else str(cell) for cell in cells]
    numbers = np.array(categories, dtype=np.float64)
    return [None if cell is None else categories[int(np.abs(numbers - float(cell)).argmin())] for cell in cells]


def _polars_series(values: Any, native: NativeType | None) -> Any:
    import polars as pl

    if native is None:
        plain = isinstance(values, np.ndarray) and values.dtype != object
        return pl.Series(values if plain else _cells(values, None))
    digits = decimal_digits(native.name)
    if digits is not None:
        kind: Any = pl.Decimal(*digits)
    elif native.name == "Enum":
        kind = pl.Enum(native.categories or ())
    else:
        kind = getattr(pl, native.name)
    return pl.Series(_cells(values, native), dtype=kind)


def _arrow_array(values: Any, native: NativeType | None) -> Any:
    import pyarrow as pa

    cells = _cells(values, native)
    if native is None:
        kind = pa.from_numpy_dtype(values.dtype) if isinstance(values, np.ndarray) and values.dtype != object else None
        return pa.array(cells, type=kind)
    bare = native.name.removeprefix("arrow:")
    dictionary, digits = DICTIONARY.fullmatch(bare), decimal_digits(bare)
    if digits is not None:
        width = re.match(r"decimal\d+", bare)
        return pa.array(cells, type=getattr(pa, width[0] if width else "decimal128")(*digits))
    if dictionary is None:
        return pa.array(cells, type=getattr(pa, ARROW[bare])())
    categories = native.categories or ()
    codes = {category: code for code, category in enumerate(categories)}
    indices = pa.array([codes.get(cell) for cell in cells], type=getattr(pa, dictionary[2])())
    entries = pa.array(list(categories), type=getattr(pa, ARROW[dictionary[1]])())
    return pa.DictionaryArray.from_arrays(indices, entries, ordered=native.ordered)


def _pandas_array(values: Any, native: NativeType | None) -> Any:
    import pandas as pd

    if native is None:
        return values
    if native.name.startswith("arrow:"):
        return pd.arrays.ArrowExtensionArray(_arrow_array(values, native))
    if native.name == "category":
        return pd.Categorical(_cells(values, native), categories=list(native.categories or ()), ordered=native.ordered)
    if native.name.startswith("string:"):
        storage: Any = native.name.removeprefix("string:")
        return pd.array(_cells(values, native), dtype=pd.StringDtype(storage))
    if native.name in MASKED:
        return pd.array(values).astype(native.name)
    return pd.Series(_cells(values, native), dtype=object).array
