"""Where tables come from: a source knows its columns at once and gives its rows batch by batch, in bounded memory.

Rows of a file are counted from 1 in messages, the header aside, as people count; those of arrays and frames from 0, as
Python does. Nothing in a file is executed, and no more memory is claimed than a file has, whatever it says of itself.
"""

from __future__ import annotations

import math
import os
import re
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pointdiffusion.data.cells import Raw, shown
from pointdiffusion.data.schema import FLOATS, INTEGERS, default_names

ROWS_AT_ONCE = 2**16
MOST_UNPACKED = 2**34
"""Bytes that a compressed file may unpack to."""
MOST_RATIO = 200
"""How many times its own size a compressed file may unpack to, beyond the first 16 MiB."""


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows.

    Args:
        start: Number of the first of them, from 0.
        columns: The cells of the columns that were asked for, in that order.
        lines: Line of each row in a text file.
    """

    start: int
    columns: list[Raw]
    lines: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.columns[0].values)


@dataclass(frozen=True)
class Source:
    """A table that is about to be read.

    Args:
        title: What to call it in messages.
        names: Names of its columns, None where it has none.
        n_columns: Their number.
        read: Returns the batches of the columns at some places; may be called once.
        first: What the first row is called: 1 in files, 0 in Python.
        is_text: Whether the cells are texts, whatever they mean.
        close: Closes the file.
    """

    title: str
    names: list[str] | None
    n_columns: int
    read: Callable[[Sequence[int]], Iterator[Batch]]
    first: int = 1
    is_text: bool = False
    close: Callable[[], None] = lambda: None

    def place(self, batch: Batch) -> Callable[[int], str]:
        """Return the function that says how a row of a batch is called."""

        def name(at: int) -> str:
            line = f" (line {batch.lines[at]})" if batch.lines else ""
            return f"row {batch.start + at + self.first}{line}"

        return name


def checked_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of an ordinary file.

    Raises:
        ValueError: If it is an address, a folder, a device, or not there.
    """
    text = os.fspath(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError(f"{text} is an address, and only files are read; download it first, or pipe it in as -")
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{shown(path)} cannot be read ({getattr(error, 'strerror', error)}); check the path"
        ) from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder; give a file in it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is a device or a pipe, no file; pipe text in as -")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read; check its permissions")
    return path


def check_unpacked(title: str, packed: int, unpacked: int) -> None:
    """Raise a ValueError if a compressed file unpacks to more than a table would."""
    if unpacked > MOST_UNPACKED or (unpacked > 2**24 and unpacked > MOST_RATIO * packed):
        raise ValueError(f"{title} unpacks to more than {MOST_RATIO} times its size, as no table does; do not trust it")


# ---------------------------------------------------------------------------------------------------- arrays and frames


def array_source(array: Any, title: str, names: list[str] | None = None, first: int = 0) -> Source:
    """Return the source of an array `(N, D)`, or of one of records.

    Raises:
        ValueError: If it is no table.
    """
    if array.dtype.names is not None:
        return columns_source({name: array[name] for name in array.dtype.names}, title, first)
    if array.ndim != 2:
        raise ValueError(f"{title} must have rows and columns, and has {array.ndim} dimensions; reshape it")
    mask = np.ma.getmask(array)

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(array), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            hidden = None if mask is np.ma.nomask else mask[rows]
            yield Batch(start, [_column(array[rows, place], hidden, place) for place in places])

    return Source(title, names, array.shape[1], read, first)


def _column(values: Any, hidden: Any, place: int) -> Raw:
    """Return a column of an array; what a mask hides is missing."""
    if hidden is None or not hidden[:, place].any():
        return Raw(np.asarray(values))
    filled = np.where(hidden[:, place], np.nan, np.ma.getdata(values).astype(np.float64))
    return Raw(filled, values.dtype.name)


