"""Guidance against Bayes' rule, and against what it draws from two Gaussians, in closed form."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from torch import Tensor

from pointdiffusion.denoisers.guidance import (
    ClassifierGuided,
    Guided,
    autoguidance,
    bind,
    classifier_free,
    classifier_guidance,
    guided_gaussian,
)
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling.loop import exact_flow, sample, trajectory

MIXTURE = GaussianMixture(
    [0.2, 0.3, 0.4, 0.1], [[-1.0, 0.0], [1.0, 0.5], [0.3, -1.0], [0.0, 2.0]],
    0.2 * torch.eye(2).expand(4, 2, 2), labels=[0, 1, 1, 2],
)  # fmt: skip
X = MIXTURE.sample(32, torch.Generator().manual_seed(0), 0.7)
SIGMA = torch.tensor(0.7, dtype=torch.float64)


class Counting:
    """A denoiser that counts its calls."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0
        self.seen: dict[str, Any] = {}

    def __call__(self, x: Tensor, _: Tensor, **condition: Any) -> Tensor:
        self.calls, self.seen = self.calls + 1, condition
        return self.factor * x


def gaussian(mean: float, variance: float) -> Any:
    return lambda x, sigma: (variance * x + sigma**2 * mean) / (variance + sigma**2)


def log_class(label: int) -> Any:
    return lambda x, sigma: MIXTURE.label_posterior(x, sigma)[:, label].log()


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.3, 1.0, 4.0])
def test_the_formula(scale: float) -> None:
    """D_0 + w (D_1 - D_0), for points of any shape and levels of a row's own."""
    x, sigma = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(0.1, 5, 5)
    found = Guided(Counting(2.0), Counting(0.5), scale)(x, sigma)
    torch.testing.assert_close(found, (0.5 + scale * 1.5) * x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@torch.no_grad()
def test_classifier_guidance_is_classifier_free_by_bayes_rule(dtype: torch.dtype, scale: float) -> None:
    """On exact models the two are one; gradients are taken though the caller turned them off."""
    x, sigma = X.to(dtype), SIGMA.to(dtype)
    free = classifier_free(MIXTURE.denoise, scale, labels=1)(x, sigma)
    guided = classifier_guidance(MIXTURE.denoise, log_class(1), scale)
    assert guided(x, sigma).dtype == dtype
    torch.testing.assert_close(guided(x, sigma), free, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-10)
    assert not x.requires_grad


def test_classifier_guidance_of_what_is_wrapped() -> None:
    """It may guide what is guided already: towards class 1 from both sides is towards it twice."""
    inner = classifier_free(MIXTURE.denoise, 1.5, labels=1)
    outer = classifier_guidance(inner, log_class(1), 1.0)
    found = outer(X, SIGMA)
    torch.testing.assert_close(found, classifier_free(MIXTURE.denoise, 2.5, labels=1)(X, SIGMA), rtol=1e-9, atol=1e-9)
    assert outer.cost == 2
    torch.testing.assert_close(outer(X, torch.full((len(X),), 0.7)), found, rtol=1e-6, atol=1e-6)


def test_evaluations_are_counted() -> None:
    target, base = Counting(2.0), Counting(0.5)
    for scale, cost in ((1.0, 1), (2.0, 2), (0.0, 2)):
        guided = Guided(target, base, scale)
        target.calls = base.calls = 0
        guided(X, SIGMA)
        assert guided.cost == target.calls + base.calls == cost
    nested = Guided(bind(Guided(target, base, 2.0), labels=1), base, 3.0)
    nested(X, SIGMA)
    assert nested.cost == 3


def test_solvers_count_both_networks() -> None:
    """Heun on 4 steps to 0 is 7 calls; two evaluations each inside of the interval, one outside."""
    grid = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    guided = classifier_free(MIXTURE.denoise, 2.0, labels=1)
    assert [step.nfe for step in trajectory(guided, X, grid, solver="heun")] == [0, 4, 8, 12, 14]
    partly = classifier_free(MIXTURE.denoise, 2.0, labels=1, interval=(1.5, 4.0))
    assert [step.nfe for step in trajectory(partly, X, grid, solver="heun")] == [0, 3, 7, 10, 11]


def test_interval_is_row_by_row_open_below_closed_above() -> None:
    sigma = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5])
    x = torch.ones(5, 1)
    guided = Guided(Counting(2.0), Counting(0.0), 3.0, interval=(1.0, 2.0))
    assert guided(x, sigma).flatten().tolist() == [2, 2, 6, 6, 2]
    assert guided.cost == 2
    assert float(guided(x, torch.tensor(9.0))[0]) == 2
    assert guided.cost == 1


