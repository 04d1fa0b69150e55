r"""The parts of a model's error, measured, and what to do next.

Let :math:`e(S) = 2 E|S - F| - E|S - S'| - E|F - F'|` be the squared energy distance of samples S to fresh rows F. It is
zero for the right distribution, its estimate is unbiased, so the finite-sample floor is subtracted, and as a squared
norm it can be split. The model samples again with one component replaced by its exact counterpart at a time,

| samples | start | integration | final denoising step |
|---|---|---|---|
| own | Gaussian at sigma_max | the solver's steps | the network |
| flow | Gaussian at sigma_max | exact flow of the network | the network |
| data start | rows F with noise sigma_max | exact flow of the network | the network |
| data start, steps | rows F with noise sigma_max | the solver's steps | the network |
| data end | rows F with noise sigma_min | - | the network |

and with differences of e, over the same rows F and the same noise: *stop* = e(data end), *network* = e(data start) -
e(data end), *start* = e(flow) - e(data start), *solver* = e(data start, steps) - e(data start). The remainder of e(own)
is the *rest*: the interaction of start and solver. The network's part is divided in proportion to its excess loss, see
`OptimumProbe`: the excess on training rows is *fit*, the further excess on fresh rows is *data*.

Sample i, fresh row i and the noise between them are one draw; means are over pairs of two draws, and errors come from
leaving out one block of draws at a time (the jackknife). The 2-Wasserstein distance is given beside it, over random
parts of the rows, without replacement: a bootstrap of it would be biased, since resampled rows are no fresh rows.

Source of the distance: energy statistics (Szekely and Rizzo, 2013), https://doi.org/10.1016/j.jspi.2013.03.018
"""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from pointdiffusion.diagnostics.parts import ADVICE, Diagnosis
from pointdiffusion.diagnostics.reference import MIN_DIAGNOSIS_ROWS, held_out_rows, population_rows
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

LEVEL = 0.01
"""Significance at which a part counts."""

BLOCKS, SPLITS, PERMUTATIONS = 24, 12, 299


def _from(model: DiffusionModel, clean: Tensor, seed: int, settings: SolverSettings) -> Array:
    """Return the model's samples from noisy rows in place of its prior, with the same noise, in standard units."""
    options = SamplingOptions(**settings)
    sigma_max, plan = options.config(model.inference).sigma_max, model.sampling_plan(options)
    like, parts = next(model.denoiser.parameters()), []
    model.denoiser.eval()
    for index, size in chunks(len(clean)):
        generator = generator_for(seed, SAMPLING, index)
        noise = torch.randn(CHUNK, model.n_dims, generator=generator, dtype=torch.float64)
        rows = clean[index * CHUNK :][:CHUNK]
        rows = torch.cat([rows, rows[:1].expand(CHUNK - len(rows), -1)])  # chunks are padded, as in sampling
        x = (rows + sigma_max * noise).to(like)
        drawn = sampling.sample(model.denoiser, x, plan.sigmas, solver=plan.solver, generator=generator)
        parts.append(drawn[:size])
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
        "data start": _from(model, fresh, seed, exact),
        "data start, steps": _from(model, fresh, seed, settings),
        "data end": end.double().cpu().numpy(),
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
    distances = []
    for _ in range(SPLITS):
        order, other = rng.permutation(len(fresh)), rng.permutation(len(own))[:n]
        a, b = fresh[order[:n]], fresh[order[n : 2 * n]]
        distances.append((wasserstein2(own[other], a), wasserstein2(b, a)))
    # Parts are drawn without replacement: the variance of a mean over them is b / (m - b) that of one.
    factor = math.sqrt(2 * n / (len(fresh) - 2 * n) + 1 / SPLITS)
    means, errors = np.mean(distances, axis=0), np.std(distances, axis=0, ddof=1) * factor
    return Estimate(float(means[0]), float(errors[0])), Estimate(float(means[1]), float(errors[1]))


