"""What guidance draws against the tilted distribution that it is said to draw.

    python benchmarks/guidance.py                       # a quarter of an hour on one core
    python benchmarks/guidance.py --draws 2 --repeats 2  # a quarter of that
    python benchmarks/guidance.py --save benchmarks/results/guidance.json
    python benchmarks/guidance.py --read benchmarks/results/guidance.json

On mixtures, whose denoisers are exact, so that nothing is the fault of a network. The tilted distribution is
p(x|c) p(c|x)^(w-1), drawn exactly by rejection. The distances are the exact 2-Wasserstein distance of 1000 points and
the sliced one, which sees more in many dimensions, each over the same distance of exact draws to exact draws (the
floor), with its standard error; 1 cannot be told from exact.

- classifier-free: denoisers with and without the class. Classifier guidance is the same by Bayes' rule: the line below
  the table is the largest difference of any coordinate of any point;
- interval: the same at noise levels 0.2 to 2 only;
- autoguidance: away from the class blurred by 0.3, which stands for a worse model;
- Feynman-Kac: `feynman_kac` with 4000 particles in 160 steps, a thousand of them drawn by weight;
- flow: Heun's method, 100 steps; SDE: the ancestral sampler, 200 steps. At w = 1 all must be at the floor.

Interval guidance and autoguidance have no tilted distribution for a target: their distance says how far from it they
are, not how wrong. The last table is the convergence of Feynman-Kac: error of the log normaliser and of the mean
(rms over runs) by particles and by steps, and the least effective size as a share of the particles.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import random
from torch import Tensor

from pointdiffusion.denoisers.guidance import autoguidance, bind, classifier_free, classifier_guidance
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.metrics.distances import sliced_wasserstein2, wasserstein2
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling.loop import sample
from pointdiffusion.sampling.smc import Particles, feynman_kac, tilted_gaussian
from pointdiffusion.version import __version__

TOP, LOW, CLASS = 20.0, 0.01, 0
INTERVAL, BLUR = (0.2, 2.0), 0.3
KINDS = ("classifier-free", "interval", "autoguidance")
APART = "\nClassifier guidance by the flow differs from classifier-free by at most {:.0e}.\n"
SOLVERS = {"flow": ("heun", 100), "SDE": ("ddim", 200)}


def crossing() -> GaussianMixture:
    """Return two classes in the plane, of two long Gaussians each, that overlap."""
    long = [[[0.5, 0.2], [0.2, 0.15]], [[0.15, -0.1], [-0.1, 0.4]]]
    means = [[-1.0, 0.2], [0.9, -0.8], [0.6, 0.9], [-0.5, -1.0]]
    return GaussianMixture([0.3, 0.2, 0.3, 0.2], means, [*long, *long], labels=[0, 0, 1, 1])


def relabelled(mixture: GaussianMixture) -> GaussianMixture:
    """Return it with two classes, every other component each."""
    labels = torch.arange(len(mixture.weights)) % 2
    return GaussianMixture(mixture.weights, mixture.means, mixture.covariances, labels)


PROBLEMS: dict[str, Any] = {
    "2-D": crossing,
    "3-D": lambda: relabelled(random(3, 6, 300, 0.3, 0.8)),
    "8-D": lambda: relabelled(random(8, 6, 301, 0.4, 0.9)),
}


def seeded(*words: object) -> torch.Generator:
    """Return the generator of a run, by its name: rows do not depend on which others are run."""
    return torch.Generator().manual_seed(zlib.crc32(repr(words).encode()))


def make(kind: str, mixture: GaussianMixture, scale: float) -> Any:
    """Return the guided denoiser of a kind."""
    if kind == "classifier":
        return classifier_guidance(
            mixture.denoise, lambda x, sigma: mixture.label_posterior(x, sigma)[:, CLASS].log(), scale
        )
    if kind == "autoguidance":
        one = mixture.condition(CLASS)
        blurred = one.covariances + BLUR**2 * torch.eye(one.n_dims, dtype=torch.float64)
        worse = GaussianMixture(one.weights, one.means, blurred)
        return autoguidance(one.denoise, worse.denoise, scale)
    settings: dict[str, Any] = {"interval": INTERVAL} if kind == "interval" else {}
    return classifier_free(mixture.denoise, scale, labels=CLASS, **settings)


def begin(mixture: GaussianMixture, scale: float, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points of the tilted Gaussian at the highest noise level, and their log weights."""
    one, noise = mixture.condition(CLASS), TOP**2 * torch.eye(mixture.n_dims, dtype=torch.float64)
    moments = (one.mean, one.covariance + noise, mixture.mean, mixture.covariance + noise)
    mean, covariance, log_integral = tilted_gaussian(*moments, scale)
    draws = torch.randn(count, mixture.n_dims, generator=generator, dtype=torch.float64)
    return mean + draws @ torch.linalg.cholesky(covariance).T, torch.full((count,), log_integral).double()


