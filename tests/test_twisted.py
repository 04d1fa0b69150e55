"""Twisted diffusion against the walk's own posterior, which is known, and imputation against exact conditionals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pointdiffusion.denoisers.observation import Observed
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling import twisted
from pointdiffusion.sampling.loop import sample
from pointdiffusion.sampling.twisted import TWISTS, Imputation, Posterior, impute, twisted_diffusion
from pointdiffusion.solvers import DDIM

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0]], [[[1.0, 0.6], [0.6, 0.8]]])
MIXTURE = GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [1.0, 0.2]], [[[0.2, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.3]]])
MATRIX, Y = torch.tensor([[1.0, -0.5]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
SIGMAS = KarrasSchedule(0.02, 20.0).sigmas(20)
NAN = math.nan


def run(mixture: GaussianMixture, noise: float, rows: int, particles: int, seed: int = 0, **settings: Any) -> Posterior:
    how = {"sigmas": SIGMAS, "mean": mixture.mean, "covariance": mixture.covariance, **settings}
    generator = torch.Generator().manual_seed(seed)
    y = Y.expand(rows, 1)
    return twisted_diffusion(
        mixture.denoise, MATRIX, y, noise, generator=generator, num_particles=particles, **how
    )  # fmt: skip


def weighted(found: Posterior, values: Tensor) -> Tensor:
    """Return the weighted mean of each row, shape `(R, ...)`."""
    return (found.log_weights.exp()[..., None] * values).sum(dim=1)


def features(x: Tensor) -> Tensor:
    """Return first and second moments, shape `(..., 5)`: what the two sides must agree on."""
    return torch.cat([x, x**2, x[..., :1] * x[..., 1:]], dim=-1)


def walk_posterior(noise: float, method: str) -> tuple[Tensor, Tensor, float]:
    """Return mean and covariance of x_0, and log p(y), of the ancestral walk on `GAUSSIAN` given y, exactly.

    The walk is affine with Gaussian noise, the likelihood at its lowest level is Gaussian, its last step affine.
    """
    mean, c, eye = GAUSSIAN.mean, GAUSSIAN.covariance, torch.eye(2, dtype=torch.float64)
    spread = c + SIGMAS[0] ** 2 * eye
    for sigma, below in itertools.pairwise(SIGMAS[:-1]):
        part = 1 - (below / sigma) ** 2
        step = (1 - part) * eye + part * c @ torch.linalg.inv(c + sigma**2 * eye)
        spread = step @ spread @ step.T + part * below**2 * eye
    low = SIGMAS[-2]
    shrink = c @ torch.linalg.inv(c + low**2 * eye)
    inner = shrink if method == "mmps" else eye / (1 + low**2)
    s = noise**2 * torch.eye(1) + low**2 * MATRIX @ inner @ MATRIX.T
    seen = MATRIX @ shrink
    evidence = MultivariateNormal(MATRIX @ mean, seen @ spread @ seen.T + s)
    gain = spread @ seen.T @ torch.linalg.inv(evidence.covariance_matrix)
    pull = low**2 * shrink.T @ MATRIX.T @ torch.linalg.inv(s)
    last = (eye - pull @ MATRIX) @ shrink
    moved = mean + gain @ (Y - MATRIX @ mean) - mean
    end = mean + pull @ (Y - MATRIX @ mean) + last @ moved
    return end, last @ (spread - gain @ seen @ spread) @ last.T, float(evidence.log_prob(Y))


@pytest.mark.parametrize("method", TWISTS)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_on_a_gaussian_it_is_the_walk_given_y(noise: float, method: str) -> None:
    """Moments and evidence of 200 runs within four standard errors of the walk's own, which linear algebra gives.

    With 256 particles the bias of a ratio of means, a hundredth of its spread, is below the standard error.
    """
    mean, covariance, log_evidence = walk_posterior(noise, method)
    found = run(GAUSSIAN, noise, 200, 256, method=method, matched=False)
    moments = weighted(found, features(found.x))
    second = covariance + torch.outer(mean, mean)
    exact = torch.stack([*mean, second[0, 0], second[1, 1], second[0, 1]])
    assert bool(((moments.mean(dim=0) - exact).abs() < 4 * moments.std(dim=0) / 200**0.5 + 0.003).all())
    if noise == 0 and method == "mmps":  # the last step meets an exact observation
        torch.testing.assert_close(found.x @ MATRIX.T, Y.expand(200, 256, 1), rtol=0, atol=1e-9)
    ratio = (found.log_evidence - log_evidence).exp()  # its mean is 1, however few the particles
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 200**0.5


def test_few_particles_leave_the_evidence_unbiased() -> None:
    """Four particles, 4000 runs: the evidence is right on average, resampling included."""
    found = run(GAUSSIAN, 0.3, 4000, 4, matched=False)
    ratio = (found.log_evidence - walk_posterior(0.3, "mmps")[2]).exp()
    assert bool((found.effective_sizes < 2).any())  # some are drawn anew
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 4000**0.5


@pytest.mark.parametrize("method", TWISTS)
def test_on_a_mixture_it_is_the_walk_given_y(method: str) -> None:
    """Against 100,000 plain walks, weighted by the likelihood at their end: nothing in common with the twist."""
    start = MIXTURE.mean + torch.randn(100_000, 2, generator=torch.Generator().manual_seed(5)).double() @ (
        torch.linalg.cholesky(MIXTURE.covariance + SIGMAS[0] ** 2 * torch.eye(2)).T
    )
    generator = torch.Generator().manual_seed(6)
    x = sample(MIXTURE.denoise, start, SIGMAS[:-1], solver=DDIM(1.0), generator=generator)
    twist = Observed(MIXTURE.denoise, MATRIX, Y, 0.2, method=method).twist(x, SIGMAS[-2])
    weights, values = twist.log_likelihood.softmax(dim=0), features(twist.denoised + twist.shift)
    exact = weights @ values
    doubt = ((weights[:, None] * (values - exact)) ** 2).sum(dim=0).sqrt()
    found = run(MIXTURE, 0.2, 100, 256, method=method, matched=False)
    moments = weighted(found, features(found.x))
    error = (moments.std(dim=0) ** 2 / 100 + doubt**2).sqrt()
    assert bool(((moments.mean(dim=0) - exact).abs() < 4 * error + 0.003).all())
    ratio = (found.log_evidence - twist.log_likelihood.logsumexp(dim=0) + math.log(100_000)).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 100**0.5 + 0.01  # the plain walks' own error


def test_error_falls_with_particles() -> None:
    """Sixteen times the particles, a quarter of the error of a row's mean; 200 rows tell it to some 5 %."""
    errors = []
    for particles in (16, 256):
        found = run(MIXTURE, 0.2, 200, particles)
        means = weighted(found, found.x)
        errors.append(float((means - means.mean(dim=0)).square().mean().sqrt()))
    assert 3 < errors[0] / errors[1] < 5.5


