"""Members of an ensemble: on which rows each is trained, by which it is judged, and how several are trained at once.

A member is trained by one thread, alone or beside others in processes of their own, so that its weights are the same
bit for bit either way: networks as small as these gain little from a second thread, and everything from a second
process.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback
from numpy.typing import NDArray

from pointdiffusion.config import InferenceConfig, QualityWarning, TableConfig, TrainingConfig, epochs_of
from pointdiffusion.exact.fits import fit_gaussian, fit_mixture, joined, student_t
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.model.diffusion_model import DiffusionModel, load
from pointdiffusion.networks import FourierFeatures, ResidualMLP, default_network
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.files import write_atomic
from pointdiffusion.runtime.isolation import ignored_warnings, one_at_a_time
from pointdiffusion.runtime.randomness import SELECTION, generator_for
from pointdiffusion.table_model.workers import StepClock, at_once
from pointdiffusion.tabular.labels import in_order
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.training.checkpoints import check_settings
from pointdiffusion.training.fitting import CHECKPOINT, fit
from pointdiffusion.version import __version__

SMALL = 2000
"""Rows below which five folds are made, and above which a tenth of the rows is left out three times."""

JUDGED = 512
"""Rows of a fold on which choices are made, at most."""

PILOT = 400
"""Training steps where nothing can be chosen."""

SETTINGS = "settings.json"
"""Name of the file that says which fit the networks of a folder belong to, in the folder and beside each network."""

NOT_OF_NETWORKS = ("base", "num_steps", "sigma_min", "companion")
"""Settings that a fit may be resumed with other values of: each network lies under its base and its number of steps,
and the other two are applied after training."""


@dataclass
class Fold:
    """Places of the rows that a member is trained on, and of those that it is judged by."""

    inside: NDArray[np.int64]
    outside: NDArray[np.int64]


@dataclass
class Job:
    """A member to train, and the fold that it is judged by."""

    config: TableConfig
    member: int
    fold: Fold


class Trained(NamedTuple):
    """A member, log-densities of the rows of its fold at some blurs, shape `(N, K)`, and the seconds of a step."""

    model: DiffusionModel
    values: Array
    pace: float


class Members:
    """The rows of a fit, what is known of them, and how members are made."""

    def __init__(
        self, points: Array, labels: list[Any] | None, seed: int, metadata: dict[str, Any],
        folder: Path | None = None, resume: bool = False, device: str = "auto",
    ) -> None:  # fmt: skip
        self.points, self.labels, self.seed, self.metadata = points, labels, seed, metadata
        self.folder, self.resume, self.device = folder, resume, device
        self.standardiser = Standardiser.fit(points)
        self.x = self.standardiser.transform(points)
        self._mixtures: dict[bytes, GaussianMixture] = {}
        self._settings = b""
        classes = in_order(labels or [])
        self.places = None if labels is None else np.array([classes.index(value) for value in labels])

    def seed_of(self, *counters: int) -> int:
        """Return a seed of its own for a part of the work."""
        return int(generator_for(self.seed, SELECTION, *counters).initial_seed()) % 2**32

    def folds(self, count: int) -> list[Fold]:
        """Return as many folds, by class where there are classes; a tenth of large tables."""
        from sklearn.model_selection import KFold, StratifiedKFold

        kind = KFold if self.places is None else StratifiedKFold
        parts = max(2, count if len(self.x) < SMALL else max(10, count))
        if self.labels is not None and self.places is not None:
            sizes, least = np.bincount(self.places), 4 if parts == 2 else 3  # two stay, whichever part is left out
            if sizes.min() < least:
                rarest = in_order(self.labels)[int(sizes.argmin())]
                raise ValueError(
                    f"the class {rarest!r} has {sizes.min()} rows, and {least} are needed to judge by rows left out; "
                    "give it more, or leave it out"
                )
        splitter = kind(parts, shuffle=True, random_state=self.seed_of(0))
        with ignored_warnings(UserWarning):  # that a class is in some folds alone; it is enough
            split = list(splitter.split(self.x, self.places))
        return [Fold(inside, outside[:JUDGED]) for inside, outside in split][:count]

    def mixture(self, rows: NDArray[np.int64]) -> GaussianMixture:
        """Return the mixture of some of the rows, fitted once."""
        key = rows.tobytes()
        if key not in self._mixtures:
            self._mixtures[key] = fit_mixture(self.x[rows], self.seed_of(1))
        return self._mixtures[key]

    def base(self, name: str, rows: NDArray[np.int64]) -> GaussianMixture | None:
        """Return the base of that name, fitted to some of the rows."""
        if name == "isotropic":
            return None
        return fit_gaussian(self.x[rows]) if name == "gaussian" else self.mixture(rows)

    def closed_forms(self, rows: NDArray[np.int64]) -> list[GaussianMixture]:
        """Return a mixture and a broad Student t, fitted to some of the rows, of each class where there are classes."""
        places = np.zeros(len(rows), dtype=np.int64) if self.places is None else self.places[rows]
        shares = np.bincount(places) / len(places)
        found: list[list[GaussianMixture]] = [[], []]
        for place in range(len(shares)):
            own = rows[places == place] if (places == place).sum() > 1 else rows
            whole = fit_gaussian(self.x[own])
            found[0].append(self.mixture(own))
            found[1].append(_broad(whole, self.x[own]))
        return [joined(parts, shares, list(range(len(shares)))) for parts in found]

    def without_folder(self) -> Members:
        """Return the same table, whose members are not kept."""
        other = copy.copy(self)
        other.folder, other.resume = None, False
        return other

    def place(self, config: TableConfig, member: int) -> Path | None:
        """Return the folder of a member."""
        return None if self.folder is None else self.folder / f"{config.base}-{config.num_steps}" / str(member)

    def settings(self, config: TableConfig) -> dict[str, Any]:
        """Return all that the networks of a fit depend on, as plain values; rows and their classes as a hash."""
        rows = hashlib.sha256(repr((self.points.shape, self.labels)).encode())
        rows.update(np.ascontiguousarray(self.points, dtype="<f8").tobytes())
        versions = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
        chosen = {name: value for name, value in config.to_mapping().items() if name not in NOT_OF_NETWORKS}
        return {"rows": rows.hexdigest(), **chosen, "seed": self.seed, "pointdiffusion": __version__, **versions}

    def open_folder(self, config: TableConfig) -> None:
        """Note in the folder which fit its networks belong to, once it was checked that a resumed fit is the same.

        Args:
            config: The settings, with what follows from the size of the table filled in.

        Raises:
            ValueError: If the fit in the folder is another one, with what differs.
        """
        if self.folder is None:
            return
        settings, file = self.settings(config), self.folder / SETTINGS
        if self.resume and file.exists():
            check_settings(_read_settings(file), settings)
        elif self.resume and any(self.folder.glob("*-*/*/model.pt")):
            raise ValueError(
                f"{self.folder} holds networks, but no {SETTINGS} that says what they were trained on, so the fit "
                "cannot be resumed; start afresh without resuming"
            )
        self._settings = (json.dumps(settings, indent=2) + "\n").encode()
        write_atomic(file, self._settings)

    def _resumes(self, folder: Path) -> bool:
        """Return whether the network in a folder is of this fit and is gone on with; forget it where it is not."""
        file = folder / SETTINGS
        if self.resume and file.exists() and file.read_bytes() == self._settings:
            return True
        for left in (folder / "model.pt", folder / "checkpoints" / CHECKPOINT):  # of an earlier fit, to be replaced
            left.unlink(missing_ok=True)
        write_atomic(file, self._settings)
        return False

    def train(
        self, rows: NDArray[np.int64], config: TableConfig, member: int, held: NDArray[np.int64] | None = None,
        *callbacks: Callback,
    ) -> DiffusionModel:  # fmt: skip
        """Return one member, trained on some of the rows, or read from the folder that it was kept in."""
        folder = self.place(config, member)
        kept = None if folder is None else folder / "model.pt"
        resumes = folder is not None and self._resumes(folder)
        if resumes and kept is not None and kept.exists():
            model = load(kept)
            model.metadata = self.metadata  # what is said about a table may have changed; its rows have not
            return model
        epochs, epoch_steps = epochs_of(config.num_steps or PILOT)
        low, high = config.noise_min or 0.01, config.sigma_max
        training = TrainingConfig(
            epochs=epochs, epoch_steps=epoch_steps, batch_size=config.batch_size or 128,
            noise_draws=config.noise_draws, learning_rate=config.learning_rate, sigma_min=low, sigma_max=high,
            mask=config.mask,
        )  # fmt: skip
        known: dict[str, Any] = {}
        if self.labels is not None:
            known["labels"] = [self.labels[row] for row in rows]

        def network(_metadata: Any) -> ResidualMLP:
            return _network(self.x.shape[1], config, len(set(self.labels or [])), self.x.shape[1] if config.mask else 0)

        with ignored_warnings(QualityWarning, "the network ignores its"):  # held-out rows decide, labels included
            model = fit(
                self.points[rows], training, inference=InferenceConfig(sigma_min=low, sigma_max=high),
                standardiser=self.standardiser, base=self.base(config.base, rows), backbone=network,
                metadata=self.metadata, seed=self.seed_of(2, member), device=self.device, folder=folder,
                resume=resumes and folder is not None and (folder / "checkpoints" / CHECKPOINT).exists(),
                validation=None if held is None or folder is None else self.points[held], callbacks=callbacks, **known,
            )  # fmt: skip
        if kept is not None:
            model.save(kept)
        return model

    def several(self, jobs: Sequence[Job], levels: Array) -> Iterator[Trained]:
        """Train and judge members, in order; at once, in processes of their own, where that is worth their start."""
        steps = sum(job.config.num_steps or PILOT for job in jobs)
        run = functools.partial(self.one, levels=levels)
        yield from at_once(run, jobs, steps=steps, size=self.points.nbytes, device=self.device)

    @one_at_a_time  # the number of threads is that of the process
    def one(self, job: Job, levels: Array) -> Trained:
        """Train and judge one member, by one thread."""
        clock, threads = StepClock(), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            model = self.train(job.fold.inside, job.config, job.member, job.fold.outside, clock)
            return Trained(model, self.judge(model, job.fold, levels), clock.pace)
        finally:
            torch.set_num_threads(threads)

    def judge(self, model: DiffusionModel, fold: Fold, levels: Array, num_steps: int = 16) -> Array:
        """Return log-densities of a fold's rows in standard units at some blurs, shape `(N, K)`."""
        rows, settings = self.points[fold.outside], dict[str, Any]()
        if self.labels is not None:
            settings["labels"] = [self.labels[row] for row in fold.outside]
        if self.x.shape[1] > 8:
            settings["probes"] = 8
        found = [model.log_prob(rows, sigma_min=float(level), num_steps=num_steps, **settings) for level in levels]
        return np.stack(found, axis=1) + self.standardiser.log_scale


