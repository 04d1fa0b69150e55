"""Denoisers of what was observed, against autograd, the exact posterior of one Gaussian and the moments of mixtures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pointdiffusion.denoisers.observation import OBSERVATIONS, Observed, ddpm_variance
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling.loop import sample

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0, 0.2]], [[[1.0, 0.6, 0.1], [0.6, 0.8, 0.0], [0.1, 0.0, 0.3]]])
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-1.0, 0.0, 1.0], [1.0, 0.3, 0.0]], [torch.diag(torch.tensor(v)).tolist() for v in ([0.3, 0.1, 0.2],
    [0.1, 0.4, 0.2])],
)  # fmt: skip
MATRIX = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
Y = torch.tensor([0.7, -0.4], dtype=torch.float64)


def points(mixture: GaussianMixture, sigma: float, count: int = 8) -> Tensor:
    return mixture.sample(count, torch.Generator().manual_seed(1), sigma)


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 80.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_mmps_is_exact_for_one_gaussian(count: int, noise: float, sigma: float) -> None:
    """The denoiser of the exact posterior, which is found without any noisy point."""
    posterior = GAUSSIAN.posterior(MATRIX[:count], Y[:count], noise)
    x = points(GAUSSIAN, sigma)
    found = Observed(GAUSSIAN.denoise, MATRIX[:count], Y[:count], noise, method="mmps")(x, level(sigma))
    torch.testing.assert_close(found, posterior.denoise(x, sigma), rtol=1e-9, atol=1e-9)


def test_the_others_are_not() -> None:
    x = points(GAUSSIAN, 1.0)
    exact = GAUSSIAN.posterior(MATRIX, Y, 0.3).denoise(x, 1.0)
    for method in ("dps", "pigdm"):
        found = Observed(GAUSSIAN.denoise, MATRIX, Y, 0.3, method=method)(x, level(1.0))
        assert float((found - exact).abs().max()) > 0.05


def test_pigdm_is_exact_for_a_round_gaussian_of_its_width() -> None:
    ball = GaussianMixture([1.0], [[0.0, 0.0, 0.0]], [(0.25 * torch.eye(3)).tolist()])
    x = points(ball, 0.7)
    found = Observed(ball.denoise, MATRIX, Y, 0.3, method="pigdm", sigma_data=0.5)(x, level(0.7))
    torch.testing.assert_close(found, ball.posterior(MATRIX, Y, 0.3).denoise(x, 0.7), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.05, 0.8, 10.0])
def test_the_likelihood_of_mmps_has_the_moments_of_the_truth(sigma: float) -> None:
    """Clean points given a noisy one are a mixture; mean and covariance of y under it make the likelihood."""
    x, noise = points(MIXTURE, sigma), 0.2
    twist = Observed(MIXTURE.denoise, MATRIX, Y, noise).twist(x, level(sigma))
    for row, value in zip(x, twist.log_likelihood, strict=True):
        clean = MIXTURE.posterior(torch.eye(3), row, sigma)
        spread = MATRIX @ clean.covariance @ MATRIX.T + noise**2 * EYE
        torch.testing.assert_close(
            value, MultivariateNormal(MATRIX @ clean.mean, spread).log_prob(Y), rtol=1e-7, atol=0
        )


@pytest.mark.parametrize("sigma", [0.05, 0.8, 10.0])
@pytest.mark.parametrize("method", ["dps", "dps as derived", "pigdm"])
def test_the_shift_is_the_gradient_of_the_likelihood(method: str, sigma: float) -> None:
    """Each likelihood written out from its paper, and differentiated through the denoiser by autograd."""
    x, noise = points(MIXTURE, sigma).requires_grad_(), 0.2
    mean = MIXTURE.denoise(x, sigma) @ MATRIX.T
    if method == "dps":
        value = -2 * 0.7 / ddpm_variance(level(sigma)) * (Y - mean).norm(dim=1)
    else:
        width = sigma**2 / (1 + sigma**2) if method == "pigdm" else 0.0
        value = MultivariateNormal(mean, noise**2 * EYE + width * MATRIX @ MATRIX.T).log_prob(Y)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    settings: dict[str, Any] = {"method": method.split()[0], "zeta": 0.7 if method == "dps" else None}
    twist = Observed(MIXTURE.denoise, MATRIX, Y, noise, **settings).twist(x, level(sigma))
    torch.testing.assert_close(twist.shift, sigma**2 * gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(twist.log_likelihood, value.detach(), rtol=1e-9, atol=1e-12)


def test_step_of_dps_is_that_of_its_thousand() -> None:
    """The variance of the steps of DDPM, read off at the levels of its own schedule: first, tenth and last."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    sigma = (1 / (1 - betas).cumprod(0) - 1).sqrt()
    torch.testing.assert_close(ddpm_variance(sigma[[0, 9, 999]]), betas[[0, 9, 999]], rtol=1e-6, atol=0)
    torch.testing.assert_close(ddpm_variance(torch.tensor([1e-4, 1e4])), torch.tensor([1e-4, 0.02]))  # and no further


