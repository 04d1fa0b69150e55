"""Reference data of a diagnosis: rows that the model was not trained on, and their optimal denoiser."""

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
    """Reference rows in standard units, and the optimal denoiser of their population.

    Args:
        fresh: Rows to compare samples with, shape `(n, D)`.
        test: Rows that the network's loss is measured on, shape `(m, D)`.
        reference: The optimal denoiser, or an estimate of it.
        exact: Whether it is the population's, and not a kernel density's of the training rows.
    """

    fresh: Tensor
    test: Tensor
    reference: Reference
    exact: bool


def population_rows(population: Any, scale: Standardiser, count: int, seed: int) -> Rows:
    """Return rows and optimal denoiser of a population that can be sampled, or of which there is a large table.

    Args:
        population: A `GaussianMixture`, a function `(n_samples, random_state=seed)`, or rows of shape `(N, D)`.
        scale: Standardiser of the model.
        count: Number of fresh rows.
        seed: Seed of the rows.

    Raises:
        ValueError: If there are too few rows.
    """
    needed = count + TEST_ROWS
    if isinstance(population, GaussianMixture):
        x = torch.from_numpy(scale.transform(population.sample(needed, generator_for(seed, DIAGNOSIS, 0))))
        inverse = torch.from_numpy(1 / scale.scale)
        means = (population.means - torch.from_numpy(scale.mean)) * inverse
        covariances = population.covariances * inverse * inverse[:, None]
        reference = known_optimum(GaussianMixture(population.weights, means, covariances).denoise)
        return Rows(x[:count], x[count:], reference, exact=True)
    if callable(population):
        x = torch.from_numpy(scale.transform(population(needed + REFERENCE_ROWS, random_state=seed + 2**20)))
    else:
        x = torch.from_numpy(scale.transform(population))
        x = x[torch.randperm(len(x), generator=generator_for(seed, DIAGNOSIS, 0))]
    if len(x) < needed + 2000:
        raise ValueError(
            f"population needs at least {needed + 2000} rows for num_points={count}, got {len(x)}; lower num_points, "
            "or pass the rows as held_out"
        )
    return Rows(x[:count], x[count:needed], sampled_optimum(x[needed:]), exact=True)


def held_out_rows(held_out: Any, training: Tensor, scale: Standardiser, count: int, seed: int) -> Rows:
    """Return a user's held-out rows, and the denoiser of the training rows' kernel density as the optimal one.

    Args:
        held_out: Rows in the user's own units, shape `(M, D)`.
        training: Training rows in standard units and random order, shape `(N, D)`.
        scale: Standardiser of the model.
        count: Most fresh rows.
        seed: Seed of their order.

    Raises:
        ValueError: If there are too few rows.
    """
    x = torch.from_numpy(scale.transform(held_out))
    if len(x) < MIN_DIAGNOSIS_ROWS:
        raise ValueError(f"held_out needs at least {MIN_DIAGNOSIS_ROWS} rows, got {len(x)}")
    generator = generator_for(seed, DIAGNOSIS, 0)
    fresh = x[torch.randperm(len(x), generator=generator)[:count]]
    return Rows(fresh, x, kernel_optimum(training[:KERNEL_ROWS]), exact=False)
