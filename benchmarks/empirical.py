"""A million points, ten thousand queries: seconds, memory beyond the data, and deviation from brute force in float64.

python benchmarks/empirical.py --sigmas 0.003 0.01 0.03
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import pointdiffusion as ptd


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1, 1.0])
    args = parser.parse_args()
    points = ptd.Standardiser.fit(rows := ptd.DATASETS["moons"](args.points, random_state=0)).transform(rows)
    truth = ptd.EmpiricalDenoiser(torch.from_numpy(points))
    generator = torch.Generator().manual_seed(0)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{args.points} points, {args.queries} queries, {torch.get_num_threads()} threads, float64")
    print("sigma | seconds | MiB beyond the data | largest deviation of 20 rows from brute force")
    print("--- | --- | --- | ---")
    for sigma in args.sigmas:
        noise = torch.randn(args.queries, 2, generator=generator, dtype=torch.float64)
        x = truth.points[: args.queries] + sigma * noise
        begin = time.perf_counter()
        denoised = truth(x, torch.tensor(sigma))
        seconds = time.perf_counter() - begin
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        logits = torch.stack([-(truth.points - row).square().sum(dim=1) / (2 * sigma**2) for row in x[:20]])
        deviation = float((logits.softmax(dim=1) @ truth.points - denoised[:20]).abs().max())
        print(f"{sigma:g} | {seconds:.1f} | {memory:.0f} | {deviation:.1e}", flush=True)


if __name__ == "__main__":
    main()
