"""Training with Lightning, bit for bit repeatable.

All randomness of a step is a function of (seed, index of the step): one generator draws the rows, the noise levels and
the noise of the global batch, of which each process takes its slice. So a resumed run equals an uninterrupted one, and
two processes end where one does. The loader yields indices of steps and the module slices tensors; a custom
`DataModule` works as well, and then only the noise is drawn here.
"""

from __future__ import annotations

import hashlib
import math
import sys
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
from pointdiffusion.training.conditioning import ConditionUse, condition_use
from pointdiffusion.training.divergence import divergence, mean_denoiser
from pointdiffusion.training.losses import denoising_loss, loss_weight
from pointdiffusion.training.noise_levels import NOISE_SAMPLERS
from pointdiffusion.training.noise_range import complete_range

FIXED_DRAWS = 1024
"""Rows, noise levels and noises on which the logged losses are taken, the same at every epoch."""

MOST_KNOWN = 2**20
"""Largest number of rows for which the optimal losses are computed: they need every row for every draw, which takes 10
seconds for a million rows of 8 columns, and no network memorises more rows."""


class StepNumbers:
    """Loader of the indices of the steps within an epoch, for a module that slices its rows itself.

    Args:
        steps: Number of steps of an epoch.
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
    """Trains a denoiser: loss, optimiser, averaged weights, logged losses.

    Works with any `Trainer`, callback, logger and `DataModule`; given `points`, it provides its own loader. Once an
    epoch it logs `train_loss`, `val_loss`, the losses of optimal denoisers, and `optimizer_lr`, the learning rate of
    AdamW.

    Args:
        denoiser: The denoiser to train.
        training: Settings of training; noise levels that are None are chosen from `points`, and are 0.01 and 10 without
            points.
        inference: Settings of sampling that the finished model carries; by default on the noise levels of training.
        points: Training rows, shape `(N, D)`, in any units; None where a `DataModule` provides batches (tensors, or
            tuples that begin with one).
        validation: Rows for the validation loss, shape `(M, D)`, in units of `points`.
        population: Many fresh rows of the population, for the loss that a perfect network would reach.
        labels: Class of each training row, integers or strings, shape `(N,)`.
        context: Values that come with each training row, shape `(N, C)`, in any units.
        standardiser: Shift and scale of the columns; fitted on `points` if None, the identity without points.
        seed: Seed of all randomness of training.
        metadata: Plain values that are stored with the model; the entries "data" and "network" describe their origin,
            and are compared when a run is resumed.

    Raises:
        ValueError: If the rows are no table of numbers, or a name in the settings is unknown.

    Examples:
        >>> from pointdiffusion import DATASETS, default_network
        >>> points = DATASETS["moons"](100, random_state=0)
        >>> module = LightningDiffusion(KarrasDenoiser(default_network(2, 16, 1)), points=points)
        >>> module.training_config.learning_rate, module.peak_learning_rate  # times the network's rate_multiplier
        (0.0001, 0.002)
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
        self._condition: Known = {}
        if labels is not None or context is not None or config.mask:
            if rows is None:
                raise ValueError("labels, context and mask require points=...: they cannot come from a DataModule")
            self.conditions = Conditions.fit(rows, labels, context, masked=config.mask > 0)
            self._condition = self.conditions.known(len(rows), labels, context)
        content = [] if rows is None else [rows, *self._condition.values()]
        digest = hashlib.sha256()
        for each in content:
            digest.update(np.ascontiguousarray(each.numpy()).data)
        self._rows_hash = None if rows is None else digest.hexdigest()[:16]
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
        """Move the rows to the type and the device of the weights, and compute the loss before training.

        Args:
            stage: Ignored; Lightning passes it.
        """
        like = next(self.denoiser.parameters())
        self._move_rows(like.device, like.dtype)
        if self._rows["points"] is not None:  # before a checkpoint is read
            self._start_loss = self._loss_given_conditions()
        self._move_rows(self.device, like.dtype)  # where the weights, too, will be: Lightning moves them after this

    def _move_rows(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self._draws = {}
        self._rows = {name: None if rows is None else rows.to(device, dtype) for name, rows in self._rows.items()}

    def train_dataloader(self) -> StepNumbers:
        """Return the loader of step indices.

        Returns:
            The loader.

        Raises:
            ValueError: If the module was made without `points`.
        """
        rows = self._rows["points"]
        if rows is None:
            raise ValueError("there is nothing to train on: pass points=... or a DataModule")
        return StepNumbers(self._steps_per_epoch(len(rows)))

    def _steps_per_epoch(self, num_rows: int) -> int:
        return self.training_config.epoch_steps or -(-num_rows // self.training_config.batch_size)

    def val_dataloader(self) -> list[int]:
        """Return a loader of one batch, the fixed draws; of none without `points`."""
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
        """Return the loss of one step.

        Args:
            batch: Index of the step, for which the module draws rows itself; or rows `(B, D)` of a `DataModule`.
            batch_idx: Index of the batch within the epoch.

        Returns:
            The loss, a scalar with a graph.

        Raises:
            ValueError: If a `DataModule` is combined with labels, context or mask.
        """
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
                raise ValueError("labels, context and mask require points=...: drop them or the DataModule")
            generator = generator_for(self.seed, TRAINING, self.current_epoch, batch_idx, self.trainer.global_rank)
            chosen = others = torch.zeros(0, dtype=torch.long)
            reference = clean = self._rows_of(batch)
        x_0 = clean.repeat(config.noise_draws, 1)
        sigma, eps = self._noise(x_0, generator)
        widened = torch.ones_like(x_0[:, :1])
        if config.reference_points and config.tail_share:
            widened = self._tails(sigma, generator)
        total = len(x_0)
        condition: Known = {}
        allowed: Tensor | None = None
        if self.conditions is not None:
            condition = self._hidden(x_0, chosen, generator)
            allowed = self._allowed(condition, torch.cat([chosen, others]), total)
            if "context" in condition:  # the target of these rows is the clean point, which is right in unwidened noise
                widened = torch.where(condition["context"].isnan().all(dim=1, keepdim=True), widened, 1.0)
        eps = eps * widened
        x_0, sigma, eps = x_0[rank::world], sigma[rank::world], eps[rank::world]
        condition = rows_of(condition, slice(rank, None, world))
        allowed = None if allowed is None else allowed[rank::world]
        x = x_0 + sigma[:, None] * eps
        target = posterior_mean(x, sigma, reference, allowed) if config.reference_points else x_0
        losses = denoising_loss(self.denoiser(x, sigma, **condition), target, self._weight(sigma))
        return losses.sum() * (world / total)  # the mean over processes is then the mean over the global batch

    def _hidden(self, x_0: Tensor, chosen: Tensor, generator: torch.Generator) -> Known:
        """Return the conditions of rows, some dropped, and some of their own coordinates where masks are trained."""
        config, conditions = self.training_config, self.conditions
        if conditions is None:
            return {}
        count = len(x_0)
        hidden, shown, rate = torch.rand(3, count, generator=generator, dtype=torch.float64)
        hide = hidden < config.condition_dropout
        condition = rows_of(self._condition, chosen.repeat(config.noise_draws))
        if "labels" in condition:
            condition["labels"] = condition["labels"].masked_fill(hide, -1).to(x_0.device)
        own: Tensor | None = None
        if conditions.masked:
            observed = torch.rand(x_0.shape, generator=generator, dtype=torch.float64) < rate[:, None]
            observed &= (shown < config.mask)[:, None]
            own = torch.where(observed.to(x_0.device), x_0, torch.nan)
        if conditions.num_inputs:
            context = condition.get("context")
            if context is not None:
                context = context[:, : conditions.num_context].masked_fill(hide[:, None], torch.nan).to(x_0)
            condition["context"] = conditions.padded(context, own)
        return condition

    def _allowed(self, condition: Known, indices: Tensor, count: int) -> Tensor:
        """Return which rows of the reference a point may come from: all of its class, only itself given a context."""
        size = self.training_config.batch_size
        num_reference = len(indices) if self.training_config.reference_points else 0
        allowed = torch.ones(count, num_reference, dtype=torch.bool)
        if "labels" in condition:
            labels = condition["labels"].cpu()
            allowed &= (labels < 0)[:, None] | (labels[:, None] == self._condition["labels"][indices[:num_reference]])
        if "context" in condition:
            free = condition["context"].isnan().all(dim=1).cpu()
            allowed &= free[:, None] | (torch.arange(count) % size)[:, None].eq(torch.arange(num_reference))
        return allowed.to(self.device)

    def _tails(self, sigma: Tensor, generator: torch.Generator) -> Tensor:
        """Return factors that widen the noise of a share of the rows, shape `(B, 1)`.

        A sampler starts one trajectory in 25,000 beyond 4.5 standard deviations, where a network trained on Gaussian
        noise alone extrapolates, and its sample lies far off the data. The posterior mean is the right target at any
        point, so points that far out can be trained on without changing the optimum. That holds where many rows of the
        reference have weight, hence from half a standard deviation of the data on.
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
        """Step, and average the weights at once: any checkpoint that follows holds both.

        Args:
            args: Positional arguments of Lightning, passed on.
            settings: Keyword arguments of Lightning, passed on.
        """
        super().optimizer_step(*args, **settings)
        self._update_average()
        steps = int(self.averaged.n_averaged)
        if steps & (steps - 1) == 0 and self._rows["points"] is not None:  # 1, 2, 4, ...: an epoch may be long
            self._note_loss(self._loss_given_conditions())

    def _note_loss(self, loss: float) -> None:
        self._highest_loss = max(self._highest_loss, loss if math.isfinite(loss) else sys.float_info.max)

    def _update_average(self) -> None:
        if self.averaged.n_averaged == 0:
            self.averaged.update_parameters(self.denoiser)  # copies them, and the buffers
            return
        averaged, current = self._weights
        # update_parameters iterates over all modules each time
        self._average(averaged, current, self.averaged.n_averaged)
        self.averaged.n_averaged += 1
        for average, buffer in zip(self.averaged.module.buffers(), self.denoiser.buffers(), strict=True):
            average.copy_(buffer)

    # ---------------------------------------------------------------------------------------------------- validation

    def _fixed_order(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(count, generator=generator).repeat(-(-FIXED_DRAWS // count))[:FIXED_DRAWS]

    def _fixed_draws(self, name: str, counter: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return clean rows, noise levels and noisy rows, the same at each call."""
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
        self, denoiser: DenoiserFunction, draws: tuple[Tensor, Tensor, Tensor], condition: Known | None = None
    ) -> Tensor:
        x_0, sigma, x = draws
        return denoising_loss(denoiser(x, sigma, **(condition or {})), x_0, self._weight(sigma)).mean()

    @torch.no_grad()
    def optimal_losses(self) -> dict[str, float]:
        """Return the logged losses of optimal denoisers.

        `optimal_train_loss` is that of the optimal denoiser of the training rows, which only a network that memorises
        reaches; `optimal_val_loss` that of the population, which a perfect network reaches. The population is
        represented by finitely many fresh rows, so the value is biased upwards where these are not dense at the lowest
        noise level (in three dimensions more than in two).

        Returns:
            Losses by name, those for which there are rows.
        """
        losses = {}
        for name, noisy, rows in (("train", "points", "points"), ("val", "validation", "population")):
            draws, reference = self._fixed_draws(noisy, int(name == "val")), self._rows[rows]
            if draws is not None and reference is not None:
                losses[f"optimal_{name}_loss"] = float(self._fixed_loss(EmpiricalDenoiser(reference), draws))
        return losses

    @torch.no_grad()
    def fixed_losses(self) -> dict[str, float]:
        """Return the logged losses of the averaged weights as they are now, by name: `train_loss` and `val_loss`."""
        losses = {}
        for name, rows in (("train_loss", "points"), ("val_loss", "validation")):
            draws = self._fixed_draws(rows, int(name == "val_loss"))
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
        condition = {name: value.to(rows.device) for name, value in rows_of(self._condition, order).items()}
        if "context" in condition:
            condition["context"] = condition["context"].to(rows)
        was = self.averaged.training
        self.averaged.eval()  # before training it is not yet
        loss = float(self._fixed_loss(denoiser or self.averaged, draws, condition))
        self.averaged.train(was)
        return loss

    def mean_loss(self) -> float:
        """Return the `train_loss` of a network that predicts the mean of its target, see `divergence`.

        Returns:
            The loss.

        Raises:
            ValueError: If the module was made without `points`.
        """
        rows = self._rows["points"]
        if rows is None:
            raise ValueError("the loss of a network that predicts the mean requires training rows: pass points=...")
        return self._loss_given_conditions(mean_denoiser(rows.mean(dim=0), self.denoiser.sigma_data))

    def check_convergence(self, model: DiffusionModel | None = None) -> None:
        """Raise an error if training has diverged, see `divergence`.

        Args:
            model: The model that training ended with, for the error.

        Raises:
            DivergedError: If it has diverged, with the model unless its loss is no longer finite.
        """
        loss = self._loss_given_conditions()
        if not math.isfinite(loss):
            raise self._diverged("its loss is no longer finite")
        problem = divergence(
            loss, mean_loss=self.mean_loss(), start_loss=self._start_loss, highest_loss=self._highest_loss
        )  # fmt: skip
        if problem is not None:
            raise self._diverged(problem, model)

    def _diverged(self, how: str, model: DiffusionModel | None = None) -> DivergedError:
        rate, multiplier = self.training_config.learning_rate, self._rate_multiplier
        advice = f"lower the learning rate ({rate:g})"
        if multiplier != 1:
            advice += f"; AdamW got rate_multiplier = {multiplier:g} times that, {self.peak_learning_rate:g}"
        return DivergedError(f"training diverged: {how}; {advice}", model)

    def condition_use(self) -> ConditionUse | None:
        """Return what labels and context do for the averaged weights; None where there are none."""
        rows, conditions = self._rows["points"], self.conditions
        if rows is None or conditions is None or not self._condition:
            return None
        generator = generator_for(self.seed, VALIDATION, 2)
        chosen = torch.randint(len(rows), (FIXED_DRAWS,), generator=generator)
        x_0, known = rows[chosen.to(rows.device)], rows_of(self._condition, chosen)
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
        """Compute the optimal losses, and collect the weights in the order in which they are averaged."""
        self._weights = [
            [weight.detach() for weight in module.parameters()] for module in (self.averaged.module, self.denoiser)
        ]
        rows = max(0 if table is None else len(table) for table in self._rows.values())
        self._optimal = self.optimal_losses() if rows <= MOST_KNOWN else {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the losses of the averaged weights on fixed draws, those of optimal denoisers, and AdamW's learning rate.

        Args:
            batch: Any integer for the fixed draws; or rows `(B, D)` of a `DataModule`.
            batch_idx: Index of the batch.

        Raises:
            DivergedError: If a loss is not finite.
        """
        if isinstance(batch, int) and self._rows["points"] is not None:
            values = {**self._optimal, **self.fixed_losses()}
            given = self._loss_given_conditions() if self._condition else values["train_loss"]
            if not all(map(math.isfinite, [given, *values.values()])):
                raise self._diverged("its loss is no longer finite")
            self._note_loss(given)
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
            columns: Names of the columns; x, y, z or x1, x2, ... if None.

        Returns:
            The model, in units of the training rows.

        Raises:
            ValueError: If the module has neither points nor a standardiser, or its denoiser is no `KarrasDenoiser`.
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
            raise ValueError(f"a DiffusionModel requires a KarrasDenoiser, got a {type(averaged).__name__}")
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
        """Return everything that the final weights depend on, as plain values by name; training rows as a hash."""
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
        """Return the hash of the bases; None without any, where the network adds to the denoiser of a sphere."""
        bases = getattr(self.denoiser, "bases", ())
        parts = [part for base in bases for part in (base.weights, base.means, base.covariances)]
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()[:16] if parts else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the settings with the weights, so that another run is not resumed by mistake.

        Args:
            checkpoint: Content of the checkpoint; changed in place.
        """
        checkpoint["settings"] = self.settings()
        checkpoint["highest_loss"] = self._highest_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of a run with other settings.

        Args:
            checkpoint: Content of the checkpoint.

        Raises:
            ValueError: With the names and both values of the settings that differ.
        """
        check_settings(checkpoint.get("settings", {}), self.settings())
        highest = checkpoint.get("highest_loss", 0.0)  # absent from checkpoints of earlier versions
        if not isinstance(highest, float) or not math.isfinite(highest):
            raise ValueError("the checkpoint is damaged: its highest loss is no number; start afresh without resuming")
        self._highest_loss = highest

    def check_checkpoint(self, checkpoint: dict[str, Any], name: str, fit_loop: dict[str, Any]) -> None:
        """Refuse a checkpoint from which a run on the module's own rows would not resume exactly.

        Args:
            checkpoint: Content of the checkpoint.
            name: Name of the file in messages.
            fit_loop: State of the loop of a fresh trainer.

        Raises:
            ValueError: With the name of the entry that is missing or invalid.
        """
        steps = len(self.train_dataloader())
        schedule = self._schedule(self.training_config.epochs * steps)
        check_state(checkpoint, name, self.state_dict(keep_vars=True), schedule, fit_loop, steps)
