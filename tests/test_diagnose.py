"""The planted fault is named, each part agrees with an independent truth, and errors are what they say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.diagnostics.diagnosis import BLOCKS, _energies, _from, diagnose
from pointdiffusion.diagnostics.parts import ADVICE, MEANINGS, Diagnosis
from pointdiffusion.exact.optimal import (
    Estimate,
    OptimumProbe,
    kernel_bandwidth,
    kernel_optimum,
    known_optimum,
    sampled_optimum,
)
from pointdiffusion.metrics.distances import energy_distance
from pointdiffusion.training.noise_range import choose_noise_range, start_divergence
from pointdiffusion.visuals.diagnosis import plot_parts

EYE = torch.eye(2, dtype=torch.float64)
MIXTURE = ptd.GaussianMixture(
    [0.5, 0.3, 0.2], [[-2.0, 0.0], [1.5, 1.5], [1.0, -2.0]], torch.stack([0.09 * EYE, 0.16 * EYE, 0.04 * EYE])
)
SEEDS = (0, 1, 2)
SAMPLING = ptd.InferenceConfig(solver="heun", num_steps=24)


def draw(count: int, seed: int, mixture: ptd.GaussianMixture = MIXTURE) -> np.ndarray:
    return mixture.sample(count, torch.Generator().manual_seed(seed)).numpy()


def train(
    points: np.ndarray, seed: int, epochs: int, batch_size: int = 256, sigma_min: float = 0.045, sigma_max: float = 6.6
) -> ptd.DiffusionModel:
    """Fit on about the noise levels that `fit` would choose, which takes as long as the training itself."""
    config = ptd.TrainingConfig(
        epochs=epochs, batch_size=batch_size, learning_rate=1e-3, noise_draws=1, reference_points=256,
        sigma_min=sigma_min, sigma_max=sigma_max,
    )  # fmt: skip
    network = lambda _: ptd.default_network(2, hidden_dim=64)  # noqa: E731
    return ptd.fit(points, config, inference=SAMPLING, backbone=network, seed=seed)


class Exact:
    """A model's network replaced by an exact denoiser of standardised points."""

    def __new__(cls, model: ptd.DiffusionModel, denoiser: Any) -> ptd.DiffusionModel:
        model = dataclasses.replace(model, denoiser=ptd.KarrasDenoiser(model.denoiser.backbone))
        model.denoiser.forward = lambda x, sigma: denoiser(x, sigma)  # type: ignore[assignment]
        return model


def memorising(model: ptd.DiffusionModel, points: np.ndarray) -> ptd.DiffusionModel:
    return Exact(model, ptd.EmpiricalDenoiser(torch.from_numpy(model.standardiser.transform(points))))


def standard(model: ptd.DiffusionModel) -> ptd.GaussianMixture:
    """Return the mixture in the model's standard units."""
    mean, scale = (torch.from_numpy(part) for part in (model.standardiser.mean, model.standardiser.scale))
    return ptd.GaussianMixture(
        MIXTURE.weights, (MIXTURE.means - mean) / scale, MIXTURE.covariances / scale / scale[:, None]
    )


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, int], tuple[ptd.DiffusionModel, np.ndarray]]:
    """Return the models of the test: a sound one, one trained for eight steps, and one of 32 rows."""
    models = {}
    for seed in SEEDS:
        many, few = draw(4096, 1000 + seed), draw(32, 2000 + seed)
        models["sound", seed] = train(many, seed, epochs=36), many  # 576 steps
        models["short", seed] = train(many, seed, epochs=1, batch_size=512), many
        models["few", seed] = (
            train(np.tile(few, (32, 1)), seed, epochs=50, batch_size=128, sigma_min=0.001, sigma_max=5.1),
            few,
        )  # 400 steps
    return models


# ------------------------------------------------------------------------------------------------------ planted faults

PLANTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nothing": ("sound", "sound", {}),
    "too few steps": ("solver", "sound", {"solver": "euler", "num_steps": 4}),
    "too short a training": ("fit", "short", {}),
    "too little data": ("data", "few", {}),
    "a wrong sigma_max": ("start", "sound", {"sigma_max": 0.5}),
    "memorising": ("memorising", "few", {}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", PLANTED)
def test_the_planted_fault_is_named(fault: str, seed: int, trained: Any) -> None:
    """Five faults and a sound model, three seeds each."""
    cause, name, settings = PLANTED[fault]
    model, points = trained[name, seed]
    if fault == "memorising":
        model = memorising(model, points)
    found = diagnose(model, points, population=MIXTURE, num_points=1024, seed=seed, **settings)
    assert found.cause == cause, str(found)
    assert found.advice.startswith(ADVICE[cause].split("{")[0])


@pytest.mark.parametrize("fault", ["too few steps", "too short a training", "too little data", "memorising"])
def test_a_table_of_ones_own_will_do(fault: str, trained: Any) -> None:
    """Held-out rows in place of the population; what the network misses is then told from a kernel density."""
    cause, name, settings = PLANTED[fault]
    model, points = trained[name, 0]
    if fault == "memorising":
        model = memorising(model, points)
    found = diagnose(model, points, held_out=draw(1024, 77), **settings)
    assert found.cause == cause, str(found)
    assert not found.population_known
    assert found.n_samples == 1024


@pytest.fixture(scope="module")
def sound(trained: Any) -> Diagnosis:
    """Return one diagnosis of a sound model, on a population that can be drawn from."""
    model, points = trained["sound", 0]

    def population(n_samples: int, *, random_state: int) -> np.ndarray:
        return draw(n_samples, random_state)

    return diagnose(model, points, population=population, num_points=768, num_levels=3)


def test_parts_add_up(sound: Diagnosis) -> None:
    """What does not add up is a part of its own, so that the sum is the total."""
    assert sum(part.value for part in sound.parts.values()) == pytest.approx(sound.total.value, rel=1e-9, abs=1e-12)
    assert all(part.error > 0 for part in sound.parts.values())


def test_it_reads_and_draws(sound: Diagnosis) -> None:
    """A table with the sentence below, a short form of two lines, and three panels."""
    text = str(sound)
    assert text.splitlines()[-1] == sound.advice
    assert all(name in text for name in sound.parts)
    assert sound.short().splitlines()[0] == sound.advice
    assert len(sound.short().splitlines()) == 2
    figure = sound.plot(Figure())
    assert len(figure.axes) == 3
    assert set(MEANINGS) == {"total", *sound.parts}


def test_parts_are_drawn_as_signed_estimates_with_their_meaning() -> None:
    """Points with two standard errors, open where they cannot be told from 0; below 0 nothing looks like a length."""
    ax = Figure(layout="constrained").subplots()
    parts = {"total": (0.03, 0.01), "stop": (0.0001, 0.00001), "fit": (0.01, 0.006), "rest": (-0.02, 0.015)}
    plot_parts(ax, parts, {name: f"what {name} is" for name in parts})
    assert not ax.patches
    points = [container.lines[0] for container in ax.containers]
    assert [point.get_xdata()[0] for point in points] == [value for value, _ in parts.values()]
    assert [point.get_markerfacecolor() != "white" for point in points] == [True, False, False, False]
    for container, (value, error) in zip(ax.containers, parts.values(), strict=True):
        (bar,) = container.lines[2][0].get_segments()
        np.testing.assert_allclose(bar[:, 0], [value - 2 * error, value + 2 * error])
    shown = [text.get_text().replace("\n", " ") for text in (*ax.get_yticklabels(), *ax.texts)]
    for name in parts:
        assert name in shown
        assert f"what {name} is" in shown
    assert any("two standard errors" in text for text in shown)


def test_a_table_as_population_and_the_same_seed_again(trained: Any) -> None:
    """A large table will do for the population, and a seed draws the same again."""
    model, points = trained["sound", 1]
    rows = draw(6000, 5)
    first, again = (diagnose(model, points, population=rows, num_points=192, num_levels=3, seed=3) for _ in range(2))
    assert str(first) == str(again)
    assert first.population_known


def test_the_walk_from_given_rows_is_the_walk_of_the_model(trained: Any) -> None:
    """From noisy rows at 0 under the same noise, the steps lead where the model's own do from noise of that width."""
    model, _ = trained["short", 0]
    flat = dataclasses.replace(model, covariance=torch.zeros(2, 2))  # its start is then noise alone
    for settings in ({"num_steps": 5}, {"nfe": 6}):
        expected = model.standardiser.transform(flat.sample(1030, seed=4, **settings))
        found = _from(flat, torch.zeros(1030, 2, dtype=torch.float64), 4, settings)
        np.testing.assert_allclose(found, expected, atol=1e-5)  # float32


# ---------------------------------------------------------------------------------------------- each part by itself


def test_energies_agree_with_the_distance_of_whole_sets() -> None:
    """Without blocks it is the known estimate, less pairs of one draw; the jackknife's error is the scatter seen."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(100):
        a, b = rng.normal(size=(240, 2)) + 0.5, rng.normal(size=(240, 2))
        value, without = _energies({"a": a}, b)
        values.append(value["a"])
        errors.append(math.sqrt((BLOCKS - 1) * np.var(without["a"])))
    assert value["a"] == pytest.approx(energy_distance(a, b), abs=0.01)
    kept = np.arange(10, 240)  # without the first of 24 blocks
    pairs = [2 * np.linalg.norm(x[kept, None] - y[kept], axis=-1) for x, y in ((a, b), (a, a), (b, b))]
    terms = pairs[0] - pairs[1] / 2 - pairs[2] / 2
    expected = (terms.sum() - terms.trace()) / (230 * 229)
    assert without["a"][0] == pytest.approx(expected, rel=1e-9)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)  # 100 draws tell a scatter to 7 %


def test_the_flow_of_the_perfect_denoiser_leaves_nothing(trained: Any) -> None:
    """In place of the network the mixture's own denoiser: no part is more than four of its errors from 0."""
    model, points = trained["sound", 0]
    found = diagnose(Exact(model, standard(model).denoise), points, population=MIXTURE, num_points=768)
    assert found.cause == "sound"
    np.testing.assert_allclose(found.profile.fresh_excess.mean, 0, atol=1e-8)  # it is asked in float32
    assert abs(found.profile.fit.value) < 1e-7
    for name in ("fit", "data", "stop", "start"):
        assert abs(found.parts[name].value) < 4 * found.parts[name].error + 1e-9, name


def test_a_high_sigma_min_is_the_fault_of_the_stop(trained: Any) -> None:
    """Denoising from a standard deviation at once draws the points together, whatever the network."""
    model, points = trained["sound", 0]
    exact = Exact(model, standard(model).denoise)
    found = diagnose(exact, points, population=MIXTURE, num_points=1024, sigma_min=1.0)
    assert found.cause == "stop"
    assert "stopping at 1 " in found.advice


def probe(training: Tensor, reference: Any, *, exact: bool = True, seed: int = 0, **settings: Any) -> OptimumProbe:
    generator = torch.Generator().manual_seed(seed)
    sigmas = torch.tensor([0.1, 0.5, 2.0])
    fresh = MIXTURE.sample(700, generator)
    return OptimumProbe(training, fresh, reference, sigmas, generator=generator, exact=exact, **settings)


def test_excess_of_a_known_error_is_its_square() -> None:
    """A denoiser off by a constant c has an excess of c^2 on fresh rows, at every noise level, without noise."""
    training = MIXTURE.sample(500, torch.Generator().manual_seed(1))
    off = torch.tensor([0.3, -0.1], dtype=torch.float64)
    measured = probe(training, known_optimum(MIXTURE.denoise))
    profile, perfect = measured(lambda x, sigma: MIXTURE.denoise(x, sigma) + off), measured(MIXTURE.denoise)
    np.testing.assert_allclose(profile.fresh_excess.mean, 0.05, rtol=1e-9)
    np.testing.assert_allclose(profile.to_population.mean, 0.05, rtol=1e-9)
    raw = profile.train_loss.mean - perfect.train_loss.mean  # with the noise of 768 draws in it
    np.testing.assert_allclose(profile.train_excess.mean, raw, atol=0.02)


def test_a_large_sample_stands_in_for_the_population() -> None:
    """Of two halves the errors cancel: a perfect denoiser has no excess within its error, one off by c has c^2."""
    training = MIXTURE.sample(500, torch.Generator().manual_seed(1))
    reference = sampled_optimum(MIXTURE.sample(30_000, torch.Generator().manual_seed(2)))
    measured = probe(training, reference, num_points=300)
    perfect = measured(MIXTURE.denoise)
    assert (np.abs(perfect.fresh_excess.mean) < 4 * perfect.fresh_excess.error + 1e-4).all()
    off = measured(lambda x, sigma: MIXTURE.denoise(x, sigma) + 0.3)
    np.testing.assert_allclose(off.fresh_excess.mean, 0.09, rtol=0.03)


def test_errors_of_two_halves_cancel() -> None:
    """Over small samples in place of the population, a perfect denoiser's excess is far below what either half errs."""
    training, found, apart = MIXTURE.sample(50, torch.Generator().manual_seed(1)), [], []
    for seed in range(16):
        points = MIXTURE.sample(400, torch.Generator().manual_seed(50 + seed))
        profile = probe(training, sampled_optimum(points), num_points=200)(MIXTURE.denoise)
        found.append(profile.fresh_excess.mean[1:])
        half = probe(training, known_optimum(ptd.EmpiricalDenoiser(points[:200])), num_points=200)(MIXTURE.denoise)
        apart.append(half.fresh_excess.mean[1:])
    assert (np.abs(np.mean(found, axis=0)) < 0.4 * np.mean(apart, axis=0)).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_position_between_the_optima(share: float) -> None:
    """A mixture of both optima stands where it was mixed, and its losses add up."""
    training = MIXTURE.sample(40, torch.Generator().manual_seed(1))
    memory = ptd.EmpiricalDenoiser(training)
    profile = probe(training, known_optimum(MIXTURE.denoise))(
        lambda x, sigma: torch.lerp(MIXTURE.denoise(x, sigma), memory(x, sigma), share)
    )
    assert profile.position.value == pytest.approx(share, abs=1e-9)
    if share == 1:
        np.testing.assert_allclose(profile.to_memory.mean, 0, atol=1e-12)
        np.testing.assert_allclose(profile.train_loss.mean, profile.memorised_loss.mean, rtol=1e-9)
        assert profile.fit.value < 0 < profile.gap.value


def test_errors_of_the_excess_are_the_scatter_seen() -> None:
    """On given training rows, over other noise and other fresh rows; rows count, not draws of them."""
    training = MIXTURE.sample(25, torch.Generator().manual_seed(1))
    network = lambda x, sigma: MIXTURE.denoise(x, sigma) * 0.9  # noqa: E731
    found = [probe(training, known_optimum(MIXTURE.denoise), seed=seed)(network) for seed in range(40)]
    scatter, stated = np.std([each.gap.value for each in found]), np.mean([each.gap.error for each in found])
    assert scatter < 1.3 * stated  # 40 draws tell a scatter to 11 %
    fresh = np.array([each.fresh_excess.mean for each in found]).std(axis=0)
    np.testing.assert_allclose(np.mean([each.fresh_excess.error for each in found], axis=0), fresh, rtol=0.4)


def test_the_kernel_density_leaves_its_own_row_out() -> None:
    """By brute force: the mean over the other rows, moved as a mixture of Gaussians moves it."""
    points = MIXTURE.sample(30, torch.Generator().manual_seed(1))
    h = kernel_bandwidth(points)
    x, sigma = points[:3] + 0.2, torch.tensor(0.4, dtype=torch.float64)
    found, _ = kernel_optimum(points)(x, sigma, torch.arange(3))
    for k in range(3):
        others = torch.cat([points[:k], points[k + 1 :]])
        kernels = ptd.GaussianMixture([1 / 29] * 29, others, (h**2 * EYE).expand(29, 2, 2))
        torch.testing.assert_close(found[k : k + 1], kernels.denoise(x[k : k + 1], sigma))
    absent, _ = kernel_optimum(points)(x, sigma, torch.arange(30, 33))  # a row that is no kernel is not left out
    torch.testing.assert_close(absent, kernel_optimum(points)(x, sigma, None)[0])


def test_estimates_know_their_chance() -> None:
    assert Estimate(1.96, 1.0).p_above() == pytest.approx(0.025, abs=1e-4)
    assert Estimate(0.0, 0.0).p_above() == 1
    assert Estimate(1.0, 0.0).p_above(0.5) == 0


# ---------------------------------------------------------------------------------------------------- the noise range


def test_divergence_of_the_start_in_closed_form() -> None:
    """Two points at -1 and 1 under noise, against a quadrature of the square of the ratio of densities."""
    points = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(1000, 1)
    sigma, grid = 1.5, np.linspace(-12, 12, 20_001)
    noisy = sum(np.exp(-((grid - m) ** 2) / 2 / sigma**2) for m in (-1, 1)) / 2 / sigma / np.sqrt(2 * np.pi)
    normal = np.exp(-(grid**2) / 2 / (1 + sigma**2)) / np.sqrt(2 * np.pi * (1 + sigma**2))
    expected = np.trapezoid(noisy**2 / normal, grid) - 1
    assert start_divergence(points, sigma) == pytest.approx(expected, rel=0.03)  # pairs of different rows: 1 / N


def test_divergence_of_gaussian_data_is_nothing() -> None:
    """Without bias: over sets of Gaussian rows its mean is 0."""
    found = [
        start_divergence(torch.randn(300, 2, generator=torch.Generator().manual_seed(k)).double(), 2.0)
        for k in range(40)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(40)


def test_the_range_follows_the_points() -> None:
    """More rows: a finer end and a start further up. Another unit: the same range, in that unit."""
    few, many = (choose_noise_range(draw(n, 0)) for n in (200, 1000))
    assert many.sigma_min < few.sigma_min < few.sigma_data == pytest.approx(1.0)
    assert few.sigma_max < many.sigma_max
    points = draw(200, 0)
    own = choose_noise_range(points * 10, standardise=False)
    again = choose_noise_range(points * 20, standardise=False)
    assert again.sigma_data == pytest.approx(2 * own.sigma_data, rel=1e-9)
    assert again.sigma_min == pytest.approx(2 * own.sigma_min, rel=1e-6)
    assert again.sigma_max == pytest.approx(2 * own.sigma_max, rel=1e-6)
    sampler = many.noise_sampler()
    assert (sampler.sigma_min, sampler.sigma_max) == (many.sigma_min, many.sigma_max)
    many.plot(Figure().subplots())
    assert "sigma_max" in str(many)


def test_the_optimum_of_left_out_rows_lies_above_that_of_rows_within() -> None:
    """At every noise level, and far up they agree."""
    found = choose_noise_range(draw(400, 0))
    assert (found.left_out_loss >= found.memorised_loss - 1e-9).all()
    assert found.left_out_loss[-1] == pytest.approx(found.memorised_loss[-1], rel=0.02)


# ------------------------------------------------------------------------------------------------------ bad requests


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of population and held_out"),
        ({"population": MIXTURE, "held_out": draw(100, 0)}, "exactly one of population and held_out"),
        ({"held_out": draw(20, 0)}, "at least 48 rows"),
        ({"population": draw(500, 0)}, "pass the rows as held_out"),
        ({"population": MIXTURE, "num_points": 10}, "num_points must be at least"),
        ({"population": MIXTURE, "num_levels": 1}, "num_levels at least 2"),
        ({"held_out": np.zeros((100, 3))}, "expected 2 columns"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings: dict[str, Any], message: str, trained: Any) -> None:
    model, points = trained["short", 0]
    with pytest.raises(ValueError, match=message):
        diagnose(model, points, **settings)


def test_a_range_needs_rows_and_a_gain() -> None:
    with pytest.raises(ValueError, match="too few rows"):
        choose_noise_range(draw(5, 0))
    with pytest.raises(ValueError, match="gain must lie"):
        choose_noise_range(draw(50, 0), gain=1.5)


def test_a_probe_needs_rows() -> None:
    with pytest.raises(ValueError, match="at least two training rows"):
        probe(MIXTURE.sample(1, torch.Generator()), known_optimum(MIXTURE.denoise))


@pytest.mark.parametrize("given", [{}, {"sigma_min": 0.002}, {"sigma_max": 20.0}, {"sigma_min": 0.3, "sigma_max": 5.0}])
def test_fit_takes_the_range_that_fits_the_points(given: dict[str, float]) -> None:
    """The model was trained, and is sampled, on the levels that the points call for; a level that is given stays."""
    points = ptd.DATASETS["moons"](300, random_state=0) * 7 + 3
    chosen = choose_noise_range(points)
    wanted = {"sigma_min": chosen.sigma_min, "sigma_max": chosen.sigma_max} | given
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1, **given), backbone=lambda _: ptd.default_network(2, 16))
    for settings in (model.training, model.inference):
        assert settings is not None
        assert [settings.sigma_min, settings.sigma_max] == pytest.approx(list(wanted.values()), rel=1e-9)


@pytest.mark.parametrize("given", [{"sigma_min": 50.0}, {"sigma_max": 1e-4}])
def test_a_level_that_leaves_no_range_is_refused(given: dict[str, float]) -> None:
    points = ptd.DATASETS["moons"](300, random_state=0)
    with pytest.raises(ValueError, match="one of them chosen for the points, leave no range; give both"):
        ptd.fit(points, ptd.TrainingConfig(epochs=1, **given))
