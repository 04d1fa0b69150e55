"""The variational bound against entropies, closed forms and the density of the flow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd

MIXTURE = ptd.GaussianMixture(
    [0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]]
)
ENDS: dict[str, Any] = {
    "sigma_min": 0.05, "sigma_max": 40.0, "mean": MIXTURE.mean, "covariance": MIXTURE.covariance,
}  # fmt: skip


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_of_an_exact_denoiser_it_is_the_entropy() -> None:
    """On average over the data nothing is lost: minus the entropy of the blurred mixture, within five errors."""
    x = MIXTURE.sample(20_000, generator(0))
    found = ptd.variational_bound(MIXTURE.denoise, x, generator=generator(1), num_draws=32, **ENDS)
    blurred = MIXTURE.log_prob(MIXTURE.sample(200_000, generator(2), 0.05), 0.05)
    error = math.hypot(float(found.log_prob.std()) / math.sqrt(len(x)), float(blurred.std()) / math.sqrt(200_000))
    assert found.mean == pytest.approx(float(blurred.mean()), abs=5 * error)
    assert found.mean_error < 0.01


def test_of_one_gaussian_each_row_has_its_closed_form() -> None:
    """The mean over the noise of the log-density of a Gaussian is known, and so is the bound of every row."""
    gaussian = ptd.GaussianMixture([1.0], [[1.0, -2.0]], [[[0.5, 0.2], [0.2, 0.3]]])
    x = gaussian.sample(50, generator(0))
    found = ptd.variational_bound(
        gaussian.denoise, x, sigma_min=0.1, sigma_max=10.0, mean=gaussian.mean, covariance=gaussian.covariance,
        generator=generator(1), num_draws=2000,
    )  # fmt: skip
    # D - x_0 is affine in x_0 and the noise, so the integral over the levels is one of rational functions.
    levels = torch.logspace(-1, 1, 20001, dtype=torch.float64)
    variances, axes = torch.linalg.eigh(gaussian.covariance)
    along = (x - gaussian.mean) @ axes
    ratio = levels[:, None] ** 2 / (variances + levels[:, None] ** 2)  # D - x_0 = -ratio x_0 + (1 - ratio) sigma eps
    rate = (ratio**2)[:, None] * along**2 / levels[:, None, None] ** 2 + ((1 - ratio) ** 2)[:, None]
    integral = torch.trapezoid(rate.sum(dim=2), levels.log(), dim=0)
    far = gaussian.covariance + 100 * torch.eye(2).double()
    end = torch.distributions.MultivariateNormal(gaussian.mean, far).log_prob(x) - 50 * torch.linalg.inv(far).trace()
    expected = end + 2 * math.log(100) - integral
    off = (found.log_prob - expected) / found.standard_error
    assert float(off.abs().max()) < 5
    assert float(off.square().mean()) == pytest.approx(1.0, abs=0.6)  # the stated error is what is seen


def test_a_worse_denoiser_has_a_lower_bound() -> None:
    x = MIXTURE.sample(2000, generator(0))

    def worse(y: Tensor, sigma: Tensor) -> Tensor:
        return 0.9 * MIXTURE.denoise(y, sigma)

    good, bad = (ptd.variational_bound(d, x, generator=generator(1), **ENDS) for d in (MIXTURE.denoise, worse))
    assert bad.mean < good.mean - 5 * math.hypot(bad.mean_error, good.mean_error)


def test_shares_add_up() -> None:
    """What the ranges take off is all that is taken off; between any two levels the least is what a Gaussian needs."""
    x = MIXTURE.sample(500, generator(0))
    found = ptd.variational_bound(MIXTURE.denoise, x, generator=generator(1), **ENDS)
    whole = ptd.variational_bound(MIXTURE.denoise, x, generator=generator(1), num_ranges=1, **ENDS)
    assert float(found.shares.sum()) == pytest.approx(float(whole.shares), rel=1e-12)
    assert bool((found.shares > 0).all())
    assert found.edges[0] == pytest.approx(0.05)
    assert len(found.edges) == len(found.shares) + 1 == 13


def test_levels_of_training_weight_alike() -> None:
    """With the sampler for likelihood and the loss of Karras, every level adds what it adds to the bound."""
    sampler = ptd.LikelihoodSampler(0.02, 20.0)
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    sigma = sampler.quantile(u)
    weight = ptd.loss_weight(sigma)  # (1 + sigma^2) / sigma^2
    error = 1 / (1 + 3 * sigma**-1.5)  # anything
    by_training = torch.trapezoid(weight * error, u)
    by_bound = torch.trapezoid(error / sigma**2, sigma.log())
    width = 0.5 * math.log1p(1 / 0.02**2) - 0.5 * math.log1p(1 / 20.0**2)
    assert float(by_training * width) == pytest.approx(float(by_bound), rel=1e-4)


def test_a_model_is_bounded_in_its_own_units() -> None:
    """Near the density of the flow, of the same blur; not below it: the stochastic equation's is what it bounds."""
    table = 5 + torch.tensor([3.0, 0.2]) * torch.from_numpy(ptd.DATASETS["moons"](1024, random_state=0))
    small = lambda _: ptd.default_network(2, hidden_dim=64)  # noqa: E731
    model = ptd.fit(table, ptd.TrainingConfig(epochs=20, noise_sampler="likelihood"), backbone=small)
    rows = table[:300]
    found = model.variational_bound(rows, sigma_min=0.1, seed=3)
    again = model.variational_bound(rows, sigma_min=0.1, seed=3)
    blur = 0.1 * torch.from_numpy(model.standardiser.scale) * torch.randn(300, 2, generator=generator(5)).double()
    flow = float(model.log_prob(rows + blur, sigma_min=0.1).mean())
    assert found.mean == again.mean
    assert found.mean == pytest.approx(flow, abs=0.4)
    assert len(found.log_prob) == 300


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_min": 0.0}, "sigma_min must lie above 0"),
        ({"sigma_min": 50.0}, "below sigma_max"),
        ({"num_draws": 5}, "num_draws must be even"),
        ({"num_ranges": 0}, "num_ranges at least 1"),
        ({"x": torch.full((2, 2), math.nan)}, "finite"),
        ({"x": torch.zeros(2)}, "shape"),
    ],
)
def test_bad_requests_are_refused(settings: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(3, 2), "generator": generator(0), **ENDS, **settings}
    with pytest.raises(ValueError, match=message):
        ptd.variational_bound(MIXTURE.denoise, **arguments)
