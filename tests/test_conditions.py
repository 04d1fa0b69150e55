"""Models that are told classes, values or coordinates: what they draw follows what they are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.model.conditions import Conditions, rows_of
from pointdiffusion.tabular.labels import as_labels

SHIFT, SCALE = np.array([5.0, -20.0]), np.array([3.0, 0.2])
MIXTURE = ptd.GaussianMixture(
    [0.5, 0.2, 0.3],
    [[-1.5, 0.0], [1.5, 0.5], [0.0, 1.5]],
    [[[0.1, 0.04], [0.04, 0.1]], [[0.05, 0.0], [0.0, 0.2]], [[0.1, 0.0], [0.0, 0.05]]],
)
NAMES = ["left", "right", "top"]
RANGE: dict[str, Any] = {"sigma_min": 0.05, "sigma_max": 5.0}
"""About what `fit` would choose of these data, which takes as long as the training itself."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**known: int) -> Any:
    return lambda _: ptd.default_network(2, hidden_dim=64, **known)


@pytest.fixture(scope="module")
def by_class() -> ptd.DiffusionModel:
    """A model of three classes, in units of a user's own."""
    points, classes = MIXTURE.sample_with_labels(2048, generator(0))
    labels = [NAMES[k] for k in classes]
    return ptd.fit(
        points.numpy() * SCALE + SHIFT,
        ptd.TrainingConfig(epochs=40, **RANGE),
        labels=labels,
        backbone=small(num_classes=3),
    )


@pytest.fixture(scope="module")
def by_value() -> ptd.DiffusionModel:
    """A model of points on a curve, told where on it they lie."""
    rng = np.random.default_rng(0)
    where = rng.uniform(-2, 2, (2048, 1))
    points = np.hstack([np.sin(2 * where), where**2]) + 0.1 * rng.normal(size=(2048, 2))
    return ptd.fit(points, ptd.TrainingConfig(epochs=20, **RANGE), context=100 * where, backbone=small(num_context=1))


def standardised(samples: Any) -> Tensor:
    return torch.from_numpy((samples - SHIFT) / SCALE)


# ------------------------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("name", NAMES)
def test_a_class_draws_itself(by_class: ptd.DiffusionModel, name: str) -> None:
    """The exact posterior gives nearly all of what is drawn to the class; mean and spread are those of the class."""
    k, samples = NAMES.index(name), standardised(by_class.sample(1000, labels=name, nfe=20))
    assert float(MIXTURE.label_posterior(samples)[:, k].mean()) > 0.97
    truth = MIXTURE.condition(k)
    assert bool(((samples.mean(dim=0) - truth.mean).abs() < 0.1).all())
    torch.testing.assert_close(samples.T.cov(), truth.covariance, rtol=0.3, atol=0.02)


def test_without_a_class_the_model_draws_all_of_them(by_class: ptd.DiffusionModel) -> None:
    shares = MIXTURE.label_posterior(standardised(by_class.sample(3000, nfe=20))).mean(dim=0)
    torch.testing.assert_close(shares, MIXTURE.weights, rtol=0, atol=0.06)


def test_each_row_may_have_a_class_of_its_own(by_class: ptd.DiffusionModel) -> None:
    """And does not depend on how many rows are asked for, nor on their classes."""
    labels = [NAMES[k % 3] for k in range(1100)]
    many, few = (by_class.sample(n, labels=labels[:n], nfe=6, seed=1) for n in (1100, 7))
    assert (few == many[:7]).all()
    found = MIXTURE.label_posterior(standardised(many)).argmax(dim=1)
    assert float((found == torch.arange(1100) % 3).double().mean()) > 0.95


def test_densities_of_classes_are_densities(by_class: ptd.DiffusionModel) -> None:
    """They integrate to one over a grid, and weighted by their shares they are near the density of the whole."""
    assert by_class.conditions is not None
    side = torch.arange(-4.0, 4.0, 0.16).double()  # half the narrowest standard deviation, so the sum is the integral
    grid = torch.cartesian_prod(side, side).numpy() * SCALE + SHIFT
    cell, blur = 0.16**2 * SCALE.prod(), 0.2
    parts = [np.exp(by_class.log_prob(grid, labels=name, sigma_min=blur)) for name in NAMES]
    for part in parts:
        assert part.sum() * cell == pytest.approx(1.0, abs=2e-3)
    whole = np.exp(by_class.log_prob(grid, sigma_min=blur))
    weighted = sum(share * part for share, part in zip(by_class.conditions.shares, parts, strict=True))
    assert np.abs(whole - weighted).sum() * cell < 0.2  # total variation below a tenth


