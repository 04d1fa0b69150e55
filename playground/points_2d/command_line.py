"""The command line of the example: flags and their limits, the order of the parts, what is printed, errors.

It needs nothing of the class but its methods; the settings of training and of sampling are `swiss_roll_example.py`'s.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import math
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pointdiffusion as ptd


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


def run(make_example: Any, training: dict[str, Any], defaults: dict[str, Any], args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    given = {name: value for name in defaults if (value := getattr(args, name)) is not None}
    if args.model_path is not None and not args.inference_only:
        raise ValueError("--model-path names the model for --inference-only; add that, or leave it out")
    if args.resume and args.inference_only:
        raise ValueError("--resume goes on with training and --inference-only does none; leave one out")
    example = make_example(args.output_dir, device=args.device, quiet=args.quiet, **{**defaults, **given})
    example.asked = frozenset(given)
    check_output_dir(example.output_dir)
    ptd.make_solver(example.settings["solver"])  # a wrong name is told now, not after the training
    if args.inference_only:
        unused = [f"--{name.replace('_', '-')}" for name in given if name in training]
        if unused:
            example.say(f"No effect with --inference-only, the model's own values hold: {', '.join(unused)}.")
        example.asked -= set(training)
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


def main(
    make_example: Any,
    training: dict[str, Any],
    sampling: dict[str, Any],
    argv: list[str] | None = None,
    **changed_defaults: Any,
) -> int:
    """Run the command line, and return its exit code.

    That is 2 for what the user gave, 1 for the machine and for training that diverged, 130 for Ctrl-C.

    Args:
        make_example: `SwissRollDiffusionExample`, or a class with the same methods.
        training: Default of each flag of training and data.
        sampling: Default of each flag of sampling.
        argv: The flags; by default those of the process.
        changed_defaults: Defaults that take the place of those.
    """
    defaults = {**training, **sampling, **changed_defaults}
    args = make_parser(defaults).parse_args(argv)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    start = time.time()
    try:
        run(make_example, training, defaults, args)
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


def effective_settings(example: Any) -> dict[str, Any]:
    """Return the settings as they took effect: the two configurations of the example may say otherwise than flags."""
    training, inference = example.model.training or example.setup_training_config(), example.setup_inference_config()
    return {
        **example.settings,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "lr": training.learning_rate,
        "solver": inference.solver,
        "n_steps": inference.num_steps,
    }


def summarize(example: Any) -> None:
    """Write `summary.json`, and print what was written, how long it took, and how good the samples are."""
    from importlib.metadata import version

    quality = getattr(example, "quality", {})
    packages = {name: version(name) for name in ("torch", "lightning", "numpy", "scikit-learn", "matplotlib")}
    training = example.model.training or example.setup_training_config()
    summary = {
        "versions": {"pointdiffusion": ptd.__version__, "python": platform.python_version(), **packages},
        "settings": effective_settings(example),
        "training": training.to_mapping(),
        "inference": example.setup_inference_config().to_mapping(),
        "quality": quality,
        "times": {name: round(seconds, 3) for name, seconds in example.times.items()},
    }
    ptd.write_atomic(example._noted("summary.json"), (json.dumps(summary, indent=2) + "\n").encode())
    example.say(f"\nWritten to {example.output_dir}/: " + ", ".join(path.name for path in example.written))
    example.say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in example.times.items()))
    if hasattr(example, "diagnosis"):
        example.say(example.diagnosis.short())
    if quality:
        example.say(
            f"Distance to fresh data (W2): {quality['w2']:.3f}; fresh data themselves reach "
            f"{quality['w2_fresh']:.3f}, so the ratio is {quality['w2_ratio']:.2f} "
            f"± {quality['w2_ratio_standard_error']:.2f}."
        )
        example.say(
            f"Off the data, {example.training.title} (rms, in standard deviations of the data): {quality['off']:.4f}; "
            f"fresh data {quality['off_fresh']:.4f}."
        )


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