def columns_source(columns: dict[str, Any], title: str, first: int) -> Source:
    """Return the source of named columns of one length.

    Raises:
        ValueError: If their lengths differ, or they are no columns.
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
            yield Batch(start, [Raw(series[place][start : start + ROWS_AT_ONCE]) for place in places])

    return Source(title, list(columns), len(series), read, first)


def frame_source(frame: Any, title: str) -> Source:
    """Return the source of a data frame of any library that narwhals knows.

    Raises:
        ValueError: If it is no such frame, or two of its columns share a name.
    """
    import narwhals as nw

    if type(frame).__module__.startswith("pandas") and hasattr(frame, "columns"):
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)  # pandas names columns by anything
    try:
        table = nw.from_native(frame, eager_only=True)
    except nw.exceptions.DuplicateError as error:
        raise ValueError(f"two columns of {title} have one name; rename one of them") from error
    except TypeError as error:
        if hasattr(frame, "collect"):
            raise ValueError(f"{title} is not computed yet; call its collect() first") from error
        raise ValueError(f"{title} is neither a data frame nor an array, but a {type(frame).__name__}") from error

    def read(places: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(table), ROWS_AT_ONCE):
            rows = table[start : start + ROWS_AT_ONCE]
            yield Batch(start, [_series(rows[:, place]) for place in places])

    return Source(title, list(table.columns), len(table.columns), read, first=0)


def _series(series: Any) -> Raw:
    """Return the cells of a column of a frame, with its type where gaps turned integers into floats."""
    kind = str(series.dtype).lower()
    return Raw(series.to_numpy(), kind if kind in INTEGERS + FLOATS else "")


# --------------------------------------------------------------------------------------------------------- binary files


def parquet_source(path: Path) -> Source:
    """Return the source of a Parquet file, read by pieces of its row groups.

    Raises:
        ValueError: If pyarrow is not installed, or the file is damaged or foreign.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise no_pyarrow() from error
    broken = (pa.ArrowException, OSError, ValueError, NotImplementedError)
    try:
        file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
        names = [name for name in file.schema_arrow.names if not re.fullmatch(r"__index_level_\d+__", name)]
    except broken as error:
        raise _damaged(path, "Parquet", error) from error

    def read(places: Sequence[int]) -> Iterator[Batch]:
        chosen = [names[place] for place in places]
        start = 0
        try:
            for piece in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=chosen, use_threads=False):
                source = frame_source(pa.Table.from_batches([piece]), path.name)
                for batch in source.read([(source.names or []).index(name) for name in chosen]):
                    yield Batch(start, batch.columns)
                    start += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, "Parquet", error) from error

    return Source(path.name, names, len(names), read, close=file.close)


def no_pyarrow() -> ValueError:
    """Return the error for Parquet without the package that reads and writes it."""
    return ValueError('Parquet files need pyarrow, which is not installed; run: pip install "pyarrow>=17"')


def _damaged(path: Path, kind: str, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())[:150]
    return ValueError(f"{path} is damaged or no {kind} file ({reason}); restore it from a copy, or give another file")


def npy_source(path: Path) -> Source:
    """Return the source of a `.npy` file, mapped into memory.

    Raises:
        ValueError: If it holds objects, is damaged or foreign, or no table.
    """
    with path.open("rb") as file:
        shape, _, dtype = _header(path, file)
        size = path.stat().st_size - file.tell()
    if dtype.itemsize * math.prod(shape) > size:
        raise ValueError(f"{path} is damaged: it holds fewer numbers than it says; restore it from a copy")
    if 0 in shape:
        raise ValueError(f"{path.name} has no rows; give a table with some")
    return array_source(np.load(path, mmap_mode="r", allow_pickle=False), path.name, first=1)


def _header(path: Path, file: IO[bytes], member: str = "") -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of the array that begins here.

    Raises:
        ValueError: If it is no array, or one of objects, which would have to be unpickled.
    """
    where = f"{path.name} ({member})" if member else path.name
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError, EOFError) as error:
        raise _damaged(path, "NumPy", error) from error  # the header is a Python literal, and fails in any way of these
    if dtype.hasobject:
        raise ValueError(f"{where} holds pickled objects, which could run code when read; save numbers instead")
    if any(length < 0 for length in shape):
        raise ValueError(f"{where} says that it has fewer than no rows or columns; restore it from a copy")
    return shape, fortran, dtype


def npz_source(path: Path) -> Source:
    """Return the source of a `.npz` file: columns by name, or an array `(N, D)`, alone or beside some columns.

    Raises:
        ValueError: If it holds objects, is damaged or foreign, unpacks to too much, or holds no table.
    """
    arrays: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            check_unpacked(path.name, path.stat().st_size, sum(entry.file_size for entry in entries))
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"two arrays of {path.name} are called {name!r}; rename one of them")
                with archive.open(entry) as file:
                    shape, fortran, dtype = _header(path, file, name)
                    content, count = file.read(), math.prod(shape)
                if count * dtype.itemsize > len(content):
                    raise ValueError(f"{path} is damaged: {name!r} holds fewer numbers than it says; restore it")
                flat = np.frombuffer(content, dtype=dtype, count=count)
                arrays[name] = flat.reshape(shape, order="F" if fortran else "C")
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise _damaged(path, "NumPy", error) from error
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    if len(tables) > 1:
        raise ValueError(f"{path.name} holds several tables ({', '.join(map(repr, tables))}); save one of them alone")
    if not arrays:
        raise ValueError(f"{path.name} holds no array; give a table with some rows")
    if tables == list(arrays):
        return array_source(arrays[tables[0]], path.name, first=1)
    return columns_source(_spread(arrays), path.name, first=1)


def _spread(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the arrays with the columns of a table among them as columns of their own."""
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        columns |= dict(zip(default_names(array.shape[1]), array.T, strict=True)) if array.ndim == 2 else {name: array}
    return columns
