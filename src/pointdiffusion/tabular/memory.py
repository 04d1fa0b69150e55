"""Tables in memory as sources: arrays, tensors, records and data frames, with their missing values.

Libraries differ in what becomes of a missing value when a column turns into an array: NaN, None, the value under a
mask, or the value of another row. So missing values are taken from the column's own mask, never from the array alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.tabular.batches import ROWS_AT_ONCE, Batch, Source
from pointdiffusion.tabular.cells import Raw, is_missing
from pointdiffusion.tabular.columns import FLOATS, INTEGERS
from pointdiffusion.tabular.native import container_of, native_types

_BOOL8 = "arrow.bool8"


def memory_source(data: Any, title: str) -> Source:
    """Return the source of a table in memory.

    Args:
        data: A data frame, an Arrow table, an array, a tensor, nested lists or records.
        title: Name of the table in messages.

    Returns:
        The source.

    Raises:
        ValueError: If it is not a table.
    """
    if is_tensor(data):
        data = tensor_array(data, title)
    if isinstance(data, (list, tuple)):
        if _are_records(data):
            return columns_source(_record_columns(data), title, first=0)
        data = _list_array(data, title)
    if isinstance(data, np.ndarray):
        return array_source(data, title)
    source = arrow_source(data, title) if is_arrow(data) else frame_source(data, title)
    return replace(source, container=container_of(data), natives=native_types(data))


def own_names(data: Any) -> list[str] | None:
    """Return the names of the columns of a table in memory; None where it has none."""
    if is_arrow(data):
        return list(data.schema.names)
    if isinstance(data, np.ndarray):
        return None if data.dtype.names is None else list(data.dtype.names)
    if isinstance(data, (list, tuple)):
        return _record_names(data) if _are_records(data) else None
    names = getattr(data, "columns", None)
    return None if names is None else [str(name) for name in names]


# --------------------------------------------------------------------------------------------------- tensors and lists


def is_tensor(data: Any) -> bool:
    """Return whether an object is a tensor of PyTorch, without importing PyTorch."""
    return hasattr(data, "detach") and hasattr(data, "cpu")


def tensor_array(data: Any, title: str) -> NDArray[Any]:
    """Return a tensor as an array; floats that NumPy has no type for become float32, which holds them exactly.

    Args:
        data: A tensor on any device.
        title: Name of the table in messages.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: If it is sparse, or NumPy cannot hold it otherwise.
    """
    data = data.detach()
    if not str(data.layout).endswith("strided"):
        raise ValueError(f"{title} is a sparse tensor; call its to_dense() first")
    try:
        data = data.cpu()
        if data.is_floating_point() and str(data.dtype).removeprefix("torch.") not in FLOATS:
            data = data.float()
        return np.asarray(data.resolve_conj().resolve_neg().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        kind = f"{type(data).__name__} of {data.dtype} on {data.device}"
        raise ValueError(f"{title} is a {kind}, which NumPy cannot hold; convert it to a dense float tensor") from error


def _list_array(data: Sequence[Any], title: str) -> NDArray[Any]:
    """Return nested lists, or rows of arrays, as an array; gaps under masks stay masked."""
    if not data:
        raise ValueError(f"{title} has no rows; give a table with some")
    if any(isinstance(row, np.ma.MaskedArray) for row in data):
        return np.ma.stack(data)  # asarray would take what lies under the masks
    try:
        array = np.asarray(data)
        return array if array.dtype.kind in "biufc" else np.array(data, dtype=object)
    except ValueError as error:
        raise ValueError(f"{title} has rows of different lengths; give them all one length") from error


def _are_records(data: Sequence[Any]) -> bool:
    return bool(data) and all(isinstance(row, Mapping) for row in data)


def _record_names(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _record_columns(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Return records as columns; keys that a record lacks are masked."""
    named = [{str(name): value for name, value in row.items()} for row in rows]
    columns: dict[str, Any] = {}
    for name in _record_names(rows):
        values = [row.get(name) for row in named]
        hidden = np.array([is_missing(value) for value in values])
        numbers = np.array([value for value in values if not is_missing(value)] or [np.nan], dtype=object)
        with suppress(ValueError, TypeError, OverflowError):  # what is no number stays as it is
            numbers = np.asarray(numbers.tolist())
        if numbers.dtype.kind in "biuf" and numbers.ndim == 1:
            columns[name] = np.ma.masked_array(np.zeros(len(values), dtype=numbers.dtype), hidden)
            columns[name][~hidden] = numbers if not hidden.all() else []
        else:
            columns[name] = np.empty(len(values), dtype=object)
            columns[name][:] = values
    return columns


