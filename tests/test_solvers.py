"""Solvers against the exact flow of Gaussian data.

For data N(m, C) the exact denoiser is affine, so every solver maps points affinely from noise to data, and pushing the
origin and the basis vectors through it shows that map whole. Mean and covariance then propagate exactly: no sample is
drawn, and what is left is the error of the solver alone.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.denoisers import DenoiserFunction
from pointdiffusion.solvers import SOLVERS

ANGLE = 0.6
AXES = torch.tensor(
    [[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]], dtype=torch.float64
)  # columns are the directions of the data
STDS = torch.tensor([1.0, 0.4], dtype=torch.float64)
MEAN = torch.tensor([0.7, -1.3], dtype=torch.float64)


def gaussian_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """Return E[x_0 | x] for N(MEAN, AXES diag(STDS^2) AXES^T) in closed form."""
    shrink = STDS**2 / (STDS**2 + sigma.reshape(-1, 1) ** 2)
    return MEAN + (((x - MEAN) @ AXES) * shrink) @ AXES.T


def exact_flow(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Return where the probability flow takes `x`: each direction shrinks with its standard deviation."""
    factor = ((STDS**2 + sigma_next**2) / (STDS**2 + sigma**2)).sqrt()
    return MEAN + (((x - MEAN) @ AXES) * factor) @ AXES.T


