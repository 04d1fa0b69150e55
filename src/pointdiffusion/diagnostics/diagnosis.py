r"""Where the error of a model comes from, in measured parts, and what to do next.

Let :math:`e(S) = 2 E|S - F| - E|S - S'| - E|F - F'|` be the squared energy distance of samples S to fresh rows F. It is
zero for the right distribution, its estimate has no bias, so the finite-sample floor is taken off, and as a squared
norm it can be split. The model's samples are made again with one piece replaced by the truth at a time,

| samples | start | way down | end |
|---|---|---|---|
| own | Gaussian at sigma_max | the solver's steps | the network |
| flow | Gaussian at sigma_max | exact flow of the network | the network |
| true start | rows F under noise sigma_max | exact flow of the network | the network |
| true start, steps | rows F under noise sigma_max | the solver's steps | the network |
| true end | rows F under noise sigma_min | - | the network |

and with differences of e, over the same rows F and the same noise: *stop* = e(true end), *network* = e(true start) -
e(true end), *start* = e(flow) - e(true start), *solver* = e(true start, steps) - e(true start). What these leave of
e(own) is the *rest*: start and solver acting together. The network's part is shared out as its excess loss is, see
`optima`: missed on rows that it has seen is *fit*, missed on fresh rows beyond that is *data*.

Sample i, fresh row i and the noise between them are one draw; means are over pairs of two draws, and errors come from
leaving out one block of draws at a time (the jackknife). The 2-Wasserstein distance is told beside it, over random
parts of the rows, without replacement: a bootstrap of it would be biased, since rows drawn twice are no fresh rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from pointdiffusion.diagnostics.reference import MIN_DIAGNOSIS_ROWS, held_out_rows, known_rows
from pointdiffusion.exact.optimal import Estimate, OptimumProbe, Profile
from pointdiffusion.metrics.distances import wasserstein2
from pointdiffusion.metrics.neighbours import Copies, copies_test
from pointdiffusion.metrics.two_sample import energy_test
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.model.options import SamplingOptions, SolverSettings
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.randomness import CHUNK, DIAGNOSIS, SAMPLING, chunks, generator_for
from pointdiffusion.sampling import loop as sampling
from pointdiffusion.solvers import AdaptiveRungeKutta

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.01
"""Significance at which a part counts."""

BLOCKS, SPLITS, PERMUTATIONS = 24, 12, 299

ADVICE = {
    "sound": "The samples cannot be told from fresh data",
    "solver": "Take more steps, or a better solver",
    "start": "Raise sigma_max: noisy data still show their shape at {sigma_max:g}, and sampling starts from a Gaussian",
    "stop": "Lower sigma_min: stopping at {sigma_min:g} smooths the data",
    "fit": "Train longer, or a larger network: it misses what the rows that it has seen could teach",
    "data": "More data would help most: on fresh rows the network is worse than on those that it has seen",
    "memorising": "The network memorises its training rows: give it more of them, or stop earlier",
    "network": "The network is to blame, but whether for want of training or of data cannot be told",
    "unclear": "The samples are off, but no part stands out of its error; give num_points more",
}


MEANINGS = {
    "total": "all of it: samples against fresh rows",
    "stop": "sampling stops at the lowest noise level",
    "fit": "the network misses what its training rows could teach",
    "data": "the network does worse on rows that it has not seen",
    "start": "sampling starts from a Gaussian",
    "solver": "the solver takes few steps",
    "rest": "start and solver acting together",
}
"""What each part is, for pictures and pages."""


@dataclass(frozen=True)
class Diagnosis:
    """The distance between generated and true points, split into parts.

    Args:
        cause: A name of `ADVICE`.
        advice: What to do next, a sentence.
        distance: Mean W2 of samples to fresh rows, at most 512 each, in standard deviations of the columns.
        floor: The same for fresh rows in place of the samples.
        total: Squared energy distance of samples and population, without bias, to which the parts add up.
        parts: Of it: stop, fit, data, start, solver and rest.
        p_values: Probability of a value so high by chance, of the total (by permutation) and of stop, network (fit and
            data together), start, solver and rest (by the jackknife; network and start by permutation as well).
        copies: Samples that are nearer to training rows than fresh points are.
        profile: The network between the optima, by noise level.
        n_samples: Samples, and fresh rows, that were compared.
        population_known: Whether the optimum is the population's, and not the stand-in of a table's own rows.
    """

    cause: str
    advice: str
    distance: Estimate
    floor: Estimate
    total: Estimate
    parts: dict[str, Estimate]
    p_values: dict[str, float]
    copies: Copies
    profile: Profile
    n_samples: int
    population_known: bool

    def short(self) -> str:
        """Return the sentence and, where anything is off, the two largest parts, in two lines."""
        largest = sorted(self.parts, key=lambda name: -self.parts[name].value)[:2]
        p = self.p_values["total"]
        of_it = ", ".join(f"{name} {self.parts[name]}" for name in largest)
        split = "" if self.cause == "sound" else f"; of it {of_it}"
        return f"{self.advice}\nSquared energy distance to the truth: {self.total} (p = {p:.2g}){split}."

    def __str__(self) -> str:
        position, copies = self.profile.position, self.copies
        optimum = "perfect network" if self.population_known else "kernel density of the training rows"
        lines = [
            f"W2 to fresh rows | {self.distance}",
            f"  of fresh rows (floor) | {self.floor}",
            f"squared energy distance, {self.n_samples} rows | {self.total}, p = {self.p_values['total']:.2g}",
            *(f"  {name} | {value}" for name, value in self.parts.items()),
            f"excess loss over a {optimum}, seen rows | {self.profile.fit}",
            f"  fresh rows beyond that | {self.profile.gap}",
            f"nearest to training rows | {copies.share:.1%} (fresh {copies.share_fresh:.1%}), p = {copies.p_value:.2g}",
            f"between perfect (0) and memorising (1) | {position.value:.2f} ± {position.error:.2f}",
        ]
        width = max(line.index(" |") for line in lines)
        table = "\n".join(f"{name:<{width}} |{value}" for name, value in (line.split(" |", 1) for line in lines))
        return f"{table}\n{self.advice}"

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw the parts, the losses by noise level and the distance to both optima, and return the figure."""
        from pointdiffusion.visuals.diagnosis import plot_distances, plot_losses, plot_parts

        if figure is None:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            figure = Figure(figsize=(16, 5.6), layout="constrained")
            FigureCanvasAgg(figure)
        axes = figure.subplots(1, 3)
        plot_parts(axes[0], {"total": self.total, **self.parts}, MEANINGS)
        plot_losses(axes[1], self.profile, known=self.population_known)
        plot_distances(axes[2], self.profile, known=self.population_known)
        figure.suptitle(self.advice, fontsize="large")
        return figure


