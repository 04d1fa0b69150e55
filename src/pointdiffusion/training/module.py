"""Training with Lightning, bit for bit repeatable.

All randomness of a step is a function of (seed, number of the step): one generator draws the rows, the noise levels and
the noise of the global batch, of which each process takes its slice. So a resumed run equals an uninterrupted one, and
two processes end where one does. The loader yields numbers of steps and the module slices tensors; a user's own
`DataModule` works as well, and then only the noise is ours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pointdiffusion.config import DivergedError, InferenceConfig, TrainingConfig, unknown_name
from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.denoisers.preconditioned import Denoiser, KarrasDenoiser
from pointdiffusion.exact.empirical import EmpiricalDenoiser, posterior_mean
from pointdiffusion.model.conditions import Conditions, Known, rows_of
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.model.file import class_name
from pointdiffusion.networks import specification_of
from pointdiffusion.runtime.randomness import TRAINING, VALIDATION, generator_for
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.training.checkpoints import check_settings, check_state
from pointdiffusion.training.divergence import divergence, mean_denoiser
from pointdiffusion.training.losses import denoising_loss, loss_weight
from pointdiffusion.training.noise_levels import NOISE_SAMPLERS
from pointdiffusion.training.noise_range import complete_range

FIXED_DRAWS = 1024
"""Rows, noise levels and noises on which the logged losses are taken, the same at every epoch."""

MOST_KNOWN = 2**20
"""Rows up to which the constants that go beside the losses are taken: they need every row for every draw, which is 10
seconds for a million rows of 8 columns, and a network that memorises more of them is nothing to fear."""


class StepNumbers:
    """Loader of our own: the numbers of the steps within an epoch, for a module that slices its rows itself.

    Args:
        steps: Steps of an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.steps))


def _with_levels(
    config: TrainingConfig, rows: Tensor | None, sigma_data: float
) -> tuple[TrainingConfig, tuple[float, float]]:
    """Return the settings with the lowest and the highest noise level, and the two."""
    low, high = config.sigma_min, config.sigma_max
    if rows is None:
        low, high = 0.01 if low is None else low, 10.0 if high is None else high
    else:  # below two standard deviations no solver of `auto` starts
        low, high = complete_range(low, high, rows, least_max=2 * sigma_data, standardise=False)
    return replace(config, sigma_min=low, sigma_max=high), (low, high)


