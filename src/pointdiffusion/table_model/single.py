"""One network trained on a table, with what its settings leave open taken from the table, and nothing by folds."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from pointdiffusion.config import DivergedError, InferenceConfig, TrainingConfig, epochs_of
from pointdiffusion.table_model.parts import MASK, Parts
from pointdiffusion.table_model.table_model import TableModel
from pointdiffusion.table_model.workers import StepClock
from pointdiffusion.training.fitting import fit
from pointdiffusion.training.noise_range import complete_range

DEFAULT_STEPS = 4000
"""Steps of the training of one network where its settings say nothing else."""

TRIAL = 60
"""Steps by which the time of a step is measured, at most."""

SHARE = 0.7
"""Share of a time that is spent on training; the rest is for what comes after, and for a machine that is busier."""


def complete_settings(
    parts: Parts, training: dict[str, Any], inference: dict[str, Any], *, masked: bool = False,
    steps: int | None = None, max_time: float | None = None,
) -> tuple[TrainingConfig, InferenceConfig]:  # fmt: skip
    """Return the settings of one network with what they leave open: noise levels, batches, and how long to train.

    Args:
        parts: The table.
        training: Settings of `TrainingConfig` by name, as far as they are given.
        inference: Settings of `InferenceConfig` by name, as far as they are given.
        masked: Whether the network learns to fill gaps.
        steps: Training steps.
        max_time: Seconds in which training should end, where no number of steps is given.

    Raises:
        ValueError: If a setting is unknown or out of range.
    """
    known = dict(training)
    given = TrainingConfig.from_mapping(known)
    levels = complete_range(given.sigma_min, given.sigma_max, parts.rows(parts.training))
    known["sigma_min"], known["sigma_max"] = levels
    if masked:
        known.setdefault("mask", MASK)
    if "batch_size" not in known:  # of a small table a part, with as many noisy rows
        known["batch_size"] = min(max(len(parts.training) // 8, 16), TrainingConfig().batch_size)
        known.setdefault("noise_draws", 256 // known["batch_size"])
    if steps is not None or not {"epochs", "epoch_steps"} & set(known):
        wanted = DEFAULT_STEPS if steps is None else steps
        if max_time is not None:
            wanted = affordable_steps(parts, known, max_time)
        known["epochs"], known["epoch_steps"] = epochs_of(wanted)
    chosen = TrainingConfig.from_mapping(known)
    ends = {"sigma_min": chosen.sigma_min, "sigma_max": chosen.sigma_max}
    return chosen, InferenceConfig.from_mapping({**ends, **inference})


def affordable_steps(parts: Parts, training: dict[str, Any], max_time: float) -> int:
    """Return how many steps fit into a time, by a trial of a few, which takes at most a tenth of it."""
    rows, labels = parts.rows(parts.training), parts.labels(parts.training)
    trial = TrainingConfig.from_mapping({**training, "epochs": 1, "epoch_steps": TRIAL})
    start = time.monotonic()
    clock = StepClock(deadline=start + max_time / 10)
    with suppress(DivergedError):  # so few steps are not judged
        fit(rows, trial, labels=labels, callbacks=[clock])
    spent = time.monotonic() - start
    pace = clock.pace or spent
    fixed = spent - pace * len(clock.times)  # what a training takes beside its steps
    trainings = 2 if len(parts.gaps) else 1  # the first one fills the gaps
    steps = int(((SHARE * max_time - spent) / trainings - fixed) / pace)
    return max(steps // 100 * 100 or steps, 1)


def fit_single(
    parts: Parts, training: TrainingConfig, inference: InferenceConfig | None = None, *, seed: int = 0,
    folder: str | os.PathLike[str] | None = None, resume: bool = False, device: str = "auto",
    show_progress: bool = False,
) -> TableModel:  # fmt: skip
    """Train one network on a table; rows with gaps are filled by a first one of the others, once.

    Args:
        parts: The table.
        training: Settings of training.
        inference: Settings of sampling.
        seed: Seed of training and of what fills gaps.
        folder: Where checkpoint and logs go; nothing is written without.
        resume: Go on from the checkpoint in `folder`.
        device: "auto", "cpu", "cuda" or "mps".
        show_progress: Show a progress bar.

    Raises:
        ValueError: If the data or the settings are unusable.
        DivergedError: If training diverged.
    """
    rows, labels = parts.rows(parts.training), parts.labels(parts.training)
    common: dict[str, Any] = {
        "inference": inference, "seed": seed, "device": device, "show_progress": show_progress,
    }  # fmt: skip
    if len(parts.gaps):
        rows, labels = parts.filled(fit(rows, training, labels=labels, **common), seed)
    validation = parts.rows(parts.validation) if len(parts.validation) else None
    model = fit(
        rows, training, labels=labels, validation=validation, folder=folder, resume=resume,
        metadata={"table": parts.table.schema.to_mapping()}, **common,
    )  # fmt: skip
    return TableModel(parts.table.schema, model)
