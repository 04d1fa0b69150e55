"""Error against number of evaluations: ours and the published packages, side by side in one run.

    python benchmarks/work_precision.py                      # about half an hour on two cores
    python benchmarks/work_precision.py --problems 2 --budgets 5 10
    python benchmarks/work_precision.py --model swiss_roll_output/model.pt --plot diagram.png
    python benchmarks/work_precision.py --networks circles rings swiss-roll twenty-five-gaussians

With `--model` the denoiser is a trained network, with `--networks` one that is first trained on 4096 points of each of
these data sets, from 10 down to 0.01 standard deviations, else by the defaults of `fit`. The reference is then the
network's own exact flow down to the lowest noise level that it was trained at, ended by its denoised points there; no
sampler asks it below. The error is the median over 512 points of the rms error per coordinate against the exact
solution of the probability-flow equation from the same noise, at 10 standard deviations; float64, problems of
`problems.JUDGED`.

- `auto`: our default, its grids learned on other problems; of a network `model.plan`, which tries a few of these;
- `auto, untried`: of a network, the one that is taken where nothing is tried;
- `optimised`: `optimise_sigmas`, of a network `optimise_plan`, on 96 other points of the same problem;
- best peer: every peer on ten fixed grids, its best taken *on the test points*, which favours it;
- best peer, our grid: every peer on the grid of `auto`.

The last table holds the geometric means over the problems of the ratio to the best peer; `--plot` draws the figures.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import torch
from problems import JUDGED, START, case, points
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.sampling.grids import LEARNED
from pointdiffusion.sampling.plans import default_plan
from pointdiffusion.sampling.tuning import Case, case_of

LOWEST = 0.01
"""Lowest noise level of the networks that are trained here."""

Walk = Callable[[Any, Tensor, Tensor], Tensor]


def fixed_grids(num_steps: int, lowest: float) -> Iterator[Tensor]:
    """Yield the grids that peers choose from, for a denoiser that may be asked down to `lowest`."""
    zero = torch.zeros(1, dtype=torch.float64)
    lows = sorted({max(low, lowest) for low in (0.005, 0.02, 0.05)})
    for rho in (3.0, 7.0):
        for low in lows[:2]:
            yield ptd.KarrasSchedule(low, START, rho).sigmas(num_steps)
    for power in (0.7, 1.0):
        for low in lows:
            ramp = torch.linspace(1, 0, num_steps, dtype=torch.float64) ** power
            yield torch.cat([low * (START / low) ** ramp, zero])


def k_diffusion(name: str) -> Walk:
    """Return a sampler of k-diffusion."""
    sampler = getattr(peers.k_diffusion_sampling(), f"sample_{name}")
    return lambda denoiser, x, sigmas: sampler(denoiser, x, sigmas, disable=True)


def diffusers(name: str, **options: Any) -> Walk:
    """Return a scheduler of diffusers, driven in its own variables down a grid of ours."""
    import diffusers as package

    def walk(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        scheduler = getattr(package, name)(prediction_type="sample", **options)
        scheduler.set_timesteps(len(sigmas) - 1)
        levels = sigmas.clone()
        if "DEIS" in name:
            levels[-1].clamp_(min=1e-6)  # its weights take the logarithm of the last level
        scheduler.sigmas, scheduler.timesteps = levels, torch.arange(len(sigmas) - 1, 0, -1) * 10
        x = x / (1 + sigmas[0] ** 2).sqrt()
        for k, t in enumerate(scheduler.timesteps):
            denoised = denoiser(x * (1 + sigmas[k] ** 2).sqrt(), sigmas[k])
            x = scheduler.step(denoised, t, x).prev_sample
        return x

    return walk


def azula(name: str, **options: Any) -> Walk:
    """Return a sampler of azula, on a schedule whose times are the steps of the grid."""
    from azula import sample as package
    from azula.denoise import Denoiser
    from azula.noise import Schedule

    def walk(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        levels = sigmas.clone()
        levels[-1].clamp_(min=1e-6)  # it divides by the last level

        class Grid(Schedule):  # type: ignore[misc]
            def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
                place = ((1 - t) * (len(levels) - 1)).round().long()
                return torch.ones_like(t), levels[place]

        class Ours(Denoiser):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.schedule = Grid()

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
                from types import SimpleNamespace

                return SimpleNamespace(mean=denoiser(x_t, self.schedule(t)[1]))

        sampler = getattr(package, name)(Ours(), steps=len(levels) - 1, silent=True, dtype=torch.float64, **options)
        return sampler(x)

    return walk


def smalldiffusion() -> Walk:
    """Return the accelerated sampler of smalldiffusion."""
    module = peers.smalldiffusion_diffusion()

    def walk(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        class Model(torch.nn.Module):
            def rand_input(self, count: int) -> Tensor:
                return torch.zeros(count, x.shape[1], dtype=x.dtype)

            def predict_eps_cfg(self, y: Tensor, sigma: Tensor, *_: Any) -> Tensor:
                return (y - denoiser(y, sigma)) / sigma

        from types import SimpleNamespace

        here = SimpleNamespace(device="cpu")
        *_, last = module.samples(Model(), sigmas, gam=2.0, batchsize=len(x), xt=x, accelerator=here)
        return last

    return walk


def all_peers() -> dict[str, tuple[Walk, int]]:
    """Return the peers with the evaluations that a step costs them."""
    return {
        "k-diffusion heun": (k_diffusion("heun"), 2),
        "k-diffusion dpm_2": (k_diffusion("dpm_2"), 2),
        "k-diffusion dpmpp_2m": (k_diffusion("dpmpp_2m"), 1),
        "k-diffusion lms": (k_diffusion("lms"), 1),
        "diffusers DPM-Solver++ 2": (diffusers("DPMSolverMultistepScheduler", solver_order=2), 1),
        "diffusers DPM-Solver++ 3": (diffusers("DPMSolverMultistepScheduler", solver_order=3), 1),
        "diffusers DEIS 2": (diffusers("DEISMultistepScheduler", solver_order=2), 1),
        "diffusers DEIS 3": (diffusers("DEISMultistepScheduler", solver_order=3), 1),
        "diffusers UniPC 2": (diffusers("UniPCMultistepScheduler", solver_order=2), 1),
        "diffusers UniPC 3": (diffusers("UniPCMultistepScheduler", solver_order=3), 1),
        "azula zEAB 3": (azula("zEABSampler", order=3), 1),
        "azula zEAB 4": (azula("zEABSampler", order=4), 1),
        "azula vAB 3": (azula("vABSampler", order=3), 1),
        "azula vAB 4": (azula("vABSampler", order=4), 1),
        "smalldiffusion accelerated": (smalldiffusion(), 1),
    }


def error(y: Tensor, problem: Case, std: float) -> float:
    """Return the median over points of the rms error per coordinate, in the problem's own units; inf for NaN."""
    rows = (y - problem.exact).square().mean(dim=1).sqrt() * std
    return float(rows.median()) if bool(rows.isfinite().all()) else math.inf


