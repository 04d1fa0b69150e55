"""Losses and weightings against hand calculation, and what they are the error of."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.contract import noise_prediction
from pointdiffusion.training.losses import LOSSES, WEIGHTINGS, denoising_loss, loss_weight

SIGMAS = [0.002, 0.1, 1 / math.sqrt(5), 0.7, 1.0, 3.0, 80.0]

# Written down from the papers, in plain floats: (sigma, sigma_data) and (sigma, gamma).
LOSSES_BY_HAND: dict[str, Callable[[float, float], float]] = {
    "karras": lambda s, d: (s * s + d * d) / (s * d) ** 2,
    "noise-prediction": lambda s, _: 1 / (s * s),
    # The error of what is predicted for an error of 1 of the clean point, squared.
    "x0": lambda _s, _: 1.0,
    "v": lambda s, _: ((-1 / s - s) / math.sqrt(1 + s * s)) ** 2,
    "velocity": lambda s, _: (-1 / s - 1) ** 2,
}
WEIGHTINGS_BY_HAND: dict[str, Callable[[float, float], float] | None] = {
    "uniform": None,
    "snr": lambda s, _: 1 / s**2,
    "min-snr": lambda s, g: min(1 / s**2, g),
    "soft-min-snr": lambda s, g: 1 / s**2 * g / (1 / s**2 + g),
}


class _Network(nn.Module):
    """Some fixed function of its two inputs."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.sin(3 * x) + c[:, None]


def test_every_loss_and_weighting_is_calculated_by_hand_here() -> None:
    """What is registered is tested: write its formula down above."""
    assert set(LOSSES_BY_HAND) == set(LOSSES)
    assert set(WEIGHTINGS_BY_HAND) == set(WEIGHTINGS)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_hand(loss: str, sigma_data: float) -> None:
    """With the uniform weighting the weight is that of the loss, level by level."""
    weight = loss_weight(torch.tensor(SIGMAS, dtype=torch.float64), loss=loss, sigma_data=sigma_data)
    assert weight.tolist() == pytest.approx([LOSSES_BY_HAND[loss](s, sigma_data) for s in SIGMAS], rel=1e-13)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighting", [name for name in WEIGHTINGS if name != "uniform"])
def test_weightings_by_hand_mean_the_same_under_every_loss(weighting: str, loss: str, gamma: float) -> None:
    """Any other weighting replaces the loss's own weight by its function of the signal-to-noise ratio."""
    by_hand = WEIGHTINGS_BY_HAND[weighting]
    assert by_hand is not None
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    weight = loss_weight(sigma, loss=loss, weighting=weighting, sigma_data=0.5, gamma=gamma)
    assert weight.tolist() == pytest.approx([by_hand(s, gamma) for s in SIGMAS], rel=1e-12)


def test_defaults_are_karras_and_gamma_five() -> None:
    """Without arguments the weight is Karras' at unit variance; min-SNR's constant is the 5 of Hang et al."""
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    assert torch.equal(loss_weight(sigma), loss_weight(sigma, loss="karras", weighting="uniform", sigma_data=1.0))
    assert float(loss_weight(torch.tensor(0.01), weighting="min-snr")) == 5.0


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_positive_and_keep_shape_and_type(loss: str, weighting: str) -> None:
    """A weight for each level, above 0 and finite over the whole usual range, also in float32."""
    sigma = torch.logspace(-3, 2, 12).reshape(3, 4)
    weight = loss_weight(sigma, loss=loss, weighting=weighting)
    assert (weight.shape, weight.dtype) == (sigma.shape, torch.float32)
    assert ((weight > 0) & weight.isfinite()).all()


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_karras_loss_is_the_error_of_the_network_against_its_effective_target(sigma_data: float) -> None:
    """Equation 8: the weighted loss is the plain mean square of F less (x_0 - c_skip x) / c_out."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(50, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    sigma = torch.logspace(-2, 1, 50, dtype=torch.float64)
    x = x_0 + sigma[:, None] * eps
    denoiser = ptd.KarrasDenoiser(_Network(), sigma_data)
    loss = denoising_loss(denoiser(x, sigma), x_0, loss_weight(sigma, loss="karras", sigma_data=sigma_data))
    total = (sigma**2 + sigma_data**2)[:, None]
    c_skip, c_out = sigma_data**2 / total, sigma[:, None] * sigma_data / total.sqrt()
    raw = _Network()(x / total.sqrt(), sigma.log() / 4)
    target = (x_0 - c_skip * x) / c_out
    # 1e-9: x_0 - D cancels digits at low noise, where x_0 is 100 times the difference and more.
    torch.testing.assert_close(loss, (raw - target).square().mean(dim=1), rtol=1e-9, atol=1e-12)


def test_noise_prediction_loss_is_the_error_of_the_noise() -> None:
    """Ho et al. (2020), equation 14: the plain mean square of predicted less actual noise."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(50, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    sigma = torch.logspace(-2, 1, 50, dtype=torch.float64)
    x = x_0 + sigma[:, None] * eps
    denoiser = ptd.KarrasDenoiser(_Network())
    loss = denoising_loss(denoiser(x, sigma), x_0, loss_weight(sigma, loss="noise-prediction"))
    expected = (noise_prediction(denoiser, x, sigma) - eps).square().mean(dim=1)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)


def test_denoising_loss_by_hand() -> None:
    """One number a row: weight times the mean, not the sum, of the squared differences over all dimensions."""
    denoised = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    target = torch.tensor([[[0.0, 0.0]], [[3.0, -1.0]]])
    loss = denoising_loss(denoised, target, torch.tensor([2.0, 10.0]))
    assert loss.tolist() == [2 * (1 + 4) / 2, 10 * (9 + 1) / 2]


def test_an_unknown_loss_is_answered_with_a_suggestion() -> None:
    """A misspelt loss is answered with the nearest name and with all of them."""
    with pytest.raises(ValueError, match=r"loss 'karas'.*did you mean 'karras'") as caught:
        loss_weight(torch.ones(1), loss="karas")
    assert all(name in str(caught.value) for name in LOSSES)


def test_an_unknown_weighting_is_answered_with_a_suggestion() -> None:
    """A misspelt weighting is answered with the nearest name and with all of them."""
    with pytest.raises(ValueError, match=r"weighting 'min_snr'.*did you mean 'min-snr'") as caught:
        loss_weight(torch.ones(1), weighting="min_snr")
    assert all(name in str(caught.value) for name in WEIGHTINGS)
