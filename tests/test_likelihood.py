"""Densities by the flow equal the closed forms, and their error budget covers what they are off by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.likelihood import density as likelihood

MIXTURE = ptd.GaussianMixture(
    [0.3, 0.7], [[0.0, 1.0], [1.0, -1.0]], [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]]
)
FAR: dict[str, Any] = {"sigma_min": 0.05, "mean": MIXTURE.mean, "covariance": MIXTURE.covariance}


def points(count: int = 64) -> Tensor:
    return MIXTURE.sample(count, torch.Generator().manual_seed(0))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_dims", [1, 2, 5, 16])
def test_mixtures_have_their_own_density(n_dims: int) -> None:
    """To 1e-6 nats, from 160 standard deviations up."""
    draw = torch.randn(3, n_dims, n_dims, generator=generator(n_dims)).double()
    covariances = 0.3 * draw @ draw.mT / n_dims + 0.05 * torch.eye(n_dims).double()
    mixture = ptd.GaussianMixture([0.2, 0.3, 0.5], torch.randn(3, n_dims, generator=generator(1)), covariances)
    x = mixture.sample(16, generator(2))
    found = ptd.log_prob(
        mixture.denoise, x, sigma_min=0.05, sigma_max=320.0, mean=mixture.mean, covariance=mixture.covariance,
        tolerance=1e-10,
    )  # fmt: skip
    torch.testing.assert_close(found, mixture.log_prob(x, 0.05), rtol=0, atol=1e-6)


def test_a_gaussian_is_exact_from_any_end() -> None:
    """The far end is the Gaussian of the data, so nothing is left out, wherever the flow stops."""
    gaussian = ptd.GaussianMixture([1.0], [[3.0, -1.0]], [[[2.0, 0.5], [0.5, 1.0]]])
    x = gaussian.sample(32, generator(0))
    found = ptd.log_prob(
        gaussian.denoise, x, sigma_min=0.1, sigma_max=2.0, mean=gaussian.mean, covariance=gaussian.covariance,
        tolerance=1e-10,
    )  # fmt: skip
    torch.testing.assert_close(found, gaussian.log_prob(x, 0.1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("solver", [None, "heun", "rk4", "dpmpp-2m", "unipc-3", "angular-3", "dpm-solver-3"])
def test_every_kind_of_solver_carries_the_points(solver: str | None) -> None:
    """Twice the steps are nearer to the truth, and the fine grid is near."""
    errors = []
    for steps in (48, 96):
        found = ptd.log_prob(MIXTURE.denoise, points(), sigma_max=160.0, solver=solver, num_steps=steps, **FAR)
        errors.append(float((found - MIXTURE.log_prob(points(), 0.05)).abs().mean()))
    assert errors[1] < errors[0] / 3
    assert errors[1] < 3e-3


def test_order_of_the_density_is_that_of_the_spline() -> None:
    errors = []
    for steps in (64, 128, 256):
        found = ptd.log_prob(MIXTURE.denoise, points(), sigma_max=160.0, solver="rk4", num_steps=steps, **FAR)
        errors.append(float((found - MIXTURE.log_prob(points(), 0.05)).abs().mean()))
    slope = -np.polyfit(np.log([64, 128]), np.log(errors[:2]), 1)[0]
    assert slope > 3.5


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_probes_average_to_the_divergence_and_say_their_error(probe: str) -> None:
    exact = ptd.log_prob(MIXTURE.denoise, points(), sigma_max=160.0, **FAR)
    sizes, stated = [], []
    for count in (8, 32, 128):
        found = ptd.log_prob_with_errors(
            MIXTURE.denoise, points(), sigma_max=160.0, probes=count, probe=probe, generator=generator(0), **FAR
        )
        sizes.append(float((found.log_prob - exact).square().mean().sqrt()))
        stated.append(float(found.probe_error.square().mean().sqrt()))
    slope = np.polyfit(np.log([8, 32, 128]), np.log(sizes), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.2)
    assert sizes[-1] == pytest.approx(stated[-1], rel=0.4)


def test_the_budget_covers_the_error() -> None:
    truth = MIXTURE.log_prob(points(), 0.05)
    for settings in ({"num_steps": 32}, {"tolerance": 1e-4}):
        found = ptd.log_prob_with_errors(MIXTURE.denoise, points(), sigma_max=10.0, **settings, **FAR)  # type: ignore[arg-type]
        stated = found.solver_error + found.probe_error + found.end_error
        assert float(((found.log_prob - truth).abs() <= stated).double().mean()) > 0.95
        assert bool((found.probe_error == 0).all())
    far = ptd.log_prob_with_errors(MIXTURE.denoise, points(), sigma_max=160.0, tolerance=1e-9, **FAR)
    assert float(far.end_error.max()) < 1e-5  # a higher end leaves less


def test_gradients_flow_into_no_weight_and_rows_are_their_own() -> None:
    """A row's density does not depend on its neighbours."""
    together = ptd.log_prob(MIXTURE.denoise, points(), sigma_max=20.0, **FAR)
    alone = torch.cat([ptd.log_prob(MIXTURE.denoise, row[None], sigma_max=20.0, **FAR) for row in points()[:3]])
    torch.testing.assert_close(together[:3], alone, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.* steps are few")  # a finite set is rough at 0.01
def test_the_bandwidth_of_few_points_is_found() -> None:
    """Of the exact denoiser of a finite set, the blur that explains fresh points best is neither end's."""
    train, fresh = (torch.randn(count, 1, generator=generator(count)).double() for count in (100, 300))
    denoiser = ptd.EmpiricalDenoiser(train)
    candidates = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    found = ptd.choose_sigma_min(denoiser, fresh, candidates, sigma_max=50.0, covariance=float(train.var()))
    kernel = [float(denoiser.log_prob(fresh, level).mean()) for level in candidates]
    assert found.sigma_min == candidates[int(np.argmax(kernel))]  # the kernel density says the same
    np.testing.assert_allclose(found.means[2:].numpy(), kernel[2:], atol=0.02)
    assert bool((found.standard_errors > 0).all())


# ------------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def model() -> ptd.DiffusionModel:
    table = 5 + np.array([3.0, 0.2]) * ptd.DATASETS["moons"](1024, random_state=0)
    small = lambda _: ptd.default_network(2, hidden_dim=64)  # noqa: E731
    return ptd.fit(table, ptd.TrainingConfig(epochs=30), seed=0, backbone=small)


def test_a_models_density_integrates_to_one(model: ptd.DiffusionModel) -> None:
    """In the user's own units, over a grid finer than the blur.

    Of a network that has learned, that is: the density is the network's own, and of one that has hardly begun it is
    rougher than any blur, so that a sum over the same grid errs by 2 %.
    """
    blur = 0.25
    sides = [np.arange(-5, 5, blur * 0.4) * scale + mean for mean, scale in zip(
        model.standardiser.mean, model.standardiser.scale, strict=True
    )]  # fmt: skip
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = math.prod(side[1] - side[0] for side in sides)
    density = np.exp(model.log_prob(grid, sigma_min=blur, num_steps=64))
    assert density.sum() * cell == pytest.approx(1.0, abs=1e-3)


def test_a_models_density_is_that_of_the_adaptive_method(model: ptd.DiffusionModel) -> None:
    """Since the network is smooth in the noise level; with an embedding of up to 64 radians it errs nine times more."""
    rows = model.sample(100, seed=1)
    grid, adaptive = model.log_prob(rows), model.log_prob(rows, tolerance=1e-4)
    assert grid.shape == (100,)
    assert float(np.abs(grid - adaptive).mean()) < 3e-4
    np.testing.assert_allclose(model.log_prob(rows[:7]), grid[:7], atol=1e-3)


def test_density_follows_the_units(model: ptd.DiffusionModel) -> None:
    """The divergence by finite differences of the flow itself: an independent route to the Jacobian."""
    row = model.sample(3, seed=2)
    step = 1e-4 * model.standardiser.scale
    for k in range(3):
        shifted = [row[k] + sign * np.eye(2)[i] * step[i] for i in range(2) for sign in (1, -1)]
        latent = model.latent(np.array([row[k], *shifted]), tolerance=1e-10)
        columns = [(latent[1 + 2 * i] - latent[2 + 2 * i]) / (2 * step[i]) for i in range(2)]
        normal = -0.5 * float(latent[0] @ latent[0]) - math.log(2 * math.pi)
        expected = normal + math.log(abs(float(np.linalg.det(np.array(columns)))))
        assert float(model.log_prob(row[k : k + 1])[0]) == pytest.approx(expected, abs=5e-3)


def test_latent_points_come_back(model: ptd.DiffusionModel) -> None:
    rows = model.sample(200, seed=3)
    latent = model.latent(rows)
    back = model.from_latent(latent)
    assert np.abs((back - rows) / model.standardiser.scale).max() < 1e-5
    assert abs(latent.mean()) < 0.3
    assert latent.std() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_min": 0.0}, "sigma_min must lie above 0"),
        ({"sigma_min": 20.0}, "below sigma_max"),
        ({"probes": -1}, "probes must be 0"),
        ({"probes": 3, "generator": None}, "hand over a generator"),
        ({"probe": "uniform"}, "unknown probe"),
        ({"solver": "ddim"}, "deterministic"),
        ({"solver": "dormand-prince"}, "give tolerance"),
        ({"solver": "huen"}, "unknown solver"),
        ({"num_steps": 2}, "at least 4"),
        ({"covariance": torch.eye(3)}, "covariance must have shape"),
        ({"x": torch.tensor([[float("nan"), 0.0]])}, "NaN"),
        ({"x": torch.zeros(2)}, "shape"),
        ({"tolerance": 1e-30}, "toleran"),
    ],
)
def test_bad_requests_are_refused(settings: dict[str, Any], message: str) -> None:
    arguments = {"x": points(4), "sigma_max": 10.0, **FAR, **settings}
    with pytest.raises(ValueError, match=message):
        ptd.log_prob(MIXTURE.denoise, **arguments)