def compare(
    problem: Case, other: Case, std: float, model: ptd.DiffusionModel | None, nfe: int,
    field: dict[str, tuple[Walk, int]],
) -> dict[str, Any]:  # fmt: skip
    """Return the errors of all at one budget."""
    lowest = 0.0 if model is None else model.inference.sigma_min
    _, solver, grid = default_plan(nfe, START, sigma_min=lowest)
    row: dict[str, Any] = {"auto": error(ptd.sample(problem.denoiser, problem.x, grid, solver=solver), problem, std)}
    if model is not None:
        name, tried, levels = model.plan(nfe)
        row["solver"], row["auto, untried"] = name, row["auto"]
        row["auto"] = error(ptd.sample(problem.denoiser, problem.x, levels, solver=tried), problem, std)
    if nfe <= 10:
        if lowest:
            _, solver, learned = ptd.optimise_plan(other.denoiser, nfe, x=other.x, sigma_max=START, sigma_min=lowest)
        else:
            learned = ptd.optimise_sigmas(other.denoiser, nfe, solver, x=other.x, sigma_max=START)
        y = ptd.sample(problem.denoiser, problem.x, learned, solver=solver)
        row["optimised"] = error(y, problem, std)
    found, ours = [], []
    for name, (walk, cost) in field.items():
        steps = (nfe + 1) // cost if cost == 2 else nfe  # the last step of a two-stage method costs one
        results = (walk(problem.denoiser, problem.x, sigmas) for sigmas in fixed_grids(steps, lowest))
        found += [(error(y, problem, std), name) for y in results]
        mine = default_plan(steps, START, sigma_min=lowest).sigmas
        ours.append((error(walk(problem.denoiser, problem.x, mine), problem, std), name))
    row["best peer"], row["its name"] = min(found)
    row["best peer, our grid"] = min(ours)[0]
    return row


def trained(name: str) -> ptd.DiffusionModel:
    """Return a network trained on a data set or a mixture."""
    return ptd.fit(points(name), ptd.TrainingConfig(sigma_min=LOWEST, sigma_max=START), seed=0)


def model_cases(model: ptd.DiffusionModel, num_points: int) -> tuple[Case, Case, float, ptd.DiffusionModel]:
    """Return a trained network as a problem to be judged on, one to learn from, the unit, and the model."""
    if model.inference.sigma_max != START or model.denoiser.sigma_data != 1:
        raise SystemExit(f"this is no model from {START:g} standard deviations down, which the fixed grids are for")
    denoiser, lowest = copy.deepcopy(model.denoiser).double(), model.inference.sigma_min
    cases = []
    for count, seed in ((num_points, 7), (96, 11)):
        x = model.noise(count, torch.Generator().manual_seed(seed), START)
        cases.append(case_of(denoiser, x, START, lowest, 1.0, tolerance=1e-8))
    return cases[0], cases[1], 1.0, model