def test_a_number_stands_for_all_rows() -> None:
    expected = MIXTURE.denoise(X, SIGMA, labels=torch.full((len(X),), 2))
    for label in (2, torch.tensor(2), torch.full((len(X),), 2)):
        assert torch.equal(bind(MIXTURE.denoise, labels=label)(X, SIGMA), expected)
    spy = Counting(1.0)
    bind(spy, labels=2, strength=0.5, name="a", table=torch.zeros(len(X), 3))(X, SIGMA, more=1)
    assert spy.seen["labels"].dtype == torch.int64
    assert spy.seen["strength"].dtype == X.dtype
    assert spy.seen["strength"].shape == (len(X),)
    assert spy.seen["table"].shape == (len(X), 3)
    assert (spy.seen["name"], spy.seen["more"]) == ("a", 1)
    assert bind(spy) is spy


def test_both_models_of_autoguidance_know_the_condition() -> None:
    good, worse = Counting(2.0), Counting(1.0)
    guided = autoguidance(good, worse, 3.0, interval=(0.1, 1.0), labels=1)
    torch.testing.assert_close(guided(X, SIGMA), 4 * X)
    assert good.seen.keys() == worse.seen.keys() == {"labels"}


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_what_the_flow_draws_from_two_gaussians(scale: float) -> None:
    r"""From standard deviations a and b guided ODE draws a^w b^(1-w), from equal ones the mean w m.

    The slope is linear, dx / x = sigma (w / (a^2 + sigma^2) + (1 - w) / (b^2 + sigma^2)) d sigma, and its integral is
    known. The tilted distribution has variance 1 / (w / a^2 + (1 - w) / b^2) instead.
    """
    top, a, b = 200.0, 0.5, 1.0
    grid = KarrasSchedule(1e-3, top).sigmas(400)
    x = torch.tensor([[top]], dtype=torch.float64)  # one standard deviation out
    found = sample(Guided(gaussian(0, a**2), gaussian(0, b**2), scale), x, grid, solver="heun")
    assert float(found) == pytest.approx(a**scale * b ** (1 - scale), rel=3e-3)  # 400 steps, and the last one to 0
    shifted = sample(Guided(gaussian(0.7, a**2), gaussian(0, a**2), scale), 0 * x, grid, solver="heun")
    assert float(shifted) == pytest.approx(scale * 0.7, rel=3e-3)


def test_what_the_stochastic_equation_draws_from_two_gaussians() -> None:
    """The variance V obeys dV / d tau = 1 - 2 V (w / (a^2 + u) + (1 - w) / (b^2 + u)), solved by one integral."""
    a, b, scale, count = 0.5, 1.0, 2.0, 40_000
    power = a ** (4 * scale) * b ** (4 * (1 - scale))
    expected = power * quad(lambda u: (a**2 + u) ** (-2 * scale) * (b**2 + u) ** (-2 * (1 - scale)), 0, math.inf)[0]
    generator = torch.Generator().manual_seed(0)
    x = 20 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    guided = Guided(gaussian(0, a**2), gaussian(0, b**2), scale)
    found = sample(guided, x, KarrasSchedule(0.01, 20.0).sigmas(300), solver="ddim", generator=generator)
    # 5 standard errors of a variance are 3.5 %; the steps add about 1 %. The tilted variance, 1 / 7, is 17 % off.
    assert float(found.var()) == pytest.approx(expected, rel=0.045)
    assert abs(expected * 7 - 1) > 0.1


