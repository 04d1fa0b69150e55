"""Preconditioning of Karras et al. (2022), table 1, and the contract of a denoiser."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.contract import noise_prediction

SIGMA_DATA = [0.5, 1.0, 3.0]


class _Spy(nn.Module):
    """A network that keeps what it was given and answers with a fixed function of it."""

    def forward(self, x: Tensor, c: Tensor, **condition: Any) -> Tensor:
        self.x, self.c, self.condition = x, c, condition
        return torch.tanh(x) + c.reshape(-1, *(1,) * (x.ndim - 1))


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.5, 1.0, 7.0, 80.0])
def test_coefficients_are_those_of_table_1(sigma: float, sigma_data: float) -> None:
    """c_skip, c_out, c_in and c_noise are the formulas of table 1, written out here with plain floats."""
    denoiser = ptd.KarrasDenoiser(_Spy(), sigma_data)
    result = [float(c) for c in denoiser.coefficients(torch.tensor(sigma, dtype=torch.float64))]
    by_hand = [
        sigma_data**2 / (sigma**2 + sigma_data**2),
        sigma * sigma_data / math.sqrt(sigma_data**2 + sigma**2),
        1 / math.sqrt(sigma**2 + sigma_data**2),
        math.log(sigma) / 4,
    ]
    assert result == pytest.approx(by_hand, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
def test_forward_is_equation_7(sigma_data: float) -> None:
    """D = c_skip x + c_out F(c_in x, c_noise), row by row, with the network called on exactly these arguments."""
    spy = _Spy()
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigmas = [0.01, 0.3, 2.0, 50.0]
    result = ptd.KarrasDenoiser(spy, sigma_data)(x, torch.tensor(sigmas, dtype=torch.float64))
    assert spy.c.shape == (4,)
    for row, sigma in enumerate(sigmas):
        total = sigma**2 + sigma_data**2
        network_in = x[row] / math.sqrt(total)
        network_out = torch.tanh(network_in) + math.log(sigma) / 4
        expected = sigma_data**2 / total * x[row] + sigma * sigma_data / math.sqrt(total) * network_out
        torch.testing.assert_close(spy.x[row], network_in, rtol=1e-13, atol=1e-13)
        assert float(spy.c[row]) == pytest.approx(math.log(sigma) / 4, rel=1e-13)
        torch.testing.assert_close(result[row], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("sigma", [1e-2, 1e-4, 1e-6])
def test_without_noise_the_denoiser_is_the_identity(sigma: float) -> None:
    """As sigma falls D tends to x, in proportion to sigma: a network that is off by F is off by sigma F only."""
    denoiser = ptd.KarrasDenoiser(_Spy())
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (denoiser(x, torch.tensor(sigma, dtype=torch.float64)) - x).abs().max()
    largest_output = 1 + abs(math.log(sigma)) / 4
    assert 0 < float(error) < sigma * largest_output + 5 * sigma**2  # |x| < 5 here


def test_in_much_noise_the_denoiser_is_the_network() -> None:
    """As sigma grows the skip path vanishes and D tends to sigma_data F."""
    spy = _Spy()
    x = 1e6 * torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = ptd.KarrasDenoiser(spy, 2.0)(x, torch.tensor(1e6, dtype=torch.float64))
    expected = 2.0 * (torch.tanh(spy.x) + spy.c[:, None])
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)  # c_skip x is at most 4e-12 times 5e6


@pytest.mark.parametrize("sigma_data", SIGMA_DATA)
@pytest.mark.parametrize("sigma", [0.01, 0.7, 20.0])
def test_input_and_target_of_the_network_have_unit_variance(sigma: float, sigma_data: float) -> None:
    """The purpose of the preconditioning (appendix B.6): both have variance 1 at every noise level."""
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    x_0 = sigma_data * torch.randn(n, dtype=torch.float64, generator=generator)
    x = x_0 + sigma * torch.randn(n, dtype=torch.float64, generator=generator)
    denoiser = ptd.KarrasDenoiser(_Spy(), sigma_data)
    c_skip, c_out, c_in, _ = denoiser.coefficients(torch.tensor(sigma, dtype=torch.float64))
    # The standard error of a variance is sqrt(2 / n) = 0.003; five of them.
    assert float((c_in * x).var()) == pytest.approx(1.0, abs=0.016)
    assert float(((x_0 - c_skip * x) / c_out).var()) == pytest.approx(1.0, abs=0.016)
    # c_skip makes c_out least: there the target is uncorrelated with the input (equation 138).
    correlation = torch.corrcoef(torch.stack([x, x_0 - c_skip * x]))[0, 1]
    assert abs(float(correlation)) < 0.012


def test_sigma_is_a_scalar_or_one_for_each_row() -> None:
    """A scalar means the same level for all rows."""
    denoiser = ptd.KarrasDenoiser(_Spy())
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scalar = denoiser(x, torch.tensor(0.7, dtype=torch.float64))
    rows = denoiser(x, torch.full((5,), 0.7, dtype=torch.float64))
    assert torch.equal(scalar, rows)
    mixed = denoiser(x, torch.tensor([0.1, 0.7, 1.0, 2.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(mixed[1], scalar[1], rtol=1e-13, atol=0)
    assert not torch.equal(mixed, scalar)


def test_points_may_have_any_shape() -> None:
    """Rows of any shape `(B, *shape)` work, each with its own noise level."""
    denoiser = ptd.KarrasDenoiser(_Spy())
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    result = denoiser(x, sigma)
    assert result.shape == x.shape
    flat = denoiser(x.reshape(3, 20), sigma)
    torch.testing.assert_close(result.reshape(3, 20), flat, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(4,), (1,), (5, 1), (1, 5), (0,)])
def test_noise_levels_that_fit_no_row_are_refused(shape: tuple[int, ...]) -> None:
    """Nothing broadcasts by accident: five rows take one level or five."""
    with pytest.raises(ValueError, match="sigma"):
        ptd.KarrasDenoiser(_Spy())(torch.zeros(5, 2), torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_of_the_points_is_kept(dtype: torch.dtype) -> None:
    """Sigma of another type does not promote the points."""
    denoiser = ptd.KarrasDenoiser(_Spy())
    for other in (torch.float32, torch.float64):
        assert denoiser(torch.zeros(3, 2, dtype=dtype), torch.ones(3, dtype=other)).dtype == dtype


def test_conditions_reach_the_network() -> None:
    """What a denoiser is called with beyond points and sigma is the network's."""
    spy = _Spy()
    ptd.KarrasDenoiser(spy)(torch.zeros(3, 2), torch.tensor(1.0), label=7)
    assert spy.condition == {"label": 7}


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan, math.inf])
def test_a_standard_deviation_that_is_not_positive_is_refused(sigma_data: float) -> None:
    """The data's standard deviation is a positive finite number."""
    with pytest.raises(ValueError, match="sigma_data"):
        ptd.KarrasDenoiser(_Spy(), sigma_data)


