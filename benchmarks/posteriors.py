"""Posteriors of linear observations against the exact ones, on mixtures whose posterior is known.

    python benchmarks/posteriors.py                            # some ten minutes on one core
    python benchmarks/posteriors.py --dims 2 8 --pairs 50
    python benchmarks/posteriors.py --read benchmarks/results/posteriors.json

The setting is that of Cardoso et al. (2024, arXiv 2308.07983): 25 round Gaussians of standard deviation 1 on a grid of
spacing 8, repeated over the dimensions, with random shares; 1, 2 or 4 random directions are observed, with singular
values between 0 and 1, the largest of them 1 here, and noise of 0.5. Each pair is a matrix, a point of the mixture and
its observation. Every method makes 59 draws for each pair, from the exact denoiser; no network is involved.

- SW2: sliced 2-Wasserstein distance of the draws to as many exact ones, in standard deviations of a component, averaged
  over the pairs, with its standard error; the floor is that of exact draws to other exact draws;
- coverage: how often the central 50 % and 90 % intervals of the draws hold the point itself, along 16 random directions
  a pair; exact draws get 50 and 90;
- SBC: simulation-based calibration (Talts et al. 2018, arXiv 1804.06788): the ranks of the point among the draws along
  one random direction are uniform for an exact method; p-value of chi-square on ten bins.

DPS is run with each of `ZETAS`, and what is shown is the best of them *by the distance shown*, which favours it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch import Tensor

from pointdiffusion.contract import sigma_rows
from pointdiffusion.denoisers.observation import Observed
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.metrics.distances import sliced_wasserstein2
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.runtime.randomness import generator_for
from pointdiffusion.sampling.loop import sample
from pointdiffusion.sampling.twisted import twisted_diffusion
from pointdiffusion.solvers import DDIM, HeunODE, Solver

Draws = NDArray[np.float64]
UNIT = 1 / math.sqrt(129)
"""Standard deviation of a component where a coordinate's is one: the grid's variance is 128."""

NOISE, NUM_DRAWS, LOW, HIGH = 0.5, 59, 0.005, 40.0
ZETAS = (0.01, 0.03, 0.1, 0.3)
PARTICLES = (16, 64, 256)


class Problem(NamedTuple):
    """Pairs of a matrix and an observation, in units in which a coordinate has about standard deviation one.

    Args:
        mixture: The data.
        matrices: Shape `(K, M, D)`.
        truth: Points of the mixture, shape `(K, D)`.
        y: Their observations, shape `(K, M)`.
    """

    mixture: GaussianMixture
    matrices: Tensor
    truth: Tensor
    y: Tensor


def make_problem(n_dims: int, num_observed: int, pairs: int, seed: int) -> Problem:
    """Return random pairs."""
    g = generator_for(seed, n_dims, num_observed)
    places = 8 * UNIT * torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3)).double()
    shares = torch.randn(25, generator=generator_for(seed, n_dims), dtype=torch.float64).square()
    covariances = (UNIT**2 * torch.eye(n_dims, dtype=torch.float64)).expand(25, n_dims, n_dims)
    mixture = GaussianMixture(shares / shares.sum(), places.repeat(1, n_dims // 2), covariances)
    left, _ = torch.linalg.qr(torch.randn(pairs, num_observed, num_observed, generator=g, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(pairs, n_dims, num_observed, generator=g, dtype=torch.float64))
    sizes = torch.rand(pairs, num_observed, generator=g, dtype=torch.float64)
    sizes = sizes / sizes.amax(dim=1, keepdim=True)
    matrices = (left * sizes[:, None]) @ right.mT
    truth = mixture.sample(pairs, g)
    noise = NOISE * UNIT * torch.randn(pairs, num_observed, generator=g, dtype=torch.float64)
    return Problem(mixture, matrices, truth, (matrices @ truth[..., None]).squeeze(-1) + noise)


def round_denoiser(mixture: GaussianMixture) -> Callable[..., Tensor]:
    """Return `mixture.denoise` for components that are round and equal, without a factor of D in its cost."""
    variance = float(mixture.covariances[0, 0, 0])

    def denoise(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        total = variance + sigma_rows(sigma, x) ** 2
        # Less |x|^2, which all components share.
        affinity = (x @ mixture.means.T - mixture.means.square().sum(dim=1) / 2) / total
        shares = (affinity + mixture.weights.log()).softmax(dim=1)
        centre = shares @ mixture.means
        return centre + variance / total * (x - centre)

    return denoise


def walk(problem: Problem, solver: Solver, num_steps: int, seed: int, **method: Any) -> Tensor:
    """Return draws by a solver and the observed denoiser, shape `(K, NUM_DRAWS, D)`."""
    pairs, n_dims = problem.truth.shape
    g = generator_for(seed, 1)
    spread = torch.linalg.cholesky(problem.mixture.covariance + HIGH**2 * torch.eye(n_dims).double())
    x = torch.randn(pairs * NUM_DRAWS, n_dims, generator=g, dtype=torch.float64) @ spread.T + problem.mixture.mean
    matrices, y = (part.repeat_interleave(NUM_DRAWS, 0) for part in (problem.matrices, problem.y))
    observed = Observed(round_denoiser(problem.mixture), matrices, y, NOISE * UNIT, **method)
    x = sample(observed, x, KarrasSchedule(LOW, HIGH).sigmas(num_steps), solver=solver, generator=g)
    return x.reshape(pairs, NUM_DRAWS, n_dims)


def twisted(problem: Problem, num_particles: int, num_steps: int, seed: int) -> Tensor:
    """Return draws by twisted diffusion, shape `(K, NUM_DRAWS, D)`."""
    g, mixture = generator_for(seed, 2), problem.mixture
    found = twisted_diffusion(
        round_denoiser(mixture), problem.matrices, problem.y, NOISE * UNIT, generator=g, num_particles=num_particles,
        sigmas=KarrasSchedule(LOW, HIGH).sigmas(num_steps), mean=mixture.mean, covariance=mixture.covariance,
    )  # fmt: skip
    return found.draw(NUM_DRAWS, g).transpose(0, 1)


def exact(problem: Problem, seed: int) -> Tensor:
    """Return exact draws, shape `(K, NUM_DRAWS, D)`."""
    g = generator_for(seed, 3)
    posteriors = (
        problem.mixture.posterior(a, y, NOISE * UNIT) for a, y in zip(problem.matrices, problem.y, strict=True)
    )
    return torch.stack([posterior.sample(NUM_DRAWS, g) for posterior in posteriors])


def methods(num_steps: int) -> dict[str, Callable[[Problem], Tensor]]:
    """Return what is compared: each with `num_steps` evaluations a draw or particle."""
    found: dict[str, Callable[[Problem], Tensor]] = {"exact": lambda p: exact(p, 10)}
    for zeta in ZETAS:
        found[f"dps {zeta:g}"] = lambda p, z=zeta: walk(p, DDIM(1.0), num_steps, 11, method="dps", zeta=z)
    found["dps as derived"] = lambda p: walk(p, DDIM(1.0), num_steps, 11, method="dps", zeta=None)
    for name in ("pigdm", "mmps"):
        found[f"{name} heun"] = lambda p, m=name: walk(p, HeunODE(), num_steps // 2, 12, method=m)
        found[f"{name} ancestral"] = lambda p, m=name: walk(p, DDIM(1.0), num_steps, 13, method=m)
    for count in PARTICLES:
        found[f"twisted {count}"] = lambda p, n=count: twisted(p, n, num_steps, 14)
    return found


def sliced(a: Tensor, b: Tensor, directions: Tensor) -> Draws:
    """Return the sliced 2-Wasserstein distance of each pair, shape `(K,)`, in standard deviations of a component."""
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    return np.array([sliced_wasserstein2(*pair, directions=directions) for pair in pairs]) / UNIT


def judge(draws: Tensor, reference: Tensor, problem: Problem) -> dict[str, Any]:
    """Return the figures of one method on one problem."""
    if not bool(draws.isfinite().all()):
        return {"sw2": math.inf, "error": math.nan, "cover50": math.nan, "cover90": math.nan, "sbc": math.nan}
    pairs, n_dims = problem.truth.shape
    directions = torch.randn(64, n_dims, generator=generator_for(0, 20), dtype=torch.float64)
    directions = directions / directions.norm(dim=1, keepdim=True)
    distances = sliced(draws, reference, directions)
    own = torch.randn(pairs, 16, n_dims, generator=generator_for(0, 21), dtype=torch.float64)
    ranks = (draws @ own.mT < (own @ problem.truth[..., None]).mT).sum(dim=1).numpy()  # (K, 16), each 0..59
    bins = np.bincount(ranks[:, 0] // 6, minlength=10)
    return {
        "sw2": float(distances.mean()),
        "error": float(distances.std(ddof=1) / math.sqrt(pairs)),
        "cover50": 100 * float(((ranks >= 15) & (ranks < 45)).mean()),
        "cover90": 100 * float(((ranks >= 3) & (ranks < 57)).mean()),
        "sbc": float(chisquare(bins).pvalue),
        "ranks": ranks[:, 0].tolist(),
    }


def run(n_dims: int, num_observed: int, pairs: int, num_steps: int) -> list[dict[str, Any]]:
    """Return a row of figures for each method on one problem."""
    problem = make_problem(n_dims, num_observed, pairs, 0)
    reference, rows = exact(problem, 9), []
    for name, draw in methods(num_steps).items():
        start = time.perf_counter()
        figures = judge(draw(problem), reference, problem)
        seconds = time.perf_counter() - start
        rows.append({"n_dims": n_dims, "observed": num_observed, "method": name, "seconds": seconds, **figures})
    return rows


def with_best_dps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of one problem, of DPS with a step size only the best."""
    tried = [row for row in rows if row["method"].startswith("dps 0")]
    best = min(tried, key=lambda row: row["sw2"])
    kept = [{**best, "method": "dps, best zeta", "zeta": best["method"].split()[1]}]
    return rows[:1] + kept + [row for row in rows[1:] if row not in tried]


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Print one table for each figure: a line a problem, a column a method."""
    problems: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        problems.setdefault((row["n_dims"], row["observed"]), []).append(row)
    shown = {key: with_best_dps(rows) for key, rows in problems.items()}
    names = [row["method"] for row in next(iter(shown.values()))]
    cells: dict[str, Callable[[dict[str, Any]], str]] = {
        "SW2 (the first is the floor)": lambda r: (
            f"{r['sw2']:.2f} ± {r['error']:.2f}" + (f" ({r['zeta']})" if "zeta" in r else "")
            if r["sw2"] < 1000 else "diverges"
        ),
        "coverage of 50 % / 90 %": lambda r: f"{r['cover50']:.0f} / {r['cover90']:.0f}" if r["sw2"] < 1000 else "",
        "SBC, p-value": lambda r: f"{r['sbc']:.2g}" if r["sw2"] < 1000 else "",
        "seconds": lambda r: f"{r['seconds']:.0f}",
    }  # fmt: skip
    for title, cell in cells.items():
        print(f"\n{title}\n\nD, observed |", " | ".join(names))
        print("--- |", " | ".join("---" for _ in names))
        for (n_dims, observed), found in shown.items():
            print(f"{n_dims}, {observed} |", " | ".join(cell(row) for row in found))


def main() -> None:
    """Print the tables; save them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 80], help="even numbers (default: 2 8 80)")
    parser.add_argument("--observed", type=int, nargs="+", default=[1, 2, 4], help="directions (default: 1 2 4)")
    parser.add_argument("--pairs", type=int, default=80, help="pairs a problem (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="evaluations a draw (default: %(default)s)")
    parser.add_argument("--read", type=Path, metavar="JSON", help="print what was saved, and run nothing")
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the figures and the packages' versions")
    args = parser.parse_args()
    if args.read:
        print_tables(json.loads(args.read.read_text())["rows"])
        return
    rows: list[dict[str, Any]] = []
    for n_dims in args.dims:
        for observed in (m for m in args.observed if m <= n_dims):
            rows += run(n_dims, observed, args.pairs, args.steps)
            print(f"D = {n_dims}, {observed} observed: {sum(r['seconds'] for r in rows):.0f} s so far", flush=True)
    print_tables(rows)
    if args.save:
        settings = {"pairs": args.pairs, "steps": args.steps, "noise": NOISE, "draws": NUM_DRAWS}
        versions = {name: version(name) for name in ("torch", "numpy", "scipy")}
        args.save.write_text(json.dumps({"versions": versions, "settings": settings, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