def test_the_far_end_is_that_of_the_class(by_class: ptd.DiffusionModel) -> None:
    """Noise starts from the mean and the covariance of the class, each row from its own."""
    assert by_class.conditions is not None
    known = by_class.conditions.known(4000, labels=["left", "right"] * 2000)
    x = by_class.flow.noise(4000, generator(0), 2.0, known)
    for k, name in ((0, "left"), (1, "right")):
        truth = MIXTURE.condition(NAMES.index(name))
        scale = torch.from_numpy(by_class.standardiser.scale / SCALE)
        mean = (truth.mean - torch.from_numpy((by_class.standardiser.mean - SHIFT) / SCALE)) / scale
        assert bool(((x[k::2].mean(dim=0) - mean).abs() < 5 * 2 / math.sqrt(2000) + 0.05).all())


def test_latent_points_of_a_class_come_back(by_class: ptd.DiffusionModel) -> None:
    rows = by_class.sample(50, labels="top", nfe=10)
    latent = by_class.latent(rows, labels="top")
    back = by_class.from_latent(latent, labels="top")
    assert np.abs((back - rows) / SCALE).max() < 1e-5
    assert np.abs(by_class.latent(rows) - latent).max() > 0.01


# ----------------------------------------------------------------------------------------------------------- guidance


