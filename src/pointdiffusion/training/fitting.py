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

from pointdiffusion.config import InferenceConfig, TrainingConfig
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
    """Saves the state of training at the end of every epoch and every half minute, always under the same name."""

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
    """Tells after every epoch how far training has come and how large the losses are."""

    def __init__(self, show: Callable[[int, str], None]) -> None:
        self.show = show

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Show."""
        known = trainer.callback_metrics
        losses = [f"{name} {float(known[f'{name}_loss']):.4f}" for name in ("train", "val") if f"{name}_loss" in known]
        self.show(trainer.current_epoch + 1, "loss: " + ", ".join(losses) if losses else "")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep the advice and the adverts of Lightning off the screen, warnings about our own loader included.

    Loggers, filters and the hook are those of the whole process: threads wait for each other.
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
        # The thread of TensorBoard's writer hands a full disk on, and it is told then; others' threads are not ours.
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
    """Seeds the global generators at each step, for networks with layers that draw from them, such as dropout."""

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

    Networks draw from PyTorch's global generator, and Lightning changes loggers and filters of the whole process: both
    are seeded or changed for the time of training, and are then as before. Calls from several threads therefore wait
    for each other; to train at once, use processes.

    Args:
        points: Training rows, shape `(N, D)`: a frame, an array or a tensor, in any units.
        training: Settings of training; noise levels that they leave open are chosen from the rows.
        inference: Settings of sampling that the model carries; by default on the noise levels of training.
        labels: Class of each row, whole numbers or texts, shape `(N,)`: the model can then draw and judge by class.
        context: Values that come with each row, shape `(N, C)`: the model can then draw and judge given such values.
        validation: Rows of the same kind for the validation loss.
        population: Many fresh rows, for the loss that a perfect network would reach.
        backbone: Network of points `(B, D)` and noise conditioning `(B,)`, and of `labels` and `context` where there
            are any, or a function that makes it from `metadata`; the library's own where it is missing.
        base: Distribution in standard units whose exact denoiser the network adds to; see `KarrasDenoiser`.
        standardiser: Scale of the columns; fitted on the rows where it is missing.
        metadata: Plain values that travel with the model.
        seed: Seed of initialisation and training.
        device: "auto", "cpu", "cuda" or "mps".
        folder: Where checkpoints and logs go; nothing is written where it is missing.
        resume: Go on from the checkpoint in `folder`, which must be there and of the same settings.
        show_progress: Show a progress bar.
        callbacks: Callbacks of Lightning, which see training and may end it (`trainer.should_stop = True`).

    Raises:
        ValueError: If the data or the settings are unusable, or do not fit the checkpoint.
        DivergedError: If training diverged, as with too high a learning rate: its loss is no longer finite, or higher
            than that of a network that predicts the mean. The model is then `model` of the error.
        KeyboardInterrupt: On Ctrl-C; the last checkpoint stays.
    """
    training, metadata, device = training or TrainingConfig(), metadata or {}, pick_device(device)
    if inference is not None:  # wrong names are told now, not when the finished model is asked for samples
        make_schedule(inference)
        if inference.solver != "auto":
            make_solver(inference.solver)
    standardiser = standardiser or Standardiser.fit(points)
    known = {"num_classes": 0, "num_context": 0}
    if labels is not None or context is not None or training.mask:
        rows = torch.from_numpy(standardiser.transform(points))
        conditions = Conditions.fit(rows, labels, context, masked=training.mask > 0)
        known = {"num_classes": len(conditions.classes), "num_context": conditions.num_inputs}
    with kept_generators(device):
        seed_global(generator_for(seed, INITIALISATION).initial_seed(), device)
        n_dims = len(standardiser.mean)
        network = default_network(n_dims, **known) if backbone is None else make_backbone(backbone, metadata)
    check_forward(
        network, *(("labels",) if known["num_classes"] else ()), *(("context",) if known["num_context"] else ())
    )
    module = LightningDiffusion(
        KarrasDenoiser(network, bases=[] if base is None else [base]), training, inference, points=points,
        validation=validation, population=population,
        labels=labels, context=context, standardiser=standardiser, seed=seed, metadata=metadata,
    )  # fmt: skip
    checkpoint = None if folder is None else Path(folder) / "checkpoints" / CHECKPOINT
    if resume and (checkpoint is None or not checkpoint.exists()):
        raise ValueError(f"there is no checkpoint {checkpoint} to go on from; start afresh without resuming")
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
    return model
