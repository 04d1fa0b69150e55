"""The truth that a model is compared with: rows that it was not trained on, and the optimum of what they come from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.exact.optimal import Reference, kernel_optimum, known_optimum, sampled_optimum
from pointdiffusion.runtime.randomness import DIAGNOSIS, generator_for
from pointdiffusion.tabular.standardiser import Standardiser

MIN_DIAGNOSIS_ROWS = 48
REFERENCE_ROWS, TEST_ROWS, KERNEL_ROWS = 60_000, 1024, 2048


class Rows(NamedTuple):
    """True rows in standard units `(n, D)`, those that the network's loss is taken on, and the optimum there."""

    fresh: Tensor
    test: Tensor
    reference: Reference
    known: bool


def known_rows(population: Any, scale: Standardiser, count: int, seed: int) -> Rows:
    """Return rows and optimum of a population that can be drawn from, or of which there is a large table."""
    needed = count + TEST_ROWS
    if isinstance(population, GaussianMixture):
        x = torch.from_numpy(scale.transform(population.sample(needed, generator_for(seed, DIAGNOSIS, 0))))
        inverse = torch.from_numpy(1 / scale.scale)
        means = (population.means - torch.from_numpy(scale.mean)) * inverse
        covariances = population.covariances * inverse * inverse[:, None]
        reference = known_optimum(GaussianMixture(population.weights, means, covariances).denoise)
        return Rows(x[:count], x[count:], reference, known=True)
    if callable(population):
        x = torch.from_numpy(scale.transform(population(needed + REFERENCE_ROWS, random_state=seed + 2**20)))
    else:
        x = torch.from_numpy(scale.transform(population))
        x = x[torch.randperm(len(x), generator=generator_for(seed, DIAGNOSIS, 0))]
    if len(x) < needed + 2000:
        raise ValueError(
            f"a population needs {needed + 2000} rows or more for {count} num_points, got {len(x)}; ask for fewer "
            "points, or hand the rows over as held_out"
        )
    return Rows(x[:count], x[count:needed], sampled_optimum(x[needed:]), known=True)


def held_out_rows(held_out: Any, training: Tensor, scale: Standardiser, count: int, seed: int) -> Rows:
    """Return a user's held-out rows, and the kernel density of the training rows, in random order, as optimum."""
    x = torch.from_numpy(scale.transform(held_out))
    if len(x) < MIN_DIAGNOSIS_ROWS:
        raise ValueError(f"held_out needs {MIN_DIAGNOSIS_ROWS} rows or more to measure anything, got {len(x)}")
    generator = generator_for(seed, DIAGNOSIS, 0)
    fresh = x[torch.randperm(len(x), generator=generator)[:count]]
    return Rows(fresh, x, kernel_optimum(training[:KERNEL_ROWS]), known=False)
