"""Tables that a visitor hands in, as the page shows and takes them: all columns, and some of the rows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pointdiffusion.data.batches import Source
from pointdiffusion.data.cells import MISSING, is_number
from pointdiffusion.data.reading import source_of_file
from pointdiffusion.web.export import evenly
from pointdiffusion.web.limits import LIMITS

KINDS = ("csv", "tsv", "parquet", "npy", "npz", "csv.gz", "tsv.gz")


class TooLargeError(ValueError):
    """A table that has more rows or columns than are taken."""


def preview(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a table as plain values: names of its columns, number of rows, and up to 5,000 evenly chosen rows.

    Raises:
        ValueError: If the file is no table, in one sentence.
        TooLargeError: If it has more rows or columns than are taken.
    """
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
            raise type(error)(str(error).replace(f"{folder}{os.sep}", "")) from error


def _preview(source: Source) -> dict[str, Any]:
    if source.n_columns > LIMITS["columns"]:
        most = LIMITS["columns"]
        raise TooLargeError(f"the table has {source.n_columns} columns, and {most} are taken at most; leave some out")
    names = source.names or [f"x{place + 1}" for place in range(source.n_columns)]
    kept: list[list[Any]] = []
    count, stride = 0, 1
    for batch in source.read(range(source.n_columns)):
        columns = [(np.asarray(raw.values, dtype=object), raw.comma) for raw in batch.columns]
        rows = range(-count % stride, len(batch), stride)
        kept.extend([_cell(cells[row], comma) for cells, comma in columns] for row in rows)
        count += len(batch)
        if count > LIMITS["rows"]:
            raise TooLargeError(f"the table has more than {LIMITS['rows']:,} rows; draw some of them first")
        while len(kept) > 2 * LIMITS["preview_rows"]:
            kept, stride = kept[::2], 2 * stride
    if not kept:
        raise ValueError("the table has no rows; give a table with some")
    chosen = evenly(len(kept), LIMITS["preview_rows"])
    return {"columns": names, "rows": count, "values": [kept[place] for place in chosen]}


def _cell(value: Any, comma: bool) -> float | str | None:
    """Return a cell as a number, a text, or nothing where it is missing; a text that spells a number is one."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
        text = (value.decode(errors="replace") if isinstance(value, bytes) else value).strip()
        if text.lower() in MISSING:
            return None
        spelled = text.replace(",", ".") if comma else text
        return float(spelled) if is_number(spelled) else text[:200]
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)[:200]
    return number if np.isfinite(number) else None