def test_guidance_goes_further_and_is_counted(by_class: ptd.DiffusionModel) -> None:
    """Strength 1 is none; above it the class is drawn more surely, at two calls of the network a step."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = by_class.denoiser.register_forward_hook(count)
    try:
        *_, last = by_class.trajectory(10, labels="top", guidance=3.0, nfe=11)
    finally:
        handle.remove()
    assert last.nfe == calls == 10  # as many pairs as fit
    plain, guided = (standardised(by_class.sample(1000, labels="top", guidance=w, nfe=20)) for w in (1.0, 3.0))
    certain = [float(MIXTURE.label_posterior(x)[:, 2].log().mean()) for x in (plain, guided)]
    assert certain[1] > certain[0]
    same = by_class.sample(10, labels="top", guidance=1.0, nfe=20)
    assert (same == by_class.sample(10, labels="top", nfe=20)).all()


def test_guidance_in_an_interval_is_nothing_outside(by_class: ptd.DiffusionModel) -> None:
    """Below the lowest noise level it is nothing; above the highest it moves the start, as the guided flow is moved."""
    plain = by_class.sample(10, labels="top", num_steps=10)
    nowhere = by_class.sample(10, labels="top", num_steps=10, guidance=3.0, guidance_interval=(0.0, 1e-4))
    middle = by_class.sample(10, labels="top", num_steps=10, guidance=3.0, guidance_interval=(0.1, 3.0))
    assert (plain == nowhere).all()
    assert (plain != middle).any()
    above = by_class.sample(10, labels="top", num_steps=10, guidance=3.0, guidance_interval=(1e5, 2e5))
    np.testing.assert_allclose(above, plain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("how", [{"num_steps": 8}, {"nfe": 6}])
def test_guidance_of_strength_0_knows_nothing_of_the_label(
    by_class: ptd.DiffusionModel, by_value: ptd.DiffusionModel, how: dict[str, Any]
) -> None:
    """To the last bit: samples, trajectories, densities, latent points."""
    for model, known in ((by_class, [{"labels": "left"}, {"labels": "top"}]), (by_value, [{"context": [90.0]}])):
        plain = model.sample(20, seed=3, **how)
        for condition in known:
            given: dict[str, Any] = {**condition, "guidance": 0.0}
            assert (model.sample(20, seed=3, **given, **how) == plain).all()
            steps = zip(model.trajectory(20, seed=3, **given, **how), model.trajectory(20, seed=3, **how), strict=True)
            assert all((one.x == other.x).all() and one.nfe == other.nfe for one, other in steps)
            assert (model.log_prob(plain, num_steps=8, **given) == model.log_prob(plain, num_steps=8)).all()
            z = model.latent(plain[:2], tolerance=1e-4)
            assert (model.latent(plain[:2], tolerance=1e-4, **given) == z).all()
            assert (model.from_latent(z, tolerance=1e-4, **given) == model.from_latent(z, tolerance=1e-4)).all()


def test_a_worse_model_guides(by_class: ptd.DiffusionModel) -> None:
    """Guided away from itself a model stays what it is; from another it does not."""
    plain = by_class.sample(10, num_steps=10)
    np.testing.assert_allclose(by_class.sample(10, num_steps=10, guidance=2.0, guide=by_class), plain, atol=1e-3)
    points = MIXTURE.sample(2048, generator(0)).numpy() * SCALE + SHIFT  # the same rows, so the same scale
    worse = ptd.fit(points, ptd.TrainingConfig(epochs=1), backbone=small())
    assert np.abs(by_class.sample(10, num_steps=10, guidance=2.0, guide=worse) - plain).max() > 0.01
    for known in ({}, {"labels": "left"}):  # of the same data and under the same conditions: the start is the same
        first, same = (
            next(iter(by_class.trajectory(10, num_steps=2, **known, **how)))
            for how in ({}, {"guidance": 3.0, "guide": by_class})
        )  # fmt: skip
        assert (first.x == same.x).all()


class TwoGaussians(torch.nn.Module):
    """The exact denoiser of a Gaussian class and of Gaussian data, by a label of 0 or none, on a line."""

    sigma_data, MOMENTS = 1.0, ((0.0, 1.0), (1.5, 0.3))

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        place = torch.zeros(len(x), dtype=torch.long) if labels is None else labels + 1
        mean, variance = torch.tensor(self.MOMENTS).to(x)[place].T[:, :, None]
        level = sigma.to(x).expand(len(x))[:, None] ** 2
        return self.weight * (variance * x + level * mean) / (variance + level)

    @classmethod
    def model(cls, sigma_max: float) -> ptd.DiffusionModel:
        means, variances = torch.tensor(cls.MOMENTS).double().T
        conditions = Conditions(means[:, None], variances[:, None, None], classes=["a"], shares=[1.0])
        return ptd.DiffusionModel(
            cls(), ptd.Standardiser(np.array([10.0]), np.array([2.0])), torch.eye(1).double(), ["x"],  # type: ignore[arg-type]
            ptd.InferenceConfig(sigma_min=0.01, sigma_max=sigma_max), conditions=conditions,
        )  # fmt: skip


def guided_truth(scale: float, sigma: float) -> tuple[float, float]:
    """Return mean and variance of the guided flow of the two at a noise level, by the integrals of its slope."""
    (m_0, c_0), (m, c) = TwoGaussians.MOMENTS

    def variance(t: float) -> float:
        return (c + t) ** scale * (c_0 + t) ** (1 - scale)

    def pull(s: float) -> float:  # in 1 / sigma: smooth, and 0 is pure noise
        t = 1 / s**2
        return (scale * m / (c + t) + (1 - scale) * m_0 / (c_0 + t)) / math.sqrt(variance(t)) / s**3

    total = quad(pull, 0, 1 / sigma, epsabs=1e-10, epsrel=1e-10)[0]
    return math.sqrt(variance(sigma**2)) * total, variance(sigma**2)


@pytest.mark.parametrize("sigma_max", [2.0, 10.0, 80.0])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 2.0, 5.0])
def test_a_guided_model_draws_what_the_guided_flow_draws(scale: float, sigma_max: float) -> None:
    """In the user's units and from any start: points, densities and latent points against the exact Gaussian."""
    model, how = TwoGaussians.model(sigma_max), {"labels": "a", "guidance": scale}
    mean, variance = guided_truth(scale, 0.01)
    z = np.array([[-1.0], [0.0], [2.0]])
    x = 10 + 2 * (mean + math.sqrt(variance) * z)
    np.testing.assert_allclose(model.from_latent(z, tolerance=1e-7, **how), x, rtol=0, atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(model.latent(x, tolerance=1e-7, **how), z, rtol=0, atol=1e-5)  # type: ignore[arg-type]
    exact = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi * variance) - math.log(2)
    found = model.log_prob(x, tolerance=1e-5, **how)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-3)
    drawn = model.sample(2000, solver="dpmpp-3m", num_steps=100, final_zero=False, **how)
    plain = model.sample(2000, solver="dpmpp-3m", num_steps=100, final_zero=False)
    unit = (plain - 10) / 2 / math.sqrt(guided_truth(0.0, 0.01)[1])  # the same noise
    np.testing.assert_allclose((drawn - 10) / 2, mean + math.sqrt(variance) * unit, rtol=0, atol=0.02)


