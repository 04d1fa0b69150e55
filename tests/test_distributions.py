"""Gaussian mixtures against SciPy, scikit-learn, autograd and brute-force posteriors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor

import pointdiffusion as ptd


def random_mixture(n_dims: int, count: int, seed: int) -> ptd.GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(count, n_dims, n_dims, generator=generator, dtype=torch.float64)
    weights = torch.rand(count, generator=generator, dtype=torch.float64) + 0.1
    means = 2 * torch.randn(count, n_dims, generator=generator, dtype=torch.float64)
    return ptd.GaussianMixture(weights / weights.sum(), means, factors @ factors.mT / n_dims + 0.01 * torch.eye(n_dims))


def queries(mixture: ptd.GaussianMixture, sigma: float = 0.5) -> Tensor:
    return mixture.sample(16, torch.Generator().manual_seed(1), sigma)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("n_dims", [1, 2, 7])
def test_density_is_that_of_scipy(n_dims: int, sigma: float) -> None:
    """The blurred mixture, component by component, from SciPy's own normal density."""
    mixture = random_mixture(n_dims, 3, seed=n_dims)
    x = queries(mixture, sigma)
    total = sum(
        float(weight) * multivariate_normal(mean.numpy(), cov.numpy() + sigma**2 * np.eye(n_dims)).pdf(x.numpy())
        for weight, mean, cov in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    )
    np.testing.assert_allclose(mixture.log_prob(x, sigma).numpy(), np.log(total), rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 3.0])
def test_score_is_the_gradient_of_the_density(sigma: float) -> None:
    mixture = random_mixture(3, 4, seed=0)
    x = queries(mixture).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach(), sigma), gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 40.0])
def test_denoised_points_follow_from_the_score(sigma: float) -> None:
    """Tweedie's formula, D = x + sigma^2 score, from a route of its own."""
    mixture = random_mixture(3, 4, seed=0)
    x = queries(mixture, sigma)
    expected = x + sigma**2 * mixture.score(x, sigma)
    torch.testing.assert_close(mixture.denoise(x, torch.tensor(sigma)), expected, rtol=1e-9, atol=1e-9)


def test_denoiser_is_the_posterior_mean_of_a_great_many_draws() -> None:
    """Against the weighted mean of half a million clean draws, within five of its standard errors."""
    mixture = random_mixture(2, 3, seed=2)
    clean = mixture.sample(500_000, torch.Generator().manual_seed(3))
    for x in queries(mixture, 0.7)[:4]:
        logits = -(clean - x).square().sum(dim=1) / (2 * 0.7**2)
        weights = logits.softmax(dim=0)
        mean = weights @ clean
        error = ((weights[:, None] * (clean - mean)) ** 2).sum(dim=0).sqrt()
        found = mixture.denoise(x[None], torch.tensor(0.7))[0]
        assert bool(((found - mean).abs() < 5 * error).all())


