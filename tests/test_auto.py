"""The default solver and grid for a budget, and grids that are learned for one denoiser."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.sampling.grids import LEARNED
from pointdiffusion.sampling.plans import CANDIDATES, candidate_plans, default_plan
from pointdiffusion.sampling.tuning import METHODS

RING = ptd.GaussianMixture(
    torch.full((8,), 1 / 8),
    torch.tensor([[math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)] for k in range(8)]) * math.sqrt(2),
    (0.1**2 * torch.eye(2)).expand(8, 2, 2),
)


def start(seed: int, count: int = 128, sigma: float = 10.0) -> Tensor:
    return sigma * torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def median_error(y: Tensor, exact: Tensor) -> float:
    return float((y - exact).square().mean(dim=1).sqrt().median())


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """Return the exact end of the flow from `start(0)`."""
    return ptd.exact_flow(RING.denoise, start(0), 10.0, 0.0).x


@pytest.mark.parametrize("nfe", [1, 2, 3, 4, 5, 7, 11, 13, 17, 20, 21, 50, 300])
@pytest.mark.parametrize(("sigma_max", "sigma_data"), [(10.0, 1.0), (80.0, 0.5), (3.0, 1.0), (2.0, 1.0)])
def test_every_budget_is_kept(nfe: int, sigma_max: float, sigma_data: float) -> None:
    """The grid decreases from sigma_max to 0, and the denoiser is called exactly as often as was said."""
    sigmas = default_plan(nfe, sigma_max, sigma_data).sigmas
    assert sigmas.shape == (nfe + 1,)
    assert (float(sigmas[0]), float(sigmas[-1])) == (sigma_max, 0.0)
    assert bool((sigmas.diff() < 0).all())
    *_, last = ptd.trajectory(RING.denoise, start(0, 3), nfe=nfe, sigma_max=sigma_max, sigma_data=sigma_data)
    assert last.nfe == nfe


def test_units_of_the_data_do_not_matter(exact: Tensor) -> None:
    """A thousandfold the data, the noise and the scale gives a thousandfold the samples."""
    large = ptd.sample(
        lambda x, sigma: 1000 * RING.denoise(x / 1000, sigma / 1000), 1000 * start(0), nfe=9, sigma_max=1e4,
        sigma_data=1000.0,
    )  # fmt: skip
    small = ptd.sample(RING.denoise, start(0), nfe=9, sigma_max=10.0)
    torch.testing.assert_close(large / 1000, small, rtol=0, atol=1e-9)
    assert median_error(small, exact) < 0.02


@pytest.mark.parametrize("nfe", [*sorted(n for n in LEARNED.exact if n >= 5), 35, 50])
def test_auto_beats_every_named_solver_on_the_usual_grid(nfe: int, exact: Tensor) -> None:
    """On a problem it has not seen: nearer to the exact flow than each one-evaluation method on Karras' grid."""
    auto = median_error(ptd.sample(RING.denoise, start(0), nfe=nfe, sigma_max=10.0), exact)
    sigmas = ptd.KarrasSchedule(0.01, 10.0).sigmas(nfe)
    for name in ("euler", "dpmpp-2m", "dpmpp-3m-stock", "unipc-2", "deis-2", "lms-2"):
        assert auto < 0.7 * median_error(ptd.sample(RING.denoise, start(0), sigmas, solver=name), exact)


def test_more_evaluations_are_better(exact: Tensor) -> None:
    errors = [
        median_error(ptd.sample(RING.denoise, start(0), nfe=nfe, sigma_max=10.0), exact) for nfe in (3, 5, 10, 20, 50)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


def test_a_model_samples_on_a_budget() -> None:
    """`model.sample(n, nfe=N)` draws in the user's units, and more rows do not change the first."""
    points = ptd.DATASETS["moons"](512, random_state=0)
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1, reference_points=0), seed=0)
    few, many = (model.sample(n, seed=3, nfe=7) for n in (5, 1100))
    assert few.shape == (5, 2)
    assert (few == many[:5]).all()
    *_, last = model.trajectory(5, seed=3, nfe=7)
    assert last.nfe == 7
    assert (last.x == few).all()


@pytest.mark.parametrize("nfe", [1, 2, 9, 15, 16, 20, 35, 50, 300])
@pytest.mark.parametrize("sigma_min", [0.01, 0.2])
def test_a_denoiser_is_not_asked_below_its_lowest_level(nfe: int, sigma_min: float) -> None:
    asked = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma))
        return RING.denoise(x, sigma)

    ptd.sample(denoise, start(0, 3), nfe=nfe, sigma_max=10.0, sigma_min=sigma_min)
    assert len(asked) == nfe
    assert min(asked) >= sigma_min * (1 - 1e-12)


