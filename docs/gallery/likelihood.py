"""Draw the density that a model has learned of the Swiss roll beside the true one, and print how far apart they are.

python docs/gallery/likelihood.py -o docs/gallery/likelihood.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pointdiffusion as ptd

BLUR = 0.05
"""Of the density that is drawn, in standard deviations of the data."""


def main() -> None:
    """Print the figures and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("likelihood.png"))
    parser.add_argument("--toy", action="store_true", help="a short training and a coarse picture")
    args = parser.parse_args()
    roll, noise = ptd.DATASETS["swiss-roll"], 0.3
    points = roll(256 if args.toy else 4096, noise=noise, random_state=0)
    small = (lambda _: ptd.default_network(2, 16)) if args.toy else None
    model = ptd.fit(points, ptd.TrainingConfig(epochs=2 if args.toy else 50), seed=0, backbone=small)
    fresh = roll(100 if args.toy else 2000, noise=noise, random_state=1)

    # The blur adds to the noise of the set, which counts before scaling; the two columns have all but the same scale.
    scale = float(np.sqrt(model.standardiser.scale.prod()))
    blurred = math.hypot(noise, BLUR * scale * roll.scaling_factor)
    x = fresh + BLUR * scale * np.random.default_rng(2).normal(size=fresh.shape)
    learned, true = model.log_prob(x, sigma_min=BLUR), roll.log_prob(x, noise=blurred)
    gap = true - learned
    print(f"columns have scale {model.standardiser.scale.round(3).tolist()}, blur {BLUR} is {BLUR * scale:.3f}")
    print(f"mean log-density of {len(x)} fresh rows: learned {learned.mean():.3f}, true {true.mean():.3f} nats")
    print(f"gap: {gap.mean():.3f} +- {gap.std() / math.sqrt(len(gap)):.3f} nats")
    bound = model.variational_bound(fresh, sigma_min=BLUR, num_draws=64)
    print(f"variational bound, of the stochastic equation: {bound.mean:.3f} +- {bound.mean_error:.3f} nats")
    chosen = model.choose_sigma_min(fresh[: 50 if args.toy else 500], [0.01, 0.02, 0.03, 0.05, 0.1, 0.2])
    for level, mean, error in zip(chosen.candidates, chosen.means, chosen.standard_errors, strict=True):
        print(f"blur {float(level):.2f}: fresh rows have {float(mean):.3f} +- {float(error):.3f} nats")

    count = 24 if args.toy else 120
    sides = [np.linspace(column.min() - 0.3, column.max() + 0.3, count) for column in points.T]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    panels = {"true": roll.log_prob(grid, noise=blurred), "learned": model.log_prob(grid, sigma_min=BLUR)}
    figure = Figure(figsize=(8.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    levels = np.arange(-6, math.ceil(float(panels["true"].max())) + 0.1, 0.5)
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        drawn = ax.contourf(*sides, values.reshape(count, count).clip(levels[0]), levels=levels, cmap="viridis")
        ax.set_title(f"{name} density")
        ax.set_aspect("equal")
    figure.colorbar(drawn, ax=axes, label="log-density, nats")
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
