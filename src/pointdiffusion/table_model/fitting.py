"""From a table to a model of it in one call."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.config import TableConfig, unknown_name
from pointdiffusion.runtime.deprecation import REMOVED_IN
from pointdiffusion.table_model.parts import MASK, Parts, split_table
from pointdiffusion.table_model.search import search
from pointdiffusion.table_model.table_model import TableModel
from pointdiffusion.tabular.collecting import Table
from pointdiffusion.tabular.columns import FLOATS, INTEGERS, LARGEST_TABLE, MOST_CLASSES, LabelColumn
from pointdiffusion.tabular.labels import as_labels, in_order
from pointdiffusion.tabular.memory import own_names
from pointdiffusion.tabular.native import container_of, native_types
from pointdiffusion.tabular.reading import table_of, table_of_array

MISSING: dict[str, Literal["refuse", "drop", "keep"]] = {"refuse": "refuse", "drop": "drop", "mask": "keep"}
"""What is read of rows with missing values, by what may be asked for."""


def fit_table(
    data: Any = None, *, label: str | None = None, labels: Any = None, columns: Sequence[str] | None = None,
    missing: str = "refuse", config: TableConfig | None = None, max_time: float = 120.0, seed: int = 0,
    metadata: dict[str, Any] | None = None, device: str = "auto", folder: str | os.PathLike[str] | None = None,
    resume: bool = False, show_progress: bool = False, points: Any = None,
) -> TableModel:  # fmt: skip
    """Fit a model to a table, and choose on held-out rows what its settings leave open.

    Columns of integers and booleans are dequantised, constant ones are left out and put back into rows that are drawn.
    Columns of an array are integers where its type says so; those of a frame also where all their floats are.

    Args:
        data: Rows, shape `(N, D)`, in any units: a frame of pandas, polars or another library that narwhals knows, an
            Arrow table, records (dicts), an array, a tensor, nested lists.
        label: Name of the column that holds the class of each row.
        labels: In place of that, the class of each row, integers or strings, shape `(N,)`.
        columns: Names of the columns to learn; all but the label if None.
        missing: What is done where numbers are missing: `"refuse"` the table, `"drop"` such rows, or `"mask"`: learn
            from all rows, and to fill gaps. Gaps in training rows are then filled by a first model of the others, once.
        config: Settings; what is open in them is chosen.
        max_time: Seconds after which nothing further is tried; a fit with everything chosen takes what it takes.
        seed: Seed of the folds, of training and of everything else.
        metadata: Plain values that travel with the model.
        device: "auto", "cpu", "cuda" or "mps".
        folder: Where each network keeps its checkpoints, its logs and its model; nothing is written without.
        resume: Go on with what lies in `folder`: networks that are finished there are read, not trained again.
        show_progress: Show a progress bar.
        points: Deprecated name of `data`.

    Returns:
        The model, in whose `selection` stands what was chosen.

    Raises:
        ValueError: If the data or the settings are unusable, or the networks in `folder` are resumed with other rows,
            another seed, other settings or other versions of the packages than they were trained with.
    """
    if points is not None:
        message = f"fit_table(points=...) is deprecated and will be removed in version {REMOVED_IN}; use data=..."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        data = points
    if data is None:
        raise ValueError("there is no table to fit; give one as the first argument")
    if missing not in MISSING:
        raise unknown_name("missing", missing, MISSING)
    if label is not None and labels is not None:
        raise ValueError("label names a column of the table and labels are given beside it; give one of the two")
    table = _read(data, label, labels, columns, MISSING[missing])
    config = config or TableConfig()
    if missing == "mask" and config.mask == 0:
        config = replace(config, mask=MASK)
    return fit_by_folds(
        split_table(table, seed=seed), config, max_time=max_time, seed=seed, metadata=metadata, device=device,
        folder=folder, resume=resume, show_progress=show_progress,
    )  # fmt: skip


def fit_by_folds(
    parts: Parts, config: TableConfig, *, max_time: float, seed: int = 0, metadata: dict[str, Any] | None = None,
    device: str = "auto", folder: str | os.PathLike[str] | None = None, resume: bool = False,
    show_progress: bool = False,
) -> TableModel:  # fmt: skip
    """Fit networks that are chosen by folds to a table that is encoded; the arguments are those of `fit_table`."""
    rows, labels, schema = parts.rows(parts.training), parts.labels(parts.training), parts.table.schema
    common: dict[str, Any] = {"seed": seed, "device": device, "show_progress": show_progress}
    if len(parts.gaps):
        first = search(rows, labels=labels, config=config, max_time=max_time / 2, **common)
        rows, labels = parts.filled(first.model, seed)
        config = first.config  # chosen once
    found = search(
        rows, labels=labels, config=config, max_time=max_time,
        metadata={**(metadata or {}), "table": schema.to_mapping()}, folder=folder, resume=resume, **common,
    )  # fmt: skip
    return TableModel(schema, found.model, found)


def fit_array(
    data: Any, *, integers: NDArray[np.bool_], labels: Any = None, config: TableConfig, max_time: float, seed: int
) -> TableModel:
    """Fit a model to an array `(N, D)` some of whose columns are integers; the arguments are those of `fit_table`."""
    table = _with_labels(table_of_array(data, integers=integers), labels)
    return fit_by_folds(split_table(table, seed=seed), config, max_time=max_time, seed=seed)


def _read(
    data: Any, label: str | None, labels: Any, columns: Sequence[str] | None,
    missing: Literal["refuse", "drop", "keep"],
) -> Table:  # fmt: skip
    """Return what is to be learned as a table, its classes from a column of it or from beside it."""
    if own_names(data) is None and label is None and columns is None and _is_array(data):
        return _with_labels(table_of_array(data, missing=missing), labels)
    table = table_of(
        data, columns=columns, label=label, missing=missing, max_values=sys.maxsize, max_columns=LARGEST_TABLE
    )
    return _with_labels(table, labels)


def _with_labels(table: Table, labels: Any) -> Table:
    """Return a table with the class of each row, given beside it."""
    if labels is None:
        return table
    classes = as_labels(labels)
    if len(classes) != table.total_rows:
        raise ValueError(f"labels must have one row for each of {table.total_rows} points, got {len(classes)}")
    chosen = np.empty(len(table.rows), dtype=object)
    chosen[:] = [classes[row] for row in table.rows]
    names = [column.name for column in table.schema.columns]
    column = _label_column(labels, chosen.tolist(), names, table.schema.container)
    return replace(table, labels=chosen, schema=replace(table.schema, label=column))


def _is_array(data: Any) -> bool:
    """Return whether it is an array, a tensor or nested lists, and no frame of a library."""
    return isinstance(data, (np.ndarray, list, tuple)) or (hasattr(data, "__array__") and not hasattr(data, "columns"))


def _label_column(labels: Any, classes: list[Any], names: list[str], container: str) -> LabelColumn | None:
    """Return the column that rows have for classes given beside the table; None where one column cannot hold them."""
    known = in_order(classes)
    kinds = {type(each) for each in known}
    if len(kinds) > 1 or len(known) > MOST_CLASSES or (kinds == {str} and any("\0" in each for each in known)):
        return None
    own = [getattr(labels, "name", None), "label", *(f"label_{number}" for number in range(len(names) + 1))]
    name = next(each for each in own if isinstance(each, str) and "\0" not in each and each not in names)
    native = None
    if hasattr(labels, "to_frame") and container_of(labels) == container:
        native = next(iter(native_types(labels.to_frame(name)).values()), None)
    if kinds == {str}:
        return LabelColumn(name, len(names), "str", tuple(known), native)
    given = str(getattr(labels, "dtype", "")).lower()
    dtype = "bool" if kinds == {bool} else given if given in (*INTEGERS, *FLOATS) else "int64"
    return LabelColumn(name, len(names), dtype, tuple(sorted(map(int, known))), native)
