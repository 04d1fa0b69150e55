"""The process that trains for one visitor of the page: told what by its standard input, telling what by its output.

    python -m pointdiffusion.web.trainer

The first line of input is the request, each further one a command; where input ends, so does the process, and nothing
is left running when the server is gone. Output is messages of a length, a kind and their bytes. One thread trains, so
that a seed gives the same weights however many others train beside it.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from pointdiffusion.denoisers.preconditioned import Denoiser
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.networks import default_network
from pointdiffusion.runtime.randomness import generator_for
from pointdiffusion.sampling import loop as sampling
from pointdiffusion.tabular.labels import as_labels
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.training.fitting import fit
from pointdiffusion.training.module import LightningDiffusion
from pointdiffusion.web.export import network_run
from pointdiffusion.web.protocol import (
    BINARY,
    HEAD,
    KEPT,
    TEXT,
    Start,
    model_frame,
    parse,
    points_frame,
    start_of,
    to_json,
)

LIVE_INTERVAL = 0.12
"""Seconds between two live samples, at least; drawing them takes no more than a third of the time."""


class Pipe:
    """The way to the server: whole messages out."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def tell(self, **message: Any) -> None:
        """Send a message as JSON."""
        self._send(TEXT, to_json(message).encode())

    def give(self, frame: bytes, kind: int = BINARY) -> None:
        """Send bytes."""
        self._send(kind, frame)

    def _send(self, kind: int, payload: bytes) -> None:
        try:
            self._stream.write(HEAD.pack(len(payload), kind) + payload)
            self._stream.flush()
        except BrokenPipeError:
            os._exit(0)  # nobody is left to train for


