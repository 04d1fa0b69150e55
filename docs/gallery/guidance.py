"""Draw what guidance draws beside the tilted distribution that it is said to draw.

python docs/gallery/guidance.py -o docs/gallery/guidance.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pointdiffusion.denoisers.guidance import autoguidance, bind, classifier_free
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.runtime.randomness import generator_for
from pointdiffusion.sampling.loop import sample
from pointdiffusion.sampling.smc import feynman_kac, tilted_gaussian

LONG = [[[0.5, 0.2], [0.2, 0.15]], [[0.15, -0.1], [-0.1, 0.4]]]
MEANS = [[-1.0, 0.2], [0.9, -0.8], [0.6, 0.9], [-0.5, -1.0]]
MIXTURE = GaussianMixture([0.3, 0.2, 0.3, 0.2], MEANS, [*LONG, *LONG], labels=[0, 0, 1, 1])
"""The two classes of the plane in `benchmarks/guidance.py`."""
TOP, SCALE = 20.0, 4.0


def start(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points of the tilted Gaussian at the highest noise level, and their log weights."""
    one, noise = MIXTURE.condition(0), TOP**2 * torch.eye(2, dtype=torch.float64)
    moments = (one.mean, one.covariance + noise, MIXTURE.mean, MIXTURE.covariance + noise)
    mean, covariance, log_integral = tilted_gaussian(*moments, SCALE)
    draws = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return mean + draws @ torch.linalg.cholesky(covariance).T, torch.full((count,), log_integral).double()


def all_draws(count: int, steps: int) -> dict[str, Tensor]:
    """Return the points of each panel."""
    one, grid = MIXTURE.condition(0), KarrasSchedule(0.01, TOP).sigmas(steps)
    blurred = one.covariances + 0.09 * torch.eye(2, dtype=torch.float64)
    worse = GaussianMixture(one.weights, one.means, blurred)
    free = classifier_free(MIXTURE.denoise, SCALE, labels=0)
    interval = classifier_free(MIXTURE.denoise, SCALE, labels=0, interval=(0.2, 2.0))

    def walk(denoiser: Any, solver: str) -> Tensor:
        generator = generator_for(0, 0)
        return sample(denoiser, start(count, generator)[0], grid, solver=solver, generator=generator)

    generator = generator_for(0, 1)
    x, log_weights = start(4 * count, generator)
    particles = feynman_kac(
        bind(MIXTURE.denoise, labels=0), MIXTURE.denoise, x, grid, SCALE, generator=generator,
        log_weights=log_weights, width=0.24,
    )  # fmt: skip
    return {
        "exact": MIXTURE.sample_tilted(count, 0, SCALE, generator_for(0, 2)),
        "classifier-free, flow": walk(free, "heun"),
        "classifier-free, SDE": walk(free, "ddim"),
        "Feynman-Kac": particles.draw(generator)[:count],
        "in an interval, flow": walk(interval, "heun"),
        "autoguidance, flow": walk(autoguidance(one.denoise, worse.denoise, SCALE), "heun"),
    }


def main() -> None:
    """Print mean and width of each, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("guidance.png"))
    parser.add_argument("--toy", action="store_true", help="few points, coarse grid")
    args = parser.parse_args()
    draws = all_draws(50, 20) if args.toy else all_draws(1500, 200)
    across, up = torch.linspace(-3.2, 2.7, 240).double(), torch.linspace(-2.7, 2.2, 200).double()
    plane = torch.cartesian_prod(across, up)
    density = (MIXTURE.log_prob(plane).exp() * MIXTURE.label_posterior(plane)[:, 0] ** SCALE).reshape(240, 200).T
    levels = [share * float(density.max()) for share in (0.02, 0.1, 0.3, 0.6, 0.9)]
    figure = Figure(figsize=(9.6, 5.8), layout="constrained")
    FigureCanvasAgg(figure)
    print("what is drawn | mean | standard deviations | mean of p(c | x)\n--- | --- | --- | ---")
    for k, (ax, (name, x)) in enumerate(
        zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, draws.items(), strict=True)
    ):
        ax.contour(across, up, density, levels, colors="0.55", linewidths=0.8)
        ax.plot(x[:, 0], x[:, 1], ".", color="C2" if k == 0 else "C0", markersize=2.5, alpha=0.5, markeredgewidth=0)
        ax.set_title(name, fontsize=10)
        ax.set_aspect("equal")
        ax.set_xlim(float(across[0]), float(across[-1]))
        ax.set_ylim(float(up[0]), float(up[-1]))
        mean, std = (", ".join(f"{value:.2f}" for value in row) for row in (x.mean(0), x.std(0)))
        print(f"{name} | {mean} | {std} | {float(MIXTURE.label_posterior(x)[:, 0].mean()):.3f}")
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