def affine_map(solver: str, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Return A and b of the whole walk x -> A x + b."""
    basis = torch.cat([torch.zeros(1, 2), torch.eye(2)]).to(torch.float64)
    images = ptd.sample(gaussian_denoiser, basis, sigmas, solver=solver)
    return (images[1:] - images[0]).T, images[0]


def propagated_error(solver: str, num_steps: int) -> tuple[float, float]:
    """Return the errors of standard deviation and mean, from 2 standard deviations of noise to 0.1."""
    sigmas = ptd.KarrasSchedule(sigma_min=0.1, sigma_max=2.0).sigmas(num_steps, final_zero=False)
    matrix, shift = affine_map(solver, sigmas)
    start, end = AXES @ torch.diag(STDS**2 + 2.0**2) @ AXES.T, STDS**2 + 0.1**2
    covariance = AXES.T @ matrix @ start @ matrix.T @ AXES  # in the directions of the data
    std_error = (covariance.diag().sqrt() - end.sqrt()).abs().max()
    # The flow leaves the mean where it is, but only a start elsewhere shows an error in how it is moved.
    offset = MEAN + AXES @ torch.tensor([1.0, 1.0], dtype=torch.float64)
    mean_error = (matrix @ offset + shift - exact_flow(offset, 2.0, 0.1)).norm()
    return float(std_error), float(mean_error)


def slope(errors: list[float]) -> float:
    """Return the regression of log2 of the error on the number of halvings of the step, with the sign turned."""
    x = torch.arange(len(errors), dtype=torch.float64)
    y = torch.tensor(errors, dtype=torch.float64).log2()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


@pytest.mark.parametrize("name", SOLVERS)
def test_solver_has_the_order_that_it_declares(name: str) -> None:
    """Halving the step divides the error by 2 to the order: a regression over three refinements, no luck involved."""
    errors = [propagated_error(name, num_steps) for num_steps in (32, 64, 128, 256)]
    for kind in (0, 1):
        measured = [error[kind] for error in errors]
        # Above rounding (1e-15 a step) by far, and small enough to be in the range where the leading term rules.
        assert 1e-9 < measured[-1] < measured[0] < 0.2
        assert slope(measured) == pytest.approx(SOLVERS[name].order, abs=0.15)


@pytest.mark.parametrize("name", SOLVERS)
def test_directions_of_the_data_do_not_mix(name: str) -> None:
    """The flow of a Gaussian moves along its own axes only, and a solver keeps that, and its mean, exactly."""
    sigmas = ptd.KarrasSchedule(sigma_min=0.1, sigma_max=2.0).sigmas(7)
    matrix, shift = affine_map(name, sigmas)
    diagonal = AXES.T @ matrix @ AXES
    torch.testing.assert_close(
        diagonal - diagonal.diag().diag(), torch.zeros(2, 2, dtype=torch.float64), atol=1e-14, rtol=0
    )
    torch.testing.assert_close(matrix @ MEAN + shift, MEAN, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", SOLVERS)
def test_many_steps_reach_the_data(name: str) -> None:
    """From far out to 0 with many steps every point lands where the exact flow takes it."""
    x = 20 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigmas = ptd.KarrasSchedule(sigma_min=1e-3, sigma_max=20.0).sigmas(400)
    result = ptd.sample(gaussian_denoiser, x, sigmas, solver=name)
    # Euler's error at 400 steps is about 1 %; points are of unit size.
    torch.testing.assert_close(result, exact_flow(x, 20.0, 0.0), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", SOLVERS)
def test_last_step_to_zero_lands_on_the_denoised_point(name: str) -> None:
    """At sigma 0 there is no noise left: the last step returns the denoiser's answer, exactly."""
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    *_, before, last = ptd.trajectory(gaussian_denoiser, x, torch.tensor([1.0, 0.3, 0.0]).double(), solver=name)
    expected = gaussian_denoiser(before.x, torch.tensor(before.sigma, dtype=torch.float64))
    torch.testing.assert_close(last.x, expected, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(last.denoised, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_denoiser_of_one_point_is_integrated_exactly(name: str) -> None:
    """If all data are one point the flow is a straight line, which any consistent solver follows without error."""
    point = torch.tensor([2.0, -1.0], dtype=torch.float64)
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = list(ptd.trajectory(lambda x, _: point.expand_as(x), x, torch.tensor([4.0, 1.0, 0.25]), solver=name))
    for step in steps:
        torch.testing.assert_close(step.x, point + (x - point) * step.sigma / 4, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", SOLVERS)
def test_first_call_is_at_the_point_and_level_of_the_step(name: str) -> None:
    """The contract of `step`: points are left as they are, and the denoiser is first asked about them."""
    calls: list[tuple[Tensor, float]] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append((x.clone(), float(sigma)))
        return gaussian_denoiser(x, sigma)

    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    copy = x.clone()
    SOLVERS[name]().step(denoiser, x, torch.tensor(2.0), torch.tensor(1.0))
    assert torch.equal(x, copy)
    assert torch.equal(calls[0][0], copy)
    assert calls[0][1] == 2.0


def test_euler_is_ddim() -> None:
    """In x and sigma Euler's step is DDIM: keep the denoised point, rescale the predicted noise (Song et al. 2021)."""
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma, sigma_next = (torch.tensor(value, dtype=torch.float64) for value in (3.0, 1.1))
    result, _ = ptd.EulerODE().step(gaussian_denoiser, x, sigma, sigma_next)
    denoised = gaussian_denoiser(x, sigma)
    torch.testing.assert_close(result, denoised + sigma_next * (x - denoised) / sigma, rtol=1e-13, atol=1e-14)


def test_heun_is_algorithm_1() -> None:
    """Karras et al. (2022), algorithm 1 with sigma(t) = t, lines 4 to 9 written out."""
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, t_next = (torch.tensor(value, dtype=torch.float64) for value in (3.0, 1.1))
    d = (x - gaussian_denoiser(x, t)) / t
    euler = x + (t_next - t) * d
    d_prime = (euler - gaussian_denoiser(euler, t_next)) / t_next
    result, _ = ptd.HeunODE().step(gaussian_denoiser, x, t, t_next)
    torch.testing.assert_close(result, x + (t_next - t) * (d / 2 + d_prime / 2), rtol=1e-13, atol=1e-14)


def _nfe(solver: str, sigmas: Tensor) -> tuple[int, int]:
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gaussian_denoiser(x, sigma)

    counted: DenoiserFunction = denoiser  # type: ignore[assignment]
    *_, last = ptd.trajectory(counted, torch.ones(3, 2, dtype=torch.float64), sigmas, solver=solver)
    return calls, last.nfe


@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_evaluations_of_euler_and_heun(num_steps: int) -> None:
    """Euler takes one evaluation a step; Heun two, less one where the last step ends in 0. The count is told truly."""
    schedule = ptd.KarrasSchedule()
    to_zero, above = schedule.sigmas(num_steps), schedule.sigmas(num_steps, final_zero=False)
    assert _nfe("euler", to_zero) == _nfe("euler", above) == (num_steps, num_steps)
    assert _nfe("heun", to_zero) == (2 * num_steps - 1, 2 * num_steps - 1)
    assert _nfe("heun", above) == (2 * num_steps, 2 * num_steps)
