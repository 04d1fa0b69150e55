"""The report on a model, one page to mail: what it learned, the quality of its samples, the causes of its error.

The page contains its plots and loads nothing. Rows appear as dots of plots only, never as numbers; of the columns it
states means, standard deviations and the fifth and ninety-fifth percentile. The same seed gives the same bytes, except
for the section of times, which can be left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pointdiffusion.metrics.comparison import Difference, compare
from pointdiffusion.metrics.results import MIN_EVALUATION_ROWS
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.reporting import sections
from pointdiffusion.reporting.measurements import Measurements, Tables, measure, tables_of
from pointdiffusion.reporting.rendering import Section, render
from pointdiffusion.reporting.samples import classes_section, samples_section


def report(
    model: DiffusionModel, training: Any, held_out: Any, *, labels: Any = None, held_out_labels: Any = None,
    log_folder: str | os.PathLike[str] | None = None, against: DiffusionModel | None = None,
    against_log_folder: str | os.PathLike[str] | None = None, names: tuple[str, str] = ("this run", "the other run"),
    title: str = "A diffusion model of a table", kinds: Mapping[str, str] | None = None, commands: Sequence[str] = (),
    costs: Mapping[str, str] | None = None, num_samples: int | None = None, density_rows: int = 500,
    max_rows: int = 1000, diagnosis: bool = True, times: bool = True, seed: int = 0, **settings: Any,
) -> str:  # fmt: skip
    """Return one page of HTML about a trained model, to write to a file with `write_atomic`.

    Args:
        model: The model.
        training: Rows that it was trained on, shape `(N, D)`: a frame or an array, in the user's own units.
        held_out: Rows of the same table that it was not trained on, shape `(M, D)`.
        labels: Class of each training row, shape `(N,)`, for a model that was trained with classes: adds a section that
            shows each class.
        held_out_labels: Class of each held-out row, shape `(M,)`: each class is then also tested.
        log_folder: Folder of the run, for the losses of training.
        against: Another model of the same table, compared by paired differences.
        against_log_folder: Folder of the other run.
        names: Names of the two runs.
        title: Title of the page.
        kinds: Kind of numbers in each column, by name; inferred from the training rows where it is missing.
        commands: Shell commands that reproduce the model and this page.
        costs: Additional rows about time and memory, by name, such as those of the training.
        num_samples: Rows to draw; by default as many as are evaluated, at least 1000.
        density_rows: Most held-out rows, training rows and samples, of each, whose likelihood is computed.
        max_rows: Most rows of each set to evaluate, see `evaluate`.
        diagnosis: Whether to split the error into parts, which takes longest.
        times: Whether to state time and memory, which differ between runs.
        seed: Seed of all randomness.
        settings: Settings of sampling, as in `model.sample`, in place of the model's own.

    Returns:
        A whole HTML document, which loads nothing; the same for the same seed, except for `times`.

    Raises:
        ValueError: If the tables do not fit the model or each other, or the log cannot be read.
    """
    tables = tables_of(model, training, held_out)
    how: dict[str, Any] = {
        "num_samples": num_samples, "density_rows": density_rows, "max_rows": max_rows, "seed": seed,
        "settings": settings,
    }  # fmt: skip
    measured = measure(model, tables, name=names[0], log_folder=log_folder, diagnosis=diagnosis, **how)
    other, differences = None, []
    if against is not None:
        tables_of(against, training, held_out)
        other = measure(against, tables, name=names[1], log_folder=against_log_folder, diagnosis=False, **how)
        differences = _differences(measured, other, tables, seed, max_rows)
    by_class = classes_section(measured, tables, labels, held_out_labels, seed, settings)
    parts = [
        Section("What was trained", "trained", sections.trained(measured, tables, kinds or {})),
        Section("Samples against data", "samples", samples_section(measured, tables, other, seed)),
        Section("Class by class", "classes", by_class),
        Section("Quality", "quality", sections.quality(measured)),
        Section("Two runs", "two_runs", sections.two_runs(measured, other, differences)),
        Section("Training", "training", sections.training(measured, other)),
        Section("Likelihood", "likelihood", sections.likelihood(measured)),
        Section("Memorisation", "memorisation", sections.memorisation(measured)),
        Section("Where the error comes from", "causes", sections.causes(measured, diagnosis)),
        Section("How to reproduce", "reproduce", sections.reproduce(measured, commands, seed, settings)),
        Section("Time and memory", "costs", sections.costs(measured, costs or {}) if times else None),
    ]
    return render(title, sections.lead(measured, other, differences), parts)


def _differences(
    measured: Measurements, other: Measurements, tables: Tables, seed: int, max_rows: int
) -> list[Difference]:  # fmt: skip
    if len(tables.held_out) < MIN_EVALUATION_ROWS:
        return []
    order = np.random.default_rng(seed).permutation(len(tables.held_out))
    return compare(
        measured.samples, other.samples, tables.held_out[order], training=tables.training, random_state=seed,
        max_rows=max_rows, log_prob=measured.densities["held-out rows"],
        other_log_prob=other.densities["held-out rows"],
    )  # fmt: skip
