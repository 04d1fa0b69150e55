"""Weighted particles against closed forms, quadrature, exact draws, and the rates that theory gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pointdiffusion.denoisers.guidance import Guided, bind
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling.smc import (
    Particles,
    effective_sample_size,
    feynman_kac,
    systematic_resample,
    tilted_gaussian,
)

TOP = 20.0
MIXTURE = GaussianMixture(
    [0.3, 0.2, 0.3, 0.2], [[-1.0, 0.5], [0.8, -0.6], [0.6, 0.9], [-0.7, -1.0]],
    [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]], [[0.5, -0.2], [-0.2, 0.3]], [[0.2, 0.0], [0.0, 0.2]]],
    labels=[0, 0, 1, 1],
)  # fmt: skip
ONE = GaussianMixture([1.0], [[0.7, -0.2]], [[[0.3, 0.1], [0.1, 0.2]]])
OTHER = GaussianMixture([1.0], [[0.0, 0.1]], [[[0.9, -0.2], [-0.2, 0.7]]])


def start(
    count: int, scale: float, generator: torch.Generator, one: GaussianMixture = ONE, other: GaussianMixture = OTHER,
    top: float = TOP,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return points of the tilted Gaussian at the highest noise level, and their log weights."""
    noise = top**2 * torch.eye(one.n_dims, dtype=torch.float64)
    moments = (one.mean, one.covariance + noise, other.mean, other.covariance + noise)
    mean, covariance, log_integral = tilted_gaussian(*moments, scale)
    draws = torch.randn(count, one.n_dims, generator=generator, dtype=torch.float64)
    return mean + draws @ torch.linalg.cholesky(covariance).T, torch.full((count,), log_integral).double()


def run(
    count: int, scale: float, seed: int, *, one: GaussianMixture = ONE, other: GaussianMixture = OTHER,
    num_steps: int = 40, top: float = TOP, low: float = 0.02, **settings: Any,
) -> Particles:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    x, log_weights = start(count, scale, generator, one, other, top)
    settings = {"log_weights": log_weights, "width": 0.4, "eta": 1.0, **settings}
    grid = KarrasSchedule(low, top).sigmas(num_steps)
    return feynman_kac(one.denoise, other.denoise, x, grid, scale, generator=generator, **settings)