def test_each_row_may_have_its_noise_level() -> None:
    mixture = random_mixture(2, 3, seed=2)
    x = queries(mixture)
    sigma = torch.linspace(0.1, 5, len(x), dtype=torch.float64)
    together = mixture.denoise(x, sigma)
    alone = torch.cat([mixture.denoise(row[None], level) for row, level in zip(x, sigma, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-14)


def test_at_noise_level_0_nothing_is_noise() -> None:
    mixture = random_mixture(2, 3, seed=2)
    x = queries(mixture)
    torch.testing.assert_close(mixture.denoise(x, torch.tensor(0.0)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_from_the_data_all_is_finite(dtype: torch.dtype) -> None:
    """A million standard deviations out, where every density is 0 in floating point."""
    mixture = random_mixture(2, 3, seed=2)
    x = torch.tensor([[1e6, -2e6]], dtype=dtype)
    sigma = torch.tensor(0.01, dtype=dtype)
    for value in (mixture.log_prob(x, sigma), mixture.score(x, sigma), mixture.denoise(x, sigma)):
        assert value.dtype == dtype
        assert bool(value.isfinite().all())


def test_gradients_flow() -> None:
    """The Jacobian of the denoiser against central differences."""
    mixture = random_mixture(2, 3, seed=2)
    x = queries(mixture)
    sigma = torch.tensor(0.4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda y: mixture.denoise(y, sigma), x.requires_grad_())
    assert torch.autograd.gradcheck(lambda y: mixture.log_prob(y, sigma), x)


def test_moments_are_those_of_the_samples() -> None:
    """200,000 draws, blurred: mean and covariance within five standard errors."""
    mixture = random_mixture(3, 4, seed=5)
    draws = mixture.sample(200_000, torch.Generator().manual_seed(0), sigma=0.3)
    expected = mixture.covariance + 0.09 * torch.eye(3, dtype=torch.float64)
    error = expected.diag().sqrt() / math.sqrt(len(draws))
    assert bool(((draws.mean(dim=0) - mixture.mean).abs() < 5 * error).all())
    torch.testing.assert_close(draws.T.cov(), expected, rtol=0.03, atol=0.05)


def test_classes() -> None:
    """Components share classes; the posterior of a class is Bayes' rule on the class-conditional densities."""
    base = random_mixture(2, 4, seed=6)
    mixture = ptd.GaussianMixture(base.weights, base.means, base.covariances, labels=[0, 1, 0, 2])
    x = queries(mixture)
    joint = []
    for label in range(3):
        share = mixture.weights[mixture.labels == label].sum()
        joint.append(share.log() + mixture.condition(label).log_prob(x, 0.5))
    expected = torch.stack(joint, dim=1).softmax(dim=1)
    torch.testing.assert_close(mixture.label_posterior(x, 0.5), expected, rtol=1e-10, atol=1e-12)
    labels = torch.full((len(x),), 2)
    sigma = torch.tensor(0.5)
    torch.testing.assert_close(mixture.denoise(x, sigma, labels=labels), mixture.condition(2).denoise(x, sigma))
    torch.testing.assert_close(mixture.denoise(x, sigma, labels=labels * 0 - 1), mixture.denoise(x, sigma))
    drawn, classes = mixture.sample_with_labels(2000, torch.Generator().manual_seed(0))
    guess = mixture.label_posterior(drawn)
    # Labels that had nothing to do with the points would get the shares of the classes, on average.
    assert float(guess[torch.arange(2000), classes].mean()) > 1.5 * float((guess.mean(dim=0) ** 2).sum())


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_scikit_learn_and_back(kind: str) -> None:
    from sklearn.mixture import GaussianMixture

    data = np.random.default_rng(0).normal(size=(300, 3)) * [1, 2, 0.5] + [[1, 0, 0]]
    fitted = GaussianMixture(3, covariance_type=kind, random_state=0).fit(data)
    mixture = ptd.GaussianMixture.from_sklearn(fitted)
    ours = mixture.log_prob(torch.from_numpy(data[:50])).numpy()
    np.testing.assert_allclose(ours, fitted.score_samples(data[:50]), rtol=1e-9)
    np.testing.assert_allclose(mixture.to_sklearn().score_samples(data[:50]), ours, rtol=1e-9)
    assert mixture.to_sklearn().sample(5)[0].shape == (5, 3)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_denoised_points_lie_between_noise_and_data(n_dims: int, count: int, seed: int, sigma: float) -> None:
    """Whatever the mixture: finite, and for a single component a contraction towards the mean."""
    mixture = random_mixture(n_dims, count, seed)
    x = mixture.sample(8, torch.Generator().manual_seed(seed), sigma)
    denoised = mixture.denoise(x, torch.tensor(sigma))
    assert bool(denoised.isfinite().all())
    if count == 1:
        assert bool(((denoised - mixture.mean).norm(dim=1) <= (x - mixture.mean).norm(dim=1) * (1 + 1e-9)).all())


EYE = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.6], [[0.0, 0.0], [1.0, 1.0]], [EYE, EYE]), "sum to one"),
        (([1.5, -0.5], [[0.0, 0.0], [1.0, 1.0]], [EYE, EYE]), "positive"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]]), "symmetric"),
        (([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), "negative variance"),
        (([1.0], [[0.0, 0.0]], [[[1.0]]]), "covariances must have shape"),
        (([1.0], [[0.0, 0.0], [1.0, 1.0]], [EYE]), "do not fit"),
        (([1.0], [[math.nan, 0.0]], [EYE]), "finite"),
        (([1.0], [[0.0, 0.0]], [EYE], [0, 1]), "labels"),
        (([], [], []), "do not fit"),
    ],
)
def test_what_is_no_mixture_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ptd.GaussianMixture(*arguments)