def test_guidance_that_leaves_no_covariance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"guidance 10000 is too strong for a start at noise 2; lower it"):
        TwoGaussians.model(2.0).sample(5, labels="a", guidance=1e4)


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("where", [-1.2, 0.0, 1.0])
def test_values_move_what_is_drawn(by_value: ptd.DiffusionModel, where: float) -> None:
    """Along the curve that the points were made from; 0 is a value like any other."""
    samples = by_value.sample(500, context=[100 * where], nfe=20)
    np.testing.assert_allclose(samples.mean(axis=0), [math.sin(2 * where), where**2], atol=0.12)
    assert samples.std(axis=0).max() < 0.35


def test_without_values_the_whole_curve_is_drawn(by_value: ptd.DiffusionModel) -> None:
    samples = by_value.sample(500, nfe=20)
    assert samples.std(axis=0).min() > 0.5


def test_values_may_differ_by_row(by_value: ptd.DiffusionModel) -> None:
    where = np.linspace(-1.5, 1.5, 300)[:, None]
    samples = by_value.sample(300, context=100 * where, nfe=20)
    assert np.corrcoef(samples[:, 0], np.sin(2 * where[:, 0]))[0, 1] > 0.95
    found = by_value.log_prob(samples, context=100 * where)
    wrong = by_value.log_prob(samples, context=100 * where[::-1])
    assert found.mean() > wrong.mean() + 1


# -------------------------------------------------------------------------------------------------------------- gaps


PAIR = ptd.GaussianMixture([0.5, 0.5], [[-1.0, -1.0], [1.0, 1.0]], [[[0.1, 0.05], [0.05, 0.1]]] * 2)


@pytest.fixture(scope="module")
def by_mask() -> ptd.DiffusionModel:
    points = PAIR.sample(2048, generator(0)).numpy() * SCALE + SHIFT
    return ptd.fit(points, ptd.TrainingConfig(epochs=20, mask=0.7, **RANGE), backbone=small(num_context=2))


@pytest.fixture(scope="module")
def unmasked() -> ptd.DiffusionModel:
    points = PAIR.sample(2048, generator(0)).numpy() * SCALE + SHIFT
    return ptd.fit(points, ptd.TrainingConfig(epochs=20, **RANGE), backbone=small())


@pytest.mark.parametrize("kind", ["by_mask", "unmasked"])
def test_gaps_are_filled_as_the_data_are(kind: str, request: pytest.FixtureRequest) -> None:
    """Draws of what is missing have mean and spread of the exact posterior, and what is there stays to the last bit."""
    model: ptd.DiffusionModel = request.getfixturevalue(kind)
    seen = np.array([[-1.2, np.nan], [np.nan, 0.9], [0.1, 0.2]]) * SCALE + SHIFT
    found = model.impute(seen, num_draws=100, num_particles=128, num_steps=20)  # tells a mean to 0.03, a spread to 7 %
    assert found.draws.shape == (100, 3, 2)
    how = "a network trained with masks" if kind == "by_mask" else "twisted diffusion"
    assert found.by == [how, how, "given"]
    there = np.isfinite(seen)
    assert (found.draws[:, there] == seen[there]).all()
    draws = (found.draws - SHIFT) / SCALE
    for row, column in ((0, 1), (1, 0)):
        value = float((seen[row, 1 - column] - SHIFT[1 - column]) / SCALE[1 - column])
        exact = PAIR.posterior(torch.eye(2)[[1 - column]], [value], 1e-6)
        assert draws[:, row, column].mean() == pytest.approx(float(exact.mean[column]), abs=0.1)
        assert draws[:, row, column].std() == pytest.approx(float(exact.covariance[column, column].sqrt()), rel=0.35)


def test_gaps_are_filled_the_same_again(by_mask: ptd.DiffusionModel, unmasked: ptd.DiffusionModel) -> None:
    """A seed repeats; draws differ from each other; a row does not depend on the rows after it."""
    seen = np.array([[-1.2, np.nan], [np.nan, np.nan]]) * SCALE + SHIFT
    for model in (by_mask, unmasked):
        first, again = (model.impute(seen, num_draws=2, seed=5, num_steps=6, num_particles=8) for _ in range(2))
        assert (first.draws == again.draws).all()
        assert (first.draws[0, 1] != first.draws[1, 1]).all()
        alone = model.impute(seen[:1], num_draws=2, seed=5, num_steps=6, num_particles=8)
        np.testing.assert_allclose(alone.draws[:, 0], first.draws[:, 0], rtol=1e-4, atol=1e-5)
    assert unmasked.impute(seen, num_steps=3, num_particles=4).by == ["twisted diffusion", "unconditional"]


