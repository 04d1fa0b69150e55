"""Writes tables: text, Parquet and NumPy files, atomically; an existing file is overwritten only with `force`."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointdiffusion.runtime.files import regular_target, write_atomic
from pointdiffusion.tabular.cells import guard_formula
from pointdiffusion.tabular.columns import FLOATS, INTEGERS
from pointdiffusion.tabular.memory import is_arrow
from pointdiffusion.tabular.sources import no_pyarrow

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npy", ".npz")


def write_table(frame: Any, target: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write a data frame to a file, in the format of its ending: `.csv`, `.tsv`, `.csv.gz`, `.parquet`, `.npy`, `.npz`.

    Spreadsheets execute a cell that begins like a formula. In text files, an apostrophe is therefore put before each
    name and each string that begins with =, +, -, @, a tab or a carriage return, also after a possible separator;
    `read_table` removes it. Numbers stay numbers, negative ones too.

    `.npy` holds one array `(N, D)` and no names; `.npz` one array for each column. Parquet and `.npz` keep all types,
    text files keep each float to its last digit. Equal frames give equal bytes.

    Args:
        frame: A data frame of any library that narwhals supports.
        target: The file; `-` is standard output, as CSV.
        force: Overwrite an existing file.

    Raises:
        ValueError: If the file exists, its ending is unknown, or the format cannot hold the frame.
        OSError: If the disk is full or the folder cannot be written; an earlier file is then untouched.

    Examples:
        >>> import pandas as pd
        >>> write_table(pd.DataFrame({"x": [0.1, -2.0], "name": ["a", "=b"]}), "-")
        x,name
        0.1,a
        -2.0,'=b
    """
    kind = check_target(target, force=force)
    table = _as_pandas(frame)
    if kind == "-":
        sys.stdout.write(_text(table, ","))
        sys.stdout.flush()
        return
    write_atomic(target, _payload(table, kind))


def check_target(target: str | os.PathLike[str], *, force: bool = False) -> str:
    """Return the format of a file to be written, before any work is done for it.

    Args:
        target: The file; `-` is standard output.
        force: Allow an existing file.

    Returns:
        The ending, one of `FORMATS`, or `-`.

    Raises:
        ValueError: If the ending is unknown, the target is a folder or a device, or it exists and `force` is False.

    Examples:
        >>> check_target("no-such-folder/samples.csv.gz")
        '.csv.gz'
    """
    if os.fspath(target) == "-":
        return "-"
    path = Path(target)
    kind = next((suffix for suffix in reversed(FORMATS) if path.name.lower().endswith(suffix)), None)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it, as in {path / 'samples.csv'}")
    if kind is None:
        raise ValueError(f"{path.name} has an unknown format; end its name in one of {', '.join(FORMATS)}")
    if regular_target(path).exists() and not force:
        raise ValueError(f"{path} already exists; overwrite it with --force (force=True), or give another name")
    return kind


def _as_pandas(frame: Any) -> pd.DataFrame:
    import narwhals as nw
    import pandas as pd

    if isinstance(frame, pd.DataFrame):
        table = frame.set_axis([str(name) for name in frame.columns], axis=1)
        if not table.columns.is_unique:
            raise ValueError("two columns have the same name; rename one of them before writing")
        return table
    if is_arrow(frame):
        columns = dict(zip(frame.schema.names, frame.columns, strict=True))
        if len(columns) < frame.num_columns:
            raise ValueError("two columns have the same name; rename one of them before writing")
        return pd.DataFrame({name: _plain(str(each.type), each.to_pylist()) for name, each in columns.items()})
    try:
        given = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise ValueError(f"frame must be a data frame, got a {type(frame).__name__}") from error
    series = {name: given[name] for name in given.columns}
    return pd.DataFrame(
        {
            name: each.to_numpy()
            if str(each.dtype).lower() in FLOATS
            else _plain(str(each.dtype).lower(), each.to_list())
            for name, each in series.items()
        }
    )


def _plain(kind: str, values: list[Any]) -> Any:
    """Return the values of a column for pandas: integers keep their type, and all digits beside missing values."""
    import pandas as pd

    kind = {"float": "float32", "double": "float64", "halffloat": "float16"}.get(kind, kind)
    if kind in FLOATS:
        return np.array(values, dtype=kind)
    if kind not in INTEGERS:
        return values
    gaps = any(value is None for value in values)
    dtype: Any = kind.replace("int", "Int").replace("uI", "UI") if gaps else kind
    return pd.array(values, dtype=dtype)


def _payload(table: pd.DataFrame, kind: str) -> bytes:
    """Return the bytes of a file."""
    if kind == ".parquet":
        return _parquet(table)
    buffer = io.BytesIO()
    if kind == ".npy":
        np.save(buffer, _matrix(table), allow_pickle=False)
        return buffer.getvalue()
    if kind == ".npz":
        return _archive(table)
    payload = _text(table, "\t" if kind.startswith(".tsv") else ",").encode()
    return gzip.compress(payload, mtime=0) if kind.endswith(".gz") else payload


def _text(table: pd.DataFrame, separator: str) -> str:
    """Return a table as text, formulas guarded."""
    import csv

    safe = table.copy(deep=False)
    safe.columns = [guard_formula(name) for name in table.columns]
    texts = list(safe.columns)
    for name in safe.columns[[_is_text(table[name]) for name in table.columns]]:
        safe[name] = safe[name].map(lambda value: guard_formula(value) if isinstance(value, str) else value)
        texts += [value for value in safe[name].unique() if isinstance(value, str)]
    # Readers drop spaces around a field that is not in quotes, and the writer does not put a lone \r into them.
    quoted = any(text != text.strip() or "\r" in text for text in texts)
    quoting: Any = csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL
    return str(safe.to_csv(sep=separator, index=False, lineterminator="\n", quoting=quoting))


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        import pyarrow as pa
    except ImportError as error:
        raise no_pyarrow() from error
    try:
        table.to_parquet(buffer, engine="pyarrow", index=False)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"Parquet cannot hold this table ({reason}); write .csv") from error
    return buffer.getvalue()


def _is_text(column: Any) -> bool:
    return not str(column.dtype).lower().startswith(("int", "uint", "float", "bool"))


def _matrix(table: pd.DataFrame) -> Any:
    """Return a table as one array of numbers."""
    texts = [name for name in table.columns if _is_text(table[name])]
    if texts:
        raise ValueError(
            f"column {texts[0]!r} holds strings, and .npy holds numbers only; write .npz, .csv or .parquet"
        )
    arrays = [_array(table[name]) for name in table.columns]
    return np.column_stack(arrays)


def _array(column: Any) -> Any:
    """Return a column as an array that needs no pickling; numbers with missing values become floats with NaN."""
    if _is_text(column):
        return np.array(["" if value is None or value != value else str(value) for value in column], dtype=str)
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return column.to_numpy(dtype=str(column.dtype).lower().replace("boolean", "bool"))


def _archive(table: pd.DataFrame) -> bytes:
    """Return an archive of one array for each column, as `numpy.savez` writes it, but with any names."""
    wrong = [name for name in table.columns if not name or "\0" in name]
    if wrong:
        raise ValueError(f"column {wrong[0]!r} cannot be an array of an .npz file; rename it, or write .parquet")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in table.columns:
            with archive.open(
                zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True
            ) as file:  # no time of writing in it
                np.lib.format.write_array(file, _array(table[name]), allow_pickle=False)
    return buffer.getvalue()
