r"""A model of a table, with everything that matters chosen on rows that were left out.

The rows are split in folds. Each member of the ensemble is trained without one fold, and what that fold's rows are
worth under it decides, in this order:

1. the base, the exact denoiser that the networks add to: a sphere, a Gaussian, a mixture;
2. the number of training steps, each candidate annealed to its end, since a cosine that is broken off leaves a poor
   network;
3. the blur `sigma_min`, which is the bandwidth of the density;
4. the weights of the flow, of a mixture by the Bayesian information criterion, and of a broad Student t, by stacking.

The members that made the choices are the model; nothing is trained again. What was chosen stands in `Selection.config`,
which repeats the fit whatever time it takes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointdiffusion.config import TableConfig
from pointdiffusion.exact.fits import joined, stacking_weights
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.model.ensembles import ensemble
from pointdiffusion.model.flow import Companion
from pointdiffusion.runtime import progress
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.table_model.folds import PILOT, SMALL, Fold, Job, Members, Trained
from pointdiffusion.table_model.selection import Selection
from pointdiffusion.table_model.workers import workers
from pointdiffusion.tabular.labels import as_labels
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.training.noise_range import choose_noise_range

MIN_FOLD_ROWS = 30
"""Rows below which nothing can be chosen on rows left out."""

LADDER = (400, 1600, 6400)
"""Training steps that are tried for small tables."""

TRIAL = 60
"""Training steps by which the time of a step is measured on large tables."""

BLURS = 6
"""Values of `sigma_min` that are tried."""

MOST_STEPS = 8000
"""Training steps of a member on large tables, at most, where nothing else is asked for."""


@dataclass
class _Candidate:
    """Members of one setting, and what the rows are worth that each was trained without."""

    config: TableConfig
    members: list[DiffusionModel]
    values: list[Array]  # of each fold, shape (N, K): one column a blur
    seconds: float

    def score(self, floors: list[Array]) -> Array:
        """Return the mean at each blur, shape `(K,)`, over a little of a broad density: no single row decides."""
        pairs = zip(self.values, floors, strict=False)
        held = [np.logaddexp(value + np.log(0.98), floor[:, None] + np.log(0.02)) for value, floor in pairs]
        return np.asarray(np.concatenate(held).mean(axis=0))


class _Race:
    """Candidates on the same folds, the best of them, and the time that is left."""

    def __init__(self, table: Members, folds: list[Fold], levels: Array, deadline: float, show: Any) -> None:
        self.table, self.folds, self.levels, self.deadline, self.show = table, folds, levels, deadline, show
        start = time.monotonic()
        self.held = [self._closed(fold, table.closed_forms(fold.inside)) for fold in folds]
        self._reserved = (time.monotonic() - start) / len(folds)  # the same is fitted to all rows in the end
        self.scores: dict[str, float] = {}
        self._best: _Candidate | None = None
        self._trained: dict[tuple[TableConfig, int], Trained] = {}

    def _closed(self, fold: Fold, forms: list[GaussianMixture]) -> Array:
        """Return log-densities of a fold's rows under what is in closed form, shape `(N, 2)`."""
        x = torch.from_numpy(self.table.x[fold.outside])
        labels = None if self.table.places is None else torch.from_numpy(self.table.places[fold.outside])
        return np.stack([form.log_prob(x, labels=labels).numpy() for form in forms], axis=1)

    @property
    def floors(self) -> list[Array]:
        """Log-densities of the rows under the broad Student t, by fold."""
        return [held[:, 1] for held in self.held]

    def left(self) -> float:
        """Return the seconds that are left for training and judging."""
        return self.deadline - self._reserved - time.monotonic()

    def train(self, jobs: list[Job]) -> None:
        """Train and judge the members that are not there yet."""
        missing = [job for job in jobs if (job.config, job.member) not in self._trained]
        for job, made in zip(missing, self.table.several(missing, self.levels), strict=True):
            self._trained[job.config, job.member] = made
            self.show(len(self._trained), f"base {job.config.base}, {job.config.num_steps} steps")

    def run(self, config: TableConfig, *, first: int | None = None) -> None:
        """Train and judge the members of a setting, or the first few of them, and keep the better candidate."""
        start, jobs = time.monotonic(), [Job(config, member, fold) for member, fold in enumerate(self.folds[:first])]
        self.train(jobs)
        done = [self._trained[config, job.member] for job in jobs]
        seconds = time.monotonic() - start
        found = _Candidate(config, [each.model for each in done], [each.values for each in done], seconds)
        score = float(found.score(self.floors).max())
        self.scores[f"base {config.base}, {config.num_steps} steps"] = score
        if self._best is None or score > float(self._best.score(self.floors).max()):
            self._best = found

    @property
    def best(self) -> _Candidate:
        """The best candidate so far."""
        if self._best is None:
            raise RuntimeError("no candidate was tried")
        return self._best

    def forget(self) -> None:
        """Forget the best candidate: what follows is judged on more folds."""
        self._best = None

    def seconds_a_step(self, config: TableConfig, count: int) -> float:
        """Return the seconds that a step of training takes where as many members are trained at once, by a trial."""
        # Never kept: a fit that goes on would find it done, and take a step to cost nothing.
        trial = Job(replace(config, num_steps=TRIAL), 0, Fold(self.folds[0].inside, self.folds[0].outside[:8]))
        made = list(self.table.without_folder().several([trial] * workers(count), self.levels[:1]))
        return max(each.pace for each in made)


