"""From a table to a trained model in one call."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from pointdiffusion.config import InferenceConfig, QualityWarning, TrainingConfig
from pointdiffusion.denoisers.preconditioned import KarrasDenoiser
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.model.conditions import Conditions
from pointdiffusion.model.diffusion_model import DiffusionModel, pick_device
from pointdiffusion.model.file import Backbone, make_backbone
from pointdiffusion.model.options import make_schedule
from pointdiffusion.networks import check_forward, default_network
from pointdiffusion.runtime import progress
from pointdiffusion.runtime.isolation import TURN, kept_generators, one_at_a_time, seed_global
from pointdiffusion.runtime.randomness import INITIALISATION, LAYERS, generator_for
from pointdiffusion.sampling.loop import make_solver
from pointdiffusion.tabular.points import column_names
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.training.checkpoints import AtomicCheckpointIO
from pointdiffusion.training.module import LightningDiffusion

CHECKPOINT = "last.ckpt"
"""Name of the checkpoint in the folder of a run."""


CHECKPOINT_SECONDS = 30.0
"""Time after which a checkpoint is saved within an epoch: on many rows an epoch may take hours."""


class SaveCheckpoint(Callback):
    """Saves the state of training at the end of every epoch and every half minute, always under the same name.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Start the clock."""
        self._next = time.monotonic() + CHECKPOINT_SECONDS

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ARG002
        """Save where it is time."""
        if time.monotonic() >= self._next:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Save."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._next = time.monotonic() + CHECKPOINT_SECONDS


class ShowProgress(Callback):
    """Shows the progress and the losses after every epoch.

    Args:
        show: Called with the number of epochs done and a remark.
    """

    def __init__(self, show: Callable[[int, str], None]) -> None:
        self.show = show

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Show."""
        logged = trainer.callback_metrics
        losses = [
            f"{name} {float(logged[f'{name}_loss']):.4f}" for name in ("train", "val") if f"{name}_loss" in logged
        ]
        self.show(trainer.current_epoch + 1, "loss: " + ", ".join(losses) if losses else "")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice and its warnings about our loader.

    Loggers, filters and the hook are global: threads wait for each other.

    Yields:
        Nothing; Lightning is silent within the block.
    """
    with TURN, _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    hook = threading.excepthook

    def unless_of_the_disk(problem: threading.ExceptHookArgs) -> None:
        # TensorBoard's writer raises a full disk again in our thread, where it is reported; other threads are not ours.
        writer = type(problem.thread).__module__.startswith("tensorboard.")
        if not (writer and issubclass(problem.exc_type, OSError)):
            hook(problem)

    threading.excepthook = unless_of_the_disk
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", module="torch.jit")
            yield
    finally:
        threading.excepthook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class SeedSteps(Callback):
    """Seeds the global generators at each step, for networks with layers that draw from them, such as dropout.

    Args:
        seed: Seed of training.
        device: Device of the network.
    """

    def __init__(self, seed: int, device: str) -> None:
        self.seed, self.device = seed, device

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Seed: a step draws the same, also in a run that was resumed."""
        seed_global(generator_for(self.seed, LAYERS, trainer.global_step).initial_seed(), self.device)


def _run(trainer: Trainer, module: LightningDiffusion, checkpoint: Path | None) -> None:
    """Train, and hand on Ctrl-C as such: Lightning would end the process with status 1."""
    try:
        trainer.fit(module, ckpt_path=None if checkpoint is None else str(checkpoint))
    except SystemExit as error:
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise


def _warn_if_ignored(module: LightningDiffusion) -> None:
    """Warn if what the network draws does not depend on the conditions that it was trained with."""
    use = module.condition_use()
    if use is None or not use.ignored:
        return
    names = " and ".join(name for name, there in (
        ("labels", module.conditions and module.conditions.classes),
        ("context", module.conditions and module.conditions.num_context),
    ) if there)  # fmt: skip
    rate, multiplier = module.training_config.learning_rate, getattr(module.denoiser.backbone, "rate_multiplier", 1.0)
    warnings.warn(
        f"the network ignores its {names}: shuffled among the rows, they raise its loss by {use.gain:.3f}, where not "
        f"knowing them costs Gaussians {use.expected:.3f}. What it draws for them cannot be trusted. Lower "
        f"learning_rate ({rate:g}, which the network's rate_multiplier of {multiplier:g} makes {rate * multiplier:g}), "
        "or train longer with more epochs",
        QualityWarning,
        stacklevel=4,  # of whoever called fit, which waits for its turn in a frame of its own
    )