def _read_settings(file: Path) -> dict[str, Any]:
    """Return the settings of the fit whose networks lie in a folder.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, so the fit cannot be resumed; start afresh without resuming") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged, so the fit cannot be resumed; start afresh without resuming")
    return found


def _broad(gaussian: GaussianMixture, x: Array) -> GaussianMixture:
    """Return a Student t about a Gaussian, at most twice as wide as what the farthest row asks for.

    Wider parts would only let samples stray to where no row ever was.
    """
    mean, covariance = gaussian.means[0].numpy(), gaussian.covariances[0].numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
    farthest = float(np.sqrt((whitened**2).mean(axis=0).max()))
    return student_t(mean, covariance, widest=max(4.0, 2 * farthest))


def _network(n_dims: int, config: TableConfig, num_classes: int, num_context: int) -> ResidualMLP:
    """Return the network of a member: that of `fit`, its waves as long in many dimensions as in two."""
    made = default_network(
        n_dims, config.hidden_dim or 256, config.num_layers, num_classes=num_classes, num_context=num_context
    )  # fmt: skip
    if n_dims <= 2:
        return made
    return ResidualMLP(
        points=FourierFeatures(n_dims, std=(2 / n_dims) ** 0.5), noise=made.noise, blocks=list(made.blocks),
        n_dims=n_dims, hidden_dim=made.first.out_features, condition=made.condition,
    )  # fmt: skip