def unseen(model: ptd.DiffusionModel) -> tuple[float, float, ptd.Denoiser, Tensor, Tensor]:
    """Return lowest and highest noise level, denoiser, and noise with its exact end, which no grid was learned on."""
    low, high = model.inference.sigma_min, model.inference.sigma_max
    denoiser = copy.deepcopy(model.denoiser).double()
    x = model.noise(128, torch.Generator().manual_seed(9), high)
    exact = denoiser(ptd.exact_flow(denoiser, x, high, low, tolerance=1e-7).x, torch.tensor(low).double())
    return low, high, denoiser, x, exact


@pytest.mark.parametrize("nfe", [1, 2, 5, 8, 9, 10, 11, 15, 16, 20, 24, 28, 29, 35, 50, 300])
@pytest.mark.parametrize("lowest", [0.002, 0.01, 0.2])
def test_every_plan_for_a_network_keeps_its_budget_and_its_levels(nfe: int, lowest: float) -> None:
    plans = candidate_plans(nfe, 10.0, sigma_min=lowest)
    for _, _, sigmas in plans:
        assert sigmas.shape == (nfe + 1,)
        assert (float(sigmas[0]), float(sigmas[-1])) == (10.0, 0.0)
        assert bool((sigmas.diff() < 0).all())
        assert bool((sigmas[:-1] >= lowest * (1 - 1e-12)).all())
    assert (default_plan(nfe, 10.0, sigma_min=lowest).sigmas == plans[0].sigmas).all()


@pytest.mark.parametrize("nfe", [10, 15, 20])
def test_a_model_takes_the_plan_that_is_best_on_it(nfe: int) -> None:
    """Tried on a few points, right on others; a model with classes, which may not know the whole, tries none."""
    points = ptd.DATASETS["moons"](512, random_state=0)
    labels = (points[:, 0] > 0).astype(int)
    model, other = (ptd.fit(points, ptd.TrainingConfig(epochs=4), labels=given) for given in (None, labels))
    low, high, denoiser, x, exact = unseen(model)
    errors = {}
    for name, solver, sigmas in candidate_plans(nfe, high, sigma_min=low):
        y = ptd.sample(denoiser, x, sigmas, solver=solver)
        errors[name] = math.exp(float((y - exact).square().mean(dim=1).sqrt().log().mean()))
    chosen = model.plan(nfe)
    assert errors[chosen.name] < 1.4 * min(errors.values())  # near ties may go either way
    assert max(errors.values()) > 2 * min(errors.values())
    *_, last = model.trajectory(5, nfe=nfe)
    assert last.nfe == nfe
    model.inference = replace(model.inference, sigma_max=2 * high)  # what was found for another start is not taken
    assert float(model.plan(nfe).sigmas[0]) == 2 * high
    usual = default_plan(nfe, other.inference.sigma_max, sigma_min=other.inference.sigma_min).name
    assert other.plan(nfe).name == usual


def test_a_model_learns_its_own_grid_and_keeps_it(tmp_path: Path) -> None:
    """Nearer to the network's own flow than `auto` on other noise, asked nowhere below its training; saved."""
    points = ptd.DATASETS["moons"](512, random_state=0)
    model = ptd.fit(points, ptd.TrainingConfig(epochs=2, reference_points=0), seed=0)
    low, high, denoiser, x, exact = unseen(model)
    before = model.sample(50, nfe=4)
    grid = model.optimise_sigmas(4, num_points=64)
    assert grid.shape == (5,)
    assert grid[0] == high
    assert grid[-1] == 0.0
    assert grid[-2] >= low
    _, solver, usual = default_plan(4, high, sigma_min=low)
    own = ptd.Multistep(sigma_min=low, **CANDIDATES[model.grid_solvers[4]])
    default = median_error(ptd.sample(denoiser, x, usual, solver=solver), exact)
    assert median_error(ptd.sample(denoiser, x, grid, solver=own), exact) < default
    assert (model.sample(50, nfe=4) != before).any()
    model.save(tmp_path / "model.pt")
    after = ptd.load(tmp_path / "model.pt")
    assert after.grids == {4: grid.tolist()}
    assert after.grid_solvers == model.grid_solvers
    assert (after.sample(50, nfe=4) == model.sample(50, nfe=4)).all()
    other = {"nfe": 4, "sigma_max": 0.8 * high}  # which the grid is not for
    assert (after.sample(50, **other) == model.sample(50, **other)).all()
    after.inference = replace(after.inference, sigma_max=0.8 * high)
    assert float(after.plan(4).sigmas[0]) == 0.8 * high