@one_at_a_time
def fit(
    points: Any, training: TrainingConfig | None = None, *, inference: InferenceConfig | None = None,
    labels: Any = None, context: Any = None, validation: Any = None, population: Any = None,
    backbone: Backbone | None = None, base: GaussianMixture | None = None, standardiser: Standardiser | None = None,
    metadata: dict[str, Any] | None = None, seed: int = 0, device: str = "auto",
    folder: str | os.PathLike[str] | None = None, resume: bool = False, show_progress: bool = False,
    callbacks: Iterable[Callback] = (),
) -> DiffusionModel:  # fmt: skip
    """Train a diffusion model on a table of points.

    Networks draw from PyTorch's global generator, and Lightning changes global loggers and warning filters: both are
    seeded or changed during training, and restored afterwards. Calls from several threads therefore wait for each
    other; to train in parallel, use processes.

    AdamW gets `learning_rate` of the settings times the network's `rate_multiplier`, 20 for the default network. With a
    `folder`, losses and that rate (`optimizer_lr`) are logged once an epoch to `lightning_logs/version_*/metrics.csv`
    and TensorBoard.

    Args:
        points: Training rows, shape `(N, D)`: a data frame, an array or a tensor, in any units.
        training: Settings of training; noise levels that are None are chosen from the rows.
        inference: Settings of sampling that the model carries; by default on the noise levels of training.
        labels: Class of each row, integers or strings, shape `(N,)`; the model can then sample and score by class.
        context: Values that come with each row, shape `(N, C)`; the model can then sample and score given such values.
        validation: Rows of the same kind for the validation loss, shape `(M, D)`.
        population: Many fresh rows, shape `(M, D)`, for the loss that a perfect network would reach.
        backbone: Network of points `(B, D)` and noise conditioning `(B,)`, and of `labels` and `context` where there
            are any, or a function that makes it from `metadata`; `default_network` if None.
        base: Distribution of standardised points whose exact denoiser the network adds to; see `KarrasDenoiser`.
        standardiser: Shift and scale of the columns; fitted on the rows if None.
        metadata: Plain values that are stored with the model.
        seed: Seed of initialisation and training.
        device: "auto", "cpu", "cuda" or "mps".
        folder: Folder of checkpoints and logs; nothing is written if None.
        resume: Resume from the checkpoint in `folder`, which must exist and have the same settings.
        show_progress: Show a progress bar.
        callbacks: Callbacks of Lightning, which may also end training (`trainer.should_stop = True`).

    Returns:
        The trained model, with averaged weights, in units of `points`.

    Raises:
        ValueError: If the data or the settings are unusable, or do not fit the checkpoint.
        DivergedError: If training diverged, as with too high a learning rate: its loss is no longer finite, or higher
            than that of a network that predicts the mean. The model is then `model` of the error.
        KeyboardInterrupt: On Ctrl-C; the last checkpoint stays.

    Warns:
        UserWarning: If labels or context matter, by the moments of the rows, and the network ignores them.

    Examples:
        >>> from pointdiffusion import DATASETS, TrainingConfig
        >>> config = TrainingConfig(epochs=1, epoch_steps=5, batch_size=32, sigma_min=0.05, sigma_max=5.0)
        >>> model = fit(DATASETS["moons"](100, random_state=0), config, seed=0)  # far too short, but it runs
        >>> model.sample(4, seed=0, nfe=4).shape
        (4, 2)
    """
    training, metadata, device = training or TrainingConfig(), metadata or {}, pick_device(device)
    if inference is not None:  # unknown names fail before training, not when the finished model samples
        make_schedule(inference)
        if inference.solver != "auto":
            make_solver(inference.solver)
    standardiser = standardiser or Standardiser.fit(points)
    sizes = {"num_classes": 0, "num_context": 0}
    if labels is not None or context is not None or training.mask:
        rows = torch.from_numpy(standardiser.transform(points))
        conditions = Conditions.fit(rows, labels, context, masked=training.mask > 0)
        sizes = {"num_classes": len(conditions.classes), "num_context": conditions.num_inputs}
    with kept_generators(device):
        seed_global(generator_for(seed, INITIALISATION).initial_seed(), device)
        n_dims = len(standardiser.mean)
        network = default_network(n_dims, **sizes) if backbone is None else make_backbone(backbone, metadata)
    check_forward(
        network, *(("labels",) if sizes["num_classes"] else ()), *(("context",) if sizes["num_context"] else ())
    )
    module = LightningDiffusion(
        KarrasDenoiser(network, bases=[] if base is None else [base]), training, inference, points=points,
        validation=validation, population=population,
        labels=labels, context=context, standardiser=standardiser, seed=seed, metadata=metadata,
    )  # fmt: skip
    checkpoint = None if folder is None else Path(folder) / "checkpoints" / CHECKPOINT
    if resume and (checkpoint is None or not checkpoint.exists()):
        raise ValueError(f"there is no checkpoint {checkpoint} to resume from; start afresh without resuming")
    saved = AtomicCheckpointIO().load_checkpoint(checkpoint) if resume else None
    if saved is not None:  # before anything is written
        module.on_load_checkpoint(saved)
    listeners = [SeedSteps(seed, device), *callbacks]
    loggers: Any = False
    if folder is not None and checkpoint is not None:
        listeners.append(SaveCheckpoint(checkpoint))
        csv = CSVLogger(folder, name="lightning_logs", flush_logs_every_n_steps=10**9)
        loggers = [csv, TensorBoardLogger(folder, name="lightning_logs", version=csv.version)]
    with quiet_lightning(), kept_generators(device), torch.enable_grad(), ExitStack() as stack:
        if show_progress:
            listeners.append(ShowProgress(stack.enter_context(progress.show_progress("training", training.epochs))))
        trainer = Trainer(
            max_epochs=training.epochs, accelerator=device, devices=1, logger=loggers,
            callbacks=listeners, plugins=[AtomicCheckpointIO()], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        if saved is not None:
            module.check_checkpoint(saved, str(checkpoint), trainer.fit_loop.state_dict())
        _run(trainer, module, checkpoint if resume else None)
    model = module.model(columns=column_names(points, n_dims))
    module.check_convergence(model)
    _warn_if_ignored(module)
    return model
