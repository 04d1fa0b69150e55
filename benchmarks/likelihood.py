"""Log-densities of a trained network: error against the steps, and seconds.

    python benchmarks/likelihood.py                               # trains a Swiss roll by the defaults first
    python benchmarks/likelihood.py --model swiss_roll_output/model.pt

The reference is the same flow in float64 on 400 steps; errors are over 400 fresh rows, seconds are of 10,000.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch

import pointdiffusion as ptd


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model of the 2-D Swiss roll")
    parser.add_argument("--steps", type=int, nargs="+", default=[24, 32, 40, 48, 64])
    parser.add_argument("--rows", type=int, default=10_000, help="rows that are timed (default: %(default)s)")
    args = parser.parse_args()
    roll = ptd.DATASETS["swiss-roll"]
    model = ptd.load(args.model) if args.model else ptd.fit(roll(4096, random_state=0), seed=0)
    fresh = roll(args.rows, random_state=1)
    x = torch.from_numpy(model.standardiser.transform(fresh[:400]))
    ends = model.flow.ends()
    reference = ptd.log_prob(copy.deepcopy(model.denoiser).double(), x, num_steps=400, **ends)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, blur {ends['sigma_min']:g}")
    print("steps | mean error, nats | 99th percentile | rows | seconds")
    print("--- | --- | --- | --- | ---")
    for steps in args.steps:
        found = ptd.log_prob(model.denoiser, x.float(), num_steps=steps, **ends)
        error = (found.double() - reference).abs()
        start = time.perf_counter()
        model.log_prob(fresh, num_steps=steps)
        seconds = time.perf_counter() - start
        print(f"{steps} | {float(error.mean()):.1e} | {float(error.quantile(0.99)):.1e} | {len(fresh)} | {seconds:.1f}")


if __name__ == "__main__":
    main()