def walk(kind: str, solver: str, mixture: GaussianMixture, scale: float, count: int, name: str) -> Tensor:
    """Return what a kind of guidance draws."""
    generator = seeded(name, solver, scale)  # the same for all kinds
    x, _ = begin(mixture, scale, count, generator)
    method, steps = SOLVERS[solver]
    grid = KarrasSchedule(LOW, TOP).sigmas(steps)
    return sample(make(kind, mixture, scale), x, grid, solver=method, generator=generator)


def particles(
    mixture: GaussianMixture, scale: float, count: int, num_steps: int, generator: torch.Generator
) -> Particles:
    """Return weighted particles."""
    x, log_weights = begin(mixture, scale, count, generator)
    width = float(torch.linalg.eigvalsh(mixture.covariances).min().sqrt())
    return feynman_kac(
        bind(mixture.denoise, labels=CLASS), mixture.denoise, x, KarrasSchedule(0.05, TOP).sigmas(num_steps), scale,
        generator=generator, log_weights=log_weights, width=width,
    )  # fmt: skip


def truth(mixture: GaussianMixture, scale: float, count: int = 1_000_000) -> tuple[Tensor, float, float]:
    """Return the mean of the tilted distribution, the log normaliser and its standard error, from exact draws."""
    share = float(mixture.weights[mixture.labels == CLASS].sum())
    x = mixture.condition(CLASS).sample(count, seeded("truth", scale))
    weights = (mixture.label_posterior(x)[:, CLASS] / share) ** (scale - 1)
    mean = weights @ x / weights.sum()
    return mean, float(weights.mean().log()), float(weights.std() / weights.mean()) / math.sqrt(count)


def draw(column: str, mixture: GaussianMixture, scale: float, draws: int, name: str) -> Tensor:
    """Return what a column of the table draws, 1000 points a draw; weighted particles from a run of its own each."""
    if column != "Feynman-Kac":
        kind, solver = column.split(", ")
        return walk(kind, solver, mixture, scale, 1000 * draws, name)
    parts = []
    for k in range(draws):
        generator = seeded(name, scale, k)
        parts.append(particles(mixture, scale, 4000, 160, generator).draw(generator)[:1000])
    return torch.cat(parts)


def sliced(a: Tensor, b: Tensor) -> float:
    """Return the root mean square, over 200 fixed directions, of the 2-Wasserstein distance of the projections."""
    directions = torch.randn(a.shape[1], 200, generator=seeded("directions"), dtype=torch.float64)
    return sliced_wasserstein2(a, b, directions=(directions / directions.norm(dim=0)).T)


def distances(a: Tensor, b: Tensor) -> Any:
    """Return the distances of thousand after thousand of the points, exact and sliced, shape `(draws, 2)`."""
    pairs = zip(a.split(1000), b.split(1000), strict=True)
    return np.array([[wasserstein2(*pair), sliced(*pair)] for pair in pairs])


def audit(names: list[str], scales: list[float], draws: int) -> tuple[list[dict[str, Any]], float]:
    """Print the first tables as they come, and return them and how far classifier guidance is from classifier-free."""
    columns = [f"{kind}, {solver}" for kind in KINDS for solver in SOLVERS] + ["Feynman-Kac"]
    rows: list[dict[str, Any]] = []
    apart = 0.0
    for name, scale in itertools.product(names, scales):
        mixture = PROBLEMS[name]()
        exact, first, second = mixture.sample_tilted(3000 * draws, CLASS, scale, seeded(name, scale)).chunk(3)
        floors = distances(first, second)
        for column in columns:
            points = draw(column, mixture, scale, draws, name)
            if column == "classifier-free, flow":
                other = walk("classifier", "flow", mixture, scale, 1000, name)
                same = walk("classifier-free", "flow", mixture, scale, 1000, name)
                apart = max(apart, float((other - same).abs().max()))
            values = distances(points, exact)
            for k, distance in enumerate(("exact", "sliced")):
                value, floor = values[:, k].mean(), floors[:, k].mean()
                spread = [one[:, k].std(ddof=1) / one[:, k].mean() / math.sqrt(draws) for one in (values, floors)]
                row = {"problem": name, "w": scale, "what": column, "distance": distance, "value": value}
                rows.append({**row, "floor": floor, "standard error": value / floor * math.hypot(*spread)})
        print_audit([row for row in rows if (row["problem"], row["w"]) == (name, scale)])
    return rows, apart