def _from(model: DiffusionModel, clean: Tensor, seed: int, settings: SolverSettings) -> Array:
    """Return the model's samples from noisy rows in place of its own start, with the same noise, in standard units."""
    options = SamplingOptions(**settings)
    sigma_max, plan = options.config(model.inference).sigma_max, model.sampling_plan(options)
    like, parts = next(model.denoiser.parameters()), []
    model.denoiser.eval()
    for index, wanted in chunks(len(clean)):
        generator = generator_for(seed, SAMPLING, index)
        noise = torch.randn(CHUNK, model.n_dims, generator=generator, dtype=torch.float64)
        rows = clean[index * CHUNK :][:CHUNK]
        rows = torch.cat([rows, rows[:1].expand(CHUNK - len(rows), -1)])  # chunks are whole, as in sampling
        x = (rows + sigma_max * noise).to(like)
        drawn = sampling.sample(model.denoiser, x, plan.sigmas, solver=plan.solver, generator=generator)
        parts.append(drawn[:wanted])
    return torch.cat(parts).double().cpu().numpy()


def _stages(
    model: DiffusionModel, fresh: Tensor, seed: int, low: float, settings: SolverSettings
) -> dict[str, Array]:  # fmt: skip
    """Return the five sets of samples of the table above, each in standard units."""
    solver = AdaptiveRungeKutta(rtol=1e-4, atol=1e-4)
    exact: SolverSettings = {**settings, "nfe": None, "solver": solver, "num_steps": 2}  # sigma_max, sigma_min, 0
    count, like, transform = len(fresh), next(model.denoiser.parameters()), model.standardiser.transform
    noise = torch.randn(fresh.shape, generator=generator_for(seed, DIAGNOSIS, 3), dtype=torch.float64)
    with torch.no_grad():
        end = model.denoiser((fresh + low * noise).to(like), torch.tensor(low).to(like))
    return {
        "own": transform(model.sample(count, seed=seed, **settings)),
        "flow": transform(model.sample(count, seed=seed, **exact)),
        "true start": _from(model, fresh, seed, exact),
        "true start, steps": _from(model, fresh, seed, settings),
        "true end": end.double().cpu().numpy(),
    }


