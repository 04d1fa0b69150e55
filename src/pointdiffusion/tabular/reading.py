"""Reads tables: files, data frames and arrays become points and a schema, by which points become rows again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.tabular.batches import Source
from pointdiffusion.tabular.cells import Profile
from pointdiffusion.tabular.collecting import Collector, Table, choose_columns
from pointdiffusion.tabular.columns import FLOATS, INTEGERS, MOST_COLUMNS
from pointdiffusion.tabular.memory import memory_source
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.tabular.schema import Schema
from pointdiffusion.tabular.sources import checked_path, npy_source, npz_source, parquet_source
from pointdiffusion.tabular.text_files import text_source

Missing = Literal["refuse", "drop", "keep"]
"""Treatment of rows that lack a value."""

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".dat")
BINARY_SUFFIXES = {".parquet": parquet_source, ".pq": parquet_source, ".npy": npy_source, ".npz": npz_source}


def read_table(
    source: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    missing: Missing = "refuse",
    schema: Schema | None = None,
    max_values: int = 2**25,
    seed: int = 0,
) -> Table:
    r"""Read a table from a file: CSV or TSV (gzip or not), Parquet, `.npy`, `.npz`.

    Args:
        source: Path of the file; `-` reads text from standard input.
        columns: Names of the columns to model; all but the label if None.
        label: Name of the column that holds the class of each row, strings or integers.
        missing: Treatment of rows that lack a number: `"refuse"` the table, `"drop"` the rows, or `"keep"` them, with
            NaN in place of the number. Rows without a class are refused unless dropped.
        schema: Columns of an earlier table that this one must have: by name, in any order and among others, or by
            position where the file has no names. Constant columns and the label may be absent.
        max_values: Largest number of values; a random subset of the rows is kept where the table holds more.
        seed: Seed of that subset.

    Returns:
        The modelled columns as points, the classes, and the schema.

    Raises:
        ValueError: If the file cannot be read as a table of numbers, in one sentence that names row and column; rows
            of files are counted from 1, without the header.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "iris.csv")
        ...     _ = path.write_text("length,width,kind\n5.1,3.5,a\n4.9,3.0,b\n")
        ...     table = read_table(path, label="kind")
        >>> table.values
        array([[5.1, 3.5],
               [4.9, 3. ]])
        >>> table.labels
        array(['a', 'b'], dtype='<U1')
    """
    origin = source_of_file(source)
    try:
        return Collector(origin, choose_columns(origin, columns, label, schema), missing, max_values, seed).table()
    finally:
        origin.close()


def table_of(
    data: Any,
    *,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    missing: Missing = "refuse",
    schema: Schema | None = None,
    max_values: int = 2**25,
    max_columns: int = MOST_COLUMNS,
    seed: int = 0,
) -> Table:
    """Convert a table in memory: a data frame, an Arrow table, an array, a tensor, nested lists, records.

    Data frames are those of any library that narwhals supports; records are dicts, one for each row. Arrays without
    names have columns x, y, z, or x1, x2, ... beyond three. Masked values and absent keys of records are missing.

    Args:
        data: The table, N rows.
        columns: Names of the columns to model; all but the label if None.
        label: Name of the column that holds the class of each row, strings or integers.
        missing: Treatment of rows that lack a number: `"refuse"` the table, `"drop"` the rows, or `"keep"` them, with
            NaN in place of the number. Rows without a class are refused unless dropped.
        schema: Columns of an earlier table that this one must have, as for `read_table`.
        max_values: Largest number of values; a random subset of the rows is kept where the table holds more.
        max_columns: Largest number of columns to model.
        seed: Seed of that subset.

    Returns:
        The modelled columns as points, the classes, and the schema.

    Raises:
        ValueError: If it is not a table of numbers, in one sentence that names row and column; rows are counted from 0.

    Examples:
        >>> table = table_of([{"x": 1, "y": 0.5, "unit": "m"}, {"x": 3, "y": 2.25, "unit": "m"}])
        >>> table.values  # the constant column is not modelled
        array([[1.  , 0.5 ],
               [3.  , 2.25]])
        >>> [(column.name, column.kind) for column in table.schema.columns]
        [('x', 'integer'), ('y', 'real'), ('unit', 'constant')]
    """
    origin = memory_source(data, "the table")
    choice = choose_columns(origin, columns, label, schema, max_columns)
    return Collector(origin, choice, missing, max_values, seed).table()


def table_of_array(data: Any, *, missing: Missing = "refuse", integers: NDArray[np.bool_] | None = None) -> Table:
    """Convert an array, a tensor or nested lists, which have one type for all columns.

    Unlike those of `table_of`, columns of floats are real even where all their values are integers.

    Args:
        data: Numbers, shape `(N, D)`.
        missing: Treatment of rows that lack a number, as in `read_table`.
        integers: Which columns are integers whatever the type, booleans, shape `(D,)`.

    Returns:
        The columns that are not constant as points, and the schema.

    Raises:
        ValueError: If it is not a table of numbers, with row and column.
    """
    points = as_points(data, missing=missing != "refuse")
    rows = np.arange(len(points))
    if missing == "drop":
        rows = rows[np.isfinite(points).all(axis=1)]
    values = points[rows]
    dtype = str(getattr(data, "dtype", "")).removeprefix("torch.")
    dtype = dtype if dtype in (*INTEGERS, *FLOATS, "bool") else "float64"
    whole = np.zeros(points.shape[1], dtype=bool) if integers is None else integers
    profiles = [Profile(name, integers=False) for name in column_names(data, points.shape[1])]
    for profile, column, is_whole in zip(profiles, values.T, whole, strict=True):
        if np.isnan(column).all():
            raise ValueError(f"column {profile.name!r} of the table is empty; leave the column out")
        profile.dtype = "int64" if is_whole else dtype
        profile.add(column)
    schema = Schema(tuple(profile.column() for profile in profiles))
    varying = [place for place, column in enumerate(schema.columns) if column.kind != "constant"]
    return Table(values[:, varying], None, schema, rows, len(points))


def source_of_file(source: str | os.PathLike[str]) -> Source:
    """Return the source of a file by the ending of its name; the caller closes it.

    Args:
        source: Path of the file; `-` is standard input.

    Returns:
        The source.

    Raises:
        ValueError: If the ending is unknown, or the file has another format.
    """
    if os.fspath(source) == "-":
        return text_source(None)
    path = checked_path(source)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
        if suffixes[-1:] and suffixes[-1] in BINARY_SUFFIXES:
            raise ValueError(f"{path.name} is compressed, which is read of text files only; unpack it first")
    suffix = suffixes[-1] if suffixes else ""
    if suffix in BINARY_SUFFIXES:
        return BINARY_SUFFIXES[suffix](path)
    if suffix in TEXT_SUFFIXES:
        return text_source(path)
    raise ValueError(
        f"{path.name} has an unknown format; end its name in .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .npy or .npz"
    )
