"""The one loop: what a trajectory yields, what it refuses, and that any callable is a denoiser."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.contract import sigma_rows
from pointdiffusion.solvers import SOLVERS

SIGMAS = ptd.KarrasSchedule(0.01, 10.0).sigmas(6)


class _Mixture:
    """Two points, with the denoiser as a method."""

    def __init__(self) -> None:
        self.truth = ptd.EmpiricalDenoiser(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64))

    def denoise(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        return self.truth(x, sigma, **condition)


class _Module(ptd.Denoiser):
    def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        return _Mixture().denoise(x, sigma, **condition)


def _start(dtype: torch.dtype = torch.float64) -> Tensor:
    return 10 * torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_begins_with_the_start_itself(name: str) -> None:
    """The first item is x_T as given, at the first level, with nothing denoised and nothing spent."""
    x = _start()
    first = next(iter(ptd.trajectory(_Mixture().denoise, x, SIGMAS, solver=name, generator=_seeded())))
    assert torch.equal(first.x, _start())
    assert (first.sigma, first.denoised, first.nfe) == (float(SIGMAS[0]), None, 0)


@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_has_one_item_for_each_level(name: str) -> None:
    """There are num_steps + 1 items, at the levels of the grid, with shapes kept and evaluations counted up."""
    x = _start()
    steps = list(ptd.trajectory(_Mixture().denoise, x, SIGMAS, solver=name, generator=_seeded()))
    assert [step.sigma for step in steps] == SIGMAS.tolist()
    assert all(step.x.shape == x.shape for step in steps)
    assert all(step.denoised is not None and step.denoised.shape == x.shape for step in steps[1:])
    spent = [step.nfe for step in steps]
    assert spent == sorted(set(spent))


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "churn"])  # which begins by adding noise
def test_denoised_is_what_the_step_began_with(name: str) -> None:
    """Each item carries the denoised points of the level before: the denoiser's answer there, not a later one."""
    steps = list(ptd.trajectory(_Mixture().denoise, _start(), SIGMAS, solver=name, generator=_seeded()))
    for before, step in itertools.pairwise(steps):
        expected = _Mixture().denoise(before.x, torch.tensor(before.sigma, dtype=torch.float64))
        torch.testing.assert_close(step.denoised, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", SOLVERS)
def test_items_are_not_overwritten_by_later_steps(name: str) -> None:
    """Kept items stay as they were: stepping on works on new tensors."""
    kept, copies = [], []
    for step in ptd.trajectory(_Mixture().denoise, _start(), SIGMAS, solver=name, generator=_seeded()):
        kept.append(step.x)
        copies.append(step.x.clone())
    assert all(torch.equal(x, copy) for x, copy in zip(kept, copies, strict=True))


@pytest.mark.parametrize("name", SOLVERS)
def test_sample_is_the_last_item(name: str) -> None:
    """`sample` returns the last points of the same walk, and leaves the start as it was."""
    x = _start()
    *_, last = ptd.trajectory(_Mixture().denoise, x, SIGMAS, solver=name, generator=_seeded())
    assert torch.equal(ptd.sample(_Mixture().denoise, x, SIGMAS, solver=name, generator=_seeded()), last.x)
    assert torch.equal(x, _start())


def test_a_solver_may_be_named_or_handed_over() -> None:
    """A name of the registry and an object of the class are the same; Euler is the default."""

    def draw(**settings: Any) -> Tensor:
        return ptd.sample(_Mixture().denoise, _start(), SIGMAS[:4], generator=_seeded(), **settings)

    by_name = {name: draw(solver=name) for name in SOLVERS}
    for name, kind in SOLVERS.items():
        assert torch.equal(draw(solver=kind()), by_name[name])
    assert torch.equal(draw(), by_name["euler"])
    assert not torch.equal(by_name["heun"], by_name["euler"])


def test_any_callable_is_a_denoiser() -> None:
    """A bound method, a function, an object, a module: whatever keeps the contract gives the same samples."""
    mixture = _Mixture()
    expected = ptd.sample(mixture.denoise, _start(), SIGMAS)
    denoisers: list[Any] = [mixture.truth, lambda x, sigma: mixture.denoise(x, sigma), _Module(nn.Identity())]
    assert all(torch.equal(ptd.sample(denoiser, _start(), SIGMAS), expected) for denoiser in denoisers)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("grid", [torch.float32, torch.float64])
def test_type_of_the_points_is_kept(name: str, dtype: torch.dtype, grid: torch.dtype) -> None:
    """Sampling runs in the type of the points, whatever the type of the grid."""
    seen = set()

    def denoiser(x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        seen.add((x.dtype, sigma.dtype))
        return x / (1 + sigma_rows(sigma, x) ** 2)

    solver = SOLVERS[name]()
    if isinstance(solver, ptd.AdaptiveRungeKutta):
        solver = SOLVERS[name](rtol=0.3, atol=0.3)  # what bfloat16 can meet
    steps = list(ptd.trajectory(denoiser, _start(dtype), SIGMAS.to(grid), solver=solver, generator=_seeded()))
    assert {step.x.dtype for step in steps} == {dtype}
    assert seen == {(dtype, dtype)}


@pytest.mark.parametrize("name", SOLVERS)
def test_points_may_have_any_shape(name: str) -> None:
    """The loop does not care what a row is: pictures walk as tables do."""
    x = _start().reshape(2, 2, 2, 2)
    denoiser = lambda x, sigma: torch.tanh(x) / (1 + sigma_rows(sigma, x) ** 2)  # noqa: E731
    flat = ptd.sample(denoiser, x.reshape(2, 8), SIGMAS, solver=name, generator=_seeded())
    torch.testing.assert_close(
        ptd.sample(denoiser, x, SIGMAS, solver=name, generator=_seeded()).reshape(2, 8), flat, rtol=1e-14, atol=0
    )


def test_no_gradient_is_kept() -> None:
    """A walk through a network keeps no graph, so memory does not grow with its steps."""
    layer = nn.Linear(2, 2).double()
    steps = list(ptd.trajectory(lambda x, _: layer(x), _start(), SIGMAS))
    assert not any(step.x.requires_grad for step in steps)
    assert torch.is_grad_enabled()


def test_a_trajectory_can_be_left_early() -> None:
    """It is a generator: what is not asked for is not computed."""
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return x

    steps = ptd.trajectory(denoiser, _start(), SIGMAS)
    assert [next(steps).nfe for _ in range(3)] == [0, 1, 2]
    assert calls == 2


@pytest.mark.parametrize(
    ("sigmas", "reason"),
    [
        ([1.0, 2.0], "decrease"),
        ([1.0, 1.0], "decrease"),
        ([3.0, 2.0, 2.0, 0.0], "decrease"),
        ([1.0, -1.0], "0"),
        ([1.0, 0.0, -1.0], "0"),
        ([math.nan, 1.0], "finite"),
        ([2.0, math.nan, 0.0], "finite"),
        ([math.inf, 1.0], "finite"),
        ([1.0], "two"),
        ([], "two"),
        ([[2.0, 1.0]], "two"),
    ],
)
def test_a_grid_that_is_none_is_refused(sigmas: Any, reason: str) -> None:
    """Levels must be finite, not negative and strictly decreasing, at least two; the message says which is wrong."""
    with pytest.raises(ValueError, match=rf"sigmas.*{reason}"):
        ptd.sample(_Mixture().denoise, _start(), torch.tensor(sigmas))


def test_an_unknown_solver_is_answered_with_a_suggestion() -> None:
    """A misspelt solver is answered with the nearest name and with all of them."""
    with pytest.raises(ValueError, match=r"solver 'huen'.*did you mean 'heun'") as caught:
        ptd.sample(_Mixture().denoise, _start(), SIGMAS, solver="huen")
    assert all(name in str(caught.value) for name in SOLVERS)


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc-3", "dormand-prince"])
def test_denoised_points_are_clamped_to_a_box_where_one_is_given(solver: str) -> None:
    """In a box the samples keep to it; a box around everything changes nothing."""
    gaussian = ptd.GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
    x = gaussian.sample(200, torch.Generator().manual_seed(0), 10.0)
    sigmas = ptd.KarrasSchedule(0.1, 10.0).sigmas(12)
    free, wide, narrow = (
        ptd.sample(gaussian.denoise, x, sigmas, solver=solver, bounds=bounds)
        for bounds in (None, (-100.0, 100.0), (torch.tensor([-1.0, -3.0]), torch.tensor([0.5, 3.0])))
    )
    assert torch.equal(free, wide)
    assert free[:, 0].max() > 0.5
    assert narrow[:, 0].max() <= 0.5
    assert narrow[:, 0].min() >= -1.0


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="the lowest first"):
        ptd.sample(lambda x, _: x, torch.zeros(2, 2), torch.tensor([1.0, 0.0]), bounds=(1.0, -1.0))


def test_a_compiled_denoiser_samples_the_same() -> None:
    """The whole network is one graph: nothing of it falls back to Python."""
    model = ptd.fit(ptd.DATASETS["moons"](256, random_state=0), ptd.TrainingConfig(epochs=1), seed=0)
    compiled = torch.compile(model.denoiser, fullgraph=True, backend="aot_eager")
    x = 10 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    plain, fast = (ptd.sample(denoiser, x, nfe=5, sigma_max=10.0) for denoiser in (model.denoiser, compiled))
    torch.testing.assert_close(plain, fast, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_runs_on_a_gpu_and_a_seed_means_the_same_there(solver: str) -> None:
    gaussian = ptd.GaussianMixture([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]] * 2)
    x = gaussian.sample(64, torch.Generator().manual_seed(0), 10.0)
    sigmas = ptd.KarrasSchedule(0.1, 10.0).sigmas(8)
    here, there = (
        ptd.sample(gaussian.denoise, x.to(device), sigmas, solver=solver, generator=torch.Generator().manual_seed(0))
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(here, there.cpu(), rtol=1e-8, atol=1e-8)