def test_bad_tables_are_refused(model: ptd.DiffusionModel) -> None:
    for table, message in ((np.zeros((3, 3)), "columns"), (np.full((3, 2), np.nan), "NaN")):
        with pytest.raises(ValueError, match=message):
            model.log_prob(table)
    with pytest.raises(ValueError, match="latent points"):
        model.from_latent(np.zeros((2, 3)))


# ------------------------------------------------------------------------------------------------------------- defaults


def scattered(seed: int, low: float, high: float) -> ptd.GaussianMixture:
    """Six round Gaussians in eight dimensions, of these widths, at unit variance all together."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(6, 8, generator=rng).double()
    widths = low + (high - low) * torch.rand(6, generator=rng).double()
    covariances = widths[:, None, None] ** 2 * torch.eye(8).double()
    whole = ptd.GaussianMixture([1 / 6] * 6, means, covariances)
    scale = whole.covariance.diagonal().mean().sqrt()
    return ptd.GaussianMixture([1 / 6] * 6, (means - whole.mean) / scale, covariances / scale**2)


def errors_of(mixture: ptd.GaussianMixture, low: float, high: float, **settings: Any) -> Tensor:
    x = mixture.sample(150, torch.Generator().manual_seed(0), low)
    blurred = ptd.GaussianMixture(mixture.weights, mixture.means, mixture.covariances + low**2 * torch.eye(8).double())
    ends = {"mean": mixture.mean, "covariance": mixture.covariance}
    found = ptd.log_prob(mixture.denoise, x, sigma_min=low, sigma_max=high, **ends, **settings)
    return (found - blurred.log_prob(x)).abs()


@pytest.mark.parametrize("low", [0.05, 0.01, 0.002])
def test_wide_ranges_take_more_steps(low: float) -> None:
    """By default as many for each factor of noise, however far apart the ends; 40 leave 0.002 to 0.007 nats."""
    mixture = scattered(3, 0.5, 1.0)
    assert float(errors_of(mixture, low, 160.0).max()) < 0.002
    assert likelihood.steps_for(0.01, 10.0) == likelihood.steps_for(0.1, 10.0) == 40
    assert likelihood.steps_for(1e-3, 1e3) == 80


def test_errors_above_a_hundredth_are_told() -> None:
    """Narrow lumps from 0.05 to 160 err by 0.8 nats by default: it is said, and mended as it says."""
    mixture = scattered(3, 0.1, 0.4)
    with pytest.warns(UserWarning, match=r"steps are few for \d+ of 150 log-densities.*give num_steps=188"):
        found = errors_of(mixture, 0.05, 160.0)
    assert float(found.max()) > 0.01
    assert float(errors_of(mixture, 0.05, 160.0, num_steps=188).max()) < 0.01
    assert float(errors_of(mixture, 0.05, 160.0, tolerance=1e-5).max()) < 0.01
