"""Models of other families as denoisers and back: exact round trips, closed forms, foreign numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.denoisers import adapters
from pointdiffusion.denoisers.adapters import PREDICTIONS, AdaptedDenoiser, to_model
from pointdiffusion.noise import SCHEDULES, CosineSchedule, LinearBetaSchedule, LogLinearSchedule, RectifiedFlowSchedule

MIXTURE = ptd.GaussianMixture(
    [0.3, 0.7], [[-1.0, 0.0], [1.0, 0.3]], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]]]
)
PAIRS = [(s, p) for s in SCHEDULES for p in PREDICTIONS if p != "velocity" or s == "rectified-flow"]


@pytest.mark.parametrize(("name", "prediction"), PAIRS)
def test_round_trips_are_exact(name: str, prediction: str) -> None:
    """Denoiser to model and back, at every noise level of the schedule: 1e-12 of the size of what went in."""
    schedule = SCHEDULES[name]()
    levels = torch.linspace(0.001, 0.999, 40, dtype=torch.float64)
    sigma = schedule.sigma(levels)
    x = torch.cat([MIXTURE.sample(1, torch.Generator().manual_seed(k), float(s)) for k, s in enumerate(sigma)])
    back = AdaptedDenoiser(
        to_model(MIXTURE.denoise, schedule, prediction, time_scale=7.0), schedule, prediction, time_scale=7.0
    )
    error = (back(x, sigma) - MIXTURE.denoise(x, sigma)).abs().amax(dim=1)
    assert float((error / x.abs().amax(dim=1).clamp(min=1.0)).max()) < 1e-12


@pytest.mark.parametrize(("name", "prediction"), PAIRS)
def test_predictions_are_what_their_papers_say(name: str, prediction: str) -> None:
    """For a single clean point everything is known: noise, score, v and velocity written out."""
    schedule = SCHEDULES[name]()
    point = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    eps = torch.tensor([[1.3, 0.2]], dtype=torch.float64)
    sigma = schedule.sigma(torch.tensor([0.4], dtype=torch.float64))
    family = hasattr(schedule, "native_time")
    time = schedule.native_time(sigma) if family else schedule.time(sigma)  # type: ignore[attr-defined]
    alpha = schedule.alpha(sigma)
    x_t = alpha * (point + sigma * eps)
    found = to_model(lambda x, _: point.expand_as(x), schedule, prediction)(x_t, time)
    expected = {
        "eps": eps,
        "x0": point,
        "score": -eps / (alpha * sigma),
        "v": alpha * eps - alpha * sigma * point,
        "velocity": eps - point,
    }[prediction]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_linear_beta_is_ddpm() -> None:
    """At whole indices, the cumulative product of the paper, in NumPy."""
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    schedule = LinearBetaSchedule()
    index = torch.arange(1000, dtype=torch.float64)
    expected = torch.from_numpy(np.sqrt((1 - bars) / bars))
    torch.testing.assert_close(schedule.native_sigma(index), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.native_time(expected), index, rtol=0, atol=1e-7)


def test_cosine_is_that_of_nichol_and_dhariwal() -> None:
    u = torch.linspace(0.001, 0.99, 50, dtype=torch.float64)
    bar = ((u + 0.008) / 1.008 * np.pi / 2).cos() ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    torch.testing.assert_close(CosineSchedule().native_sigma(u), ((1 - bar) / bar).sqrt(), rtol=1e-9, atol=0)
    torch.testing.assert_close(CosineSchedule().native_time(((1 - bar) / bar).sqrt()), u, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["cosine", "linear-beta"])
def test_points_of_variance_preserving_families_keep_their_variance(name: str) -> None:
    schedule = SCHEDULES[name]()
    sigma = schedule.sigma(torch.linspace(0, 1, 9, dtype=torch.float64))
    alpha = schedule.alpha(sigma)
    torch.testing.assert_close(alpha**2 + (alpha * sigma) ** 2, torch.ones_like(sigma))


def test_log_linear_and_rectified_flow_grids() -> None:
    sigmas = LogLinearSchedule(0.01, 10.0).sigmas(7, final_zero=False)
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((7,), 1000 ** (-1 / 7)).double())
    time = RectifiedFlowSchedule(0.01, 10.0).native_time(RectifiedFlowSchedule(0.01, 10.0).sigmas(7, final_zero=False))
    torch.testing.assert_close(time.diff(), time.diff()[:1].expand(7))


def test_a_foreign_model_is_sampled_by_our_solvers() -> None:
    """A DDPM model of the exact noise of a mixture, driven through the adapter, ends where the exact flow does."""
    schedule = LinearBetaSchedule()
    denoiser = adapters.from_eps(adapters.to_eps(MIXTURE.denoise, schedule), schedule)
    x = MIXTURE.sample(50, torch.Generator().manual_seed(0), 100.0)
    y = ptd.sample(denoiser, x, nfe=50, sigma_max=100.0)
    exact = ptd.exact_flow(MIXTURE.denoise, x, 100.0, 0.0).x
    # The last levels lie below what the model has, and are those of index 0 extrapolated.
    assert float((y - exact).square().mean(dim=1).sqrt().median()) < 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_any_target_can_be_trained(prediction: str) -> None:
    """A network that predicts the target of any family trains in our module: its loss falls towards the least."""
    from lightning.pytorch import Trainer

    from pointdiffusion.training.fitting import quiet_lightning

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 2))

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Tensor:
            return self.layers(torch.cat([x_t, t[:, None]], dim=1))

    torch.manual_seed(0)
    points = ptd.DATASETS["moons"](256, random_state=0)
    loss = {"eps": "noise-prediction", "x0": "x0", "score": "noise-prediction", "v": "v", "velocity": "velocity"}
    config = ptd.TrainingConfig(
        epochs=100, batch_size=64, reference_points=0, loss=loss[prediction], learning_rate=1e-2
    )
    denoiser = AdaptedDenoiser(Network(), RectifiedFlowSchedule(0.01, 10.0), prediction)
    module = ptd.LightningDiffusion(denoiser, config, points=points)
    generator = torch.Generator().manual_seed(1)
    sigma = ptd.LogUniformSampler(0.01, 10.0).sample(512, generator)
    noise = sigma[:, None] * torch.randn(512, 2, generator=generator)
    weight = ptd.loss_weight(sigma, loss=config.loss)[:, None]
    clean = torch.from_numpy(ptd.Standardiser.fit(points).transform(points)).float().repeat(2, 1)

    def error() -> float:
        with torch.no_grad():
            return float((weight * (denoiser(clean + noise, sigma) - clean) ** 2).mean())

    # No network can do better than the exact optimum of these very rows.
    best = ptd.EmpiricalDenoiser(clean[:256])(clean + noise, sigma)
    floor = float((weight * (best - clean) ** 2).mean())
    before = error()
    with quiet_lightning():
        Trainer(
            max_epochs=100, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0,
        ).fit(module)  # fmt: skip
    assert error() - floor < 0.8 * (before - floor)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptedDenoiser(nn.Identity(), CosineSchedule(), "velocity"), "RectifiedFlowSchedule"),
        (lambda: AdaptedDenoiser(nn.Identity(), CosineSchedule(), "noise"), "unknown prediction"),
        (lambda: to_model(MIXTURE.denoise, CosineSchedule(), "eps", time_scale=0.0), "time_scale"),
        (lambda: LinearBetaSchedule(beta_first=0.0), "beta_first"),
        (lambda: CosineSchedule(offset=-1.0), "offset"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
