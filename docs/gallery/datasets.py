"""Draw the named point sets, coloured by class, and print what is known of each.

python docs/gallery/datasets.py -o docs/gallery/datasets.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

import pointdiffusion as ptd


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("datasets.png"))
    parser.add_argument("--toy", action="store_true", help="few points")
    args = parser.parse_args()
    n_samples = 200 if args.toy else 2000
    figure, axes = plt.subplots(3, 4, figsize=(12, 9.6), layout="constrained")
    print("name | columns | classes | noise | entropy in nats")
    print("--- | --- | --- | --- | ---")
    for axis, (name, kind) in zip(axes.flat, ptd.DATASETS.items(), strict=True):
        try:
            entropy = f"{kind.entropy():.4f}"
        except ValueError:
            entropy = ""
        print(f"`{name}` | {kind.n_dims} | {kind.n_classes} | {kind.noise:g} | {entropy}")
        points, labels = kind.sample_with_labels(n_samples, random_state=0)
        axis.scatter(
            points[:, 0], points[:, -1], c=labels, cmap="viridis" if kind.n_classes > 10 else "tab10", s=1, linewidths=0
        )
        axis.set_title(name, fontsize=10)
        if kind.n_dims > 2:
            axis.set_xlabel(f"first of {kind.n_dims} columns", fontsize=8)
            axis.set_ylabel("last column", fontsize=8)
        axis.set_aspect("equal", adjustable="datalim")
        axis.tick_params(labelsize=7)
    figure.savefig(args.output, dpi=60)


if __name__ == "__main__":
    main()
