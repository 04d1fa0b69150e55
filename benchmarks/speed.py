"""Speed: what Lightning adds to training, what the GIF costs, how long the whole example takes.

    python benchmarks/speed.py

Machines differ and are noisy, so what is claimed are ratios, measured side by side and in turn in one run:

- training through Lightning over the bare loop of the same steps (same batches, noise, optimiser and averaging; the
  weights at the end are compared, so both did the same work);
- a step of a sampler over the same step of k-diffusion, outside the denoiser, on 512 x 2 points;
- rows of the example's network drawn a second at 20 evaluations, over the bare network on the same chunks;
- a frame of our GIF over a frame of matplotlib's own `FuncAnimation` with the Pillow writer, same points and size.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel

import pointdiffusion as ptd
from pointdiffusion.networks import default_network
from pointdiffusion.runtime.randomness import CHUNK, TRAINING, generator_for
from pointdiffusion.training.losses import denoising_loss

EXAMPLE = Path(__file__).parent.parent / "playground" / "points_2d" / "run_swiss_roll_example.py"


def fresh_denoiser(seed: int) -> ptd.KarrasDenoiser:
    """Return an untrained denoiser, the same for the same seed."""
    torch.manual_seed(seed)
    return ptd.KarrasDenoiser(default_network(2))


def train_bare(points: Any, config: ptd.TrainingConfig) -> tuple[float, torch.nn.Module]:
    """Train by the plainest loop there is; return seconds and the denoiser."""
    denoiser = fresh_denoiser(0)
    rows = torch.from_numpy(ptd.Standardiser.fit(points).transform(points)).float()
    sampler = ptd.LogUniformSampler(config.sigma_min, config.sigma_max)
    rate = config.learning_rate * denoiser.backbone.rate_multiplier
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True)
    steps = config.epochs * -(-len(rows) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def average(old: Any, new: Any, count: Any) -> None:
        torch._foreach_lerp_(old, new, 1 - min(config.ema_decay, (1 + int(count)) / (config.ema_warmup + int(count))))

    averaged = AveragedModel(denoiser, multi_avg_fn=average)
    start = time.perf_counter()
    for step in range(steps):
        generator = generator_for(0, TRAINING, step)
        clean = rows[torch.randint(len(rows), (config.batch_size,), generator=generator)]
        others = torch.randint(len(rows), (config.reference_points - config.batch_size,), generator=generator)
        x_0 = clean.repeat(config.noise_draws, 1)
        sigma = sampler.sample(len(x_0), generator, torch.float64).float()
        eps = torch.randn(x_0.shape, generator=generator)
        share, width = torch.rand(2, len(sigma), generator=generator, dtype=torch.float64).float()
        wide = (share < config.tail_share) & (sigma > 0.5)
        x = x_0 + sigma[:, None] * eps * torch.where(wide, 1 + width, 1.0)[:, None]
        target = ptd.posterior_mean(x, sigma, torch.cat([clean, rows[others]]))
        loss = denoising_loss(denoiser(x, sigma), target, ptd.loss_weight(sigma)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        averaged.update_parameters(denoiser)
    return time.perf_counter() - start, denoiser


def train_lightning(points: Any, config: ptd.TrainingConfig) -> tuple[float, torch.nn.Module]:
    """Train through Lightning; return the seconds from the first step to the last, and the denoiser."""
    from lightning.pytorch import Callback, Trainer

    from pointdiffusion.training.fitting import quiet_lightning

    class Watch(Callback):
        def on_train_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    watch = Watch()
    module = ptd.LightningDiffusion(fresh_denoiser(0), config, points=points)
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=config.epochs, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[watch],
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module)
    return watch.seconds, module.denoiser


def frame_times(frames: list[Any], sigmas: list[float], training: Any) -> tuple[float, float]:
    """Return milliseconds a frame of our GIF and of `FuncAnimation`."""
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    start = time.perf_counter()
    ptd.animate_samples(frames, sigmas, training)
    ours = time.perf_counter() - start
    figure = Figure(figsize=(4.8, 5.1), dpi=100)
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()

    def draw(k: int) -> list[Any]:
        ax.clear()
        ax.plot(*training.T, ".", markersize=2.5)
        ax.plot(*frames[k].T, ".", markersize=4.5)
        ax.set_aspect("equal")
        return []

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        FuncAnimation(figure, draw, len(frames)).save(Path(folder) / "a.gif", writer=PillowWriter(fps=15))
        theirs = time.perf_counter() - start
    return 1000 * ours / len(frames), 1000 * theirs / len(frames)


def step_overheads(repeats: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return microseconds a step of k-diffusion's samplers and of ours, of a denoiser that costs next to nothing."""
    theirs = peers.k_diffusion_sampling()
    x = 10 * torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    grid = ptd.KarrasSchedule(0.01, 10.0).sigmas(50)

    def halve(x: Any, sigma: Any) -> Any:  # noqa: ARG001
        return x / 2

    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, ours in (("euler", "euler"), ("heun", "heun"), ("dpmpp_2m", "dpmpp-2m"), ("lms", "lms-4")):
        sampler = getattr(theirs, f"sample_{name}")
        found[name] = [], []
        for repeat in range(4 * repeats + 2):
            start = time.perf_counter()
            sampler(halve, x, grid.float(), disable=True)
            middle = time.perf_counter()
            ptd.sample(halve, x, grid, solver=ours)
            end = time.perf_counter()
            if repeat > 1:  # the first two warm up
                found[name][0].append(1e6 * (middle - start) / 50)
                found[name][1].append(1e6 * (end - middle) / 50)
    return found


