"""A denoiser with an exact skip path, averages of them, and models that are mixed with a companion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor, nn

import pointdiffusion as ptd

COVARIANCE = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
MIXTURE = ptd.GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [0.5, 0.2]], torch.stack([COVARIANCE, 0.2 * torch.eye(2)]))


def network(seed: int = 0, *, silent: bool = False) -> ptd.ResidualMLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ptd.default_network(2, 16)
        if not silent:
            nn.init.normal_(made.last.weight, std=0.1)
    return made.double()


def model(denoiser: ptd.KarrasDenoiser, **changes: Any) -> ptd.DiffusionModel:
    settings: dict[str, Any] = {
        "standardiser": ptd.Standardiser(np.array([1.0, -2.0]), np.array([2.0, 0.5])), "columns": ["a", "b"],
        "covariance": MIXTURE.covariance, "inference": ptd.InferenceConfig(sigma_min=0.05, sigma_max=160.0),
    }  # fmt: skip
    return ptd.DiffusionModel(denoiser=denoiser.eval().requires_grad_(False), **{**settings, **changes})


POINTS = MIXTURE.sample(50, torch.Generator().manual_seed(1))
SIGMAS = torch.logspace(-3, 2, 50, dtype=torch.float64)


@pytest.mark.parametrize("base", [MIXTURE, MIXTURE.condition(0)])
@pytest.mark.parametrize("sigma", [SIGMAS, torch.tensor(0.7, dtype=torch.float64)])
def test_a_silent_network_leaves_the_base(base: ptd.GaussianMixture, sigma: Tensor) -> None:
    """So training starts at the likelihood of the base."""
    denoiser = ptd.KarrasDenoiser(network(silent=True), bases=[base])
    torch.testing.assert_close(denoiser(POINTS, sigma), base.denoise(POINTS, sigma), rtol=0, atol=1e-15)


def test_a_standard_normal_base_is_the_ordinary_skip_path() -> None:
    """The matrices are then the numbers of Karras et al."""
    base = ptd.GaussianMixture([1.0], [[0.0, 0.0]], torch.eye(2)[None])
    plain, based = ptd.KarrasDenoiser(network()), ptd.KarrasDenoiser(network(), bases=[base])
    torch.testing.assert_close(based(POINTS, SIGMAS), plain(POINTS, SIGMAS), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_input_and_target_of_the_network_have_unit_variance(sigma: float) -> None:
    """Along every direction, for Gaussian data of any covariance: what a base changes the coefficients for."""
    seen: list[Tensor] = []

    class Listener(nn.Module):
        answer: Tensor

        def forward(self, x: Tensor, c: Tensor) -> Tensor:  # noqa: ARG002
            seen.append(x)
            return self.answer

    base = ptd.GaussianMixture([1.0], [[1.0, 2.0]], COVARIANCE[None])
    listener = Listener()
    denoiser = ptd.KarrasDenoiser(listener, bases=[base])
    generator = torch.Generator().manual_seed(2)
    clean = base.sample(100_000, generator)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    level = torch.tensor(sigma, dtype=torch.float64)
    answers = []
    for column in range(2):  # the answer is linear in what the network says, so its matrix is read off
        listener.answer = torch.zeros(len(clean), 2, dtype=torch.float64)
        listener.answer[:, column] = 1
        answers.append((denoiser(noisy, level) - base.denoise(noisy, level))[0])
    target = torch.linalg.solve(torch.stack(answers, dim=1), (clean - base.denoise(noisy, level)).T).T
    for values in (seen[0], target):
        torch.testing.assert_close(torch.cov(values.T), torch.eye(2, dtype=torch.float64), rtol=0, atol=0.02)


def test_an_average_is_the_mean_of_its_members() -> None:
    """With the ordinary skip path, and with a base for each member."""
    for bases in ([], [MIXTURE, MIXTURE.condition(0)]):
        each = [ptd.KarrasDenoiser(network(k), bases=bases[k : k + 1]) for k in range(2)]
        found = ptd.ensemble([model(denoiser) for denoiser in each]).denoiser
        expected = (each[0](POINTS, SIGMAS) + each[1](POINTS, SIGMAS)) / 2
        torch.testing.assert_close(found(POINTS, SIGMAS), expected, rtol=1e-12, atol=1e-14)


def test_an_ensemble_is_a_model() -> None:
    """It samples, states densities and remembers the raw weights of its members."""
    parts = [model(ptd.KarrasDenoiser(network(k)), raw_weights=network(k).state_dict()) for k in range(3)]
    found = ptd.ensemble(parts)
    assert found.sample(5, num_steps=4).shape == (5, 2)
    assert np.isfinite(found.log_prob(found.sample(5, num_steps=4), num_steps=8)).all()
    assert found.raw_weights.keys() == found.denoiser.backbone.state_dict().keys()
    assert ptd.ensemble(parts[:1]) is parts[0]


def test_models_that_do_not_belong_together_are_refused() -> None:
    """One sentence each."""
    good = model(ptd.KarrasDenoiser(network()))
    other = model(ptd.KarrasDenoiser(network()), standardiser=ptd.Standardiser(np.zeros(2), np.ones(2)))
    with pytest.raises(ValueError, match="at least one"):
        ptd.ensemble([])
    with pytest.raises(ValueError, match="one scale"):
        ptd.ensemble([good, other])
    with pytest.raises(ValueError, match="a base or none"):
        ptd.ensemble([good, model(ptd.KarrasDenoiser(network(), bases=[MIXTURE]))])
    with pytest.raises(ValueError, match="2 bases are for an Average"):
        ptd.KarrasDenoiser(network(), bases=[MIXTURE, MIXTURE])
    with pytest.raises(ValueError, match="singular"):
        ptd.KarrasDenoiser(network(), bases=[ptd.GaussianMixture([1.0], [[0.0, 0.0]], torch.ones(1, 2, 2))])
    with pytest.raises(ValueError, match="at least one network"):
        ptd.Average([])


# ----------------------------------------------------------------------------------------------------------- companions

FAR = ptd.GaussianMixture([1.0], [[8.0, 8.0]], 0.01 * torch.eye(2)[None])
GAUSSIAN = ptd.GaussianMixture([1.0], [[0.0, 0.0]], MIXTURE.covariance[None])


def mixed(share: float = 0.25) -> ptd.DiffusionModel:
    denoiser = ptd.KarrasDenoiser(network(silent=True), bases=[GAUSSIAN])
    inference = ptd.InferenceConfig(sigma_min=0.05, sigma_max=160.0, num_steps=60, solver="heun", final_zero=False)
    return model(denoiser, companion=ptd.Companion(FAR, share), inference=inference)


def test_the_density_is_the_weighted_sum() -> None:
    """Of the blurred base, which the silent network leaves, and of the companion, to 1e-6 nats; in the user's units."""
    found = mixed().log_prob(mixed().standardiser.inverse(POINTS), num_steps=200)
    parts = [GAUSSIAN.log_prob(POINTS, 0.05) + np.log(0.75), FAR.log_prob(POINTS) + np.log(0.25)]
    np.testing.assert_allclose(found + np.log(2.0 * 0.5), torch.logaddexp(*parts).numpy(), rtol=0, atol=1e-6)


