"""Learn the grids of `auto` again.

    python benchmarks/grids.py --budgets 5 8 10
    python benchmarks/grids.py --budgets 5 8 10 --networks

For each budget and each candidate solver, the noise levels with the least mean logarithm of the error over the mixtures
of `problems.LEARNED_FROM`; with `--networks`, over networks that are first trained on the data of `problems.NETWORKS`.
One line each: budget, candidate, the mean, the levels. Minutes to an hour for all. The noise levels from 10 to 28
evaluations in `LEARNED_ON_NETWORKS` were found by several runs, one starting where another had ended; those at 35 are
of such a run for 28, stretched.
"""

from __future__ import annotations

import argparse

import torch
from problems import LEARNED_FROM, NETWORKS, START, case
from work_precision import LOWEST, model_cases, trained

import pointdiffusion as ptd
from pointdiffusion.sampling.plans import CANDIDATES, candidate
from pointdiffusion.sampling.tuning import learn_sigmas


def main() -> None:
    """Print the grids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20])
    parser.add_argument("--points", type=int, default=48, help="points a mixture (default: %(default)s)")
    parser.add_argument("--networks", action="store_true", help="networks in place of the mixtures")
    args = parser.parse_args()
    lowest = LOWEST if args.networks else 0.0
    if args.networks:
        cases = [model_cases(trained(name), args.points)[0] for name in NETWORKS]
    else:
        cases = [case(make(), args.points, seed=11)[0] for make in LEARNED_FROM.values()]
    for budget in args.budgets:
        ramp = torch.linspace(1, 0, budget, dtype=torch.float64) ** 0.9
        start = torch.cat([0.03 * (START / 0.03) ** ramp, torch.zeros(1).double()])
        for name in [name for name, choices in CANDIDATES.items() if choices["final"] == "local"]:
            solver = candidate(name, 1.0, lowest)
            grid = learn_sigmas(cases, solver, [start], sigma_min=lowest, max_iterations=40)
            errors = [ptd.sample(c.denoiser, c.x, grid, solver=solver) - c.exact for c in cases]
            mean = sum(float(error.square().mean(dim=1).sqrt().log().mean()) for error in errors) / len(cases)
            print(budget, name, f"{mean:.3f}", " ".join(f"{level:.4g}" for level in grid.tolist()), flush=True)


if __name__ == "__main__":
    main()