def tilted_by_quadrature(mixture: GaussianMixture, label: int, scale: float) -> tuple[Tensor, float]:
    """Return mean and log integral of p(x | c)^w p(x)^(1 - w) on a fine square, which is exact for smooth densities."""
    line = torch.linspace(-6, 6, 601, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    log_density = scale * mixture.condition(label).log_prob(x) + (1 - scale) * mixture.log_prob(x)
    shares = log_density.softmax(0)
    return shares @ x, float(log_density.logsumexp(0)) + 2 * math.log(float(line[1] - line[0]))


def test_effective_size_of_known_weights() -> None:
    assert effective_sample_size(torch.zeros(50)) == pytest.approx(50, rel=1e-5)
    assert effective_sample_size(torch.tensor([0.0, -torch.inf, 0.0]).double() + 900) == pytest.approx(2)
    assert effective_sample_size(torch.tensor([0.5, 0.3, 0.2]).log()) == pytest.approx(1 / 0.38)


def test_resampling_is_even_and_without_bias() -> None:
    """Each particle is copied as often as due, give or take one; on average over 4000 seeds exactly as often."""
    log_weights = 2 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    log_weights[[0, 7, 39]] = -torch.inf
    due = 40 * log_weights.double().softmax(0)
    generator = torch.Generator().manual_seed(1)
    draws = (systematic_resample(log_weights, generator) for _ in range(4000))
    counts = torch.stack([torch.bincount(kept, minlength=40) for kept in draws]).double()
    assert bool(((counts - due).abs() < 1 + 1e-6).all())
    share = due - due.floor()
    error = (share * (1 - share) / 4000).sqrt()
    assert bool(((counts.mean(dim=0) - due).abs() <= 5 * error + 1e-12).all())
    assert float(counts[:, [0, 7, 39]].sum()) == 0


@pytest.mark.parametrize("scale", [-0.2, 0.0, 0.6, 1.0, 3.0])
def test_tilted_gaussian_is_that_of_quadrature(scale: float) -> None:
    wide = 0.5 * torch.eye(2, dtype=torch.float64)
    mean, covariance, log_integral = tilted_gaussian(
        ONE.mean, ONE.covariance + wide, OTHER.mean, OTHER.covariance + wide, scale
    )
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    x, sigma = torch.cartesian_prod(line, line), math.sqrt(0.5)
    log_density = scale * ONE.log_prob(x, sigma) + (1 - scale) * OTHER.log_prob(x, sigma)
    shares = log_density.softmax(0)
    torch.testing.assert_close(mean, shares @ x, rtol=0, atol=1e-8)
    torch.testing.assert_close(covariance, torch.cov(x.T, aweights=shares, correction=0), rtol=0, atol=1e-8)
    area = 2 * math.log(float(line[1] - line[0]))
    assert log_integral == pytest.approx(float(log_density.logsumexp(0)) + area, abs=1e-8)


@pytest.mark.parametrize(("width", "eta"), [(0.0, 1.0), (0.4, 1.0), (0.4, 2.0)])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_of_two_gaussians_it_draws_the_closed_form(scale: float, width: float, eta: float) -> None:
    """Normaliser and moments of 12 runs of 1000, within 5 of their standard errors and what 80 steps leave."""
    mean, covariance, log_integral = tilted_gaussian(ONE.mean, ONE.covariance, OTHER.mean, OTHER.covariance, scale)
    runs = [run(1000, scale, seed, num_steps=80, width=width, eta=eta) for seed in range(12)]
    found = np.array([one.log_normaliser for one in runs])
    assert abs(found.mean() - log_integral) < 5 * found.std(ddof=1) / math.sqrt(12) + 0.01
    means = torch.stack([one.mean() for one in runs])
    assert bool(((means.mean(0) - mean).abs() < 5 * means.std(0) / math.sqrt(12) + 0.01).all())
    squares = torch.stack([torch.cov(one.x.T, aweights=one.log_weights.exp(), correction=0) for one in runs])
    error = squares.std(0) / math.sqrt(12)
    assert bool(((squares.mean(0) - covariance).abs() < 5 * error + 0.02).all())


def test_error_falls_with_the_square_of_the_steps() -> None:
    """The log normaliser in one dimension, 300,000 particles: their own error is 0.0005, a tenth of the least here."""
    a, b = (GaussianMixture([1.0], [[mean]], [[[square]]]) for mean, square in ((1.0, 0.25), (0.0, 1.0)))
    truth = tilted_gaussian(a.mean, a.covariance, b.mean, b.covariance, 0.5)[2]
    settings: dict[str, Any] = {"one": a, "other": b, "top": 10.0, "width": 0.0, "ess_threshold": 0.0}
    counts = [10, 16, 26]
    errors = [abs(run(300_000, 0.5, 0, num_steps=n, **settings).log_normaliser - truth) for n in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(2.3, abs=0.4)  # nearly there; one evaluation a step gives about 1


@pytest.mark.parametrize("width", [0.0, 0.4])
def test_the_last_step_is_weighted(width: float) -> None:
    """From noise level 0.3, where it carries 0.1 of the log normaliser, to 0: right to 0.03."""
    a, b = (GaussianMixture([1.0], [[mean]], [[[square]]]) for mean, square in ((1.0, 0.5), (0.0, 1.0)))
    truth = tilted_gaussian(a.mean, a.covariance, b.mean, b.covariance, 2.0)[2]
    found = run(20_000, 2.0, 0, one=a, other=b, num_steps=60, low=0.3, width=width).log_normaliser
    assert found == pytest.approx(truth, abs=0.03)


def test_error_falls_with_the_root_of_the_particles() -> None:
    """Normaliser and mean on a mixture, 50 to 3200 particles, rms over 40 to 10 seeds."""
    mean, log_integral = tilted_by_quadrature(MIXTURE, 0, 1.5)
    one = MIXTURE.condition(0)
    counts, errors = [50, 400, 3200], []
    for count, seeds in zip(counts, (40, 30, 15), strict=True):
        runs = [run(count, 1.5, seed, one=one, other=MIXTURE, num_steps=30) for seed in range(seeds)]
        off = torch.tensor([[r.log_normaliser - log_integral, *(r.mean() - mean).tolist()] for r in runs])
        errors.append(off.square().mean(dim=0).sqrt().numpy())
    slopes = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    np.testing.assert_allclose(slopes, -0.5, atol=0.15)


def test_on_a_mixture_it_draws_what_rejection_draws() -> None:
    """Five moments and the share of a component of 8 runs, against exact draws; without the weights they are off."""
    one, scale = MIXTURE.condition(0), 2.0

    def features(x: Tensor) -> Tensor:
        return torch.cat([(x[:, :1] > x[:, 1:]).double(), x, x**2, x[:, :1] * x[:, 1:]], dim=1)

    truth = features(MIXTURE.sample_tilted(200_000, 0, scale, torch.Generator().manual_seed(9))).mean(dim=0)
    runs = [run(2000, scale, seed, one=one, other=MIXTURE) for seed in range(8)]
    found = torch.stack([r.log_weights.exp() @ features(r.x) for r in runs])
    error = found.std(dim=0) / math.sqrt(8)
    assert bool(((found.mean(dim=0) - truth).abs() < 5 * error + 0.005).all())
    assert float(error.max()) < 0.02
    drawn = torch.stack([features(r.draw(torch.Generator().manual_seed(0))).mean(dim=0) for r in runs])
    torch.testing.assert_close(drawn, found, rtol=0, atol=0.05)  # what drawing 2000 adds
    # The same particles, guided by the same denoisers but at strength 1, where no weight is gained.
    guided = Guided(one.denoise, MIXTURE.denoise, scale)
    generator = torch.Generator().manual_seed(1)
    x, _ = start(16_000, scale, generator, one, MIXTURE)
    grid = KarrasSchedule(0.02, TOP).sigmas(40)
    bare = feynman_kac(guided, guided, x, grid, 1.0, generator=generator, width=0.4, eta=1.0)
    assert float((features(bare.x).mean(dim=0) - truth).abs().max()) > 0.1


def test_log_weights_make_up_for_any_start() -> None:
    """Start at a low noise level, where no Gaussian is right, from one that is too wide."""
    mean, log_integral = tilted_by_quadrature(MIXTURE, 0, 2.0)
    one, top = MIXTURE.condition(0), 1.5
    found, means = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x = 2.5 * torch.randn(2000, 2, generator=generator, dtype=torch.float64)
        density = -0.5 * (x / 2.5).square().sum(dim=1) - 2 * math.log(2.5) - math.log(2 * math.pi)
        log_weights = 2 * one.log_prob(x, top) - MIXTURE.log_prob(x, top) - density
        grid = KarrasSchedule(0.02, top).sigmas(40)
        r = feynman_kac(
            one.denoise, MIXTURE.denoise, x, grid, 2.0, generator=generator, log_weights=log_weights, width=0.4
        )
        found.append(r.log_normaliser)
        means.append(r.mean())
    assert abs(np.mean(found) - log_integral) < 5 * np.std(found, ddof=1) / math.sqrt(8) + 0.01
    rows = torch.stack(means)
    assert bool(((rows.mean(0) - mean).abs() < 5 * rows.std(0) / math.sqrt(8) + 0.01).all())


def test_at_strength_1_weights_stay_even() -> None:
    particles = run(500, 1.0, 0)
    assert particles.log_normaliser == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(particles.effective_sizes, torch.full((41,), 500.0).double())
    torch.testing.assert_close(particles.log_weights, torch.full((500,), -math.log(500)).double())
    assert particles.nfe == 2 * (2 * 40 - 1)  # two denoisers, two stages, one at the last step


def test_weights_are_evened_out_when_they_must_be() -> None:
    """Where the effective size falls below its share the next one is greater; with 0 it is left to fall."""
    kept = run(2000, 3.0, 0, ess_threshold=0.5).effective_sizes
    assert bool((kept < 1000).any())
    low = (kept[:-1] < 1000).nonzero()[0]
    assert float(kept[low + 1]) > float(kept[low])
    assert float(kept[-1]) > 3 * float(run(2000, 3.0, 0, ess_threshold=0.0).effective_sizes[-1])


def test_stirring_evens_the_weights() -> None:
    """Twice the noise, the same path: over 10 runs the normaliser scatters less than half as much, about the truth."""
    log_integral = tilted_by_quadrature(MIXTURE, 0, 2.0)[1]
    one = MIXTURE.condition(0)
    found = {}
    for eta in (1.0, 3.0):
        runs = [run(500, 2.0, seed, one=one, other=MIXTURE, num_steps=80, low=0.05, eta=eta) for seed in range(10)]
        found[eta] = np.array([r.log_normaliser - log_integral for r in runs])
    assert found[3.0].std() < found[1.0].std() / 2
    assert abs(found[3.0].mean()) < 0.05


def test_draws_are_as_heavy_as_their_weights() -> None:
    x = torch.arange(4.0)[:, None]
    particles = Particles(x, torch.tensor([0.5, 0.25, 0.25, 0.0]).log(), 0.0, torch.ones(1), 0)
    drawn = particles.draw(torch.Generator().manual_seed(0)).flatten()
    assert drawn.sort().values.tolist() == [0, 0, 1, 2]
    assert float(particles.mean()) == 0.75


def test_with_width_0_the_end_lies_on_the_data() -> None:
    """Two points a class: what is drawn is one of the two, and the strength only shifts the odds."""
    points = GaussianMixture(
        [0.25] * 4, [[-1.0], [1.0], [-1.2], [3.0]], torch.zeros(4, 1, 1), labels=[0, 0, 1, 1]
    )  # fmt: skip
    one = points.condition(0)
    generator = torch.Generator().manual_seed(0)
    x, log_weights = start(500, 2.0, generator, one, points)
    grid = KarrasSchedule(0.01, TOP).sigmas(40)
    r = feynman_kac(one.denoise, points.denoise, x, grid, 2.0, generator=generator, log_weights=log_weights)
    torch.testing.assert_close(r.x.abs(), torch.ones_like(r.x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seeds_reproduce_and_types_are_kept(dtype: torch.dtype) -> None:
    x, log_weights = start(300, 2.0, torch.Generator().manual_seed(0))
    grid = KarrasSchedule(0.02, TOP).sigmas(10)

    def again(seed: int) -> Particles:
        generator = torch.Generator().manual_seed(seed)
        return feynman_kac(
            ONE.denoise, OTHER.denoise, x.to(dtype), grid, 2.0, generator=generator, log_weights=log_weights
        )

    first, second, other = again(1), again(1), again(2)
    assert first.x.dtype == first.mean().dtype == dtype
    assert torch.equal(first.x, second.x)
    assert torch.equal(*(one.draw(torch.Generator().manual_seed(3)) for one in (first, second)))
    assert first.log_normaliser == second.log_normaliser
    assert not torch.equal(first.x, other.x)
    assert log_weights.unique().numel() == 1  # what was handed in is left alone


def test_bound_classes_are_denoisers_too() -> None:
    """What a network offers: one denoiser with and without its labels."""
    generator = torch.Generator().manual_seed(0)
    x, _ = start(100, 2.0, generator, MIXTURE.condition(0), MIXTURE)
    grid = KarrasSchedule(0.02, TOP).sigmas(5)
    found = [
        feynman_kac(one, MIXTURE.denoise, x, grid, 2.0, generator=torch.Generator().manual_seed(1)).x
        for one in (bind(MIXTURE.denoise, labels=0), MIXTURE.condition(0).denoise)
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(1, 2)}, "at least two particles"),
        ({"sigmas": torch.tensor([1.0])}, "at least two noise levels"),
        ({"sigmas": torch.tensor([math.inf, 1.0])}, "must be finite"),
        ({"sigmas": torch.tensor([1.0, 2.0])}, "sort them, highest first"),
        ({"sigmas": torch.tensor([1.0, -1.0])}, "at or above 0"),
        ({"scale": math.nan}, "scale must be a finite number"),
        ({"log_weights": torch.zeros(3)}, "one number for each of 50 particles"),
        ({"log_weights": torch.full((50,), math.nan)}, "none of them NaN"),
        ({"width": -1.0}, "width is a standard deviation"),
        ({"width": math.inf}, "width is a standard deviation"),
        ({"eta": -1.0}, "eta must be 0 or above"),
        ({"ess_threshold": 1.5}, "ess_threshold is a share"),
        ({"conditional": lambda x, _: x * math.nan}, "the denoisers must return finite numbers"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "conditional": ONE.denoise, "unconditional": OTHER.denoise, "x": torch.randn(50, 2).double(),
        "sigmas": torch.tensor([1.0, 0.0]), "scale": 2.0, "generator": torch.Generator().manual_seed(0), **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        feynman_kac(**given)


def test_a_product_without_an_integral_is_refused() -> None:
    eye = torch.eye(1)
    with pytest.raises(ValueError, match="no integral; start at a higher noise level"):
        tilted_gaussian([0.0], 4 * eye, [0.0], eye, 2.0)
    with pytest.raises(ValueError, match="is not positive definite"):
        tilted_gaussian([0.0], 0 * eye, [0.0], eye, 2.0)
