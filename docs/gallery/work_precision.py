"""Draw what each solver makes of a number of evaluations, on a ring of eight Gaussians, where the exact flow is known.

python docs/gallery/work_precision.py -o docs/gallery/work_precision.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pointdiffusion as ptd

SOLVERS = {"euler": 1, "heun": 2, "dpmpp-2m": 1, "deis-3": 1, "unipc-3": 1, "rk4": 4}
START = 14.5  # ten standard deviations of the ring


def ring() -> ptd.GaussianMixture:
    """Return eight equal Gaussians on a circle of radius 2."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return ptd.GaussianMixture(torch.full((8,), 1 / 8), means, 0.15**2 * torch.eye(2).double().expand(8, 2, 2))


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("work_precision.png"))
    parser.add_argument("--toy", action="store_true", help="few points, two budgets")
    args = parser.parse_args()
    points, budgets = (16, [5, 10]) if args.toy else (512, [5, 8, 10, 15, 20, 35, 50])
    mixture = ring()
    sigma_data = float(mixture.covariance.diag().mean().sqrt())
    x = mixture.sample(points, torch.Generator().manual_seed(0), START)
    exact = ptd.exact_flow(mixture.denoise, x, START, 0.0).x

    def median_error(y: torch.Tensor) -> float:
        return float((y - exact).square().mean(dim=1).sqrt().median())

    curves: dict[str, dict[int, float]] = {}
    for name, cost in SOLVERS.items():
        for budget in budgets:
            counted = ptd.KarrasSchedule(0.02, START).sigmas(max(2, (budget - 1) // cost + 1))
            *_, last = ptd.trajectory(mixture.denoise, x, counted, solver=name)
            curves.setdefault(name, {})[last.nfe] = median_error(last.x)
    curves["auto"] = {
        budget: median_error(ptd.sample(mixture.denoise, x, nfe=budget, sigma_max=START, sigma_data=sigma_data))
        for budget in budgets
    }
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    print("solver | evaluations: error")
    print("--- | ---")
    for name, curve in curves.items():
        print(f"`{name}` |", ", ".join(f"{nfe}: {error:.1e}" for nfe, error in curve.items()))
        style = {"color": "black", "linewidth": 2} if name == "auto" else {}
        ax.loglog(list(curve), list(curve.values()), "o-", markersize=4, label=name, **style)
    ax.set_xticks(budgets, [str(budget) for budget in budgets])
    ax.minorticks_off()
    ax.set_xlabel("evaluations of the denoiser")
    ax.set_ylabel("median rms error against the exact flow")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