def test_samples_are_of_the_sum() -> None:
    """The share of the companion, and the law of both parts, the blur included."""
    drawn = mixed().standardiser.transform(mixed().sample(4000, seed=3))
    far = drawn[:, 0] > 5
    assert far.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))
    assert kstest(drawn[far, 0], norm(8, 0.1 * np.sqrt(1 + 0.25)).cdf).pvalue > 1e-3  # 0.05 of blur on 0.1
    spread = np.sqrt(float(MIXTURE.covariance[0, 0]) + 0.05**2)
    assert kstest(drawn[~far, 0], norm(0, spread).cdf).pvalue > 1e-3


def test_rows_do_not_depend_on_how_many_are_drawn() -> None:
    """Nor does the part that each is of."""
    np.testing.assert_array_equal(mixed().sample(1500, seed=3)[:700], mixed().sample(700, seed=3))


def test_a_budget_without_a_last_step_ends_at_the_blur() -> None:
    """`nfe` counts and the spread is that of the blurred data, not of the denoised."""
    made = mixed()
    steps = list(made.trajectory(2000, seed=1, nfe=30))
    assert steps[-1].nfe == 30
    assert steps[-1].sigma == pytest.approx(0.05)
    near = made.standardiser.transform(steps[-1].x)
    near = near[near[:, 0] < 5]
    assert near.std(axis=0)[1] == pytest.approx(np.sqrt(float(MIXTURE.covariance[1, 1]) + 0.05**2), rel=0.06)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        ptd.Companion(FAR, share)