def search(
    points: Any, *, labels: Any = None, config: TableConfig | None = None, max_time: float = 120.0, seed: int = 0,
    metadata: dict[str, Any] | None = None, device: str = "auto", folder: str | os.PathLike[str] | None = None,
    resume: bool = False, show_progress: bool = False,
) -> Selection:  # fmt: skip
    """Fit a model to a table of floats, and choose on rows left out what its settings leave open.

    Args:
        points: Rows, shape `(N, D)`: a frame, an array or a tensor, in any units.
        labels: Class of each row, whole numbers or texts, shape `(N,)`.
        config: Settings; what is open in them is chosen.
        max_time: Seconds after which nothing further is tried; a fit with everything chosen takes what it takes.
        seed: Seed of the folds, of training and of everything else.
        metadata: Plain values that travel with the model.
        device: "auto", "cpu", "cuda" or "mps".
        folder: Where each network keeps its checkpoints, its logs and its model; nothing is written without.
        resume: Go on with what lies in `folder`: networks that are finished there are read, not trained again.
        show_progress: Show a progress bar.

    Raises:
        ValueError: If the data or the settings are unusable, or the networks in `folder` are resumed with other rows,
            another seed, other settings or other versions of the packages than they were trained with.
    """
    start, config = time.monotonic(), config or TableConfig()
    if not max_time > 0:
        raise ValueError(f"max_time must be a number of seconds above 0, got {max_time}")
    names = column_names(points, np.shape(points)[1] if np.ndim(points) == 2 else 0)
    rows = as_points(points)
    classes = None if labels is None else as_labels(labels)
    if classes is not None and len(classes) != len(rows):
        raise ValueError(f"labels must have one row for each of {len(rows)} points, got {len(classes)}")
    place = None if folder is None else Path(folder)
    if resume and place is None:
        raise ValueError("to resume, say where the networks lie: folder=...")
    table = Members(rows, classes, seed, metadata or {}, place, resume, device)
    config = _sized(config, table)
    table.open_folder(config)
    with progress.show_progress("training", _most_trainings(config, len(rows)), quiet=not show_progress) as show:
        found = _plain(table, config) if not config.num_members else _chosen(table, config, start + max_time, show)
    found.seconds, found.folder = time.monotonic() - start, table.place(found.config, 0)
    for model in (found.model, *found.members):
        model.columns = names
    return found


def _sized(config: TableConfig, table: Members) -> TableConfig:
    """Return settings with what follows from the size of a table filled in."""
    count, n_dims = table.x.shape
    if config.num_members is None:
        config = replace(config, num_members=0 if count < MIN_FOLD_ROWS else 5 if count < SMALL else 3)
    if config.hidden_dim is None:
        config = replace(config, hidden_dim=96 if count < SMALL else 256)
    if config.batch_size is None:
        config = replace(config, batch_size=64 if count < SMALL else 128)
    if config.noise_min is None:
        chosen = choose_noise_range(table.points, seed=table.seed_of(3))
        config = replace(config, noise_min=float(np.clip(chosen.sigma_min / 2, 0.002, 0.05)))
    if config.mask or n_dims == 1:
        config = replace(config, base="isotropic" if config.base == "auto" else config.base)
    return config


def _most_trainings(config: TableConfig, count: int) -> int:
    """Return how many networks are trained at most, of a table of so many rows."""
    members = config.num_members or 1
    if not config.num_members or (config.base != "auto" and config.num_steps is not None):
        return members
    if count >= SMALL:
        return members + (1 if config.base == "auto" else 0)
    return members * ((1 if config.base != "auto" else 3) + (0 if config.num_steps else len(LADDER) - 1))


