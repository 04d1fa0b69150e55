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

from pointdiffusion.checkpoints import check_settings
from pointdiffusion.conditions import Conditions, Known, rows_of
from pointdiffusion.config import InferenceConfig, TrainingConfig, unknown_name
from pointdiffusion.data.tables import Standardiser, as_points, column_names
from pointdiffusion.denoisers import Denoiser, DenoiserFunction, KarrasDenoiser
from pointdiffusion.empirical import EmpiricalDenoiser, posterior_mean
from pointdiffusion.evaluation.conditioning import ConditionUse, condition_use
from pointdiffusion.evaluation.noise_range import complete_range
from pointdiffusion.losses import denoising_loss, loss_weight
from pointdiffusion.model import DiffusionModel
from pointdiffusion.model_file import class_name
from pointdiffusion.networks import specification_of
from pointdiffusion.noise import NOISE_SAMPLERS
from pointdiffusion.randomness import TRAINING, VALIDATION, generator_for

FIXED_DRAWS = 1024
"""Rows, noise levels and noises on which the logged losses are taken, the same at every epoch."""


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
        """Bring the rows to the type and the device of the weights."""
        like = next(self.denoiser.parameters())
        self._rows = {
            name: None if rows is None else rows.to(self.device, like.dtype) for name, rows in self._rows.items()
        }

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

    def configure_optimizers(self) -> Any:
        """Return AdamW, at the rate times the network's own multiplier, and a cosine to 0 over the whole run."""
        config = self.training_config
        rate = config.learning_rate * self._rate_multiplier
        weights = self.denoiser.parameters()
        optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=config.weight_decay, fused=True)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

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

    def _fixed_draws(self, name: str, counter: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return clean rows, noise levels and noisy rows that are the same whenever they are asked for."""
        rows = self._rows[name]
        if rows is None:
            return None
        generator = generator_for(self.seed, VALIDATION, counter)
        order = torch.randperm(len(rows), generator=generator).repeat(-(-FIXED_DRAWS // len(rows)))[:FIXED_DRAWS]
        x_0 = rows[order.to(rows.device)]
        sigma, eps = self._noise(x_0, generator)
        return x_0, sigma, x_0 + sigma[:, None] * eps

    def _fixed_loss(self, denoiser: DenoiserFunction, draws: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x_0, sigma, x = draws
        return denoising_loss(denoiser(x, sigma), x_0, self._weight(sigma)).mean()

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

    def condition_use(self) -> ConditionUse | None:
        """Return what labels and context do for the averaged weights; None where there are none."""
        rows, conditions = self._rows["points"], self.conditions
        if rows is None or conditions is None or not self._known:
            return None
        generator = generator_for(self.seed, VALIDATION, 2)
        chosen = torch.randint(len(rows), (FIXED_DRAWS,), generator=generator)
        x_0, known = rows[chosen.to(rows.device)], rows_of(self._known, chosen)
        sigma, eps = self._noise(x_0, generator)
        known = {name: value.to(x_0.device) for name, value in known.items()}
        order = torch.randperm(FIXED_DRAWS, generator=generator)
        denoiser = self.averaged.module
        training = denoiser.training
        try:
            return condition_use(
                denoiser.eval(), conditions, x_0, known, sigma, eps, order, sigma_data=self.denoiser.sigma_data
            )
        finally:
            denoiser.train(training)

    def on_fit_start(self) -> None:
        """Take the constants that go beside the losses, and the weights in the order in which they are averaged."""
        self._weights = [
            [weight.detach() for weight in module.parameters()] for module in (self.averaged.module, self.denoiser)
        ]
        self._optimal = self.optimal_losses()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the losses of the averaged weights on fixed draws, and the constants that say what they mean."""
        if isinstance(batch, int) and self._rows["points"] is not None:
            values = {**self._optimal, **self.fixed_losses()}
            if not all(map(math.isfinite, values.values())):
                raise ValueError("training diverged: its loss is no longer finite; lower the learning rate")
            if self.trainer.optimizers:
                values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"] / self._rate_multiplier
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
            **self.training_config.to_mapping(), "seed": self.seed,
            **origin, "network": network, "rows": self._rows_hash
        }  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings with the weights, so that another run is not continued by mistake."""
        checkpoint["settings"] = self.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run with other settings.

        Raises:
            ValueError: With the names and both values of the settings that differ.
        """
        check_settings(checkpoint.get("settings", {}), self.settings())