def summarise(table: list[dict[str, Any]]) -> None:
    """Print which solver each budget is best spent on, and the geometric means of the ratios to the best peer."""
    keys = [
        key for key in ("auto", "auto, untried", "optimised", "best peer, our grid") if any(key in r for r in table)
    ]
    print("evaluations | solver of `auto` |", " | ".join(keys), "| best peer on most problems")
    print(*["---"] * (len(keys) + 3), sep=" | ")
    for nfe in sorted({row["nfe"] for row in table}):
        rows, cells = [row for row in table if row["nfe"] == nfe], []
        for key in keys:
            logs = [math.log(row[key] / row["best peer"]) for row in rows if key in row]
            cells.append(f"{math.exp(sum(logs) / len(logs)):.2f}" if logs else "")
        names = [row["its name"] for row in rows]
        solver = LEARNED.exact[max(learned for learned in LEARNED.exact if learned <= nfe)][0]
        if "auto, untried" in rows[0]:
            solver = ", ".join(dict.fromkeys(row["solver"] for row in rows))
        print(nfe, solver, *cells, max(names, key=names.count), sep=" | ")


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """Draw error against evaluations: a panel a problem."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["problem"] for row in table))
    columns = 2 if len(names) == 4 else min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(0.6 + 3.4 * columns, 0.6 + 2.8 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    styles = {"auto": ("o-", "C0"), "optimised": ("s-", "C2"), "best peer": ("^--", "C1")}
    for ax, name in zip(axes.flat, names, strict=False):
        rows = [row for row in table if row["problem"] == name]
        for key, (style, colour) in styles.items():
            here = [row for row in rows if key in row]
            ax.loglog([r["nfe"] for r in here], [r[key] for r in here], style, color=colour, label=key, markersize=4)
        ax.set_title(name, fontsize=10)
        ax.grid(alpha=0.3)
        budgets = sorted({row["nfe"] for row in rows})
        ax.set_xticks(budgets, [str(nfe) for nfe in budgets])
        ax.minorticks_off()
    for k, ax in enumerate(axes.flat):
        if k >= len(names):
            ax.set_axis_off()
        elif k + columns >= len(names):  # nothing below
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("evaluations")
    for ax in axes[:, 0]:
        ax.set_ylabel("median rms error")
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Print the tables; draw and save them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", type=int, nargs="+", default=[5, 8, 10, 15, 20, 35, 50])
    parser.add_argument("--problems", type=int, default=len(JUDGED), help="how many (default: all)")
    parser.add_argument("--points", type=int, default=512, help="points a problem (default: %(default)s)")
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="model files, in place of the problems")
    parser.add_argument("--networks", nargs="+", default=[], metavar="DATA", help="data sets to train networks on")
    parser.add_argument("--read", type=Path, metavar="JSON", help="print and draw what was saved, and run nothing")
    parser.add_argument("--save", type=Path, metavar="JSON", help="write the figures and the packages' versions")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the figures of this run")
    args = parser.parse_args()
    table: list[dict[str, Any]]
    if args.read:
        table = json.loads(args.read.read_text())["rows"]
        summarise(table)
        if args.plot:
            draw(table, args.plot)
        return
    for kind in (DeprecationWarning, RuntimeWarning):  # of the peers: NumPy 2, and NaN where a level is 0
        warnings.filterwarnings("ignore", category=kind)
    table = []
    field = all_peers()
    problems: dict[str, tuple[Case, Case, float, Any]] = {}
    for path in args.model:
        problems[f"network {path.stem}"] = model_cases(ptd.load(path), args.points)
    for name in args.networks:
        problems[f"network {name}"] = model_cases(trained(name), args.points)
    for name in [] if problems else list(JUDGED)[: args.problems]:
        (problem, std), (other, _) = case(JUDGED[name](), args.points, 7), case(JUDGED[name](), 96, 11)
        problems[name] = (problem, other, std, None)
    for nfe in args.budgets:
        print(f"\n{nfe} evaluations | auto | optimised | best peer | its name | best peer, our grid")
        print("--- | --- | --- | --- | --- | ---")
        for name, (problem, other, std, model) in problems.items():
            row = {"problem": name, "nfe": nfe, **compare(problem, other, std, model, nfe, field)}
            table.append(row)
            cells = [f"{row[key]:.1e}" if key in row else "" for key in ("auto", "optimised", "best peer")]
            print(name, *cells, row["its name"], f"{row['best peer, our grid']:.1e}", sep=" | ", flush=True)
    print()
    summarise(table)
    if args.save:
        versions = {
            name: peers.version(name) for name in ("k-diffusion", "diffusers", "azula", "smalldiffusion", "torch")
        }
        args.save.write_text(json.dumps({"versions": versions, "rows": table}, indent=1) + "\n")
    if args.plot:
        draw(table, args.plot)


if __name__ == "__main__":
    main()