def test_gaps_that_make_no_sense_are_refused(unmasked: ptd.DiffusionModel) -> None:
    for table, message in ((np.full((2, 3), np.nan), "expected 2 columns"), ([[np.inf, 0.0]], "infinite")):
        with pytest.raises(ValueError, match=message):
            unmasked.impute(table)
    with pytest.raises(ValueError, match="train with masks"):
        unmasked.impute([[np.nan, 0.0]], labels=1)
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        unmasked.impute([[np.nan, 0.0]], num_draws=0)


# ---------------------------------------------------------------------------------------------------------- the parts


def test_moments_are_those_of_a_gaussian_given_values() -> None:
    """Against `GaussianMixture.posterior`, which knows nothing of this code."""
    draw = torch.randn(4, 4, generator=generator(3)).double()
    joint = ptd.GaussianMixture([1.0], [[1.0, -2.0, 0.5, 3.0]], [(draw @ draw.T + 0.1 * torch.eye(4)).tolist()])
    conditions = Conditions(joint.means, joint.covariances, context_names=["a", "b"], masked=True)
    told = torch.tensor([[0.3, math.nan, math.nan, -1.0], [math.nan, 2.0, 0.7, math.nan], [math.nan] * 4]).double()
    mean, covariance = conditions.moments(3, {"context": told})
    for k, row in enumerate(told):
        order = torch.cat([row[2:], row[:2]])  # the model's own coordinates come first in the joint
        seen = (~order.isnan()).nonzero()[:, 0]
        exact = joint if len(seen) == 0 else joint.posterior(torch.eye(4)[seen], order[seen], 1e-7)
        torch.testing.assert_close(mean[k], exact.mean[:2], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(covariance[k], exact.covariance[:2, :2], rtol=1e-5, atol=1e-6)


def test_targets_of_a_class_come_from_the_class() -> None:
    """The posterior mean of a labelled point is that over the rows of its class; under values it is the row itself."""
    points, classes = MIXTURE.sample_with_labels(64, generator(0))
    config = ptd.TrainingConfig(batch_size=16, noise_draws=2, reference_points=40)
    network = ptd.default_network(2, 16, num_classes=3)
    module = ptd.LightningDiffusion(ptd.KarrasDenoiser(network), config, points=points, labels=classes)
    places = torch.arange(40)
    known = {"labels": torch.tensor([0, 1, -1, 2] * 8)}
    allowed = module._allowed(known, places, 32)
    for row, label in zip(allowed, known["labels"], strict=True):
        assert row.tolist() == [(int(label) < 0 or int(classes[k]) == int(label)) for k in places]
    context = torch.full((32, 2), math.nan)
    context[3, 1] = 0.5
    own = module._allowed({"context": context}, places, 32)
    assert own[3].nonzero()[:, 0].tolist() == [3]
    assert bool(own[4].all())


def test_hiding_follows_its_shares() -> None:
    points, classes = MIXTURE.sample_with_labels(1000, generator(0))
    config = ptd.TrainingConfig(batch_size=1000, noise_draws=4, condition_dropout=0.3, mask=0.6)
    network = ptd.default_network(2, 16, num_classes=3, num_context=2)
    module = ptd.LightningDiffusion(ptd.KarrasDenoiser(network), config, points=points, labels=classes)
    rows = module._rows["points"]
    assert rows is not None
    chosen = torch.arange(1000)
    known = module._hidden(rows.repeat(4, 1), chosen, generator(1))
    assert float((known["labels"] < 0).double().mean()) == pytest.approx(0.3, abs=0.03)
    shown = ~known["context"].isnan()
    assert float(shown.double().mean()) == pytest.approx(0.3, abs=0.03)  # 0.6 of the rows, half of each on average
    assert torch.equal(known["context"][shown], rows.repeat(4, 1)[shown])


def test_conditional_training_repeats() -> None:
    points, classes = MIXTURE.sample_with_labels(256, generator(0))

    def train(labels: Any) -> np.ndarray:
        config = ptd.TrainingConfig(epochs=1)
        model = ptd.fit(points, config, labels=labels, backbone=small(num_classes=3), seed=4)
        return model.sample(5, labels=1, nfe=4)

    assert (train(classes) == train(classes.tolist())).all()
    assert (train(classes) != train((classes + 1) % 3)).any()


def test_a_file_keeps_the_conditions(
    by_class: ptd.DiffusionModel, by_value: ptd.DiffusionModel, tmp_path: Path
) -> None:
    for model, how in ((by_class, {"labels": "right"}), (by_value, {"context": [50.0]})):
        model.save(tmp_path / "model.pt")
        again = ptd.load(tmp_path / "model.pt")
        assert (again.sample(5, nfe=5, **how) == model.sample(5, nfe=5, **how)).all()  # type: ignore[arg-type]
        assert again.conditions is not None
        assert model.conditions is not None
        assert again.conditions.classes == model.conditions.classes


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("classes", ["left", "right"]),
        ("classes", ["left", "left", "top"]),
        ("classes", [["left"], "right", "top"]),
        ("shares", [1.0]),
        ("means", torch.zeros(4, 2) * math.nan),
        ("means", "none"),
        ("covariances", torch.zeros(4, 3, 3)),
        ("context_names", ["a", "b", "c"]),
        ("masked", 1),
    ],
)
def test_conditions_of_a_file_that_do_not_fit_are_refused(
    by_class: ptd.DiffusionModel, tmp_path: Path, change: str, value: Any
) -> None:
    from pointdiffusion.model.file import read_payload, write_payload

    by_class.save(tmp_path / "model.pt")
    payload = read_payload(tmp_path / "model.pt")
    payload["conditions"] = {**payload["conditions"], change: value}
    payload.pop("format")
    write_payload(tmp_path / "other.pt", payload)
    with pytest.raises(ValueError, match=r"other\.pt"):
        ptd.load(tmp_path / "other.pt")