def test_bad_questions_are_refused() -> None:
    mixture = ptd.GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 0.0]]])
    with pytest.raises(ValueError, match="singular"):
        mixture.log_prob(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="singular"):
        mixture.to_sklearn()
    with pytest.raises(ValueError, match=r"shape \(B, 2\)"):
        mixture.denoise(torch.zeros(1, 3), 1.0)
    with pytest.raises(ValueError, match="there is no class 7"):
        mixture.condition(7)
    with pytest.raises(ValueError, match="labels must be -1"):
        mixture.denoise(torch.zeros(1, 2), 1.0, labels=torch.tensor([3]))
    with pytest.raises(ValueError, match="no condition but labels, got colour"):
        mixture.denoise(torch.zeros(1, 2), 1.0, colour=3)
    with pytest.raises(ValueError, match="num_samples"):
        mixture.sample(0, torch.Generator())
    from sklearn.mixture import GaussianMixture

    with pytest.raises(ValueError, match="not fitted"):
        ptd.GaussianMixture.from_sklearn(GaussianMixture(2))


MATRIX = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0]], dtype=torch.float64)
Y = torch.tensor([0.7, -0.4], dtype=torch.float64)


def evidence(mixture: ptd.GaussianMixture, noise: float) -> float:
    """Return log p(y): the projection of every component, by SciPy."""
    total = sum(
        float(weight) * multivariate_normal(a @ m.numpy(), a @ c.numpy() @ a.T + noise**2 * np.eye(2)).pdf(Y.numpy())
        for a in [MATRIX.numpy()]
        for weight, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    )
    return math.log(total)


@pytest.mark.parametrize("noise", [0.02, 0.5, 20.0])
def test_posterior_is_bayes_rule_point_by_point(noise: float) -> None:
    """Prior times likelihood over evidence, the density itself and not its moments."""
    mixture = random_mixture(3, 4, seed=3)
    x = mixture.posterior(MATRIX, Y, noise).sample(32, torch.Generator().manual_seed(0))
    likelihood = multivariate_normal(cov=noise**2 * np.eye(2)).logpdf((x @ MATRIX.T - Y).numpy())
    expected = mixture.log_prob(x).numpy() + likelihood - evidence(mixture, noise)
    np.testing.assert_allclose(mixture.posterior(MATRIX, Y, noise).log_prob(x).numpy(), expected, rtol=1e-7, atol=1e-7)


def test_posterior_is_what_importance_weights_make_of_the_mixture() -> None:
    """Half a million draws weighted by the likelihood: moments within five standard errors."""
    mixture, noise = random_mixture(3, 4, seed=3), 0.7
    x = mixture.sample(500_000, torch.Generator().manual_seed(3))
    weights = (-(x @ MATRIX.T - Y).square().sum(dim=1) / (2 * noise**2)).softmax(dim=0)
    posterior = mixture.posterior(MATRIX, Y, noise)
    second = posterior.covariance + torch.outer(posterior.mean, posterior.mean)
    for values, exact in ((x, posterior.mean), ((x[:, :, None] * x[:, None]).flatten(1), second.flatten())):
        mean = weights @ values
        error = ((weights[:, None] * (values - mean)) ** 2).sum(dim=0).sqrt()
        assert bool(((mean - exact).abs() < 5 * error).all())


