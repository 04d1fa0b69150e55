"""The table and the model of a run: read, and checked against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointdiffusion.cli.runs import CONFIG, folder_of
from pointdiffusion.cli.settings import RunSettings
from pointdiffusion.config import unknown_name

if TYPE_CHECKING:
    from pointdiffusion.table_model.parts import Parts
    from pointdiffusion.table_model.table_model import TableModel
    from pointdiffusion.tabular.collecting import Table


def split_table(table: Table, settings: RunSettings) -> Parts:
    """Return the table of a run, split and dequantised by the run's seed."""
    from pointdiffusion.table_model.parts import split_table as split

    return split(table, validation=settings.validation, seed=settings.seed)


def read_training_table(settings: RunSettings) -> Table:
    """Read the table that a run is about."""
    from pointdiffusion.table_model.fitting import MISSING
    from pointdiffusion.tabular.reading import read_table

    if settings.table is None:
        raise ValueError("there is no table to train on; give one, or a --config that names one")
    return read_table(
        settings.table, columns=settings.columns, label=settings.label, missing=MISSING[settings.missing],
        seed=settings.seed,
    )  # fmt: skip


def open_run(path: str, table: str | None) -> tuple[TableModel, RunSettings, Parts]:
    """Return the model of a run, its settings, and its table as it was trained on.

    Args:
        path: Folder of the run, or its model file.
        table: Where the table lies now, if not in its place.

    Raises:
        ValueError: If the run is not whole, or the table is gone or holds other rows than it did.
    """
    from pointdiffusion.table_model.parts import content_hash

    model, folder = open_model(path, "cpu"), folder_of(path)
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


def open_model(path: str, device: str) -> TableModel:
    """Return a model, on a device; whatever frame its table was, rows are written as files hold them.

    Raises:
        ValueError: If the file is missing, damaged, foreign or hostile.
    """
    from pointdiffusion.model.diffusion_model import pick_device
    from pointdiffusion.table_model.table_model import load_run

    model = load_run(path)
    return replace(model, schema=model.schema.plain()).to(pick_device(device))


def trained_with_gaps(path: str) -> bool:
    """Return whether a model is of a run whose table was allowed to have missing values; False without its settings."""
    config = folder_of(path) / CONFIG
    return config.is_file() and RunSettings.from_yaml(config).missing != "refuse"


def class_of(model: TableModel, name: str) -> Any:
    """Return the class of a model that a text names.

    Raises:
        ValueError: If the model knows no classes, or none of that name.
    """
    if not model.classes:
        raise ValueError("this model was trained without classes; train one with --label COLUMN")
    for each in model.classes:
        if str(each) == name:
            return each
    raise unknown_name("class", name, map(str, model.classes))