def throughput(num_samples: int) -> tuple[float, float, float, float]:
    """Return rows a second of the bare network and of `sample`, processor over wall time, and GiB of memory taken."""
    model = ptd.fit(ptd.DATASETS["swiss-roll"](1024, random_state=0), ptd.TrainingConfig(epochs=1), seed=0)
    x, sigma = torch.randn(CHUNK, 2, generator=torch.Generator().manual_seed(0)), torch.ones(())
    model.sample(CHUNK, nfe=20)
    start = time.perf_counter()
    with torch.no_grad():
        for _ in range(20 * -(-num_samples // CHUNK)):
            model.denoiser(x, sigma)
    bare, memory = num_samples / (time.perf_counter() - start), peak_memory()
    start, cpu = time.perf_counter(), time.process_time()
    samples = model.sample(num_samples, nfe=20)
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return bare, num_samples / seconds, used / seconds, peak_memory() - memory - samples.nbytes / 2**30


def peak_memory() -> float:
    """Return the most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def row(name: str, values: list[float]) -> None:
    """Print a figure as median, lowest and highest."""
    print(f"{name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f}", flush=True)


def training_rows(points: NDArray[np.float64], config: ptd.TrainingConfig, repeats: int) -> None:
    """Print what a step of training costs, in a bare loop and in Lightning."""
    bare, lightning, difference = [], [], 0.0
    for repeat in range(repeats + 1):
        seconds_bare, a = train_bare(points, config)
        seconds_lightning, b = train_lightning(points, config)
        pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        difference = max(float((p - q).abs().max()) for p, q in pairs)
        if repeat:  # the first pair warms up
            bare.append(seconds_bare)
            lightning.append(seconds_lightning)
    steps = config.epochs * 32
    row("bare loop, ms a step", [1000 * seconds / steps for seconds in bare])
    row("Lightning, ms a step", [1000 * seconds / steps for seconds in lightning])
    row("ratio Lightning / bare loop", [b / a for a, b in zip(bare, lightning, strict=True)])
    print(f"largest difference of the weights of the two | {difference:.2g} | |")


def picture_rows(points: NDArray[np.float64], repeats: int) -> None:
    """Print what a frame of the animation costs, in ours and in Matplotlib's."""
    rng = np.random.default_rng(0)
    sigmas = [*np.geomspace(10, 0.01, 50), 0.0]
    frames = [points[:1000] + 0.66 * sigma * rng.normal(size=(1000, 2)) for sigma in sigmas]
    pairs = [frame_times(frames, sigmas, points) for _ in range(repeats)]
    row("our GIF, ms a frame", [ours for ours, _ in pairs])
    row("FuncAnimation, ms a frame", [theirs for _, theirs in pairs])
    row("ratio our GIF / FuncAnimation", [ours / theirs for ours, theirs in pairs])


def example_row(repeats: int) -> None:
    """Print how long the whole example takes."""
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            subprocess.run([sys.executable, str(EXAMPLE), "--quiet"], cwd=folder, check=True)
            times.append(time.perf_counter() - start)
    row("run_swiss_roll_example.py as a whole, s", times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows drawn at once (default: %(default)s)")
    parser.add_argument("--no-example", action="store_true", help="leave out the whole example")
    args = parser.parse_args()
    points = ptd.DATASETS["swiss-roll"](4096, random_state=0)
    config = ptd.TrainingConfig(epochs=args.epochs, sigma_min=0.01, sigma_max=10.0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.repeats} repeats")
    print("figure | median | lowest | highest")
    print("--- | --- | --- | ---")
    training_rows(points, config, args.repeats)
    for name, (theirs, ours) in step_overheads(args.repeats).items():
        row(f"{name}, us a step outside the denoiser", ours)
        row(f"{name}, ratio to k-diffusion", [b / a for a, b in zip(theirs, ours, strict=True)])
    bare_rows, our_rows, cores, memory = throughput(args.rows)
    print(f"{args.rows} rows at 20 evaluations, rows/s | {our_rows:.0f} | |")
    print(f"ratio to the bare network | {our_rows / bare_rows:.2f} | |")
    print(f"cores used | {cores:.2f} | |")
    print(f"memory beyond the result, GiB | {memory:.2f} | |", flush=True)
    picture_rows(points, args.repeats)
    if not args.no_example:
        example_row(args.repeats)


if __name__ == "__main__":
    main()