def test_labels_are_plain_numbers_and_texts() -> None:
    assert as_labels(np.array([1.0, 2.0])) == [1, 2]
    assert as_labels(np.array(["a", "b"])) == ["a", "b"]
    assert as_labels(torch.tensor([3, 4])) == [3, 4]
    known = {"labels": torch.arange(5)}
    assert rows_of(known, slice(1, 3))["labels"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"labels": "bottom"}, "unknown class 'bottom'.*known: left, right, top"),
        ({"labels": ["left"] * 3}, "labels must have one row for each of 5 points, got 3"),
        ({"context": [1.0]}, "trained without context"),
        ({"guidance": 2.0}, "something to guide to"),
        ({"labels": "left", "guidance": math.nan}, "finite"),
        ({"labels": "left", "guidance": 2.0, "guidance_interval": (3.0, 1.0)}, "interval"),
        ({"labels": "left", "guidance": 2.0, "nfe": 1}, "nfe must be at least 2"),
        ({"labels": [0.5] * 5}, "integers or strings"),
    ],
)
def test_bad_conditions_are_refused(by_class: ptd.DiffusionModel, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_class.sample(5, **how)


def test_conditions_that_a_model_was_not_trained_for_are_refused(by_value: ptd.DiffusionModel) -> None:
    with pytest.raises(ValueError, match="trained without labels"):
        by_value.sample(5, labels=1)
    with pytest.raises(ValueError, match="context must have the columns"):
        by_value.sample(5, context=[1.0, 2.0])
    with pytest.raises(ValueError, match="one row for each of 5 points, got 4"):
        by_value.sample(5, context=np.zeros((4, 1)))
    plain = ptd.fit(MIXTURE.sample(64, generator(0)), ptd.TrainingConfig(epochs=1), backbone=small())
    for how in ({"labels": 1}, {"context": [1.0]}):
        with pytest.raises(ValueError, match="trained without conditions"):
            plain.sample(5, **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made without conditions"):
        plain.denoiser(torch.zeros(2, 2), torch.ones(2), labels=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="a model of the same scale"):
        plain.sample(5, guidance=2.0, guide=by_value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"labels": [0] * 63}, "labels must have one row for each of 64 points, got 63"),
        ({"labels": [0] * 63 + [1]}, "the class 1 has but one row"),
        ({"labels": [0.5] * 64}, "integers or strings"),
        ({"context": np.zeros((63, 1)) + np.arange(63)[:, None]}, "context must have one row for each of 64 points"),
        ({"context": np.full((64, 1), np.nan)}, "NaN"),
    ],
)
def test_bad_conditions_of_training_are_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ptd.fit(MIXTURE.sample(64, generator(0)), ptd.TrainingConfig(epochs=1), **how)
