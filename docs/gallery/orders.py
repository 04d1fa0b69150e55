"""Draw the error of solvers against the number of steps, beside the exact flow: the slope is the order.

python docs/gallery/orders.py -o docs/gallery/orders.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import pointdiffusion as ptd
from pointdiffusion.diagnostics.certification import HIGH, LOW, MIXTURE
from pointdiffusion.runtime.randomness import generator_for

SOLVERS = ["euler", "heun", "dpmpp-2m", "dpmpp-3m-stock", "dpmpp-3m", "unipc-3", "rk4", "angular-4"]


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("orders.png"))
    parser.add_argument("--toy", action="store_true", help="few points, coarse grids")
    args = parser.parse_args()
    points, counts = (16, [8, 16]) if args.toy else (256, [8, 16, 32, 64, 128, 256])
    x = MIXTURE.sample(points, generator_for(0, 0), HIGH)
    exact = ptd.exact_flow(MIXTURE.denoise, x, HIGH, LOW, tolerance=1e-12).x
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    print("solver | declared order |", " | ".join(f"{count} steps" for count in counts))
    print("--- | --- |", " | ".join("---" for _ in counts))
    for k, name in enumerate(SOLVERS):
        errors = []
        for count in counts:
            grid = ptd.KarrasSchedule(LOW, HIGH).sigmas(count, final_zero=False)
            y = ptd.sample(MIXTURE.denoise, x, grid, solver=name)
            errors.append(float((y - exact).square().mean(dim=1).sqrt().median()))
        order = ptd.make_solver(name).order
        print(f"`{name}` | {order:g} |", " | ".join(f"{error:.1e}" for error in errors))
        ax.loglog(counts, errors, "o-", color=f"C{k}", markersize=4, label=f"{name} ({order:g})")
        line = [errors[-1] * (counts[-1] / count) ** order for count in counts]
        ax.loglog(counts, line, ":", color=f"C{k}", linewidth=1)
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set_xlabel("steps")
    ax.set_ylabel("median rms error against the exact flow")
    ax.grid(alpha=0.3)
    ax.legend(title="solver (declared order, dotted)", fontsize=8, title_fontsize=8)
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
