"""Certify a right sampler and one with a common mistake, and draw both.

python docs/gallery/certificate.py -o docs/gallery/certificate.png
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import pointdiffusion as ptd


def heun_with_a_stale_sigma(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Run Heun's method, but ask for its second slope at the noise level of the first: samples look fine."""
    for sigma, below in itertools.pairwise(sigmas):
        slope = (x - denoiser(x, sigma)) / sigma
        y = x + (below - sigma) * slope
        if below > 0:
            slope = (slope + (y - denoiser(y, sigma)) / below) / 2
        x = x + (below - sigma) * slope
    return x


def main() -> None:
    """Print the certificates and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("certificate.png"))
    parser.add_argument("--toy", action="store_true", help="one of the two")
    args = parser.parse_args()
    samplers = [("dpmpp-2m", "dpmpp-2m", None), ("heun with a stale sigma", heun_with_a_stale_sigma, 2)]
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True, squeeze=False)[0]
    for ax, (name, sampler, order) in zip(axes, samplers[: 1 if args.toy else 2], strict=False):
        certificate = ptd.certify(sampler, order=order, name=name)
        print(certificate, end="\n\n")
        certificate.plot(ax)
        ax.grid(alpha=0.3)
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