def distance(mixture: GaussianMixture, steps: int, matched: bool) -> float:
    """Return how far mean and covariance are from those of the exact posterior."""
    posterior = mixture.posterior(MATRIX, Y, 0.2)
    found = run(mixture, 0.2, 100, 64, sigmas=KarrasSchedule(0.02, 20.0).sigmas(steps), matched=matched)
    mean = weighted(found, found.x).mean(dim=0)
    off = found.x - posterior.mean
    covariance = torch.einsum("rp,rpi,rpj->ij", found.log_weights.exp(), off, off) / 100
    return float((covariance - posterior.covariance).norm() + (mean - posterior.mean).norm())


def test_in_80_steps_it_is_near_the_exact_posterior() -> None:
    """The ancestral walk is off by 0.06 there; of matched variances little more than noise, 0.01, is left."""
    ancestral, matched = (distance(MIXTURE, 80, matched) for matched in (False, True))
    assert ancestral > 0.045
    assert matched < 0.03


def test_draws_follow_the_weights() -> None:
    x = torch.arange(8.0).reshape(1, 4, 2).expand(2, 4, 2)
    log_weights = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 0.0, 0.0, 1.0]]).log()
    draws = Posterior(x, log_weights, torch.zeros(2), torch.zeros(1, 2)).draw(1000, torch.Generator().manual_seed(0))
    assert draws.shape == (1000, 2, 2)
    counts = [int((draws[:, 0, 0] == value).sum()) for value in (0.0, 2.0, 4.0, 6.0)]
    assert counts == pytest.approx([500, 250, 125, 125], abs=25)
    assert bool((draws[:, 1, 0] == 6).all())
    assert not bool((draws[1:, 0, 0] >= draws[:-1, 0, 0]).all())  # in random order