def test_a_model_samples_with_noise() -> None:
    """Stochastic solvers draw from the stream of the seed."""
    points = ptd.DATASETS["moons"](512, random_state=0)
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1, reference_points=0), seed=0)
    a, b, c = (model.sample(5, seed=seed, solver="ddim", num_steps=4) for seed in (1, 1, 2))
    assert (a == b).all()
    assert not (a == c).all()


@pytest.mark.parametrize("method", METHODS)
def test_learned_grids_carry_over_to_other_points(method: str, exact: Tensor) -> None:
    """Learned on some points, judged on others: better than the usual grid, by far where the teacher has its say.

    The way by the trajectory measures Euler's steps, and is judged on those.
    """
    teacher = method == "teacher"
    solver = ptd.Multistep(3, quantity="F", variable="atan", final="local") if teacher else ptd.EulerODE()
    sigmas = ptd.optimise_sigmas(RING.denoise, 6, solver, x=start(1, 64), sigma_max=10.0, method=method)
    assert sigmas.shape == (7,)
    assert (float(sigmas[0]), float(sigmas[-1])) == (10.0, 0.0)
    assert bool((sigmas.diff() < 0).all())
    learned = median_error(ptd.sample(RING.denoise, start(0), sigmas, solver=solver), exact)
    usual = ptd.KarrasSchedule(0.02, 10.0).sigmas(6)
    plain = median_error(ptd.sample(RING.denoise, start(0), usual, solver=solver), exact)
    assert learned < (0.2 if teacher else 0.9) * plain


def test_any_solver_and_any_denoiser_profits() -> None:
    """A network in float32 and Heun's method: the grid learned for it is better for it."""
    torch.manual_seed(0)
    network = ptd.KarrasDenoiser(ptd.default_network(2)).requires_grad_(False).eval()
    x, other = start(1, 64).float(), start(0).float()
    sigmas = ptd.optimise_sigmas(network, 5, "heun", x=x, sigma_max=10.0, max_iterations=20)
    exact = ptd.exact_flow(network, other, 10.0, 0.0, tolerance=1e-4).x
    learned, usual = (
        median_error(ptd.sample(network, other, grid, solver="heun"), exact)
        for grid in (sigmas, ptd.KarrasSchedule(0.02, 10.0).sigmas(5))
    )
    assert learned < usual


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 1}, "at least 2"),
        ({"sigma_max": -1.0}, "sigma_max must be positive"),
        ({"sigma_min": 20.0}, "between 0 and sigma_max"),
        ({"solver": "ddim"}, "deterministic"),
        ({"solver": "huen"}, "unknown solver"),
        ({"method": "genetic"}, "unknown method"),
        ({"x": torch.zeros(0, 2)}, "hold points"),
    ],
)
def test_bad_requests_for_a_grid_are_refused(settings: dict[str, object], message: str) -> None:
    arguments = {"num_steps": 5, "solver": "heun", "x": start(1, 8), "sigma_max": 10.0, **settings}
    with pytest.raises(ValueError, match=message):
        ptd.optimise_sigmas(RING.denoise, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nfe": 1}, "nfe must be at least 2"),
        ({"sigma_max": math.inf}, "sigma_max must be positive"),
        ({"sigma_min": 0.0}, "between 0 and sigma_max"),
        ({"sigma_min": 20.0}, "between 0 and sigma_max"),
        ({"x": torch.zeros(0, 2)}, "hold points"),
    ],
)
def test_bad_requests_for_a_plan_are_refused(settings: dict[str, object], message: str) -> None:
    arguments = {"nfe": 5, "x": start(1, 8), "sigma_max": 10.0, "sigma_min": 0.01, **settings}
    with pytest.raises(ValueError, match=message):
        ptd.optimise_plan(RING.denoise, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of sigmas"),
        ({"nfe": 5, "sigmas": torch.tensor([1.0, 0.0])}, "exactly one of sigmas"),
        ({"nfe": 5}, "nfe needs sigma_max"),
        ({"nfe": 0, "sigma_max": 10.0}, "nfe must be at least 1"),
        ({"nfe": 5, "sigma_max": 0.5}, "sigma_max must be at least twice"),
        ({"nfe": 5, "sigma_max": 10.0, "sigma_min": -1.0}, "sigma_min must lie between"),
        ({"nfe": 5, "sigma_max": 10.0, "sigma_min": 1.0}, "sigma_min must lie between"),
        ({"nfe": 5, "sigma_max": 10.0, "solver": "heun"}, "give sigmas instead of nfe"),
        ({"sigmas": torch.tensor([1.0, 0.0]), "solver": "auto"}, "give nfe and sigma_max instead"),
    ],
)
def test_bad_requests_for_a_budget_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ptd.sample(RING.denoise, start(0, 3), **settings)  # type: ignore[arg-type]
