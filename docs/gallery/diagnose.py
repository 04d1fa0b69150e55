"""Diagnose a model of the Swiss roll, with too few steps and without, and draw the error split and the noise range.

python docs/gallery/diagnose.py -o docs/gallery/diagnose.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pointdiffusion as ptd
from pointdiffusion.diagnostics.diagnosis import diagnose
from pointdiffusion.diagnostics.parts import MEANINGS
from pointdiffusion.training.noise_range import choose_noise_range
from pointdiffusion.visuals.diagnosis import plot_distances, plot_losses, plot_noise_range, plot_parts


def main() -> None:
    """Print the diagnoses and the range, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("diagnose.png"))
    parser.add_argument("--toy", action="store_true", help="small and quick")
    args = parser.parse_args()
    roll = ptd.DATASETS["swiss-roll"]
    points = roll(200 if args.toy else 2048, random_state=0)
    config = ptd.TrainingConfig(epochs=1 if args.toy else 40, learning_rate=1e-3)
    model = ptd.fit(points, config, backbone=lambda _: ptd.default_network(2, hidden_dim=64))
    size = {"num_points": 96, "num_levels": 3} if args.toy else {}
    found = None
    for steps in (8, 50):
        population = roll(6000, random_state=1) if args.toy else roll
        found = diagnose(model, points, population=population, num_steps=steps, **size)
        print(f"euler, {steps} steps\n{found}\n")
        if steps == 8:
            few = found
    chosen = choose_noise_range(points)
    print(chosen)
    figure = Figure(figsize=(12.4, 10.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    parts = {"total": few.total, **few.parts}
    plot_parts(axes[0, 0], parts, MEANINGS, title="where the distance comes from, 8 Euler steps")
    plot_losses(axes[0, 1], found.profile, exact=True)
    plot_distances(axes[1, 0], found.profile, exact=True)
    plot_noise_range(axes[1, 1], chosen)
    figure.savefig(args.output, dpi=90)


if __name__ == "__main__":
    main()