# --------------------------------------------------------------------------------------------------------------- arrays


def array_source(array: Any, title: str, names: list[str] | None = None, first: int = 0) -> Source:
    """Return the source of an array `(N, D)`, or of a structured array.

    Args:
        array: The array.
        title: Name of the table in messages.
        names: Names of the columns, if any.
        first: Number of the first row in messages.

    Returns:
        The source.

    Raises:
        ValueError: If it is not a table.
    """
    if array.dtype.names is not None:
        return columns_source({name: array[name] for name in array.dtype.names}, title, first)
    if array.ndim != 2:
        many = "1 dimension" if array.ndim == 1 else f"{array.ndim} dimensions"
        raise ValueError(f"{title} must have rows and columns, got {many}; reshape it to one row for each point")

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(array), ROWS_AT_ONCE):
            rows = array[start : start + ROWS_AT_ONCE]
            yield Batch(start, [array_cells(rows[:, place]) for place in places])

    return Source(title, names, array.shape[1], read, first)


def array_cells(values: Any) -> Raw:
    """Return the cells of a column that is an array; masked ones are missing."""
    hidden = np.ma.getmask(values)
    if hidden is np.ma.nomask or not hidden.any():
        return Raw(np.asarray(values))
    plain = np.ma.getdata(values)
    if plain.dtype.kind in "biuf":
        return Raw(np.where(hidden, np.nan, plain.astype(np.float64)), plain.dtype.name)
    if plain.dtype.kind in "OUT":
        plain = plain.astype(object)
        plain[hidden] = None
    return Raw(plain)


def columns_source(columns: dict[str, Any], title: str, first: int) -> Source:
    """Return the source of named columns.

    Args:
        columns: Arrays of one dimension and equal length, by name.
        title: Name of the table in messages.
        first: Number of the first row in messages.

    Returns:
        The source.

    Raises:
        ValueError: If their lengths differ, or one has not exactly one dimension.
    """
    for name, values in columns.items():
        if values.ndim != 1:
            raise ValueError(
                f"column {name!r} of {title} has {values.ndim} dimensions, and a column has one; leave it out"
            )
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name!r} {len(values)}" for name, values in list(columns.items())[:5])
        raise ValueError(f"the columns of {title} differ in length: {lengths}; give columns of one length")
    series = list(columns.values())

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(series[0]), ROWS_AT_ONCE):
            yield Batch(start, [array_cells(series[place][start : start + ROWS_AT_ONCE]) for place in places])

    return Source(title, list(columns), len(series), read, first)


# ---------------------------------------------------------------------------------------------------------------- Arrow


def is_arrow(data: Any) -> bool:
    """Return whether an object is a table or a record batch of pyarrow, without importing pyarrow."""
    return type(data).__module__.startswith("pyarrow") and hasattr(data, "schema") and hasattr(data, "num_rows")