def print_audit(rows: list[dict[str, Any]]) -> None:
    """Print distances over floors: a line a problem and strength, a table a distance."""
    columns = list(dict.fromkeys(row["what"] for row in rows))
    for distance in ("exact", "sliced"):
        print(f"\n{distance} | w | floor |", " | ".join(columns))
        print("--- | --- | --- |", " | ".join("---" for _ in columns))
        for name, scale in dict.fromkeys((row["problem"], row["w"]) for row in rows):
            key = (name, scale, distance)
            here = {r["what"]: r for r in rows if (r["problem"], r["w"], r["distance"]) == key}
            cells = [f"{r['value'] / r['floor']:.2f} ± {r['standard error']:.2f}" for r in here.values()]
            print(name, f"{scale:g}", f"{here[columns[0]]['floor']:.3f}", *cells, sep=" | ", flush=True)


def convergence(names: list[str], scales: list[float], repeats: int) -> list[dict[str, Any]]:
    """Return the errors of Feynman-Kac by particles and by steps."""
    rows: list[dict[str, Any]] = []
    settings = [(250, 160), (1000, 160), (4000, 160), (4000, 80), (4000, 40)]
    for name in names:
        mixture = PROBLEMS[name]()
        for scale in scales:
            mean, log_normaliser, error = truth(mixture, scale)
            for count, num_steps in settings:
                runs = [
                    particles(mixture, scale, count, num_steps, seeded(name, scale, count, k)) for k in range(repeats)
                ]
                off = np.array([run.log_normaliser - log_normaliser for run in runs])
                away = torch.stack([run.mean() - mean for run in runs]).square().sum(dim=1)
                sizes = [float(run.effective_sizes.min()) / count for run in runs]
                rows.append({
                    "problem": name, "w": scale, "particles": count, "steps": num_steps, "truth": log_normaliser,
                    "its error": error, "bias": float(off.mean()),
                    "standard error": float(off.std(ddof=1) / math.sqrt(repeats)),
                    "rms": float(np.sqrt((off**2).mean())), "mean": float(away.mean().sqrt()),
                    "effective": float(np.mean(sizes)),
                })  # fmt: skip
    return rows


def print_convergence(rows: list[dict[str, Any]]) -> None:
    """Print the second table."""
    print("problem | w | log normaliser | particles | steps | its bias | its rms error | error of the mean | least ESS")
    print("--- |" * 8, "---")
    for row in rows:
        print(
            row["problem"], f"{row['w']:g}", f"{row['truth']:.3f} ± {row['its error']:.4f}", row["particles"],
            row["steps"], f"{row['bias']:+.3f} ± {row['standard error']:.3f}", f"{row['rms']:.3f}",
            f"{row['mean']:.3f}", f"{row['effective']:.2f}", sep=" | ",
        )  # fmt: skip


def main() -> None:
    """Print the tables; save them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--draws", type=int, default=8, help="draws of 1000 for each mean (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=8, help="runs for each error (default: %(default)s)")
    parser.add_argument("--read", type=Path, metavar="JSON", help="print what was saved, and run nothing")
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the figures and the versions")
    args = parser.parse_args()
    if args.read:
        saved = json.loads(args.read.read_text())
        print_audit(saved["audit"])
        print(APART.format(saved["apart"]))
        print_convergence(saved["convergence"])
        return
    table, apart = audit(args.problems, args.scales, args.draws)
    print(APART.format(apart))
    errors = convergence(args.problems, [scale for scale in args.scales if scale != 1], args.repeats)
    print_convergence(errors)
    if args.save:
        versions = {"pointdiffusion": __version__, "torch": str(torch.__version__)}
        saved = {"versions": versions, "audit": table, "apart": apart, "convergence": errors}
        args.save.write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
