"""Measurements of a report: samples, their evaluation, densities, diagnosis, the log of training, time."""

from __future__ import annotations

import csv
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pointdiffusion.diagnostics.diagnosis import diagnose
from pointdiffusion.diagnostics.parts import Diagnosis
from pointdiffusion.diagnostics.reference import MIN_DIAGNOSIS_ROWS
from pointdiffusion.metrics.evaluation import evaluate
from pointdiffusion.metrics.neighbours import nearest_distances
from pointdiffusion.metrics.results import Evaluation
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points

Log = dict[str, tuple[Array, Array]]
"""Epochs, from 0, and values by name."""


@dataclass(frozen=True)
class Tables:
    """The rows of a report, in the user's own units.

    Args:
        training: Rows that were trained on, shape `(N, D)`.
        held_out: Rows that were not, shape `(M, D)`.
        columns: Names of the columns.
    """

    training: Array
    held_out: Array
    columns: list[str]


@dataclass(frozen=True)
class Measurements:
    """What was measured about one model.

    Args:
        name: Name of the run.
        model: The model.
        samples: Samples of it, shape `(N, D)`, in the user's own units.
        evaluation: Their evaluation.
        densities: Log-densities in nats of some held-out rows, training rows and samples, by name.
        nearest: Distances to the nearest training row of held-out rows and of samples, by name, in standard deviations.
        diagnosis: Where the error comes from; None with too few rows, or if it was not requested.
        log: Losses of training; empty without a log.
        seconds: Wall-clock time by step.
    """

    name: str
    model: DiffusionModel
    samples: Array
    evaluation: Evaluation
    densities: dict[str, Array]
    nearest: dict[str, Array]
    diagnosis: Diagnosis | None
    log: Log
    seconds: dict[str, float] = field(default_factory=dict)


def measure(
    model: DiffusionModel, tables: Tables, *, name: str = "this run", log_folder: str | os.PathLike[str] | None = None,
    num_samples: int | None = None, density_rows: int = 500, max_rows: int = 1000, diagnosis: bool = True,
    seed: int = 0, settings: Mapping[str, Any] | None = None,
) -> Measurements:  # fmt: skip
    """Draw from a model and measure what the report states; arguments as `report`."""
    training, held_out = tables.training, tables.held_out
    seconds: dict[str, float] = {}
    count = max(1000, min(len(held_out), 4 * max_rows)) if num_samples is None else num_samples
    with _timed(seconds, f"drawing {count} samples"):
        samples = model.sample(count, seed=seed, **dict(settings or {}))
    rng = np.random.default_rng(seed)
    sets = {"held-out rows": held_out, "training rows": training, "samples": samples}
    chosen = {what: rows[rng.permutation(len(rows))[:density_rows]] for what, rows in sets.items()}
    total = sum(map(len, chosen.values()))
    with _timed(seconds, f"the likelihood of {total} rows"):
        densities = {what: model.log_prob(rows) for what, rows in chosen.items()}
    with _timed(seconds, "evaluating the samples"):
        evaluation = evaluate(
            samples, held_out, training=training, log_prob=densities["held-out rows"],
            own_log_prob=densities["samples"], columns=tables.columns, random_state=seed, max_rows=max_rows,
        )  # fmt: skip
    transform = model.standardiser.transform
    nearest = {what: nearest_distances(transform(rows), transform(training)) for what, rows in sets.items()}
    del nearest["training rows"]
    cause = None
    if diagnosis and len(held_out) >= MIN_DIAGNOSIS_ROWS:
        with _timed(seconds, "diagnosing the error"):
            cause = diagnose(model, training, held_out=held_out, seed=seed, **dict(settings or {}))
    log = {} if log_folder is None else read_log(log_folder)
    return Measurements(name, model, samples, evaluation, densities, nearest, cause, log, seconds)


def tables_of(model: DiffusionModel, training: Any, held_out: Any) -> Tables:
    """Return the tables, checked to fit the model.

    Raises:
        ValueError: If a table does not have the columns of the model, or holds values that are no numbers.
    """
    given = {"training": training, "held_out": held_out}
    for name, table in given.items():
        own = [str(column) for column in getattr(table, "columns", model.columns)]
        if own != list(model.columns):
            raise ValueError(f"{name} must have the columns of the model, {', '.join(model.columns)}; got {own}")
    points = {name: as_points(table) for name, table in given.items()}
    for name, table in points.items():
        if table.shape[1] != model.n_dims:
            raise ValueError(f"{name} must have the {model.n_dims} columns of the model, got {table.shape[1]}")
    return Tables(points["training"], points["held_out"], list(model.columns))


def read_log(folder: str | os.PathLike[str]) -> Log:
    """Return the losses that training logged: of all versions in the folder of a run, later ones over earlier ones.

    Args:
        folder: Folder of a run, which holds `lightning_logs/version_0/metrics.csv`, or of such a file.

    Raises:
        ValueError: If a log cannot be read.
    """
    path = Path(folder)
    paths = [path / "metrics.csv"] if (path / "metrics.csv").exists() else list(path.glob("**/metrics.csv"))
    values: dict[str, dict[float, float]] = {}
    for path in sorted(paths, key=_version):
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            for row in rows:
                for name, cell in row.items():
                    if name.endswith("loss") and cell:
                        values.setdefault(name, {})[float(row["epoch"])] = float(cell)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
            raise ValueError(f"the log {path} cannot be read ({error}); remove it, or leave log_folder out") from error
    return {name: _in_order(points) for name, points in sorted(values.items())}


def _in_order(points: dict[float, float]) -> tuple[Array, Array]:
    epochs = sorted(points)
    return np.array(epochs), np.array([points[epoch] for epoch in epochs])


def _version(path: Path) -> tuple[int, str]:
    number = re.search(r"version_(\d+)", str(path))
    return (int(number[1]) if number else -1, str(path))


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start


def peak_memory() -> float | None:
    """Return the peak memory of this process in mebibytes, or None where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