def test_variance_is_that_of_clean_points_given_a_noisy_one() -> None:
    """Over all signs of a probe Hutchinson's estimate is the trace of the exact covariance."""
    x = points(MIXTURE, 0.8, 1)
    signs = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0]).double()])
    twist = Observed(MIXTURE.denoise, MATRIX, Y, 0.2).twist(x.expand(8, 3), 0.8, signs)
    exact = MIXTURE.posterior(torch.eye(3), x[0], 0.8).covariance.trace() / 3
    assert twist.variance is not None
    torch.testing.assert_close(twist.variance.mean(), exact, rtol=1e-10, atol=0)


@pytest.mark.parametrize("method", OBSERVATIONS)
def test_rows_have_their_own_observations_and_levels(method: str) -> None:
    x = points(MIXTURE, 1.0, 5)
    sigma = torch.linspace(0.1, 3, 5, dtype=torch.float64)
    matrices, y = MATRIX * torch.arange(1.0, 6)[:, None, None], Y + torch.arange(5.0)[:, None]
    together = Observed(MIXTURE.denoise, matrices, y, 0.2, method=method)(x, sigma)
    for k in range(5):
        alone = Observed(MIXTURE.denoise, matrices[k], y[k], 0.2, method=method)(x[k : k + 1], sigma[k])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["pigdm", "mmps"])
@pytest.mark.parametrize("sigma", [0.002, 80.0])
def test_exact_observations_in_float32(sigma: float, method: str) -> None:
    """No noise to divide by, at both ends of the walk; at the lower one the observation is met."""
    x = points(MIXTURE, sigma).float()
    found = Observed(MIXTURE.denoise, MATRIX, Y, 0.0, method=method)(x, torch.tensor(sigma))
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    if sigma < 1:
        torch.testing.assert_close(found @ MATRIX.T.float(), Y.float().expand(8, 2), rtol=0, atol=2e-3)


def test_a_network_with_a_negative_derivative_is_not_pushed() -> None:
    """A variance below 0 is no guide: nothing moves along it, and the likelihood stays finite."""
    x = points(MIXTURE, 1.0)
    for noise in (0.0, 0.1):
        twist = Observed(lambda z, _, **__: -0.3 * z, MATRIX, Y, noise).twist(x, level(1.0))
        assert float(twist.shift.abs().max()) == 0
        assert bool(twist.log_likelihood.isfinite().all())


def test_solvers_take_it_for_a_denoiser() -> None:
    """On one Gaussian the flow with `mmps` ends in the exact posterior: mean and covariance of 4000 points."""
    posterior = GAUSSIAN.posterior(MATRIX, Y, 0.3)
    x = GAUSSIAN.sample(4000, torch.Generator().manual_seed(0), 20.0)
    sigmas = KarrasSchedule(0.002, 20.0).sigmas(40)
    found = sample(Observed(GAUSSIAN.denoise, MATRIX, Y, 0.3), x, sigmas, solver="heun")
    error = posterior.covariance.diag().sqrt() / 4000**0.5
    assert bool(((found.mean(dim=0) - posterior.mean).abs() < 4 * error + 0.002).all())
    torch.testing.assert_close(found.T.cov(), posterior.covariance, rtol=0.1, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [1.0]}, "must have that many values"),
        ({"y": [1.0, float("nan")]}, "must be finite numbers; leave out"),
        ({"matrix": [1.0, 0.0, 0.0]}, r"must have shape \(M, 3\)"),
        ({"matrix": 1.0}, "must have shape"),
        ({"matrix": torch.zeros(4, 2, 3), "y": torch.zeros(5, 2)}, "for 4 points and observations for 5"),
        ({"noise": -1.0}, "0 or above"),
        ({"noise": float("nan")}, "0 or above"),
        ({"method": "mmp"}, "did you mean"),
        ({"sigma_data": 0.0}, "must be positive"),
        ({"method": "dps", "zeta": -1.0}, "must be positive"),
        ({"method": "dps", "zeta": None, "noise": 0.0}, "give it noise, or zeta"),
    ],
)
def test_what_is_no_observation_is_refused(arguments: dict[str, Any], message: str) -> None:
    settings = {"matrix": MATRIX, "y": Y, "noise": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        Observed(MIXTURE.denoise, **settings)


def test_points_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(B, 3\)"):
        Observed(MIXTURE.denoise, MATRIX, Y, 0.1)(torch.zeros(4, 2), level(1.0))
    with pytest.raises(ValueError, match="observations of 5 rows, but 4 points"):
        Observed(MIXTURE.denoise, MATRIX, Y.expand(5, 2), 0.1)(torch.zeros(4, 3), level(1.0))