def _energies(samples: dict[str, Array], fresh: Array) -> tuple[dict[str, float], dict[str, Array]]:
    """Return the squared energy distance of each set to the fresh rows, and what it is without each block of draws."""
    block = np.arange(len(fresh)) * BLOCKS // len(fresh)
    edges = np.searchsorted(block, np.arange(BLOCKS))

    def sums(a: Array, b: Array) -> Array:  # over pairs of different draws, by pairs of blocks
        total = np.zeros((BLOCKS, BLOCKS))
        for k in range(BLOCKS):
            rows = np.flatnonzero(block == k)
            distances = cdist(a[rows], b)
            distances[np.arange(len(rows)), rows] = 0
            total[k] = np.add.reduceat(distances.sum(axis=0), edges)
        return total

    floor = sums(fresh, fresh)
    sizes = np.bincount(block)
    left = len(fresh) - sizes
    values, without = {}, {}
    for name, points in samples.items():
        pairs = 2 * sums(points, fresh) - sums(points, points) - floor
        values[name] = float(pairs.sum()) / (len(fresh) * (len(fresh) - 1))
        rest = pairs.sum() - pairs.sum(axis=0) - pairs.sum(axis=1) + pairs.diagonal()
        without[name] = rest / (left * (left - 1))
    return values, without


def _wasserstein(own: Array, fresh: Array, seed: int) -> tuple[Estimate, Estimate]:
    """Return the mean W2 of samples and of fresh rows to fresh rows, over random parts."""
    n, rng = min(512, len(fresh) // 4), np.random.default_rng(seed)
    found = []
    for _ in range(SPLITS):
        order, other = rng.permutation(len(fresh)), rng.permutation(len(own))[:n]
        a, b = fresh[order[:n]], fresh[order[n : 2 * n]]
        found.append((wasserstein2(own[other], a), wasserstein2(b, a)))
    # Parts are drawn without replacement: the variance of a mean over them is b / (m - b) that of one.
    factor = math.sqrt(2 * n / (len(fresh) - 2 * n) + 1 / SPLITS)
    means, errors = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) * factor
    return Estimate(float(means[0]), float(errors[0])), Estimate(float(means[1]), float(errors[1]))


def _shared(network: Estimate, profile: Profile) -> dict[str, Estimate]:
    """Return the parts of the network: fit and data, in proportion to the excess loss on seen rows and the gap."""
    rng = np.random.default_rng(0)
    means, errors = zip(profile.fit, profile.gap, strict=True)
    drawn = np.vstack([means, rng.normal(means, errors, size=(2000, 2))]).clip(min=0)
    shares = drawn[:, 0] / np.maximum(drawn.sum(axis=1), 1e-300)
    share, spread = float(shares[0]), float(shares[1:].std())
    return {
        name: Estimate(part * network.value, math.hypot(part * network.error, spread * network.value))
        for name, part in (("fit", share), ("data", 1 - share))
    }


def _cause(p_values: dict[str, float], parts: dict[str, Estimate], copies: Copies, profile: Profile) -> str:
    """Return the name of what is to blame."""
    if copies.p_value < LEVEL and profile.position.p_above(0.5) < LEVEL:
        return "memorising"
    if p_values["total"] >= LEVEL:
        return "sound"
    values = {name: parts[name].value for name in ("stop", "start", "solver")}
    values["network"] = parts["fit"].value + parts["data"].value
    worst = max(values, key=values.__getitem__)
    if p_values[worst] >= LEVEL:
        return "unclear"
    if worst != "network":
        return worst
    if min(profile.fit.p_above(), profile.gap.p_above()) >= LEVEL:
        return "network"
    return max(("fit", "data"), key=lambda name: parts[name].value)


