"""Train a diffusion model on a Swiss roll, sample from it, and look at the result.

    python swiss_roll_example.py --epochs 50
    python swiss_roll_example.py --inference-only --model-path swiss_roll_output/model.pt

Heavy libraries are imported where they are used, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pointdiffusion as ptd

# OpenMP's threads wait for each other by spinning. The work of one step here is so small that, on a machine that does
# anything else as well, they would spin most of the time (30 times slower was seen); this lets them sleep sooner.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

TRAINING_DEFAULTS = {"epochs": 50, "batch_size": 128, "lr": 1e-4, "n_train": 4096, "n_val": 512}
TRAINING_DEFAULTS |= {"hidden_dim": 256, "num_layers": 2, "noise": 0.0, "dims": 2}
SAMPLING_DEFAULTS = {"n_samples": 1000, "n_steps": 50, "solver": "euler", "seed": 0}
FRESH_POINTS = 60_000
"""Fresh points that stand for the whole population."""
DIAGNOSED_POINTS = 1024
"""Samples, and fresh points, of a diagnosis; more of them see smaller faults, and take longer."""


class SwissRollDiffusionExample:
    """The whole example; each method is one part of it, and the place to change that part.

    Args:
        output_dir: Where everything is written.
        device: "auto", "cpu", "cuda" or "mps".
        quiet: Print nothing but errors.
        settings: What the command line calls `--epochs`, `--n-samples` and so on; defaults where they are missing.
    """

    def __init__(
        self,
        output_dir: str | Path = "swiss_roll_output",
        *,
        device: str = "auto",
        quiet: bool = False,
        **settings: Any,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.device = device
        self.quiet = quiet
        self.settings = {**TRAINING_DEFAULTS, **SAMPLING_DEFAULTS, **settings}
        self.stored_data: dict[str, Any] | None = None  # the data settings of a model that was loaded
        self.times: dict[str, float] = {}
        self.written: list[Path] = []

    # ----------------------------------------------------------------------------------------- what you may change

    def setup_training_config(self) -> ptd.TrainingConfig:
        """Return the settings of training; see `TrainingConfig` for all there are."""
        return ptd.TrainingConfig(
            epochs=self.settings["epochs"],
            batch_size=self.settings["batch_size"],
            learning_rate=self.settings["lr"],
            loss="karras",  # preconditioned mean squared error; or "noise-prediction"
            weighting="uniform",  # or "snr", "min-snr", "soft-min-snr"
            noise_sampler="log-uniform",  # or "log-normal"
            sigma_min=0.01,
            sigma_max=10.0,
            ema_decay=0.999,
        )

    def setup_inference_config(self) -> ptd.InferenceConfig:
        """Return the settings of sampling; see `InferenceConfig` for all there are."""
        return ptd.InferenceConfig(
            solver=self.settings["solver"],
            num_steps=self.settings["n_steps"],
            schedule="karras",
            sigma_min=0.01,
            sigma_max=10.0,
            rho=7.0,
        )

    def data_settings(self, purpose: str) -> dict[str, Any]:
        """Return the arguments of the data set for training, validation, or fresh points: different seeds."""
        import numpy as np

        counter = ["training", "validation", "population", "fresh"].index(purpose)
        random_state = int(np.random.SeedSequence([self.settings["seed"], counter]).generate_state(1)[0])
        sizes = {"training": self.settings["n_train"], "validation": self.settings["n_val"]}
        return {
            "n_samples": sizes.get(purpose, FRESH_POINTS),
            "n_dims": self.settings["dims"],
            "noise": self.settings["noise"],
            "scaling_factor": 10.0,
            "random_state": random_state,
        }

    def draw_data(self) -> None:
        """Draw the data: for training, for validation, and the points that stand for the population."""
        from data import SwissRollDataset

        with self._timed("data"):
            self.training = SwissRollDataset(**(self.stored_data or self.data_settings("training")))
            self.validation = SwissRollDataset(**self.data_settings("validation"))
            self.population = SwissRollDataset(**self.data_settings("population"))

    def train(self, *, resume: bool = False) -> ptd.DiffusionModel:
        """Train the network and write `model.pt`."""
        checkpoint = self.output_dir / "checkpoints" / "last.ckpt"
        if resume and not checkpoint.exists():
            self.say(f"Nothing to resume in {self.output_dir}: starting afresh.")
            resume = False
        try:
            with self._timed("training"):
                self.model = ptd.fit(
                    self.training.frame,
                    self.setup_training_config(),
                    inference=self.setup_inference_config(),
                    validation=self.validation.frame,
                    population=self.population.frame,
                    backbone=make_backbone,
                    metadata={
                        "data": {"name": self.training.name, **self.training.settings},
                        "network": {name: self.settings[name] for name in ("hidden_dim", "num_layers", "dims")},
                        "example": dict(self.settings),
                    },
                    seed=self.settings["seed"],
                    device=self.device,
                    folder=self.output_dir,
                    resume=resume,
                    show_progress=not self.quiet,
                )
        except ptd.DivergedError as error:
            if error.model is None:  # its weights are not finite
                raise
            apart = self.output_dir / "diverged.pt"
            error.model.save(apart)
            raise ptd.DivergedError(f"{error}; the model is kept apart in {apart}") from None
        self.model.save(self._noted("model.pt"))
        self._noted("lightning_logs")
        return self.model

    def load_model(self, path: str | Path) -> ptd.DiffusionModel:
        """Read a model, and take the settings of the run that made it where no others were asked for."""
        self.model = ptd.load(path, backbone=make_backbone)
        known, data = self.model.metadata.get("example"), self.model.metadata.get("data")
        wanted = {**TRAINING_DEFAULTS, **SAMPLING_DEFAULTS}
        ours = isinstance(known, dict) and isinstance(data, dict)
        if not ours or any(type(known.get(name)) is not type(value) for name, value in wanted.items()):
            raise ValueError(f"{path} was not written by this example, so its data cannot be drawn again")
        asked = {name: value for name, value in self.settings.items() if name in self.asked}
        self.settings = {**known, **asked}
        # Another seed draws other samples; the training data stay those that the model was trained on.
        self.stored_data = {name: value for name, value in data.items() if name != "name"}
        return self.model

    def generate_samples(self) -> Any:
        """Draw samples along one trajectory, keep its frames for the GIF, and write `samples.csv`."""
        import pandas as pd

        config = self.setup_inference_config()
        every = math.ceil(config.num_steps / 100)  # a hundred frames at most
        frames = []
        with self._timed("sampling"), self._progress("sampling", config.num_steps) as advance:
            self.model.to(ptd.pick_device(self.device))
            steps = self.model.trajectory(self.settings["n_samples"], seed=self.settings["seed"], **config.to_mapping())
            for k, step in enumerate(steps):
                if k % every == 0 or k == config.num_steps:
                    frames.append((k, step.sigma, step.x[:2000]))
                advance(k, "")
        self.frames, self.samples = frames, step.x
        table = pd.DataFrame(self.samples, columns=self.model.columns)
        ptd.write_atomic(self._noted("samples.csv"), table.to_csv(index=False, lineterminator="\n").encode())
        return self.samples

    def visualize_results(self) -> None:
        """Write `results_comparison.png`: training data, generated points, both."""
        with self._timed("picture"):
            figure = ptd.plot_comparison(self.training.frame, self.samples, columns=self.model.columns)
            ptd.write_atomic(self._noted("results_comparison.png"), ptd.png_bytes(figure))

    def create_inference_gif(self) -> None:
        """Write `inference.gif`: from pure noise to data."""
        with self._timed("gif"), self._progress("gif", len(self.frames)) as advance:
            numbers, sigmas, points = zip(*self.frames, strict=True)
            gif = ptd.animate_samples(
                points, sigmas, self.training.frame, steps=numbers, title=self.title, advance=advance
            )
            ptd.write_atomic(self._noted("inference.gif"), gif)

    def judge_samples(self) -> dict[str, float]:
        """Return how far the samples are from fresh data, each figure beside what fresh data themselves show."""
        with self._timed("quality"):
            fresh = type(self.population)(**self.data_settings("fresh")).frame.to_numpy()
            population, scale = self.population.frame.to_numpy(), float(fresh.std(axis=0).mean())
            comparison = ptd.compare_wasserstein2(self.samples, fresh)
            off = [
                float((ptd.nearest_distances(points, population) ** 2).mean() ** 0.5) / scale
                for points in (self.samples, fresh[:4000])
            ]
        self.quality = {
            "w2": comparison.value,
            "w2_fresh": comparison.floor,
            "w2_ratio": comparison.ratio,
            "w2_ratio_standard_error": comparison.standard_error,
            "off": off[0],
            "off_fresh": off[1],
        }
        return self.quality

    def write_playground(self) -> None:
        """Write `playground.html`: the run in a page that opens from disk, beside the exact optimum on its data."""
        with self._timed("page"):
            ptd.export_page(
                self.model,
                self._noted("playground.html"),
                data=self.training.frame,
                embed_data=True,
                num_points=min(self.settings["n_samples"], 2000),
                seed=self.settings["seed"],
                title=self.title,
                figures=getattr(self, "quality", {}),
                **self.setup_inference_config().to_mapping(),
            )

    def diagnose(self) -> None:
        """Write `diagnosis.png`: where the distance to fresh data comes from; and say what to do next."""
        with self._timed("diagnosis"):
            self.diagnosis = ptd.diagnose(
                self.model,
                self.training.frame,
                population=self.population.frame,
                num_points=DIAGNOSED_POINTS,
                num_levels=6,
                seed=self.settings["seed"],
                **self.setup_inference_config().to_mapping(),
            )
            ptd.write_atomic(self._noted("diagnosis.png"), ptd.png_bytes(self.diagnosis.plot()))

    def summarize(self) -> None:
        """Write `summary.json`, and print what was written, how long it took, and how good the samples are."""
        import command_line

        command_line.summarize(self)

    # ---------------------------------------------------------------------------------------------------- small print

    asked: frozenset[str] = frozenset()
    """Settings that were given on the command line."""

    def say(self, line: str) -> None:
        """Print a line, unless quiet."""
        if not self.quiet:
            print(line, flush=True)

    def _noted(self, name: str) -> Path:
        self.written.append(self.output_dir / name)
        return self.output_dir / name

    def _progress(self, what: str, total: int) -> Any:
        return ptd.show_progress(what, total, quiet=self.quiet)

    @property
    def title(self) -> str:
        """Headline of animation and page."""
        return f"noise becomes {self.training.title}"

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times[name] = time.perf_counter() - start


def make_backbone(metadata: dict[str, Any]) -> Any:
    """Return the network of `model.py` with the sizes that the metadata of a model tell."""
    from model import make_network

    sizes = metadata.get("network")
    if not isinstance(sizes, dict):
        raise ValueError("the model was not written by this example, so the sizes of its network are unknown")
    return make_network(sizes["dims"], sizes["hidden_dim"], sizes["num_layers"])


def main(argv: list[str] | None = None, **changed_defaults: Any) -> int:
    """Run the command line, see `command_line.py`, and return its exit code."""
    import command_line

    return command_line.main(SwissRollDiffusionExample, TRAINING_DEFAULTS, SAMPLING_DEFAULTS, argv, **changed_defaults)


if __name__ == "__main__":
    sys.exit(main())
