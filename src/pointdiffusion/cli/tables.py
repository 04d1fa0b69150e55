"""The table of a run: read, checked against the run, and split into rows to train on and rows kept from that."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pointdiffusion.cli.runs import CONFIG, MODEL, folder_of, model_path
from pointdiffusion.cli.settings import RunSettings
from pointdiffusion.config import unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointdiffusion.model.diffusion_model import DiffusionModel
    from pointdiffusion.tabular.collecting import Table
    from pointdiffusion.tabular.schema import Schema


WAYS: dict[str, Literal["refuse", "drop", "keep"]] = {"refuse": "refuse", "drop": "drop", "mask": "keep"}
"""What is read of rows with missing values, by what the settings of a run say of them."""


@dataclass(frozen=True)
class Parts:
    """A table as a model sees it: integers dequantised, rows split.

    Args:
        table: The table as it was read.
        values: Its rows with integers dequantised, shape `(N, D)`; NaN where values are missing. Those of the table
            itself where it has no integers; not to be written to.
        training: Places of the rows to train on, all of them whole.
        validation: Places of whole rows that are kept from training.
        gaps: Places of the rows with missing values, which a run with masks trains on as well.
    """

    table: Table
    values: NDArray[np.float64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    gaps: NDArray[np.int64]

    def rows(self, places: NDArray[np.int64]) -> Any:
        """Return some of the rows as a frame with the names of the columns."""
        import pandas as pd

        return pd.DataFrame(self.values[places], columns=self.table.schema.names, copy=False)  # indexing has copied

    def labels(self, places: NDArray[np.int64]) -> list[Any] | None:
        """Return the classes of some of the rows as plain values; None where there are none."""
        return None if self.table.labels is None else self.table.labels[places].tolist()


def content_hash(table: Table) -> str:
    """Return the hash of what was read from a table: the same for the same rows in another format."""
    import numpy as np

    labels = None if table.labels is None else table.labels.tolist()
    known = hashlib.sha256(repr((table.schema.names, labels)).encode())
    known.update(np.ascontiguousarray(table.values, dtype="<f8").data)
    return known.hexdigest()


def split_table(table: Table, settings: RunSettings) -> Parts:
    """Return the table of a run, split and dequantised by the run's seed."""
    import numpy as np

    from pointdiffusion.tabular.splitting import split_rows

    whole = np.flatnonzero(np.isfinite(table.values).all(axis=1))
    labels = None if table.labels is None else table.labels[whole]
    training, validation = split_rows(len(whole), settings.validation, seed=settings.seed, labels=labels)
    gaps = np.setdiff1d(np.arange(len(table.values)), whole)
    values = table.values  # noqa: PD011  (an array, no frame)
    if table.schema.discrete:
        values = table.schema.dequantise(values, settings.seed)
    return Parts(table, values, whole[training], whole[validation], gaps)


def read_training_table(settings: RunSettings) -> Table:
    """Read the table that a run is about."""
    from pointdiffusion.tabular.reading import read_table

    if settings.table is None:
        raise ValueError("there is no table to train on; give one, or a --config that names one")
    return read_table(
        settings.table, columns=settings.columns, label=settings.label, missing=WAYS[settings.missing],
        seed=settings.seed,
    )  # fmt: skip


def open_run(path: str, table: str | None) -> tuple[DiffusionModel, RunSettings, Parts]:
    """Return the model of a run, its settings, and its table as it was trained on.

    Args:
        path: Folder of the run, or its model file.
        table: Where the table lies now, if not in its place.

    Raises:
        ValueError: If the run is not whole, or the table is gone or holds other rows than it did.
    """
    from pointdiffusion.model.diffusion_model import load

    folder = folder_of(path)
    if Path(path).is_dir() and not (folder / MODEL).exists():
        raise ValueError(f"{path} holds no {MODEL}; give the folder of a run, as train makes it")
    model = load(model_path(path))
    settings = RunSettings.from_yaml(folder / CONFIG)
    where = _place(settings.table, table, folder)
    read = read_training_table(replace(settings, table=where))
    if settings.sha256 is not None and content_hash(read) != settings.sha256:
        raise ValueError(f"{where} holds other rows than {path} was trained on; give the table of then with --table")
    return model, settings, split_table(read, settings)


def _place(known: str | None, given: str | None, folder: Path) -> str:
    """Return where the table of a run lies: as told, where it was, or beside the run."""
    if given is not None:
        return given
    if known is None or known == "-":
        raise ValueError("the table of this run came from standard input; give it again with --table")
    for candidate in (Path(known), folder.parent / Path(known).name):
        if candidate.exists():
            return str(candidate)
    raise ValueError(f"the table of this run is no longer at {known}; say where it is with --table")


def open_model(path: str, device: str) -> tuple[DiffusionModel, Schema]:
    """Return a model, on a device, and the columns of its table.

    Raises:
        ValueError: If the file is missing, damaged, foreign or hostile.
    """
    from pointdiffusion.model.diffusion_model import load, pick_device

    model = load(model_path(path)).to(pick_device(device))
    return model, schema_of(model)


def trained_with_gaps(path: str) -> bool:
    """Return whether a model is of a run whose table was allowed to have missing values; False without its settings."""
    config = folder_of(path) / CONFIG
    return config.is_file() and RunSettings.from_yaml(config).missing != "refuse"


def class_of(model: DiffusionModel, name: str) -> Any:
    """Return the class of a model that a text names.

    Raises:
        ValueError: If the model knows no classes, or none of that name.
    """
    classes = [] if model.conditions is None else model.conditions.classes
    if not classes:
        raise ValueError("this model was trained without classes; train one with --label COLUMN")
    for each in classes:
        if str(each) == name:
            return each
    raise unknown_name("class", name, map(str, classes))


def schema_of(model: DiffusionModel) -> Schema:
    """Return the columns of the table that a model was trained on; real numbers where it does not say.

    Raises:
        ValueError: If the model file tells nonsense of them.
    """
    from pointdiffusion.tabular.schema import Column, Schema

    mapping = model.metadata.get("table")
    if mapping is None:
        anything = sys.float_info.max
        return Schema(tuple(Column(name, "real", "float64", -anything, anything) for name in model.columns))
    schema = Schema.from_mapping(mapping)
    if schema.names != model.columns:
        raise ValueError("the model file tells of a table with other columns than it models; do not trust it")
    return schema