def diagnose(
    model: DiffusionModel, training: Any, *, population: Any = None, held_out: Any = None, num_points: int = 3072,
    num_levels: int = 12, seed: int = 0, **settings: Unpack[SolverSettings],
) -> Diagnosis:  # fmt: skip
    """Split the distance between generated and true points into parts, and say what to do next.

    Args:
        model: The model.
        training: The rows that it was trained on, in the user's units; a model file does not hold them.
        population: What the rows were drawn from: a `GaussianMixture`; a function `(n_samples, random_state=seed)` such
            as a member of `DATASETS`; or a large table of fresh rows.
        held_out: In its place, rows of the user's own table that the model was not trained on.
        num_points: Samples to draw, and fresh rows to compare them with, in all.
        num_levels: Noise levels at which losses are taken, over the range of sampling.
        seed: Seed of everything drawn.
        settings: Of sampling, as in `model.sample`, where they are not the model's own.

    Raises:
        ValueError: Unless exactly one of `population` and `held_out` is given, or if there are too few rows.
    """
    if (population is None) == (held_out is None):
        raise ValueError(
            "exactly one of population and held_out must be given: what the rows come from, or rows kept from training"
        )
    if num_points < MIN_DIAGNOSIS_ROWS or num_levels < 2:
        raise ValueError(
            f"num_points must be at least {MIN_DIAGNOSIS_ROWS} and num_levels at least 2, "
            f"got {num_points} and {num_levels}"
        )
    scale = model.standardiser
    seen = torch.from_numpy(scale.transform(training))
    seen = seen[torch.randperm(len(seen), generator=generator_for(seed, DIAGNOSIS, 2))]  # parts of it stand for all
    if held_out is None:
        rows = known_rows(population, scale, num_points, seed)
    else:
        rows = held_out_rows(held_out, seen, scale, num_points, seed)
    config = SamplingOptions(**settings).config(model.inference)
    low, high = config.sigma_min, config.sigma_max
    probe = OptimumProbe(
        seen, rows.test, rows.reference, torch.from_numpy(np.geomspace(low, high, num_levels)),
        generator=generator_for(seed, DIAGNOSIS, 1), exact=rows.known,
    )  # fmt: skip
    profile = probe(model.denoiser, next(model.denoiser.parameters()))
    samples, fresh = _stages(model, rows.fresh, seed, low, settings), rows.fresh.numpy()
    copies = copies_test(samples["own"], seen.numpy(), fresh)
    parts, p_values = _parts(*_energies(samples, fresh))
    parts = {**{name: parts[name] for name in ("total", "stop")}, **_shared(parts["network"], profile), **parts}
    del parts["network"]
    # Relabelling is sharp where two sets share little, the jackknife where they share most: either, times two.
    for name, one, other in (
        ("start", samples["flow"], samples["true start"]),
        ("network", samples["true start"], fresh),
    ):
        relabelled = energy_test(one, other, permutations=PERMUTATIONS, random_state=seed)
        p_values[name] = min(1.0, 2 * relabelled, 2 * p_values[name])
    p_values["total"] = energy_test(samples["own"], fresh, permutations=PERMUTATIONS, random_state=seed)
    cause = _cause(p_values, parts, copies, profile)
    advice = ADVICE[cause].format(sigma_min=low, sigma_max=high) + "."
    distance, floor = _wasserstein(samples["own"], fresh, seed)
    total = parts.pop("total")
    return Diagnosis(cause, advice, distance, floor, total, parts, p_values, copies, profile, len(fresh), rows.known)


def _parts(values: dict[str, float], without: dict[str, Array]) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Return the parts, and the probability of each if it were nothing."""
    from scipy.stats import t

    sums = {
        "total": {"own": 1},
        "stop": {"true end": 1},
        "network": {"true start": 1, "true end": -1},
        "start": {"flow": 1, "true start": -1},
        "solver": {"true start, steps": 1, "true start": -1},
        "rest": {"own": 1, "flow": -1, "true start, steps": -1, "true start": 1},
    }
    parts, p_values = {}, {}
    for name, signs in sums.items():
        value = sum(sign * values[key] for key, sign in signs.items())
        left_out = sum(sign * without[key] for key, sign in signs.items())
        error = math.sqrt((BLOCKS - 1) * float(np.var(left_out)))
        parts[name] = Estimate(value, error)
        p_values[name] = float(t.sf(value / max(error, 1e-300), BLOCKS - 1))
    return parts, p_values
