"""Binary files of tables: Parquet, `.npy` and `.npz`.

Nothing in a file is executed, and no more memory is allocated than the file has, whatever its header states.
"""

from __future__ import annotations

import math
import os
import re
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from pointdiffusion.tabular.batches import ROWS_AT_ONCE, Batch, Source
from pointdiffusion.tabular.cells import shown
from pointdiffusion.tabular.columns import default_names
from pointdiffusion.tabular.memory import array_source, arrow_cells, columns_source

MOST_UNPACKED = 2**34
"""Largest size of a compressed file after unpacking, in bytes."""
MOST_RATIO = 200
"""Largest ratio of unpacked to compressed size, beyond the first 16 MiB."""


def checked_path(source: str | os.PathLike[str]) -> Path:
    """Return the path of a regular file that can be read.

    Args:
        source: The path.

    Returns:
        The path.

    Raises:
        ValueError: If it is a URL, a folder, a device, missing or unreadable.
    """
    text = os.fspath(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ValueError(f"{text} is a URL, and only files are read; download it first, or pipe it in as -")
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
        raise ValueError(f"{path} is a device or a pipe, not a regular file; pipe text in as -")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} cannot be read; check its permissions")
    return path


def check_unpacked(title: str, packed: int, unpacked: int) -> None:
    """Refuse compressed files that unpack to more than a table would.

    Args:
        title: Name of the file in messages.
        packed: Compressed size, in bytes.
        unpacked: Unpacked size so far, in bytes.

    Raises:
        ValueError: If it is too large.
    """
    if unpacked > MOST_UNPACKED or (unpacked > 2**24 and unpacked > MOST_RATIO * packed):
        raise ValueError(
            f"{title} unpacks to more than {MOST_RATIO} times its size, more than any table; do not trust it"
        )


def parquet_source(path: Path) -> Source:
    """Return the source of a Parquet file, read by pieces of its row groups.

    Args:
        path: The file.

    Returns:
        The source.

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
                yield Batch(start, [arrow_cells(piece.column(piece.schema.names.index(name))) for name in chosen])
                start += piece.num_rows
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

    Args:
        path: The file.

    Returns:
        The source.

    Raises:
        ValueError: If it holds objects, is damaged or foreign, or is not a table.
    """
    with path.open("rb") as file:
        shape, _, dtype = _header(path, file)
        size = path.stat().st_size - file.tell()
    if dtype.itemsize * math.prod(shape) > size:
        raise ValueError(f"{path} is damaged: it holds fewer numbers than its header states; restore it from a copy")
    if 0 in shape:
        raise ValueError(f"{path.name} has no rows; give a table with some")
    return array_source(np.load(path, mmap_mode="r", allow_pickle=False), path.name, first=1)


def _header(path: Path, file: IO[bytes], member: str = "") -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of the array that begins at the file's position.

    Raises:
        ValueError: If it is not an array, or one of objects, which would have to be unpickled.
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
        raise ValueError(f"{where}: its header states a negative shape; the file is corrupt, restore it from a copy")
    return shape, fortran, dtype


def npz_source(path: Path) -> Source:
    """Return the source of a `.npz` file: columns by name, or an array `(N, D)`, alone or beside some columns.

    Args:
        path: The file.

    Returns:
        The source.

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
                    raise ValueError(f"two arrays of {path.name} have the name {name!r}; rename one of them")
                with archive.open(entry) as file:
                    shape, fortran, dtype = _header(path, file, name)
                    content, count = file.read(), math.prod(shape)
                if count * dtype.itemsize > len(content):
                    raise ValueError(f"{path} is damaged: {name!r} holds fewer numbers than its header states")
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
    """Return the arrays, with each column of a table among them as its own array."""
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        columns |= dict(zip(default_names(array.shape[1]), array.T, strict=True)) if array.ndim == 2 else {name: array}
    return columns
