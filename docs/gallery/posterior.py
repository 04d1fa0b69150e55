"""Draw a posterior by three methods beside the exact one, and what particles and steps are worth.

python docs/gallery/posterior.py -o docs/gallery/posterior.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pointdiffusion.denoisers.observation import Observed
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.runtime.randomness import generator_for
from pointdiffusion.sampling.loop import sample
from pointdiffusion.sampling.twisted import twisted_diffusion
from pointdiffusion.solvers import DDIM

LOW, HIGH, NOISE = 0.005, 20.0, 0.15
MATRIX, Y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)


def ring() -> GaussianMixture:
    """Return six Gaussians on a circle, one of them twice as likely as each of the others."""
    angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], dim=1)
    weights = torch.tensor([2.0, 1, 1, 1, 1, 1], dtype=torch.float64) / 7
    return GaussianMixture(weights, means, (0.04 * torch.eye(2, dtype=torch.float64)).expand(6, 2, 2))


def guided(mixture: GaussianMixture, method: str, count: int, num_steps: int) -> Tensor:
    """Return draws of the ancestral walk with an observed denoiser."""
    g = generator_for(0, 1)
    observed = Observed(mixture.denoise, MATRIX, Y, NOISE, method=method)
    start = mixture.sample(count, g, HIGH)
    return sample(observed, start, KarrasSchedule(LOW, HIGH).sigmas(num_steps), solver=DDIM(1.0), generator=g)


def twisted(mixture: GaussianMixture, rows: int, particles: int, num_steps: int, **settings: Any) -> Tensor:
    """Return as many draws of each population as it has particles, shape `(particles, rows, 2)`."""
    g, sigmas = generator_for(0, 2), KarrasSchedule(LOW, HIGH).sigmas(num_steps)
    found = twisted_diffusion(
        mixture.denoise, MATRIX, Y.expand(rows, 1), NOISE, sigmas=sigmas, num_particles=particles, generator=g,
        mean=mixture.mean, covariance=mixture.covariance, **settings,
    )  # fmt: skip
    return found.draw(particles, g)


def shares(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """Return the share of the points at each Gaussian, shape `(6,)`."""
    return torch.bincount(torch.cdist(x, mixture.means).argmin(dim=1), minlength=6) / len(x)


def report(mixture: GaussianMixture, draws: dict[str, Tensor], toy: bool) -> None:
    """Print the shares of the Gaussians, and the error of twisted diffusion by particles and by steps."""
    print("draws |", " | ".join(f"Gaussian {k + 1}" for k in range(6)))
    print("--- |", " | ".join(["---"] * 6))
    for name, x in draws.items():
        print(f"{name} |", " | ".join(f"{100 * share:.1f} %" for share in shares(mixture, x).tolist()))
    exact = mixture.posterior(MATRIX, Y, NOISE)
    print("\nparticles | rms error of a population's mean\n--- | ---")
    for particles in (4, 16) if toy else (4, 16, 64, 256):
        x = twisted(mixture, 10 if toy else 100, particles, 20 if toy else 100)
        print(f"{particles} | {float((x.mean(dim=0) - exact.mean).square().mean().sqrt()):.3f}")
    ball = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.6], [0.6, 0.8]]])
    variance = float(ball.posterior(MATRIX, Y, NOISE).covariance.trace())
    print(
        "\nsteps | one Gaussian: variance of the draws over the exact one, ancestral steps | matched\n--- | --- | ---"
    )
    for steps in (10, 20) if toy else (12, 25, 50, 100, 200):
        ratios = []
        for matched in (False, True):
            x = twisted(ball, 10 if toy else 200, 64, steps, matched=matched).reshape(-1, 2)
            ratios.append(float(x.T.cov().trace()) / variance)
        print(f"{steps} | {ratios[0]:.3f} | {ratios[1]:.3f}")


def main() -> None:
    """Print the figures and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("posterior.png"))
    parser.add_argument("--toy", action="store_true", help="few points, coarse grids")
    args = parser.parse_args()
    count, steps, particles = (64, 20, 16) if args.toy else (2048, 100, 256)
    mixture = ring()
    draws = {
        "exact": mixture.posterior(MATRIX, Y, NOISE).sample(count, generator_for(0, 3)),
        "Pi-GDM": guided(mixture, "pigdm", count, steps),
        "MMPS": guided(mixture, "mmps", count, steps),
        f"twisted, {particles} particles": twisted(mixture, count // particles, particles, steps).reshape(-1, 2),
    }
    figure = Figure(figsize=(10.4, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    prior = mixture.sample(1500, generator_for(0, 4))
    for ax, (name, x) in zip(figure.subplots(1, 4, sharex=True, sharey=True), draws.items(), strict=True):
        ax.scatter(*prior.T, s=2, color="0.85")
        ax.axvline(float(Y), color="C1", linewidth=1)
        ax.scatter(*x[:1000].T, s=3, color="C0", linewidths=0)
        ax.set_title(name, fontsize=10)
        ax.set(aspect="equal", xlim=(-2.4, 2.8), ylim=(-2.6, 2.6), xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        for mean, share in zip(mixture.means, shares(mixture, x).tolist(), strict=True):
            if share > 0.003:
                ax.annotate(f"{100 * share:.0f}%", (1.6 * mean).tolist(), ha="center", va="center", fontsize=8)
    report(mixture, draws, args.toy)
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