def _plain(table: Members, config: TableConfig) -> Selection:
    """Return one network trained on all rows, with a bandwidth by Scott's rule."""
    count, n_dims = table.x.shape
    base = "gaussian" if config.base == "auto" else config.base
    blur = config.sigma_min or max(config.noise_min or 0.0, 0.5 * count ** (-1 / (n_dims + 4)))
    config = replace(config, base=base, num_steps=config.num_steps or PILOT, num_members=0, sigma_min=blur)
    model = table.train(np.arange(count), config, 0)
    return Selection(_ending(model, config), [model], config)


def _ending(model: DiffusionModel, config: TableConfig, companion: Companion | None = None) -> DiffusionModel:
    """Return a model whose samples end at its blur, and follow the density that it states."""
    blur = config.sigma_min or model.inference.sigma_min
    inference = replace(
        model.inference, sigma_min=blur, final_zero=False, solver="unipc-3", schedule="log-linear", num_steps=40
    )  # fmt: skip
    return replace(model, inference=inference, companion=companion)


def _chosen(table: Members, config: TableConfig, deadline: float, show: Any) -> Selection:
    """Return the model whose settings were chosen on folds."""
    folds = table.folds(config.num_members or 2)
    low = config.noise_min or 0.01
    levels = np.geomspace(low, max(0.5, 2 * low), BLURS) if config.sigma_min is None else np.array([config.sigma_min])
    race = _Race(table, folds, levels, deadline, show)
    if config.base != "auto" and config.num_steps is not None:
        race.run(config)
    elif len(table.x) < SMALL:
        _climb(race, config)
    else:
        _sprint(race, config)
    best = race.best
    score = best.score(race.floors)
    chosen = replace(best.config, sigma_min=float(levels[int(score.argmax())]))
    members = [_ending(model, chosen) for model in best.members]
    blur = np.array([chosen.sigma_min])
    flow = [table.judge(model, fold, blur, 32) for model, fold in zip(members, folds, strict=True)]
    held = np.concatenate([np.concatenate([flow[k], race.held[k]], axis=1) for k in range(len(folds))])
    found = Selection(ensemble(members), members, chosen, dict(race.scores))
    for name, column in zip(("the flow alone", "the mixture alone"), held.T, strict=False):
        found.scores[name] = float(column.mean())
    if config.companion and not config.mask:
        weights = stacking_weights(held)
        found.weights = dict(zip(("diffusion", "mixture", "student-t"), map(float, weights), strict=True))
        found.scores["all of them"] = float(np.logaddexp.reduce(held + np.log(weights), axis=1).mean())
        forms = table.closed_forms(np.arange(len(table.x)))
        companion = Companion(joined(forms, weights[1:] / weights[1:].sum()), float(weights[1:].sum()))
        found.model = _ending(found.model, chosen, companion)
    return found


def _climb(race: _Race, config: TableConfig) -> None:
    """Try bases with few steps, and more steps with the best base, while more is better and there is time."""
    bases = [config.base] if config.base != "auto" else ["mixture", "gaussian", "isotropic"]
    ladder = LADDER if config.num_steps is None else (config.num_steps,)
    for base in bases:
        if base == bases[0] or race.left() > 1.2 * race.best.seconds:
            race.run(replace(config, base=base, num_steps=ladder[0]))
    for steps in ladder[1:]:
        before = race.best
        if race.left() < 1.1 * steps / (before.config.num_steps or 1) * before.seconds:
            break
        race.run(replace(before.config, num_steps=steps))
        if race.best is before:
            break


def _sprint(race: _Race, config: TableConfig) -> None:
    """Try bases on one fold, each for as many steps as the time allows, and train the other members from the best.

    A short trial would not do: a network that starts from a mixture is ahead at first, and behind at last where the
    data have edges.
    """
    bases = [config.base] if config.base != "auto" else ["isotropic", "mixture"]
    members, at_once = len(race.folds), workers(len(race.folds))
    if config.num_steps is None:
        rounds = -(-len(bases) // at_once) + -(-(members - 1) // at_once)
        seconds = race.seconds_a_step(replace(config, base=bases[-1]), at_once)
        steps = int(0.68 * race.left() / (rounds * seconds))  # the rest is for judging
        config = replace(config, num_steps=min(max(steps // 100 * 100, 100), MOST_STEPS))
    race.train([Job(replace(config, base=base), 0, race.folds[0]) for base in bases])
    for base in bases:
        race.run(replace(config, base=base), first=1)
    best = race.best.config
    race.forget()
    race.run(best)