def test_exact_observation_is_the_limit_of_little_noise_and_is_met() -> None:
    mixture = random_mixture(3, 4, seed=3)
    exact, near = mixture.posterior(MATRIX, Y), mixture.posterior(MATRIX, Y, 1e-5)
    torch.testing.assert_close(exact.weights, near.weights, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(exact.mean, near.mean, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(exact.covariance, near.covariance, rtol=1e-4, atol=1e-7)
    x = exact.sample(100, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x @ MATRIX.T, Y.expand(100, 2), rtol=0, atol=1e-6)


def test_one_observation_after_the_other_is_both() -> None:
    mixture = random_mixture(3, 4, seed=3)
    both = mixture.posterior(MATRIX, Y, 0.3)
    turns = mixture.posterior(MATRIX[:1], Y[:1], 0.3).posterior(MATRIX[1:], Y[1:], 0.3)
    for one, other in ((both.weights, turns.weights), (both.means, turns.means), (both.covariances, turns.covariances)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_all_coordinates_observed_leave_points() -> None:
    """No noise, a matrix of full rank: every component is the point that was seen; and its class is still Bayes'."""
    mixture = random_mixture(3, 4, seed=3)
    matrix = torch.tensor([[1.0, 0.4, 0.0], [0.2, 1.0, 0.1], [0.3, 0.0, 2.0]], dtype=torch.float64)
    x = mixture.sample(1, torch.Generator().manual_seed(0))
    posterior = mixture.posterior(matrix, matrix @ x[0])
    torch.testing.assert_close(posterior.means, x.expand_as(posterior.means), rtol=0, atol=1e-8)
    assert float(posterior.covariances.abs().max()) < 1e-12
    torch.testing.assert_close(posterior.weights, mixture.label_posterior(x)[0, posterior.labels], rtol=1e-8, atol=0)


def test_far_observations_have_a_posterior() -> None:
    """A thousand standard deviations out, where every component has density 0 in floating point."""
    mixture = random_mixture(3, 4, seed=3)
    posterior = mixture.posterior(MATRIX, 1000 * Y, 0.1)
    assert bool(posterior.mean.isfinite().all())
    assert float(posterior.weights.sum()) == pytest.approx(1)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6), st.floats(0.0, 10.0))
@settings(max_examples=30, deadline=None)
def test_observing_never_widens_a_component(n_dims: int, count: int, seed: int, noise: float) -> None:
    """Whatever is seen, along some direction or with a zero weight on it."""
    mixture = random_mixture(n_dims, count, seed)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(1, n_dims, generator=generator)
    posterior = mixture.posterior(matrix, torch.randn(1, generator=generator), noise)
    kept = mixture.covariances[posterior.labels] - posterior.covariances
    assert float(torch.linalg.eigvalsh(kept).min()) > -1e-9 * float(mixture.covariances.abs().max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MATRIX[:, :2], Y), r"must have shape \(M, 3\), got \(2, 2\)"),
        ((MATRIX[0], Y), r"must have shape \(M, 3\)"),
        ((MATRIX[:0], Y[:0]), r"must have shape \(M, 3\)"),
        ((MATRIX, Y[:1]), "must have that many values"),
        ((MATRIX, Y.expand(4, 2)), "one observation at a time"),
        ((MATRIX[None], Y), r"must have shape \(M, 3\)"),
        ((MATRIX, [math.nan, 0.0]), "finite numbers; leave out the rows that were not observed"),
        ((MATRIX, Y, -1.0), "0 or above, got -1.0"),
        ((MATRIX, Y, math.inf), "0 or above"),
        ((MATRIX[[0, 0]], Y), "no density: its rows depend on each other.*give it noise"),
        ((MATRIX[[0, 0]] * torch.tensor([[1.0], [0.3]]), Y), "no density"),
    ],
)
def test_bad_observations_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_mixture(3, 2, seed=0).posterior(*arguments)


def test_an_exact_observation_leaves_no_density_and_says_so() -> None:
    """Along twenty directions: rounding must not leave a variance of 1e-17 where there is none."""
    mixture = random_mixture(3, 2, seed=0)
    for matrix in torch.randn(20, 1, 3, generator=torch.Generator().manual_seed(0)):
        posterior = mixture.posterior(matrix, [0.2])
        with pytest.raises(ValueError, match="singular"):
            posterior.log_prob(torch.zeros(1, 3))
