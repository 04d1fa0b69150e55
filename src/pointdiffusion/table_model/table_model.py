"""A trained model of a table: a model of points, and the schema by which rows become points and points rows."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from pointdiffusion.diagnostics.anomaly import Anomaly
from pointdiffusion.diagnostics.anomaly import anomalies as anomalies_of
from pointdiffusion.diagnostics.explanation import Explanation
from pointdiffusion.diagnostics.explanation import explain as explain_point
from pointdiffusion.model.diffusion_model import DiffusionModel, load
from pointdiffusion.model.file import Backbone
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.table_model.parts import Parts
from pointdiffusion.table_model.selection import Chosen, Selection
from pointdiffusion.tabular.collecting import Table
from pointdiffusion.tabular.columns import Column
from pointdiffusion.tabular.frames import build_frame
from pointdiffusion.tabular.labels import as_labels
from pointdiffusion.tabular.reading import Missing, table_of
from pointdiffusion.tabular.schema import Schema

MODEL = "model.pt"
"""Name of the model in the folder of a run."""


class Encoded(NamedTuple):
    """Rows of a table as points.

    Args:
        table: The rows as they were read.
        points: Their coordinates, integers dequantised, shape `(N, D)`.
        labels: Their classes, where they are asked for.
    """

    table: Table
    points: Array
    labels: list[Any] | None


class AnomalousRow(NamedTuple):
    """One of the least likely rows of a table.

    Args:
        row: Its number in the table, from 0.
        log_prob: Its log-density in nats.
        anomalies: Its columns given the other columns, the most anomalous first.
    """

    row: int
    log_prob: float
    anomalies: list[Anomaly]


@dataclass
class TableModel(Chosen):
    """A model of a table: frames in, frames out, in the columns, order and types of the table.

    Args:
        schema: The columns of the table: types, classes, constants, and the library that its frame was of.
        points: The model of points inside, which knows floats alone.
        selection: What was chosen on held-out rows; None for a model that was loaded, or of one network.

    Raises:
        ValueError: If the two are of different columns.
    """

    schema: Schema
    points: DiffusionModel
    selection: Selection | None = None

    def __post_init__(self) -> None:
        if self.schema.names != self.points.columns:
            raise ValueError("the model file tells of a table with other columns than it models; do not trust it")

    @classmethod
    def from_points(cls, model: DiffusionModel) -> TableModel:
        """Return the model of a table from one of points that says what the table was.

        One that says nothing, as `fit` returns it, is of columns of real numbers.

        Raises:
            ValueError: If what it says of the table cannot be.
        """
        mapping = model.metadata.get("table")
        if mapping is not None:
            return cls(Schema.from_mapping(mapping), model)
        anything = sys.float_info.max
        return cls(Schema(tuple(Column(name, "real", "float64", -anything, anything) for name in model.columns)), model)

    def __str__(self) -> str:
        if self.selection is not None:
            return str(self.selection)
        return "a diffusion model of " + ", ".join(f"{column.name} ({column.kind})" for column in self.schema.columns)

    @property
    def classes(self) -> list[Any]:
        """The classes that the model knows; empty without."""
        return [] if self.points.conditions is None else list(self.points.conditions.classes)

    def to(self, device: str) -> TableModel:
        """Move the weights to a device, and return the model."""
        self.points.to(device)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, whole or not at all; `load_run` and the command line read it.

        Raises:
            ValueError: If the metadata hold more than plain values.
            OSError: If the disk is full or the folder cannot be written.
        """
        metadata = {**self.points.metadata, "table": self.schema.to_mapping()}
        replace(self.points, metadata=metadata).save(path)

    # ------------------------------------------------------------------------------------------------------- rows out

    def sample(
        self, n: int, *, seed: int = 0, labels: Any = None, guidance: float = 1.0, nfe: int | None = None,
        solver: Any = None, num_steps: int | None = None, within_bounds: bool = False,
    ) -> Any:  # fmt: skip
        """Draw new rows.

        Args:
            n: Number of rows.
            seed: Seed of all that is random.
            labels: A class for all rows, or one for each, shape `(n,)`; None for the shares of the training rows.
            guidance: Strength of classifier-free guidance; 1 is none.
            nfe: Network evaluations for a row; the solver and the noise levels are then the best known ones.
            solver: A solver or its name, see docs/solvers.md.
            num_steps: Steps of the solver.
            within_bounds: Move values beyond those of the table to its least and greatest.

        Returns:
            A frame of `n` rows with the columns, order and types of the table; constant columns are put back. It is one
            of polars or pyarrow where the table was, else of pandas.

        Raises:
            ValueError: If a class is unknown, a setting is out of range, or both `nfe` and `num_steps` are given.
        """
        if nfe is not None and num_steps is not None:
            raise ValueError("nfe and num_steps both say how long to take; give one of the two")
        classes = self._classes_of(labels, n, seed)
        points = self.points.sample(
            n, seed=seed, labels=classes, guidance=guidance, nfe=nfe, solver=solver, num_steps=num_steps
        )
        return self.schema.decode(points, classes if self.schema.label else None, within_bounds=within_bounds)

    def _classes_of(self, labels: Any, n: int, seed: int) -> list[Any] | None:
        """Return the class of each row to be drawn; None for a model without classes."""
        if labels is not None:
            return [np.asarray(labels).item()] * n if np.ndim(labels) == 0 else as_labels(labels)
        conditions = self.points.conditions
        if conditions is None or not conditions.classes:
            return None
        shares = np.array(conditions.shares)
        drawn = np.random.default_rng(seed).choice(len(shares), size=n, p=shares / shares.sum())
        return [conditions.classes[index] for index in drawn]

    # -------------------------------------------------------------------------------------------------------- rows in

    def read(self, data: Any, *, label: str | None = None, missing: Missing = "refuse") -> Table:
        """Return rows as a table with the columns of this model; see `table_of`, whose `schema` they must fit."""
        if isinstance(data, Table):
            return data
        return table_of(data, schema=self.schema, label=label, missing=missing, max_values=sys.maxsize)

    def encode(self, data: Any, *, seed: int = 0, by_label: bool = False, missing: Missing = "refuse") -> Encoded:
        """Return rows as points of the model inside: constants left out, integers dequantised.

        Args:
            data: Rows in the columns of the table, in any order and among others: anything that `table_of` takes, or a
                `Table`.
            seed: Seed of the noise of integers.
            by_label: Whether the class of each row is read, too.
            missing: What is done with rows that lack a value: `"refuse"`, `"drop"` or `"keep"` (NaN).

        Raises:
            ValueError: If the rows do not fit the table, or the model has no classes.
        """
        if by_label and self.schema.label is None:
            raise ValueError("this model was trained without classes; fit one with label=COLUMN")
        label = self.schema.label.name if by_label and self.schema.label else None
        table = self.read(data, label=label, missing=missing)
        labels = table.labels.tolist() if by_label and table.labels is not None else None
        return Encoded(table, self.schema.dequantise(table.values, seed), labels)

    def score(
        self, data: Any, *, seed: int = 0, by_label: bool = False, missing: Literal["refuse", "drop"] = "refuse"
    ) -> Array:
        """Return the log-likelihood of rows in nats, shape `(N,)`, in the units of the table.

        That of integer columns is of the value plus uniform noise in [-1/2, 1/2); constant columns are left out of it.

        Args:
            data: Rows in the columns of the table; see `encode`.
            seed: Seed of the noise of integers.
            by_label: Density of each row within its class, which the label column of `data` names.
            missing: Whether rows that lack a value are refused, or left out: their likelihood is then NaN.

        Raises:
            ValueError: If the rows do not fit the table, or the model has no classes.
        """
        table, points, labels = self.encode(data, seed=seed, by_label=by_label, missing=missing)
        found = self.points.log_prob(points, labels=labels)
        if isinstance(data, Table) or len(found) == table.total_rows:
            return found
        scores = np.full(table.total_rows, np.nan)
        scores[table.rows] = found
        return scores

    def anomalies(
        self, data: Any, count: int = 10, *, seed: int = 0, by_label: bool = False,
        missing: Literal["refuse", "drop"] = "refuse",
    ) -> list[AnomalousRow]:  # fmt: skip
        """Return the least likely rows, the least likely first, and what is anomalous about each.

        Args:
            data: Rows in the columns of the table; see `encode`.
            count: Number of rows that are returned, at most.
            seed: Seed of the noise of integers.
            by_label: Density of each row within its class.
            missing: Whether rows that lack a value are refused or left out.

        Raises:
            ValueError: If the rows do not fit the table, or the model has no classes.
        """
        table, points, labels = self.encode(data, seed=seed, by_label=by_label, missing=missing)
        scores = self.points.log_prob(points, labels=labels)
        least = np.argsort(scores, kind="stable")[:count]
        some: Any = None if labels is None else [labels[index] for index in least]
        found = anomalies_of(self.points, points[least], labels=some)
        rows = zip(least.tolist(), found, strict=True)
        return [
            AnomalousRow(int(table.rows[k]), float(scores[k]), self._own(each, table.values[k])) for k, each in rows
        ]

    def impute(
        self, data: Any, *, num_draws: int = 1, seed: int = 0, within_bounds: bool = False, details: bool = False
    ) -> Any:
        """Return rows with missing cells filled by draws from what the other cells of the row leave open.

        Cells that are there are kept as they are. A model trained with masks, as with `fit_table(missing="mask")`, is
        asked directly; any other is made to fit by twisted diffusion, which is approximate.

        Args:
            data: Rows in the columns of the table, with gaps; see `encode`.
            num_draws: Fillings of each row, one below the other.
            seed: Seed of the draws.
            within_bounds: Move values that are drawn beyond those of the table to its least and greatest.
            details: Whether columns `row` (from 0), `draw` (from 1) and `imputed_by` are put behind the others.

        Returns:
            A frame of `num_draws` rows for each row of `data`, of the same kind as `sample` returns.

        Raises:
            ValueError: If the rows do not fit the table.
        """
        table = self.read(data, missing="keep")
        filled = self.points.impute(table.values, num_draws=num_draws, seed=seed)
        points = filled.draws.transpose(1, 0, 2).reshape(-1, len(self.schema.names))
        labels = None if table.labels is None else np.repeat(table.labels, num_draws)
        given = np.isfinite(table.values).repeat(num_draws, axis=0)
        cells = self.schema.cells(points, labels, within_bounds=within_bounds, exact=given)
        if details:
            cells["row"] = table.rows.repeat(num_draws), None
            cells["draw"] = np.tile(np.arange(1, num_draws + 1), len(table.rows)), None
            cells["imputed_by"] = np.repeat(np.array(filled.by, dtype=object), num_draws), None
        return build_frame(cells, self.schema.container)

    def explain(
        self, data: Any, row: int = 0, *, training: Any = None, num_neighbours: int = 5, seed: int = 0, first: int = 0
    ) -> Explanation:
        """Explain one row: its likelihood, nearest training rows, trajectory and anomalies.

        Args:
            data: Rows in the columns of the table; see `encode`.
            row: Number of the row among them.
            training: Rows that the model was trained on, for neighbours and comparison: as `data`, or the `Parts` of a
                run.
            num_neighbours: Number of these rows to name.
            seed: Seed of the noise of integers.
            first: Number of the first row of a table: 0 as in Python, or 1 as people count.

        Returns:
            The explanation, with rows as they stand in the table, without the noise of integers.

        Raises:
            ValueError: If there is no such row, it lacks a value, or the rows do not fit the table.
        """
        table, points, _ = self.encode(data, seed=seed, missing="keep")
        places = np.flatnonzero(table.rows == row - first)
        if len(places) == 0:
            raise ValueError(f"there is no row {row} in the table, which has {table.total_rows}; or it was left out")
        values, point = table.values[places[0]], points[places[0]]
        if not np.isfinite(point).all():
            raise ValueError(f"row {row} has missing values; fill them first, as impute does")
        known, numbers = None, np.empty(0, dtype=np.int64)
        if isinstance(training, Parts):
            known, numbers = training.values[training.training], training.table.rows[training.training]
        elif training is not None:
            encoded = self.encode(training, seed=seed, missing="drop")
            known, numbers = encoded.points, encoded.table.rows
        found = explain_point(self.points, point, training=known, num_neighbours=num_neighbours)
        neighbours = [
            each._replace(row=int(numbers[each.row]) + first, values=self._without_noise(each.values))
            for each in found.neighbours
        ]
        return replace(found, values=values, neighbours=neighbours, anomalies=self._own(found.anomalies, values))

    def _without_noise(self, point: Array) -> Array:
        """Return a point with the noise of its integers taken away."""
        rounded = point.copy()
        rounded[self.schema.discrete] = np.floor(point[self.schema.discrete] + 0.5)
        return rounded

    def _own(self, anomalies: Sequence[Anomaly], values: Array) -> list[Anomaly]:
        """Return what is said of columns with the values that stand in the table, without the noise of integers."""
        own = dict(zip(self.schema.names, values.tolist(), strict=True))
        return [replace(each, value=own[each.column]) for each in anomalies]


def load_run(path: str | os.PathLike[str], *, backbone: Backbone | None = None) -> TableModel:
    """Read the model of a table: from the folder of a run that `pointdiffusion train` made, or from a model file.

    Nothing in the file is executed.

    Args:
        path: The folder, or the file.
        backbone: The network, where it is of a class of its author's; see `load`.

    Raises:
        ValueError: If there is no model, or the file is damaged, foreign or hostile.
    """
    place = Path(path)
    if place.is_dir() and not (place / MODEL).exists():
        raise ValueError(f"{path} holds no {MODEL}; give the folder of a run, as pointdiffusion train makes it")
    return TableModel.from_points(load(place / MODEL if place.is_dir() else place, backbone=backbone))