def test_rows_do_not_depend_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows alone, among others, and in blocks of one."""
    many, few = run(MIXTURE, 0.2, 7, 16), run(MIXTURE, 0.2, 3, 16)
    torch.testing.assert_close(many.x[:3], few.x, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(twisted, "NUMBERS", 1)
    blocks = run(MIXTURE, 0.2, 7, 16)
    for one, other in zip(many, blocks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    again = run(MIXTURE, 0.2, 7, 16)
    assert torch.equal(blocks.x, again.x)  # and the generator is all there is to it
    assert not torch.equal(again.x, run(MIXTURE, 0.2, 7, 16, seed=1).x)


THREE = GaussianMixture(
    [0.4, 0.6], [[-1.0, 0.5, 0.0], [1.0, 0.2, 0.6]],
    [[[0.3, 0.1, 0.0], [0.1, 0.3, 0.1], [0.0, 0.1, 0.2]], [[0.2, 0.0, 0.0], [0.0, 0.3, 0.1], [0.0, 0.1, 0.3]]],
)  # fmt: skip


def filled(rows: Any, num_draws: int = 1, seed: int = 0, **settings: Any) -> Imputation:
    how = {"sigmas": KarrasSchedule(0.01, 20.0).sigmas(100), "mean": THREE.mean, "covariance": THREE.covariance}
    generator = torch.Generator().manual_seed(seed)
    return impute(THREE.denoise, rows, generator=generator, num_draws=num_draws, **(how | settings))


@pytest.mark.parametrize("row", [[0.2, NAN, NAN], [NAN, 0.4, NAN], [0.1, NAN, 0.5]])
def test_what_is_missing_follows_the_exact_conditional(row: list[float]) -> None:
    """Mean and variance over 60 rows of 32 draws, within four standard errors and 2 % for the steps."""
    x = torch.tensor(row).double()
    there = x.isfinite()
    exact = THREE.posterior(torch.eye(3).double()[there], x[there])
    found = filled(x.expand(60, 3), 32)
    for values, truth in (
        (found.draws, exact.mean),
        ((found.draws - exact.mean).square(), exact.covariance.diag()),
    ):
        rows = values.mean(dim=0)  # draws of one row are not independent, rows are
        error = rows.std(dim=0) / 60**0.5
        assert bool(((rows.mean(dim=0) - truth).abs() < 4 * error + 0.02 * truth.abs() + 1e-9).all())


def test_each_row_says_how_it_was_made() -> None:
    rows = torch.tensor([[0.1, 0.2, 0.3], [NAN, NAN, NAN], [0.2, NAN, NAN], [0.1, NAN, 0.5]]).double()
    found = filled(rows, 5, method="pigdm")  # whose last step meets the values only nearly
    assert found.by == ["given", "unconditional", "twisted diffusion", "twisted diffusion"]
    assert found.draws.shape == (5, 4, 3)
    assert bool(found.draws.isfinite().all())
    there = rows.isfinite()
    assert bool((found.draws == rows)[:, there].all())  # to the last digit
    assert bool((found.draws[0] != found.draws[1])[~there].all())  # and what was not there differs
    assert found.effective_sizes.tolist()[0] == math.inf
    assert found.effective_sizes.tolist()[1] == pytest.approx(64)


def test_all_missing_is_the_unconditional_walk() -> None:
    found = filled(torch.full((60, 3), NAN), 64).draws.reshape(-1, 3)
    error = THREE.covariance.diag().sqrt() / len(found) ** 0.5
    assert bool(((found.mean(dim=0) - THREE.mean).abs() < 4 * error).all())
    torch.testing.assert_close(found.T.cov().diag(), THREE.covariance.diag(), rtol=0.05, atol=0)


def test_the_start_knows_the_mean_of_the_data() -> None:
    """Data 500 standard deviations from 0, a start at noise level 20: from around 0 draws would be too low."""
    far = GaussianMixture([1.0], [[500.0]], [[[1.0]]])
    rows, generator = torch.full((30, 1), NAN), torch.Generator().manual_seed(0)
    found = impute(far.denoise, rows, sigmas=SIGMAS, generator=generator, num_draws=64, mean=far.mean)
    assert abs(float(found.draws.mean()) - 500) < 0.09  # four standard errors of 1920 draws


def test_imputed_rows_do_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([[0.2, NAN, NAN], [NAN, NAN, NAN], [NAN, 0.4, NAN], [0.1, NAN, 0.5], [NAN, 0.0, NAN]]).double()
    whole = filled(rows, 3, num_particles=8)
    torch.testing.assert_close(filled(rows[:3], 3, num_particles=8).draws, whole.draws[:, :3], rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(twisted, "NUMBERS", 1)
    torch.testing.assert_close(filled(rows, 3, num_particles=8).draws, whole.draws, rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    """A network keeps hundreds of numbers for each point that it sees at once, so these are few."""
    seen = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(len(x))
        return x / (1 + sigma**2)

    sigmas = KarrasSchedule(0.1, 5.0).sigmas(2)
    impute(denoiser, torch.full((300, 1), NAN), sigmas=sigmas, generator=torch.Generator())
    matrix, y = torch.eye(2)[:1], torch.zeros(300, 1)
    twisted_diffusion(denoiser, matrix, y, 0.1, sigmas=sigmas, generator=torch.Generator())
    assert max(seen) == twisted.PARTICLES < 300 * 64


def test_a_network_may_be_of_another_type_and_have_weights() -> None:
    """In float32, with parameters that keep no gradient of it."""
    network = torch.nn.Linear(3, 3)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return network(x) / (1 + sigma**2)

    rows = torch.tensor([[0.2, NAN, NAN], [NAN, NAN, NAN]])
    sigmas = KarrasSchedule(0.1, 5.0).sigmas(5)
    found = impute(denoiser, rows, sigmas=sigmas, generator=torch.Generator(), num_particles=4, dtype=torch.float32)
    assert not found.draws.requires_grad
    assert network.weight.grad is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigmas": torch.tensor([1.0, 2.0, 0.0])}, "sort them, highest first"),
        ({"sigmas": torch.tensor([2.0, 1.0])}, "decrease to 0 in at least two steps"),
        ({"sigmas": torch.tensor([math.inf, 1.0, 0.0])}, "finite"),
        ({"particles": 1}, "num_particles must be at least 2"),
        ({"method": "dps"}, "method"),
        ({"threshold": 1.5}, "share of the particles"),
        ({"noise": -0.1}, "0 or above"),
        ({"mean": torch.zeros(3)}, "mean and covariance must be numbers or have shapes"),
        ({"covariance": -1e4}, "no negative variance"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    how = {"mixture": MIXTURE, "noise": 0.2, "rows": 2, "particles": 4, **settings}
    with pytest.raises(ValueError, match=message):
        run(**how)


def test_bad_rows_are_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="leave out the rows that were not observed"):
        twisted_diffusion(MIXTURE.denoise, MATRIX, [NAN], 0.1, sigmas=SIGMAS, generator=generator)
    with pytest.raises(ValueError, match="that many values"):
        twisted_diffusion(MIXTURE.denoise, MATRIX, [1.0, 2.0], 0.1, sigmas=SIGMAS, generator=generator)
    for rows in ([[math.inf, NAN, 0.0]], [0.0, NAN, 0.0], torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="finite or NaN where missing"):
            filled(rows)
    with pytest.raises(ValueError, match="num_draws"):
        filled([[0.0, NAN, 0.0]], 0)
    with pytest.raises(ValueError, match="num_draws"):
        run(MIXTURE, 0.2, 2, 4).draw(0, generator)
    with pytest.raises(ValueError, match="not finite at noise level 20"):
        twisted_diffusion(lambda x, _: x / 0, MATRIX, [1.0], 0.1, sigmas=SIGMAS, generator=generator)