class Commands:
    """What was asked for since training started; read by a thread of its own."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._changed = threading.Condition()
        self.paused = self.stopped = self.saving = False
        self.steps = 0
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._obey(parse(line.decode())["type"])
        os._exit(0)

    def _obey(self, command: str) -> None:
        with self._changed:
            match command:
                case "pause":
                    self.paused = True
                case "resume":
                    self.paused = False
                case "step" if self.paused:
                    self.steps += 1
                case "stop":
                    self.stopped = True
                case "save":
                    self.saving = True
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when there is something to do."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopped or self.saving or self.steps or not self.paused)

    def take_save(self) -> bool:
        """Return whether the model was asked for, once for each time."""
        with self._changed:
            asked, self.saving = self.saving, False
            return asked

    def take_step(self) -> bool:
        """Return whether one more step was asked for, and count it as done."""
        with self._changed:
            asked, self.steps = self.steps > 0, max(self.steps - 1, 0)
            return asked


class LiveTraining(Callback):
    """Tells the page of training while it goes on, and obeys it between two steps."""

    def __init__(self, start: Start, pipe: Pipe, commands: Commands) -> None:
        self.start, self.pipe, self.commands = start, pipe, commands
        self._next = 0.0
        self.last_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that training starts, and show what the network knows before it."""
        module = _ours(pl_module)
        optimal = module.optimal_losses()["optimal_train_loss"]
        self.pipe.tell(type="started", steps=self.start.training.steps, optimal_loss=optimal)
        self.pipe.tell(type="state", state="running", step=0)
        self._show(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Show samples where it is time, and wait while training is paused."""
        module, commands = _ours(pl_module), self.commands
        if time.monotonic() >= self._next:
            self._show(trainer, module)
        paused = False
        while True:
            if commands.take_save():
                self.pipe.give(model_frame(model_bytes(self._model(module)), trainer.global_step))
            if commands.stopped:
                trainer.should_stop = True
                return
            if not commands.paused:
                break
            if commands.take_step():
                return
            if not paused:
                paused = True
                self._pause(trainer, module)
            commands.wait()
        if paused:
            self.pipe.tell(type="state", state="running", step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show where training ended."""
        self._show(trainer, _ours(pl_module))

    def _pause(self, trainer: Trainer, module: LightningDiffusion) -> None:
        self._show(trainer, module)
        self.pipe.tell(type="state", state="paused", step=trainer.global_step)
        self.hand_over(self._model(module), trainer.global_step)

    def hand_over(self, model: DiffusionModel, step: int) -> None:
        """Give the model to the server, and tell the page of its network."""
        self.pipe.give(model_frame(model_bytes(model), step), KEPT)
        self.pipe.tell(type="run", step=step, run=self._run(model))

    def _show(self, trainer: Trainer, module: LightningDiffusion) -> None:
        if trainer.global_step == self.last_step:
            return
        begin, self.last_step = time.monotonic(), trainer.global_step
        self.pipe.give(points_frame(self._samples(module).numpy(), trainer.global_step))
        loss = module.fixed_losses()["train_loss"]
        self.pipe.tell(type="losses", steps=[trainer.global_step], train=[loss])
        took = time.monotonic() - begin
        self._next = begin + max(LIVE_INTERVAL, 3 * took)

    @torch.no_grad()
    def _samples(self, module: LightningDiffusion) -> Tensor:
        """Return points that the averaged weights draw, always from the same noise, in the page's units."""
        levels, averaged = module.inference_config, module.averaged.module
        return sampling.sample(
            cast("Denoiser", averaged), self._noise(levels.sigma_max), nfe=self.start.live.nfe,
            sigma_max=levels.sigma_max, sigma_min=levels.sigma_min,
        )  # fmt: skip

    def _noise(self, high: float) -> Tensor:
        """Return where live samples start, the same at every call."""
        points, live = torch.from_numpy(self.start.points).double(), self.start.live
        spread = torch.atleast_2d(torch.cov(points.T)) + high**2 * torch.eye(points.shape[1])
        noise = torch.randn(live.count, points.shape[1], generator=generator_for(live.seed), dtype=torch.float64)
        return (points.mean(dim=0) + noise @ torch.linalg.cholesky(spread).T).float()

    def _model(self, module: LightningDiffusion) -> DiffusionModel:
        return module.model(columns=self.start.columns)

    def _run(self, model: DiffusionModel) -> dict[str, Any] | None:
        if model.n_dims < 2:
            return None
        return network_run(model, title="Trained in the page", rows=len(self.start.points))


def _ours(module: LightningModule) -> LightningDiffusion:
    if not isinstance(module, LightningDiffusion):
        raise TypeError(f"training of a LightningDiffusion was expected, not of a {type(module).__name__}")
    return module


def model_bytes(model: DiffusionModel) -> bytes:
    """Return a model as the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.pt")
        return (Path(folder) / "model.pt").read_bytes()


def train(start: Start, pipe: Pipe, commands: Commands) -> None:
    """Train as asked, and tell the page of it, of the model at the end as well."""
    listener = LiveTraining(start, pipe, commands)
    model = fit_start(start, [listener])
    steps = listener.last_step
    listener.hand_over(model, steps)
    pipe.tell(type="state", state="stopped" if commands.stopped else "finished", step=steps)


def fit_start(start: Start, callbacks: list[Callback]) -> DiffusionModel:
    """Return the model of a training that the page asks for: what *Show Python* makes again."""
    training, n_dims = start.training, start.points.shape[1]
    classes = 0 if start.labels is None else len(set(as_labels(start.labels)))

    def network(_metadata: Any) -> Any:
        return default_network(n_dims, training.hidden_dim, training.num_layers, num_classes=classes)

    import pandas as pd

    rows = pd.DataFrame(start.mean + start.scale * start.points, columns=start.columns)
    return fit(
        rows, training.config, labels=start.labels, backbone=network,
        standardiser=Standardiser(start.mean, start.scale), seed=start.seed, device="cpu", callbacks=callbacks,
    )  # fmt: skip


def main() -> None:
    """Do what standard input asks for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    pipe = Pipe(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what anybody prints is no message
    torch.set_num_threads(1)
    try:
        start = start_of(parse(sys.stdin.buffer.readline().decode()))
        train(start, pipe, Commands(sys.stdin.buffer))
    except (ValueError, MemoryError) as error:
        pipe.tell(type="error", message=str(error) or "not enough memory; train on fewer points")
        pipe.tell(type="state", state="stopped", step=0)
    os._exit(0)  # not held up by the thread that listens


if __name__ == "__main__":
    main()
