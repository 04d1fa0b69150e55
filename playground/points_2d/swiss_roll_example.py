"""Train a diffusion model on a Swiss roll, sample from it, and look at the result.

    python swiss_roll_example.py --epochs 50
    python swiss_roll_example.py --inference-only --model-path swiss_roll_output/model.pt

Heavy libraries are imported where they are used, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pointdiffusion as ptd

# OpenMP's threads wait for each other by spinning. The work of one step here is so small that, on a machine that does
# anything else as well, they would spin most of the time (30 times slower was seen); this lets them sleep sooner.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

TRAINING_DEFAULTS = {
    "epochs": 50, "batch_size": 128, "lr": 1e-4, "n_train": 4096, "n_val": 512, "hidden_dim": 256, "num_layers": 2,
    "noise": 0.0, "dims": 2,
}  # fmt: skip
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

    # ------------------------------------------------------------------------------------------------------ the parts

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
                    self.training.frame, self.setup_training_config(), inference=self.setup_inference_config(),
                    validation=self.validation.frame, population=self.population.frame, backbone=make_backbone,
                    metadata={
                        "data": {"name": self.training.name, **self.training.settings},
                        "network": {name: self.settings[name] for name in ("hidden_dim", "num_layers", "dims")},
                        "example": dict(self.settings),
                    },
                    seed=self.settings["seed"], device=self.device, folder=self.output_dir, resume=resume,
                    show_progress=not self.quiet,
                )  # fmt: skip
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
            self.model.to(self._device())
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
        from data import SwissRollDataset

        with self._timed("quality"):
            fresh = SwissRollDataset(**self.data_settings("fresh")).frame.to_numpy()
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
                self.model, self._noted("playground.html"), data=self.training.frame, embed_data=True,
                num_points=min(self.settings["n_samples"], 2000), seed=self.settings["seed"],
                title=self.title, figures=getattr(self, "quality", {}),
                **self.setup_inference_config().to_mapping(),
            )  # fmt: skip

    def diagnose(self) -> None:
        """Write `diagnosis.png`: where the distance to fresh data comes from; and say what to do next."""
        config = self.setup_inference_config()
        with self._timed("diagnosis"):
            self.diagnosis = ptd.diagnose(
                self.model, self.training.frame, population=self.population.frame, num_points=DIAGNOSED_POINTS,
                num_levels=6, seed=self.settings["seed"], **config.to_mapping(),
            )  # fmt: skip
            ptd.write_atomic(self._noted("diagnosis.png"), ptd.png_bytes(self.diagnosis.plot()))

    def summarize(self) -> None:
        """Write `summary.json`, and print what was written, how long it took, and how good the samples are."""
        from importlib.metadata import version

        quality = getattr(self, "quality", {})
        packages = {name: version(name) for name in ("torch", "lightning", "numpy", "scikit-learn", "matplotlib")}
        training = self.model.training or self.setup_training_config()
        summary = {
            "versions": {"pointdiffusion": ptd.__version__, "python": platform.python_version(), **packages},
            "settings": self.effective_settings(),
            "training": training.to_mapping(),
            "inference": self.setup_inference_config().to_mapping(),
            "quality": quality,
            "times": {name: round(seconds, 3) for name, seconds in self.times.items()},
        }
        ptd.write_atomic(self._noted("summary.json"), (json.dumps(summary, indent=2) + "\n").encode())
        self.say(f"\nWritten to {self.output_dir}/: " + ", ".join(path.name for path in self.written))
        self.say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.times.items()))
        if hasattr(self, "diagnosis"):
            self.say(self.diagnosis.short())
        if quality:
            self.say(
                f"Distance to fresh data (W2): {quality['w2']:.3f}; fresh data themselves reach "
                f"{quality['w2_fresh']:.3f}, so the ratio is {quality['w2_ratio']:.2f} "
                f"± {quality['w2_ratio_standard_error']:.2f}."
            )
            self.say(
                f"Off the data, {self.training.title} (rms, in standard deviations of the data): {quality['off']:.4f}; "
                f"fresh data {quality['off_fresh']:.4f}."
            )

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

    def _device(self) -> str:
        return ptd.pick_device(self.device)

    @property
    def title(self) -> str:
        """Headline of animation and page."""
        return f"noise becomes {self.training.title}"

    def effective_settings(self) -> dict[str, Any]:
        """Return the settings as they took effect: the two configurations above may say otherwise than the flags."""
        training, inference = self.model.training or self.setup_training_config(), self.setup_inference_config()
        return {
            **self.settings,
            "epochs": training.epochs, "batch_size": training.batch_size, "lr": training.learning_rate,
            "solver": inference.solver, "n_steps": inference.num_steps,
        }  # fmt: skip

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


# ------------------------------------------------------------------------------------------------------ command line


def whole(low: int, high: int) -> Any:
    """Return a reader of whole numbers in low..high."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in {low}..{high}, got {text!r}")
        return value

    return read