class LightningDiffusion(LightningModule):
    """Trains a denoiser: loss, optimiser, averaged weights, losses to log.

    Any `Trainer`, callback, logger and `DataModule` works with it. Given `points`, it is its own loader.

    Args:
        denoiser: The denoiser to train.
        training: Settings of training; noise levels that they leave open are chosen from `points`, and are 0.01 and 10
            where there are none.
        inference: Settings of sampling that the finished model carries; by default on the noise levels of training.
        points: Training rows, shape `(N, D)`, in the user's units; None where a `DataModule` brings batches (tensors,
            or tuples that begin with one).
        validation: Rows for the validation loss, in the user's units.
        population: Many fresh rows of the population, for the loss that a perfect network would reach.
        labels: Class of each training row, shape `(N,)`.
        context: Values that come with each training row, shape `(N, C)`, in the user's units.
        standardiser: Scale of the data; fitted on `points` where it is missing, and no change where there are none.
        seed: Seed of all randomness of training.
        metadata: Plain values that travel with the model; what stands under "data" and "network" tells
            where they come from, and is compared when a run is resumed.

    Raises:
        ValueError: If the rows are no table of numbers, or a name in the settings is unknown.
    """

    def __init__(
        self, denoiser: Denoiser, training: TrainingConfig | None = None, inference: InferenceConfig | None = None, *,
        points: Any = None, validation: Any = None, population: Any = None, labels: Any = None, context: Any = None,
        standardiser: Standardiser | None = None, seed: int = 0, metadata: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.denoiser = denoiser
        self.seed = seed
        self.metadata = metadata or {}
        if standardiser is None and points is not None:
            standardiser = Standardiser.fit(points)
        self.standardiser = standardiser
        # Plain attributes, not buffers: training rows are never stored in a checkpoint.
        self._rows = {
            name: None if table is None else self._standardised(table)
            for name, table in (("points", points), ("validation", validation), ("population", population))
        }
        rows = self._rows["points"]
        self.training_config, levels = _with_levels(training or TrainingConfig(), rows, denoiser.sigma_data)
        self.inference_config = inference or InferenceConfig(sigma_min=levels[0], sigma_max=levels[1])
        config = self.training_config
        self.conditions: Conditions | None = None
        self._known: Known = {}
        if labels is not None or context is not None or config.mask:
            if rows is None:
                raise ValueError("labels, context and mask are for rows that are handed over: pass points=...")
            self.conditions = Conditions.fit(rows, labels, context, masked=config.mask > 0)
            self._known = self.conditions.known(len(rows), labels, context)
        content = [] if rows is None else [rows, *self._known.values()]
        digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in content)).hexdigest()[:16]
        self._rows_hash = None if rows is None else digest
        if config.noise_sampler not in NOISE_SAMPLERS:
            raise unknown_name("noise sampler", config.noise_sampler, NOISE_SAMPLERS)
        self.noise_sampler = NOISE_SAMPLERS[config.noise_sampler](*levels)
        self._weight(torch.ones(1))  # a wrong name fails here, not in the first step
        self.averaged = AveragedModel(denoiser, multi_avg_fn=self._average).requires_grad_(False)
        self._rate_multiplier = float(getattr(denoiser.backbone, "rate_multiplier", 1.0))
        self._start_loss = self._highest_loss = 0.0
        self._draws: dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]] = {}

    # ------------------------------------------------------------------------------------------------ data and noise

    def _standardised(self, table: Any) -> Tensor:
        points = as_points(table) if self.standardiser is None else self.standardiser.transform(table)
        return torch.from_numpy(np.ascontiguousarray(points))

    def _rows_of(self, batch: Any) -> Tensor:
        """Return the rows of a user's batch, standardised, in the type of the weights."""
        x_0 = batch[0] if isinstance(batch, (tuple, list)) else batch
        like = next(self.denoiser.parameters())
        if self.standardiser is not None:
            mean, scale = torch.from_numpy(self.standardiser.mean), torch.from_numpy(self.standardiser.scale)
            x_0 = (x_0.cpu().to(torch.float64) - mean) / scale  # on the CPU: some devices have no float64
        return x_0.to(like)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Bring the rows to the type and the device of the weights, and take the loss before training."""
        like = next(self.denoiser.parameters())
        self._move_rows(like.device, like.dtype)
        if self._rows["points"] is not None:  # before a checkpoint is read
            self._start_loss = self._loss_given_conditions()
        self._move_rows(self.device, like.dtype)  # where the weights, too, will be: Lightning moves them after this

    def _move_rows(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self._draws = {}
        self._rows = {name: None if rows is None else rows.to(device, dtype) for name, rows in self._rows.items()}

    def train_dataloader(self) -> StepNumbers:
        """Return our own loader."""
        rows = self._rows["points"]
        if rows is None:
            raise ValueError("there is nothing to train on: pass points=... or a DataModule")
        return StepNumbers(self._steps_per_epoch(len(rows)))

    def _steps_per_epoch(self, num_rows: int) -> int:
        return self.training_config.epoch_steps or -(-num_rows // self.training_config.batch_size)

    def val_dataloader(self) -> list[int]:
        """Return one number: the fixed draws are one batch."""
        return [] if self._rows["points"] is None else [0]

    def _noise(self, x_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a noise level and a noise for each row: `(B,)` and `(B, D)`."""
        sigma = self.noise_sampler.sample(len(x_0), generator, torch.float64)
        eps = torch.randn(x_0.shape, generator=generator, dtype=x_0.dtype)
        return sigma.to(x_0), eps.to(x_0.device)

    def _weight(self, sigma: Tensor) -> Tensor:
        config = self.training_config
        return loss_weight(
            sigma, loss=config.loss, weighting=config.weighting, gamma=config.gamma, sigma_data=self.denoiser.sigma_data
        )

    # ------------------------------------------------------------------------------------------------------ training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of one step: of our own batch for a number, of the given rows otherwise."""
        config, rows = self.training_config, self._rows["points"]
        rank, world = 0, 1
        if isinstance(batch, int) and rows is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # Not the loader's number: a run that goes on within an epoch starts a new iterator there.
            step = self.current_epoch * self._steps_per_epoch(len(rows)) + batch_idx
            generator = generator_for(self.seed, TRAINING, step)
            chosen = torch.randint(len(rows), (config.batch_size,), generator=generator)
            extra = max(0, config.reference_points - config.batch_size)
            others = torch.randint(len(rows), (extra,), generator=generator)
            clean = rows[chosen.to(rows.device)]
            reference = torch.cat([clean, rows[others.to(rows.device)]])
        else:
            if self.conditions is not None:
                raise ValueError("labels, context and mask need points=...: leave out them or the DataModule")
            generator = generator_for(self.seed, TRAINING, self.current_epoch, batch_idx, self.trainer.global_rank)
            chosen = others = torch.zeros(0, dtype=torch.long)
            reference = clean = self._rows_of(batch)
        x_0 = clean.repeat(config.noise_draws, 1)
        sigma, eps = self._noise(x_0, generator)
        widened = torch.ones_like(x_0[:, :1])
        if config.reference_points and config.tail_share:
            widened = self._tails(sigma, generator)
        total = len(x_0)
        known: Known = {}
        allowed: Tensor | None = None
        if self.conditions is not None:
            known = self._hidden(x_0, chosen, generator)
            allowed = self._allowed(known, torch.cat([chosen, others]), total)
            if "context" in known:  # of these rows the target is the clean point, and that is right in ordinary noise
                widened = torch.where(known["context"].isnan().all(dim=1, keepdim=True), widened, 1.0)
        eps = eps * widened
        x_0, sigma, eps = x_0[rank::world], sigma[rank::world], eps[rank::world]
        known, allowed = rows_of(known, slice(rank, None, world)), None if allowed is None else allowed[rank::world]
        x = x_0 + sigma[:, None] * eps
        target = posterior_mean(x, sigma, reference, allowed) if config.reference_points else x_0
        losses = denoising_loss(self.denoiser(x, sigma, **known), target, self._weight(sigma))
        return losses.sum() * (world / total)  # the mean over processes is then the mean over the global batch

    def _hidden(self, x_0: Tensor, chosen: Tensor, generator: torch.Generator) -> Known:
        """Return the conditions of rows, some hidden, and some of the rows' own coordinates where masks are trained."""
        config, conditions = self.training_config, self.conditions
        if conditions is None:
            return {}
        count = len(x_0)
        hidden, shown, rate = torch.rand(3, count, generator=generator, dtype=torch.float64)
        hide = hidden < config.condition_dropout
        known = rows_of(self._known, chosen.repeat(config.noise_draws))
        if "labels" in known:
            known["labels"] = known["labels"].masked_fill(hide, -1).to(x_0.device)
        own: Tensor | None = None
        if conditions.masked:
            told = torch.rand(x_0.shape, generator=generator, dtype=torch.float64) < rate[:, None]
            told &= (shown < config.mask)[:, None]
            own = torch.where(told.to(x_0.device), x_0, torch.nan)
        if conditions.num_inputs:
            context = known.get("context")
            if context is not None:
                context = context[:, : conditions.num_context].masked_fill(hide[:, None], torch.nan).to(x_0)
            known["context"] = conditions.padded(context, own)
        return known

    def _allowed(self, known: Known, places: Tensor, count: int) -> Tensor:
        """Return which rows of the reference a point may come from: all of its class, but itself alone under values."""
        size, kept = self.training_config.batch_size, len(places) if self.training_config.reference_points else 0
        allowed = torch.ones(count, kept, dtype=torch.bool)
        if "labels" in known:
            labels = known["labels"].cpu()
            allowed &= (labels < 0)[:, None] | (labels[:, None] == self._known["labels"][places[:kept]])
        if "context" in known:
            free = known["context"].isnan().all(dim=1).cpu()
            allowed &= free[:, None] | (torch.arange(count) % size)[:, None].eq(torch.arange(kept))
        return allowed.to(self.device)

    def _tails(self, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return factors that widen the noise of a share of the rows, shape `(B, 1)`.

        A sampler starts one path in 25,000 beyond 4.5 standard deviations, where a network that saw only ordinary noise
        extrapolates, and what it then draws lies far off the data. The posterior mean is the right target at any
        point, so points out there can be learned from without a change of the optimum. That holds where many rows of
        the reference have a say, hence from half a standard deviation of the data on.
        """
        share, width = torch.rand(2, len(sigma), generator=generator, dtype=torch.float64).to(sigma)
        wide = (share < self.training_config.tail_share) & (sigma > 0.5)
        return torch.where(wide, 1 + width, 1.0)[:, None]

    @property
    def peak_learning_rate(self) -> float:
        """Highest learning rate that AdamW gets: `learning_rate` times the network's own `rate_multiplier`, 1 if none.

        What it gets at the end of each epoch is logged as `optimizer_lr`.
        """
        return self.training_config.learning_rate * self._rate_multiplier

    def configure_optimizers(self) -> Any:
        """Return AdamW, starting at `peak_learning_rate`, and its annealing along a cosine to 0 over the whole run.

        Returns:
            The optimiser and its scheduler, as Lightning takes them.
        """
        schedule = self._schedule(int(self.trainer.estimated_stepping_batches))
        return {"optimizer": schedule.optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _schedule(self, steps: int) -> torch.optim.lr_scheduler.CosineAnnealingLR:
        config = self.training_config
        weights = self.denoiser.parameters()
        optimizer = torch.optim.AdamW(weights, lr=self.peak_learning_rate, weight_decay=config.weight_decay, fused=True)
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))

    def _average(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        config, k = self.training_config, int(num_averaged)
        decay = min(config.ema_decay, (1 + k) / (config.ema_warmup + k))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def optimizer_step(self, *args: Any, **settings: Any) -> None:
        """Step, and average the weights at once: any checkpoint that follows holds both."""
        super().optimizer_step(*args, **settings)
        if self.averaged.n_averaged == 0:
            self.averaged.update_parameters(self.denoiser)  # copies them, and the buffers
            return
        averaged, current = self._weights
        self._average(
            averaged, current, self.averaged.n_averaged
        )  # update_parameters walks through all modules each time
        self.averaged.n_averaged += 1
        for kept, buffer in zip(self.averaged.module.buffers(), self.denoiser.buffers(), strict=True):
            kept.copy_(buffer)

    # ---------------------------------------------------------------------------------------------------- validation

    def _fixed_order(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(count, generator=generator).repeat(-(-FIXED_DRAWS // count))[:FIXED_DRAWS]

    def _fixed_draws(self, name: str, counter: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return clean rows, noise levels and noisy rows that are the same whenever they are asked for."""
        rows = self._rows[name]
        if rows is None:
            return None
        if (name, counter) in self._draws:  # half a second where there are ten million rows
            return self._draws[name, counter]
        generator = generator_for(self.seed, VALIDATION, counter)
        x_0 = rows[self._fixed_order(len(rows), generator).to(rows.device)]
        sigma, eps = self._noise(x_0, generator)
        self._draws[name, counter] = x_0, sigma, x_0 + sigma[:, None] * eps
        return self._draws[name, counter]

    def _fixed_loss(
        self, denoiser: DenoiserFunction, draws: tuple[Tensor, Tensor, Tensor], known: Known | None = None
    ) -> Tensor:
        x_0, sigma, x = draws
        return denoising_loss(denoiser(x, sigma, **(known or {})), x_0, self._weight(sigma)).mean()

    @torch.no_grad()
    def optimal_losses(self) -> dict[str, float]:
        """Return what the logged losses would be for exact denoisers, by name.

        `optimal_train_loss` belongs to the exact optimum on the training rows, which only a network that memorises
        reaches; `optimal_val_loss` to that of the population, which a perfect network reaches. The population is
        represented by finitely many fresh rows, so the figure errs upwards where these are not dense at the lowest
        noise level (in three dimensions more than in two).
        """
        losses = {}
        for name, known, rows in (("train", "points", "points"), ("val", "validation", "population")):
            draws, reference = self._fixed_draws(known, int(name == "val")), self._rows[rows]
            if draws is not None and reference is not None:
                losses[f"optimal_{name}_loss"] = float(self._fixed_loss(EmpiricalDenoiser(reference), draws))
        return losses

    @torch.no_grad()
    def fixed_losses(self) -> dict[str, float]:
        """Return the logged losses of the averaged weights as they are now, `train_loss` and `val_loss`."""
        losses = {}
        for name, known in (("train_loss", "points"), ("val_loss", "validation")):
            draws = self._fixed_draws(known, int(name == "val_loss"))
            if draws is not None:
                losses[name] = float(self._fixed_loss(self.averaged, draws))
        return losses

    @torch.no_grad()
    def _loss_given_conditions(self, denoiser: DenoiserFunction | None = None) -> float:
        """Return `train_loss` where labels and context are given: without them a network may be untrained."""
        draws, rows = self._fixed_draws("points", 0), self._rows["points"]
        if draws is None or rows is None:
            return math.nan
        order = self._fixed_order(len(rows), generator_for(self.seed, VALIDATION, 0))
        known = {name: value.to(rows.device) for name, value in rows_of(self._known, order).items()}
        if "context" in known:
            known["context"] = known["context"].to(rows)
        was = self.averaged.training
        self.averaged.eval()  # before training it is not yet
        loss = float(self._fixed_loss(denoiser or self.averaged, draws, known))
        self.averaged.train(was)
        return loss

    def mean_loss(self) -> float:
        """Return what `train_loss` would be for a network that predicts the mean of its target, see `divergence`.

        Raises:
            ValueError: If the module has no rows of its own.
        """
        rows = self._rows["points"]
        if rows is None:
            raise ValueError("the loss of a network that predicts the mean needs training rows: pass points=...")
        return self._loss_given_conditions(mean_denoiser(rows.mean(dim=0), self.denoiser.sigma_data))

    def check_convergence(self, model: DiffusionModel | None = None) -> None:
        """Raise a `DivergedError` where training has diverged, see `divergence`.

        Args:
            model: What training ended with, to be kept in the error.
        """
        loss = self._loss_given_conditions()
        if not math.isfinite(loss):
            raise self._diverged("its loss is no longer finite")
        found = divergence(
            loss, mean_loss=self.mean_loss(), start_loss=self._start_loss, highest_loss=self._highest_loss
        )  # fmt: skip
        if found is not None:
            raise self._diverged(found, model)

    def _diverged(self, how: str, model: DiffusionModel | None = None) -> DivergedError:
        rate, multiplier = self.training_config.learning_rate, self._rate_multiplier
        advice = f"lower the learning rate ({rate:g})"
        if multiplier != 1:
            advice += f"; AdamW got rate_multiplier = {multiplier:g} times that, {self.peak_learning_rate:g}"
        return DivergedError(f"training diverged: {how}; {advice}", model)

    def on_fit_start(self) -> None:
        """Take the constants that go beside the losses, and the weights in the order in which they are averaged."""
        self._weights = [
            [weight.detach() for weight in module.parameters()] for module in (self.averaged.module, self.denoiser)
        ]
        rows = max(0 if table is None else len(table) for table in self._rows.values())
        self._optimal = self.optimal_losses() if rows <= MOST_KNOWN else {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the losses of the averaged weights on fixed draws, and the constants that say what they mean."""
        if isinstance(batch, int) and self._rows["points"] is not None:
            values = {**self._optimal, **self.fixed_losses()}
            given = self._loss_given_conditions() if self._known else values["train_loss"]
            if not all(map(math.isfinite, [given, *values.values()])):
                raise self._diverged("its loss is no longer finite")
            self._highest_loss = max(self._highest_loss, given)
            if self.trainer.optimizers:
                values["optimizer_lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict(values, batch_size=FIXED_DRAWS)
        else:
            x_0 = self._rows_of(batch)
            sigma, eps = self._noise(x_0, generator_for(self.seed, VALIDATION, batch_idx, self.trainer.global_rank))
            loss = self._fixed_loss(self.averaged, (x_0, sigma, x_0 + sigma[:, None] * eps))
            self.log("val_loss", loss, batch_size=len(x_0), sync_dist=True, prog_bar=True)

    # -------------------------------------------------------------------------------------------------------- result

    def model(self, *, columns: list[str] | None = None) -> DiffusionModel:
        """Return the trained model with the averaged weights.

        Args:
            columns: Names of the columns; x, y, z or x1, x2, ... where they are missing.

        Raises:
            ValueError: If the module has no rows and no standardiser to tell the number of dimensions.
        """
        rows, standardiser = self._rows["points"], self.standardiser
        if standardiser is None:
            raise ValueError("the scale of the data is unknown: pass standardiser=Standardiser.fit(points)")
        n_dims = len(standardiser.mean)
        covariance = torch.eye(n_dims, dtype=torch.float64)
        if rows is not None:
            covariance = torch.atleast_2d(torch.cov(rows.cpu().double().T))
        averaged = self.averaged.module
        if not isinstance(averaged, KarrasDenoiser):
            raise ValueError(f"only a KarrasDenoiser can be kept in a model, not a {type(averaged).__name__}")
        return DiffusionModel(
            denoiser=averaged.eval(),
            standardiser=standardiser,
            covariance=covariance,
            columns=columns or column_names(None, n_dims),
            inference=self.inference_config,
            training=self.training_config,
            raw_weights={name: value.detach().clone() for name, value in self.denoiser.backbone.state_dict().items()},
            metadata=self.metadata,
            conditions=self.conditions,
        )

    def settings(self) -> dict[str, Any]:
        """Return all that the weights at the end depend on, as plain values; training rows as a hash."""
        backbone = self.denoiser.backbone
        network = specification_of(backbone) or {
            "class": class_name(backbone),
            "modules": repr(backbone),
            "rate_multiplier": self._rate_multiplier,
            "shapes": {name: list(value.shape) for name, value in backbone.state_dict().items()},
        }
        origin = {
            f"{group}.{name}": value
            for group in ("data", "network")
            if isinstance(self.metadata.get(group), dict)
            for name, value in self.metadata[group].items()
        }
        return {
            **self.training_config.to_mapping(), "seed": self.seed, **origin, "network": network,
            "base": self._base_hash(), "rows": self._rows_hash,
        }  # fmt: skip

    def _base_hash(self) -> str | None:
        """Return the hash of what the network adds to; None where that is the denoiser of a sphere."""
        bases = getattr(self.denoiser, "bases", ())
        parts = [part for base in bases for part in (base.weights, base.means, base.covariances)]
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:16] if parts else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings with the weights, so that another run is not continued by mistake."""
        checkpoint["settings"] = self.settings()
        checkpoint["highest_loss"] = self._highest_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run with other settings.

        Raises:
            ValueError: With the names and both values of the settings that differ.
        """
        check_settings(checkpoint.get("settings", {}), self.settings())
        highest = checkpoint.get("highest_loss", 0.0)  # checkpoints of earlier versions do not say
        if not isinstance(highest, float) or not math.isfinite(highest):
            raise ValueError("the checkpoint is damaged: its highest loss is no number; start afresh without resuming")
        self._highest_loss = highest

    def check_checkpoint(self, checkpoint: dict[str, Any], name: str, fit_loop: dict[str, Any]) -> None:
        """Refuse a checkpoint from which a run on the module's own rows would not go on as it was.

        Args:
            checkpoint: What was read.
            name: What to call it in messages.
            fit_loop: State of the loop of a fresh trainer.

        Raises:
            ValueError: With the name of the part that is missing or wrong.
        """
        steps = len(self.train_dataloader())
        schedule = self._schedule(self.training_config.epochs * steps)
        check_state(checkpoint, name, self.state_dict(keep_vars=True), schedule, fit_loop, steps)