def test_what_cannot_be_is_refused() -> None:
    one = Counting(1.0)
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match="scale must be a finite number"):
            Guided(one, one, scale)
        with pytest.raises(ValueError, match="scale must be a finite number"):
            ClassifierGuided(one, log_class(0), scale)
    for interval in ((2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="swap them"):
            Guided(one, one, 2.0, interval=interval)
    with pytest.raises(ValueError, match="give a condition, for instance labels=3"):
        classifier_free(one, 2.0)
    with pytest.raises(ValueError, match="one number a row"):
        classifier_guidance(one, lambda x, _: x, 2.0)(X, SIGMA)
    with pytest.raises(ValueError, match="depends on the points by torch operations"):
        classifier_guidance(one, lambda x, _: x.detach()[:, 0], 2.0)(X, SIGMA)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_exact_draws_of_the_tilted_distribution(scale: float) -> None:
    """100,000 of them in one dimension, cell by cell against the density's integrals: chi squared with 39 freedoms."""
    mixture = GaussianMixture([0.3, 0.3, 0.4], [[-1.0], [0.5], [1.5]], [[[0.3]], [[0.2]], [[0.5]]], labels=[0, 1, 0])
    grid = torch.linspace(-5, 6, 11_001, dtype=torch.float64)[:, None]
    density = mixture.log_prob(grid).exp() * mixture.label_posterior(grid)[:, 1] ** scale
    cumulative = torch.cumulative_trapezoid(density) / torch.trapezoid(density)
    edges = grid[1:, 0][torch.searchsorted(cumulative, torch.linspace(0, 1, 41, dtype=torch.float64)[1:-1])]
    draws = mixture.sample_tilted(100_000, 1, scale, torch.Generator().manual_seed(1))
    assert draws.shape == (100_000, 1)
    due = torch.diff(cumulative[torch.searchsorted(grid[1:, 0], edges)], prepend=torch.zeros(1), append=torch.ones(1))
    counts = torch.bincount(torch.bucketize(draws[:, 0], edges), minlength=40)
    chi = float(((counts - 100_000 * due) ** 2 / (100_000 * due)).sum())
    assert chi < 39 + 5 * math.sqrt(2 * 39)


def test_tilted_draws_that_cannot_be_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    twins = GaussianMixture([0.5, 0.5], [[0.0], [0.0]], [[[1.0]], [[1.0]]])  # p(c | x) is 1 / 2 everywhere
    singular = GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [[[0.0]], [[1.0]]])
    for problem, label, scale, count, message in (
        (twins, 0, -1.0, 5, "scale must be 0 or above"), (twins, 0, math.nan, 5, "scale must be 0 or above"),
        (twins, 3, 2.0, 5, "there is no class 3"), (twins, 0, 2.0, 0, "num_samples must be at least 1"),
        (twins, 0, 60.0, 5, "fewer than 1 point in 100,000 is accepted; take a lower one"),
        (singular, 0, 2.0, 5, "a covariance is singular"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            problem.sample_tilted(count, label, scale, generator)


# --------------------------------------------------------------------------------------------- where guided flows start

STRENGTHS = [-1.0, 0.0, 0.5, 1.0, 2.0, 5.0]
STARTS = [2.0, 10.0, 80.0]
LEFT = ([0.5, -1.0], [[0.6, 0.3], [0.3, 0.25]])
WHOLE = ([-0.2, 0.4], [[1.0, -0.4], [-0.4, 1.5]])
"""Mean and covariance of two Gaussians in the plane whose axes differ."""


def followed(scale: float, sigma: float, interval: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return the moments of the guided flow from a noise level of a million, by differences of its own points."""
    eye, moments = np.eye(2), [tuple(map(np.asarray, pair)) for pair in (LEFT, WHOLE)]

    def slope(log_level: float, x: Any) -> Any:
        level = math.exp(log_level)
        points = x.reshape(3, 2)
        w = scale if interval[0] < level <= interval[1] else 1.0
        parts = [(points - m) @ np.linalg.inv(c + level**2 * eye) * level**2 for m, c in moments]
        return (w * parts[0] + (1 - w) * parts[1]).ravel()

    x = 1e6 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    knots = sorted({1e6, sigma, *(level for level in interval if sigma < level < 1e6)}, reverse=True)
    for high, low in itertools.pairwise(knots):
        edge = 1e-9  # a step must not look across the edge of the interval
        found = solve_ivp(
            slope, (math.log(high) - edge, math.log(low) + edge), x.ravel(), method="DOP853", rtol=1e-11, atol=1e-9
        )
        x = found.y[:, -1]
    points = torch.from_numpy(x.reshape(3, 2))
    spread = (points[1:] - points[0]).T
    return points[0], spread @ spread.T


@pytest.mark.parametrize("interval", [(0.0, math.inf), (0.0, 30.0), (1.5, 6.0), (4.0, 7.0), (0.0, 1.0)])
@pytest.mark.parametrize("scale", STRENGTHS)
def test_guided_moments_are_those_of_the_flow_from_pure_noise(scale: float, interval: tuple[float, float]) -> None:
    """Covariances that do not commute, with and without an interval, above and below the level that is asked for."""
    for sigma in STARTS:
        mean, covariance = guided_gaussian(*LEFT, *WHOLE, scale, sigma, interval=interval)
        expected, spread = followed(scale, sigma, interval)
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5 * sigma)
        torch.testing.assert_close(covariance / sigma**2, spread / sigma**2, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sigma_max", STARTS)
@pytest.mark.parametrize("scale", STRENGTHS)
def test_guided_gaussians_end_where_they_should_from_any_start(scale: float, sigma_max: float) -> None:
    """Means 0 and m of one covariance end at w m, and standard deviations a and b around 0 at a^w b^(1 - w)."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    one = turn @ torch.diag(torch.tensor([0.25, 1.0]).double()) @ turn.T
    other = turn @ torch.diag(torch.tensor([1.0, 0.49]).double()) @ turn.T
    m, nothing = torch.tensor([3.0, -1.0]).double(), torch.zeros(2).double()
    ends = turn @ torch.diag(torch.tensor([0.25**scale, 0.49 ** (1 - scale)]).double()) @ turn.T
    for target, base, mean, covariance in (
        ((m, one), (nothing, one), scale * m, one), ((nothing, one), (nothing, other), nothing, ends),
    ):  # fmt: skip
        found, spread = guided_gaussian(*target, *base, scale, sigma_max)
        z = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
        x = found + z @ torch.linalg.cholesky(spread).T
        denoise = [GaussianMixture([1.0], mu[None], c[None]).denoise for mu, c in (target, base)]
        end = exact_flow(Guided(denoise[0], denoise[1], scale), x, sigma_max, 0.0, tolerance=1e-9).x
        away = (end[1:] - end[0]).T
        torch.testing.assert_close(end[0], mean, rtol=0, atol=2e-6)
        torch.testing.assert_close(away @ away.T, covariance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", STRENGTHS)
def test_guided_mixtures_end_near_where_they_should_from_any_start(scale: float) -> None:
    """Quantiles of the end, against the flow from a noise level of 100,000, where any start is forgotten.

    What is left is what two moments leave out of three components: it falls with the noise level at which one starts.
    From the class's own Gaussian the errors at 2, 10 and 80 are at least 0.14, 0.029 and 0.0036, but for w = 1.
    """
    mixture = GaussianMixture([0.3, 0.3, 0.4], [[-1.5], [0.2], [1.2]], [[[0.2]], [[0.1]], [[0.3]]], labels=[0, 1, 1])
    one, z = mixture.condition(1), torch.linspace(-2, 2, 21, dtype=torch.float64)[:, None]
    guided = classifier_free(mixture.denoise, scale, labels=1)
    expected = exact_flow(guided, 1e5 * z, 1e5, 0.0, tolerance=1e-6).x
    for sigma_max, most in ((2.0, 0.15 if scale < 0 else 0.06), (10.0, 3e-3), (80.0, 5e-4)):
        mean, variance = guided_gaussian(
            one.mean, one.covariance, mixture.mean, mixture.covariance, scale, sigma_max
        )  # fmt: skip
        end = exact_flow(guided, mean + variance.sqrt() * z, sigma_max, 0.0, tolerance=1e-6).x
        assert float((end - expected).square().mean().sqrt()) < most


def test_guided_moments_of_each_row_its_own() -> None:
    """Rows with means and covariances of their own, whichever side has them, give what each gives alone."""
    rng = torch.Generator().manual_seed(0)
    means = torch.randn(4, 2, generator=rng).double()
    root = torch.randn(4, 2, 2, generator=rng).double()
    covariances = root @ root.mT
    covariances[3] = covariances[0]
    for sides in (((means, covariances), WHOLE), (WHOLE, (means, covariances)), ((means, LEFT[1]), WHOLE)):
        mean, spread = guided_gaussian(*sides[0], *sides[1], 2.5, 3.0)  # type: ignore[call-arg]
        for k in range(4):
            pick = [part[k] if isinstance(part, Tensor) else part for side in sides for part in side]
            alone = guided_gaussian(*pick, 2.5, 3.0)  # type: ignore[call-arg]
            torch.testing.assert_close(mean[k], alone[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(spread.expand(4, 2, 2)[k], alone[1], rtol=1e-9, atol=1e-9)


def test_guided_moments_without_guidance_are_the_plain_ones() -> None:
    """The target's at strength 1 and above the interval, the base's at 0, and of equals their own."""
    plain, base = ((torch.tensor(c) + 4 * torch.eye(2)).double() for _, c in (LEFT, WHOLE))
    for scale, interval in ((1.0, (0.0, math.inf)), (3.0, (0.0, 2.0)), (0.0, (0.5, 1.0))):
        mean, covariance = guided_gaussian(*LEFT, *WHOLE, scale, 2.0, interval=interval)
        assert mean.tolist() == LEFT[0]
        assert torch.allclose(covariance, plain, rtol=0, atol=1e-6)
    assert guided_gaussian(*LEFT, *WHOLE, 0.0, 2.0)[0].tolist() == WHOLE[0]
    assert torch.allclose(guided_gaussian(*LEFT, *WHOLE, 0.0, 2.0)[1], base, rtol=0, atol=1e-6)
    assert torch.equal(guided_gaussian(*LEFT, *LEFT, 7.0, 2.0)[1], guided_gaussian(*LEFT, *LEFT, 1.0, 2.0)[1])


def test_guided_moments_that_cannot_be_are_refused() -> None:
    for sigma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sigma must be a positive number"):
            guided_gaussian(*LEFT, *WHOLE, 2.0, sigma)
    with pytest.raises(ValueError, match="scale must be a finite number"):
        guided_gaussian(*LEFT, *WHOLE, math.nan, 2.0)
    with pytest.raises(ValueError, match="swap them"):
        guided_gaussian(*LEFT, *WHOLE, 2.0, 2.0, interval=(2.0, 1.0))