def arrow_source(table: Any, title: str) -> Source:
    """Return the source of an Arrow table or record batch.

    Args:
        table: The table.
        title: Name of the table in messages.

    Returns:
        The source.

    Raises:
        ValueError: If two columns share a name.
    """

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            rows = table.slice(start, ROWS_AT_ONCE)
            yield Batch(start, [arrow_cells(rows.column(place)) for place in places])

    names = list(table.schema.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns of {title} have the name {twice!r}; rename one of them")
    return Source(title, names, len(names), read, first=0)


def arrow_cells(column: Any) -> Raw:
    """Return the cells of an Arrow column.

    Only numbers, booleans and times go through `to_numpy`: for dictionaries it fills a missing value with the value of
    another row (pyarrow 26), and for extension types it returns their storage. All else goes through Python objects.

    Args:
        column: An `Array` or a `ChunkedArray`.

    Returns:
        The cells, missing ones as NaN or None.
    """
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_arrow_array(chunk) for chunk in chunks]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Raw(np.empty(0))
    return Raw(np.concatenate([part.values for part in parts]), parts[0].dtype)


def _arrow_array(array: Any) -> Raw:
    import pyarrow as pa

    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage.cast(pa.bool_()) if kind.extension_name == _BOOL8 else array.storage
        elif pa.types.is_dictionary(kind):
            array = array.dictionary_decode()
        else:
            break
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if number or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return Raw(array.to_numpy(zero_copy_only=False), np.dtype(kind.to_pandas_dtype()).name if number else "")
    cells = np.empty(len(array), dtype=object)
    cells[:] = array.to_pylist()
    return Raw(cells)


# --------------------------------------------------------------------------------------------------------------- frames

_LAZY = ("collect", "compute", "to_pandas", "df")
"""Methods by which lazy tables become data frames in memory."""
_TABLES = ("Frame", "Table", "Relation", "Dataset")
"""Words in the class names of tables."""


def frame_source(frame: Any, title: str) -> Source:
    """Return the source of a data frame of any library that narwhals supports.

    Args:
        frame: The data frame.
        title: Name of the table in messages.

    Returns:
        The source.

    Raises:
        ValueError: If it is not such a data frame, or two of its columns share a name.
    """
    import narwhals as nw

    if type(frame).__module__.startswith("pandas") and hasattr(frame, "columns"):
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)  # pandas names columns by anything
    try:
        table = nw.from_native(frame, eager_only=True)
    except nw.exceptions.DuplicateError as error:
        raise ValueError(f"two columns of {title} have the same name; rename one of them") from error
    except TypeError as error:
        raise _no_frame(frame, title) from error
    if is_arrow(table.to_native()):
        return arrow_source(table.to_native(), title)

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(table), ROWS_AT_ONCE):
            rows = table[start : start + ROWS_AT_ONCE]
            yield Batch(start, [series_cells(rows[:, place]) for place in places])

    return Source(title, list(table.columns), len(table.columns), read, first=0)


def _no_frame(data: Any, title: str) -> ValueError:
    """Return the error for an object that is neither a data frame in memory nor an array."""
    kind = type(data)
    if isinstance(data, dict):
        return ValueError(f"{title} is a dict; make a data frame of it first, as with pandas.DataFrame(data)")
    if hasattr(data, "toarray") and kind.__module__.startswith("scipy"):
        return ValueError(f"{title} is a sparse {kind.__name__}; call its toarray() first")
    method = next((name for name in _LAZY if hasattr(data, name)), None)
    if method is not None and any(word in kind.__name__ for word in _TABLES):
        whose = kind.__module__.split(".")[0]
        return ValueError(f"{title} is a {kind.__name__} of {whose}, which is not read; call its {method}() first")
    return ValueError(f"{title} is neither a data frame nor an array, but a {kind.__name__}")


def series_cells(series: Any) -> Raw:
    """Return the cells of a column of a data frame, with its type where missing values turned integers into floats."""
    import narwhals as nw

    kind = str(series.dtype).lower()
    if kind in ("int128", "uint128"):  # NumPy has no such type; below 2^53 float64 holds it, and above it is refused
        return Raw(series.cast(nw.Float64).to_numpy(), "int64")
    return Raw(series.to_numpy(), kind if kind in INTEGERS + FLOATS else "")
