"""Tables that a visitor hands in, as the page shows and takes them: all columns, and some of the rows.

How much a file unpacks to, and how many rows and columns it has, is asked of its headers where it has some, before
anything of it is unpacked into memory.
"""

from __future__ import annotations

import gzip
import math
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from pointdiffusion.tabular.batches import Source
from pointdiffusion.tabular.cells import MISSING, is_number
from pointdiffusion.tabular.reading import source_of_file
from pointdiffusion.web.export import evenly
from pointdiffusion.web.limits import LIMITS

KINDS = ("csv", "tsv", "parquet", "npy", "npz", "csv.gz", "tsv.gz")


INFINITE = ("inf", "infinity")
"""Texts that stand for an infinite number, in small letters and without a sign."""


class TooLargeError(ValueError):
    """A table that has more rows or columns than are taken."""


def preview(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a table as plain values: names of its columns, number of rows, and up to 5,000 evenly chosen rows.

    Raises:
        ValueError: If the file is no table, in one sentence.
        TooLargeError: If it has more rows or columns than are taken.
    """
    _check_unpacked(Path(path))
    source = source_of_file(path)
    try:
        return _preview(source)
    finally:
        source.close()


def preview_bytes(body: bytes, kind: str) -> dict[str, Any]:
    """Return the table in the bytes of a file of a kind of `KINDS`, as `preview` does."""
    with tempfile.TemporaryDirectory() as folder:
        packed = body.startswith(b"\x1f\x8b") and not kind.endswith(".gz")
        path = Path(folder) / (f"table.{kind}.gz" if packed else f"table.{kind}")
        path.write_bytes(body)
        try:
            return preview(path)
        except ValueError as error:
            kind_of_error = TooLargeError if isinstance(error, TooLargeError) else ValueError
            raise kind_of_error(str(error).replace(f"{folder}{os.sep}", "")) from error
        except Exception as error:  # whatever a reader makes of a file that is none, the visitor gets an answer
            raise ValueError(f"table.{kind} cannot be read ({type(error).__name__}); save it anew as CSV") from error


def _check_unpacked(path: Path) -> None:
    """Raise a TooLargeError for a file that would unpack to too much, or has too many rows or columns by its headers.

    What cannot be read here is refused with a sentence where it is read.
    """
    name = path.name.lower()
    try:
        if name.endswith(".npz"):
            with zipfile.ZipFile(path) as archive:
                _check_size(sum(entry.file_size for entry in archive.infolist()))  # no more than this is ever unpacked
                for entry in archive.infolist():
                    with archive.open(entry) as file:
                        _check_shape(file)
        elif name.endswith(".npy"):
            with path.open("rb") as file:
                _check_shape(file)
        elif name.endswith((".parquet", ".pq")):
            _check_parquet(path)
        elif name.endswith(".gz"):
            with gzip.open(path) as file:
                size = 0
                while piece := file.read(2**20):
                    size += len(piece)
                    _check_size(size)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
        return


def _check_size(size: int) -> None:
    if size > LIMITS["unpacked_bytes"]:
        raise TooLargeError(f"the table unpacks to more than {LIMITS['unpacked_bytes'] >> 20} MB; hand in fewer rows")


def _check_rows(rows: int) -> None:
    if rows > LIMITS["rows"]:
        raise TooLargeError(f"the table has more than {LIMITS['rows']:,} rows; draw some of them first")


def _check_columns(columns: int) -> None:
    if columns > LIMITS["columns"]:
        most = LIMITS["columns"]
        raise TooLargeError(f"the table has {columns} columns, and {most} are taken at most; leave some out")


def _check_shape(file: IO[bytes]) -> None:
    """Check the array that begins here by its header."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, _ = read(file)
    except Exception:  # a header is a Python literal, and fails in any way of these; it is refused where it is read
        return
    _check_rows(shape[0] if shape else 0)
    _check_columns(shape[1] if len(shape) > 1 else 0)


def _check_parquet(path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    try:
        with pq.ParquetFile(path) as file:
            about = file.metadata
            groups = [about.row_group(k) for k in range(about.num_row_groups)]
    except (pa.ArrowException, ValueError):
        return
    _check_rows(about.num_rows)
    _check_columns(about.num_columns)
    _check_size(sum(group.total_byte_size for group in groups))


def _preview(source: Source) -> dict[str, Any]:
    _check_columns(source.n_columns)
    names = [_text(name) for name in source.names or [f"x{place + 1}" for place in range(source.n_columns)]]
    kept: list[list[Any]] = []
    count, stride = 0, 1
    for batch in source.read(range(source.n_columns)):
        columns = [(np.asarray(raw.values, dtype=object), raw.comma) for raw in batch.columns]
        _check_rows(count + len(batch))
        place = source.place(batch)
        for row in range(-count % stride, len(batch), stride):
            try:
                kept.append([_cell(cells[row], comma) for cells, comma in columns])
            except OverflowError:
                wrong = next(k for k, (cells, comma) in enumerate(columns) if _is_infinite(cells[row], comma))
                raise ValueError(
                    f"column {names[wrong]!r} holds an infinite value in {place(row)}; remove or replace it"
                ) from None
        count += len(batch)
        while len(kept) > 2 * LIMITS["preview_rows"]:
            kept, stride = kept[::2], 2 * stride
    if not kept:
        raise ValueError("the table has no rows; give a table with some")
    chosen = evenly(len(kept), LIMITS["preview_rows"])
    return {"columns": names, "rows": count, "values": [kept[place] for place in chosen]}


def _cell(value: Any, comma: bool) -> float | str | None:
    """Return a cell as a number, a text, or nothing where it is missing; a text that spells a number is one.

    Raises:
        OverflowError: If it is infinite, or a number beyond double precision.
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        text = (value.decode(errors="replace") if isinstance(value, bytes) else value).strip()
        if text.lower() in MISSING:
            return None
        spelled = text.replace(",", ".") if comma else text
        if not is_number(spelled) and text.lower().lstrip("+-") not in INFINITE:
            return _text(text)[:200]
        value = spelled
    try:
        number = float(value)
    except (TypeError, ValueError):
        return _text(str(value))[:200]
    if math.isinf(number):
        raise OverflowError
    return None if math.isnan(number) else number


def _is_infinite(value: Any, comma: bool) -> bool:
    try:
        _cell(value, comma)
    except OverflowError:
        return True
    return False


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold: half letters (lone surrogates) are question marks."""
    return text.encode(errors="replace").decode()
