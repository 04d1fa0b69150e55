"""A table as a model is trained on it: encoded, and split into rows to train on and rows kept from that."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.collecting import Table
from pointdiffusion.tabular.splitting import split_rows

MASK = 0.5
"""Share of rows that a network is shown some coordinates of, where a table has gaps and its settings say nothing."""


@dataclass(frozen=True)
class Parts:
    """A table as a model sees it: integers dequantised, rows split.

    Args:
        table: The table as it was read.
        values: Its rows with integers dequantised, shape `(N, D)`; NaN where values are missing. Those of the table
            itself where it has no integers; not to be written to.
        training: Indices of the rows to train on, all of them without gaps.
        validation: Indices of rows without gaps that are kept from training.
        gaps: Indices of the rows with missing values, which a model with masks is trained on as well.
    """

    table: Table
    values: Array
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    gaps: NDArray[np.int64]

    def rows(self, indices: NDArray[np.int64]) -> Any:
        """Return some of the rows as a frame with the names of the columns."""
        import pandas as pd

        return pd.DataFrame(self.values[indices], columns=self.table.schema.names, copy=False)  # indexing has copied

    def labels(self, indices: NDArray[np.int64]) -> list[Any] | None:
        """Return the classes of some of the rows as plain values; None where there are none."""
        return None if self.table.labels is None else self.table.labels[indices].tolist()

    def filled(self, first: DiffusionModel, seed: int) -> tuple[Any, list[Any] | None]:
        """Return all rows to train on, and their classes: those without gaps, then those whose gaps are filled, once.

        Args:
            first: A model of the rows without gaps, which fills the others.
            seed: Seed of what it draws.
        """
        import pandas as pd

        rows, labels = self.rows(self.training), self.labels(self.training)
        holes, more = self.rows(self.gaps), self.labels(self.gaps)
        draws = first.impute(holes, labels=more, seed=seed).draws[0]
        rows = pd.concat([rows, pd.DataFrame(draws, columns=rows.columns)], ignore_index=True)
        return rows, None if labels is None or more is None else [*labels, *more]


def split_table(table: Table, *, validation: float = 0.0, seed: int = 0) -> Parts:
    """Return a table split and dequantised.

    Args:
        table: The table.
        validation: Share of rows that is kept from training.
        seed: Seed of the split and of the noise of integers.
    """
    whole = np.flatnonzero(np.isfinite(table.values).all(axis=1))
    labels = None if table.labels is None else table.labels[whole]
    training, kept = split_rows(len(whole), validation, seed=seed, labels=labels)
    gaps = np.setdiff1d(np.arange(len(table.values)), whole)
    values = table.values  # noqa: PD011  (an array, no frame)
    if table.schema.discrete:
        values = table.schema.dequantise(values, seed)
    return Parts(table, values, whole[training], whole[kept], gaps)


def content_hash(table: Table) -> str:
    """Return the hash of what was read from a table: the same for the same rows in another format."""
    labels = None if table.labels is None else table.labels.tolist()
    known = hashlib.sha256(repr((table.schema.names, labels)).encode())
    known.update(np.ascontiguousarray(table.values, dtype="<f8").data)
    return known.hexdigest()