def real(low: float, high: float, *, above: bool = False) -> Any:
    """Return a reader of numbers from `low` (or only above it) to `high`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (above and value == low):
            raise argparse.ArgumentTypeError(
                f"must be a number {'above' if above else 'from'} {low:g} to {high:g}, got {text!r}"
            )
        return value

    return read


def make_parser(defaults: dict[str, Any]) -> argparse.ArgumentParser:
    """Return the command line; defaults are told in the help and filled in after parsing."""
    parser = argparse.ArgumentParser(
        description="Train a diffusion model on the points of data.py (a Swiss roll), sample, draw and animate.",
        epilog="Everything is written to the output directory, below the folder where the command runs.",
    )

    def add(group: Any, flag: str, kind: Any, text: str, metavar: str = "N") -> None:
        name = flag.removeprefix("--").replace("-", "_")
        group.add_argument(flag, type=kind, metavar=metavar, help=f"{text} (default: {defaults[name]})")

    training = parser.add_argument_group("training")
    add(training, "--epochs", whole(1, 10**6), "passes over the training data")
    add(training, "--batch-size", whole(1, 2**20), "points in one step")
    rate = "learning rate; AdamW gets it times the network's rate_multiplier, 20 for the network of model.py"
    add(training, "--lr", real(0, 10, above=True), rate, "RATE")
    add(training, "--hidden-dim", whole(1, 8192), "width of the network")
    add(training, "--num-layers", whole(0, 100), "residual blocks of the network")
    training.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in the output directory"
    )
    data = parser.add_argument_group("data")
    add(data, "--n-train", whole(10, 10**7), "points to train on")
    add(data, "--n-val", whole(10, 10**6), "points for the validation loss")
    add(data, "--noise", real(0, 100), "standard deviation of the noise, in units before scaling by 1/10", "STD")
    add(data, "--dims", whole(2, 3), "2 for the spiral, 3 for the roll", "2|3")
    sampling = parser.add_argument_group("sampling")
    add(sampling, "--n-samples", whole(1, 10**7), "points to generate")
    add(sampling, "--n-steps", whole(1, 10_000), "steps of the solver")
    add(sampling, "--solver", str, "how the flow is integrated: euler or heun", "NAME")
    which = parser.add_argument_group("which parts").add_mutually_exclusive_group()
    which.add_argument("--train-only", action="store_true", help="train and write model.pt, generate nothing")
    which.add_argument("--inference-only", action="store_true", help="generate from a model that was trained before")
    general = parser.add_argument_group("general")
    general.add_argument(
        "--model-path", metavar="FILE", help="model for --inference-only (default: model.pt in the output directory)"
    )
    general.add_argument(
        "--output-dir", metavar="DIR", default="swiss_roll_output", help="where to write (default: %(default)s)"
    )
    add(general, "--seed", whole(0, 2**32 - 1), "seed of data, training and sampling")
    general.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="where to compute (default: %(default)s, a GPU where there is one)",
    )
    general.add_argument("--no-diagnosis", action="store_true", help="do not ask where the error comes from")
    general.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def check_output_dir(path: Path) -> None:
    """Raise a ValueError unless files can be written below `path`; nothing is made yet."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(
            f"the output directory {path} cannot be made, since {nearest} is a file; give another --output-dir"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"the output directory {path} cannot be written; give another --output-dir")


def run(args: argparse.Namespace, defaults: dict[str, Any]) -> None:
    """Do what the command line asks for."""
    given = {name: value for name in defaults if (value := getattr(args, name)) is not None}
    if args.model_path is not None and not args.inference_only:
        raise ValueError("--model-path names the model for --inference-only; add that, or leave it out")
    if args.resume and args.inference_only:
        raise ValueError("--resume goes on with training and --inference-only does none; leave one out")
    example = SwissRollDiffusionExample(args.output_dir, device=args.device, quiet=args.quiet, **{**defaults, **given})
    example.asked = frozenset(given)
    check_output_dir(example.output_dir)
    ptd.make_solver(example.settings["solver"])  # a wrong name is told now, not after the training
    if args.inference_only:
        unused = [f"--{name.replace('_', '-')}" for name in given if name in TRAINING_DEFAULTS]
        if unused:
            example.say(f"No effect with --inference-only, the model's own values hold: {', '.join(unused)}.")
        example.asked -= set(TRAINING_DEFAULTS)
        with example._timed("loading"):
            example.load_model(args.model_path or example.output_dir / "model.pt")
        example.draw_data()
    else:
        example.draw_data()
        example.train(resume=args.resume)
    if not args.train_only:
        example.generate_samples()
        example.visualize_results()
        example.create_inference_gif()
        example.judge_samples()
        example.write_playground()
        if not args.no_diagnosis:
            example.diagnose()
    example.summarize()


def main(argv: list[str] | None = None, **changed_defaults: Any) -> int:
    """Run the command line, and return its exit code.

    That is 2 for what the user gave, 1 for the machine and for training that diverged, 130 for Ctrl-C.
    """
    defaults = {**TRAINING_DEFAULTS, **SAMPLING_DEFAULTS, **changed_defaults}
    args = make_parser(defaults).parse_args(argv)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    start = time.time()
    try:
        run(args, defaults)
    except KeyboardInterrupt:
        checkpoint = Path(args.output_dir) / "checkpoints" / "last.ckpt"
        ours = checkpoint.exists() and (args.resume or checkpoint.stat().st_mtime >= start)
        hint = "; the last checkpoint is kept, add --resume to go on" if ours and not args.inference_only else ""
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, ptd.DivergedError) else 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on, as after `| head`
        return 1
    except (OSError, MemoryError, RuntimeError) as error:
        code, reason = explain(error)
        print(f"error: {reason}", file=sys.stderr)
        return code
    return 0


def explain(error: OSError | MemoryError | RuntimeError) -> tuple[int, str]:
    """Return the exit code and one sentence for an error of the machine; errors that are ours are raised again."""
    if isinstance(error, OSError):
        full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
        full[errno.EFBIG] = "the file grew beyond what the system allows"
        if error.errno in full:
            return 1, f"{full[error.errno]}; files of an earlier run are untouched, make room and try again"
        if error.errno in (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            return 1, f"the machine failed ({error.strerror}); files of an earlier run are untouched"
        return 2, f"cannot write {error.filename} ({error.strerror}); give another --output-dir"
    if isinstance(error, MemoryError) or "memory" in str(error):
        return 1, "not enough memory; ask for fewer points, a smaller batch or a smaller network"
    raise error


if __name__ == "__main__":
    sys.exit(main())