def _divided(network: Estimate, profile: Profile) -> dict[str, Estimate]:
    """Return the network's parts, fit and data, in proportion to the excess loss on training rows and the gap."""
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
    """Return the main cause."""
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
    """Split the distance between generated and reference points into parts, and recommend what to do next.

    Args:
        model: The model.
        training: Rows that it was trained on, shape `(N, D)`, in the user's units; a model file does not hold them.
        population: The distribution of the rows: a `GaussianMixture`; a function `(n_samples, random_state=seed)` such
            as a member of `DATASETS`; or a large table of fresh rows, shape `(M, D)`.
        held_out: Instead, rows of the user's own table that the model was not trained on, shape `(M, D)`.
        num_points: Number of samples, and of fresh rows to compare them with, at least 48.
        num_levels: Number of noise levels at which losses are measured, over the range of sampling, at least 2.
        seed: Seed of all randomness.
        settings: Settings of sampling, as in `model.sample`, in place of the model's own.

    Returns:
        The parts with standard errors and p-values, the main cause and the advice.

    Raises:
        ValueError: Unless exactly one of `population` and `held_out` is given, or if there are too few rows.

    Examples:
        >>> import pointdiffusion as ptd
        >>> moons = ptd.DATASETS["moons"]
        >>> training = moons(100, random_state=0)
        >>> model = ptd.fit(training, ptd.TrainingConfig(epochs=1), seed=0)
        >>> held_out = moons(60, random_state=1)
        >>> diagnosis = diagnose(model, training, held_out=held_out, num_points=60, num_levels=2, nfe=4)
        >>> diagnosis.cause in ADVICE, list(diagnosis.parts)
        (True, ['stop', 'fit', 'data', 'start', 'solver', 'rest'])
        >>> abs(sum(part.value for part in diagnosis.parts.values()) - diagnosis.total.value) < 1e-9
        True
    """
    if (population is None) == (held_out is None):
        raise ValueError(
            "exactly one of population and held_out must be given: the distribution of the rows, or held-out rows"
        )
    if num_points < MIN_DIAGNOSIS_ROWS or num_levels < 2:
        raise ValueError(
            f"num_points must be at least {MIN_DIAGNOSIS_ROWS} and num_levels at least 2, "
            f"got {num_points} and {num_levels}"
        )
    scale = model.standardiser
    in_z = torch.from_numpy(scale.transform(training))
    in_z = in_z[torch.randperm(len(in_z), generator=generator_for(seed, DIAGNOSIS, 2))]  # its parts represent all rows
    if held_out is None:
        rows = population_rows(population, scale, num_points, seed)
    else:
        rows = held_out_rows(held_out, in_z, scale, num_points, seed)
    config = SamplingOptions(**settings).config(model.inference)
    low, high = config.sigma_min, config.sigma_max
    probe = OptimumProbe(
        in_z, rows.test, rows.reference, torch.from_numpy(np.geomspace(low, high, num_levels)),
        generator=generator_for(seed, DIAGNOSIS, 1), exact=rows.exact,
    )  # fmt: skip
    profile = probe(model.denoiser, next(model.denoiser.parameters()))
    samples, fresh = _stages(model, rows.fresh, seed, low, settings), rows.fresh.numpy()
    copies = copies_test(samples["own"], in_z.numpy(), fresh)
    parts, p_values = _parts(*_energies(samples, fresh))
    parts = {**{name: parts[name] for name in ("total", "stop")}, **_divided(parts["network"], profile), **parts}
    del parts["network"]
    # The permutation test is powerful where two sets share little, the jackknife where they share most: take the
    # smaller p-value, times two.
    for name, one, other in (
        ("start", samples["flow"], samples["data start"]),
        ("network", samples["data start"], fresh),
    ):
        permuted = energy_test(one, other, permutations=PERMUTATIONS, random_state=seed)
        p_values[name] = min(1.0, 2 * permuted, 2 * p_values[name])
    p_values["total"] = energy_test(samples["own"], fresh, permutations=PERMUTATIONS, random_state=seed)
    cause = _cause(p_values, parts, copies, profile)
    advice = ADVICE[cause].format(sigma_min=low, sigma_max=high) + "."
    distance, floor = _wasserstein(samples["own"], fresh, seed)
    total = parts.pop("total")
    return Diagnosis(cause, advice, distance, floor, total, parts, p_values, copies, profile, len(fresh), rows.exact)


def _parts(values: dict[str, float], without: dict[str, Array]) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Return the parts, and the p-value of each under the hypothesis that it is zero."""
    from scipy.stats import t

    sums = {
        "total": {"own": 1},
        "stop": {"data end": 1},
        "network": {"data start": 1, "data end": -1},
        "start": {"flow": 1, "data start": -1},
        "solver": {"data start, steps": 1, "data start": -1},
        "rest": {"own": 1, "flow": -1, "data start, steps": -1, "data start": 1},
    }
    parts, p_values = {}, {}
    for name, signs in sums.items():
        value = sum(sign * values[key] for key, sign in signs.items())
        left_out = sum(sign * without[key] for key, sign in signs.items())
        error = math.sqrt((BLOCKS - 1) * float(np.var(left_out)))
        parts[name] = Estimate(value, error)
        p_values[name] = float(t.sf(value / max(error, 1e-300), BLOCKS - 1))
    return parts, p_values
