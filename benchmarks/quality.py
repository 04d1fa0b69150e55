"""Quality of samples after the training of the example: 4096 points, 30 epochs, batch 128, rate 1e-4.

    python benchmarks/quality.py                 # five seeds, four data sets; about a quarter of an hour on two cores
    python benchmarks/quality.py --seeds 1 --data swiss-roll

Prints, for each data set, system and solver, means over the seeds and every seed's own figures:

- W2 ratio: exact W2 of 1000 samples to 4000 fresh points over the mean of the same for 1000 fresh points, eight draws
  a seed (needs POT, in the dependency group `benchmarks`);
- off: rms distance to the true curve in standard deviations of the data (roll only);
- copies: share of samples nearer to a training point than a tenth of the typical spacing of the training points along
  the curve, beside the same share of fresh points (roll only).

Systems: this project's example; the same on noise levels that are chosen from the points; the classic recipe, rebuilt
from the library's own parts (plain residual blocks, rate multiplier 1, no Fourier features, the clean point as target,
one noise a point, rate 1e-4, 0.002 to 80); and the exact denoiser of the training set, which is the best that can be
learned from it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

import pointdiffusion as ptd

Points = NDArray[np.float64]
TRAIN, DRAW, DRAWS, FRESH, FLOOR_DRAWS = 4096, 1000, 8, 4000, 40
ANGLES = np.linspace(1.5 * np.pi, 4.5 * np.pi, 40_001)
CURVE = np.stack([ANGLES * np.cos(ANGLES), ANGLES * np.sin(ANGLES)], axis=1) / 10
SPACING = float(np.linalg.norm(np.diff(CURVE, axis=0), axis=1).sum()) / TRAIN
"""Length of the curve over the number of training points."""


class Judge:
    """Fresh points of a data set, and the floor that they set.

    Args:
        name: Name of the data set.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        draw = ptd.DATASETS[name]
        self.fresh = draw(FRESH, random_state=2**31)
        others = draw(FLOOR_DRAWS * DRAW, random_state=2**31 + 1)
        self.floor = float(np.mean([ptd.wasserstein2(part, self.fresh) for part in np.split(others, FLOOR_DRAWS)]))
        self.scale = float(draw(200_000, random_state=2**31 + 2).std(axis=0).mean())
        self.more = draw(DRAWS * DRAW, random_state=2**31 + 3)

    def __call__(self, samples: Points, training: Points) -> dict[str, float]:
        """Return the figures of samples by name."""
        figures = {
            "W2": float(np.mean([ptd.wasserstein2(part, self.fresh) for part in np.split(samples, DRAWS)])) / self.floor
        }
        if self.name == "swiss-roll":
            figures["off"] = float(np.sqrt((KDTree(CURVE).query(samples)[0] ** 2).mean())) / self.scale
            figures["copies"] = ptd.copy_share(samples, training, SPACING / 10)
            figures["copies fresh"] = ptd.copy_share(self.more, training, SPACING / 10)
        return figures


def classic_network(_metadata: Any) -> torch.nn.Module:
    """Return the network of the classic recipe."""
    return ptd.ResidualMLP(
        points=ptd.FourierFeatures(2, num_frequencies=0), noise=ptd.NoiseEmbedding(64, lowest=2.0, highest=64.0),
        blocks=[ptd.PlainBlock(256, 64) for _ in range(2)], n_dims=2, hidden_dim=256, rate_multiplier=1.0,
    )  # fmt: skip


def train_ours(points: Points, seed: int) -> ptd.DiffusionModel:
    """Train as the example does."""
    return ptd.fit(points, ptd.TrainingConfig(epochs=30, sigma_min=0.01, sigma_max=10.0), seed=seed)


def train_chosen(points: Points, seed: int) -> ptd.DiffusionModel:
    """Train on the noise levels that are chosen from the points, as `fit` does by default."""
    return ptd.fit(points, ptd.TrainingConfig(epochs=30), seed=seed)


def train_classic(points: Points, seed: int) -> ptd.DiffusionModel:
    """Train by the classic recipe."""
    config = ptd.TrainingConfig(epochs=30, noise_draws=1, reference_points=0, sigma_min=0.002, sigma_max=80.0)
    return ptd.fit(points, config, backbone=classic_network, seed=seed)


def exact(points: Points, seed: int) -> ptd.DiffusionModel:
    """Return a model around the exact denoiser of the training set."""
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1, batch_size=TRAIN, noise_draws=1), seed=seed)
    truth = ptd.EmpiricalDenoiser(torch.from_numpy(model.standardiser.transform(points)).float())
    model.denoiser.forward = truth.__call__  # type: ignore[method-assign]
    return model


SYSTEMS: dict[str, tuple[Callable[[Points, int], ptd.DiffusionModel], list[str]]] = {
    "pointdiffusion": (train_ours, ["heun", "euler"]),
    "chosen levels": (train_chosen, ["heun", "euler"]),
    "classic recipe": (train_classic, ["euler"]),
    "exact denoiser": (exact, ["heun", "euler"]),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    names = ["swiss-roll", "moons", "checkerboard", "eight-gaussians"]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    args = parser.parse_args()
    print("data | system, 50 steps | figure | mean | each seed " + " ".join(map(str, args.seeds)))
    print("--- | --- | --- | --- | ---")
    for name in args.data:
        judge = Judge(name)
        for system in args.systems:
            train, solvers = SYSTEMS[system]
            rows: dict[tuple[str, str], list[float]] = {}
            for seed in args.seeds:
                points = ptd.DATASETS[name](TRAIN, random_state=seed)
                start = time.perf_counter()
                model = train(points, seed)
                seconds = time.perf_counter() - start
                for solver in solvers:
                    samples = model.sample(DRAWS * DRAW, seed=seed, solver=solver)
                    for figure, value in judge(samples, points).items():
                        rows.setdefault((solver, figure), []).append(value)
                if system != "exact denoiser":
                    rows.setdefault(("training", "seconds"), []).append(seconds)
            for (solver, figure), values in rows.items():
                each = " ".join(f"{value:.3f}" for value in values)
                print(f"{name} | {system}, {solver} | {figure} | {np.mean(values):.3f} | {each}", flush=True)


if __name__ == "__main__":
    main()