def test_noise_prediction_recovers_the_noise() -> None:
    """Of a denoiser that knows the clean points, (x - D) / sigma is the noise that was added."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(6, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    sigma = torch.tensor([0.1, 0.2, 0.5, 1.0, 5.0, 80.0], dtype=torch.float64)
    result = noise_prediction(lambda *_: x_0, x_0 + sigma[:, None] * eps, sigma)
    torch.testing.assert_close(result, eps, rtol=1e-13, atol=1e-14)


def _calls(network: ptd.KarrasDenoiser, x: Tensor) -> dict[str, Any]:
    return {
        "exact_flow": lambda: ptd.exact_flow(network, x, 1.0, 0.1),
        "sample": lambda: ptd.sample(network, x, torch.tensor([1.0, 0.1, 0.0])),
        "log_prob": lambda: ptd.log_prob(network, x, sigma_min=0.1, sigma_max=1.0),
        "log_prob, adaptive": lambda: ptd.log_prob(network, x, sigma_min=0.1, sigma_max=1.0, tolerance=1e-3),
    }


@pytest.mark.parametrize("name", ["exact_flow", "sample", "log_prob", "log_prob, adaptive"])
def test_points_of_another_type_than_the_weights_get_a_sentence(name: str) -> None:
    """It names the type and both conversions; after either conversion it works."""
    network, x = ptd.KarrasDenoiser(ptd.default_network(2, 8)), torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"torch\.float64.*denoiser\.double\(\)"):
        _calls(network, x)[name]()
    _calls(network.double(), x)[name]()


class _Pair(nn.Module):
    """Takes what a backbone takes, and returns another number of columns."""

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x[:, :1] + c[:, None]


def test_a_backbone_that_is_called_otherwise_is_refused_before_training() -> None:
    """A layer of points alone, and a network without the conditions that it would be given."""
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double().numpy()
    quick = ptd.TrainingConfig(epochs=1)
    for make in (lambda: ptd.KarrasDenoiser(nn.Linear(2, 2)), lambda: ptd.fit(points, quick, backbone=nn.Linear(2, 2))):
        with pytest.raises(ValueError, match=r"backbone Linear cannot be called .*forward\(self, x, c\)"):
            make()
    with pytest.raises(ValueError, match=r"_Pair cannot be called .* and labels.*forward\(self, x, c, labels\)"):
        ptd.fit(points, quick, backbone=_Pair(), labels=["a", "b"] * 20)
    with pytest.raises(ValueError, match=r"shape of its points, \(3, 2\), got \(3, 1\)"):
        ptd.KarrasDenoiser(_Pair())(torch.zeros(3, 2), torch.tensor(1.0))
    ptd.KarrasDenoiser(ptd.default_network(2, 8, num_classes=2))  # takes conditions, needs none
