"""Every solver of the registry is proved against the truth: affine maps of Gaussians, exact flows, other packages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.solvers import SOLVERS, ItoSDE, LangevinCorrector, Multistep, Singlestep
from pointdiffusion.solvers.quadrature import QUANTITIES, VARIABLES, Form

ADAPTIVE = [name for name in SOLVERS if isinstance(SOLVERS[name](), ptd.AdaptiveRungeKutta)]
STOCHASTIC = [name for name in SOLVERS if SOLVERS[name]().noises]
DETERMINISTIC = [name for name in SOLVERS if name not in STOCHASTIC and name not in ADAPTIVE]

# One table for all members: from 2 standard deviations of the data to 0.1, no final zero.
HIGH, LOW, STEPS, SEED = 2.0, 0.1, (48, 96, 192, 384), 0

GAUSSIAN = ptd.GaussianMixture([1.0], [[0.5, -1.0]], [[[1.0, 0.6], [0.6, 0.8]]])
MIXTURE = ptd.GaussianMixture(
    [0.3, 0.3, 0.4],
    [[-1.0, 0.0], [1.0, 0.3], [0.0, -1.0]],
    [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]], [[0.25, -0.05], [-0.05, 0.2]]],
)


def grid(num_steps: int, *, final_zero: bool = False) -> Tensor:
    return ptd.KarrasSchedule(LOW, HIGH).sigmas(num_steps, final_zero=final_zero)


def fitted_order(errors: list[float]) -> float:
    """Return the regression of the error on the number of steps, both as logarithms, with the sign turned."""
    return -float(np.polyfit(np.log2(STEPS), np.log2(errors), 1)[0])


def gaussian_flow(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Return the exact flow of `GAUSSIAN`: along its axes the standard deviation changes, nothing else."""
    variances, axes = torch.linalg.eigh(GAUSSIAN.covariance)
    factors = ((variances + sigma_next**2) / (variances + sigma**2)).sqrt()
    return GAUSSIAN.mean + (x - GAUSSIAN.mean) @ axes * factors @ axes.T


def moments(solver: ptd.Solver, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact mean and covariance at the end, for points that start with the exact ones.

    Every step is an affine map of the point and the noise, and so is the whole walk: it is found by feeding it a
    basis, one row a vector, and draws no random number.
    """
    num_steps, n_dims = len(sigmas) - 1, 2
    inputs = n_dims + num_steps * solver.noises * n_dims
    basis = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).double()  # row 0 gives the shift

    def noise(k: int, count: int) -> Tensor:
        start = n_dims + k * count * n_dims
        return basis[:, start : start + count * n_dims].reshape(-1, count, n_dims).transpose(0, 1)

    x = basis[:, :n_dims]
    end = ptd.sample(GAUSSIAN.denoise, x, sigmas, solver=solver, noise=noise)
    shift, matrix = end[0], end[1:] - end[0]
    start = GAUSSIAN.covariance + float(sigmas[0]) ** 2 * torch.eye(n_dims).double()
    covariance = matrix[:n_dims].T @ start @ matrix[:n_dims] + matrix[n_dims:].T @ matrix[n_dims:]
    return shift + GAUSSIAN.mean @ matrix[:n_dims], covariance


def moment_error(solver: ptd.Solver, num_steps: int) -> float:
    """Return the error of mean and covariance at the end of the walk."""
    mean, covariance = moments(solver, grid(num_steps))
    exact = GAUSSIAN.covariance + LOW**2 * torch.eye(2).double()
    return float((covariance - exact).norm() + (mean - GAUSSIAN.mean).norm())


@pytest.fixture(scope="module")
def flow() -> tuple[Tensor, ptd.FlowSolution]:
    """Return points at the highest noise level, and the exact flow from there to the lowest."""
    x = MIXTURE.sample(64, torch.Generator().manual_seed(SEED), HIGH)
    return x, ptd.exact_flow(MIXTURE.denoise, x, HIGH, LOW, tolerance=1e-12)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_on_the_exact_flow_of_a_mixture(name: str, flow: tuple[Tensor, ptd.FlowSolution]) -> None:
    """Halving the step divides the error by 2 to the declared order: regression over three refinements, in float64."""
    solver, errors = SOLVERS[name](), []
    x, exact = flow
    for num_steps in STEPS:
        y = ptd.sample(MIXTURE.denoise, x, grid(num_steps), solver=solver)
        errors.append(float((y - exact.x).square().mean(dim=1).sqrt().median()))
    assert errors[0] < 0.05
    assert errors[-1] > 0.2 * float(
        exact.error.median()
    )  # far enough above the error of the reference to mean something
    assert fitted_order(errors) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize("name", [*DETERMINISTIC, *STOCHASTIC])
def test_moments_of_a_gaussian_converge_at_the_declared_order(name: str) -> None:
    """Mean and covariance propagate through every step exactly: the weak order without a random number."""
    solver = SOLVERS[name]()
    errors = [moment_error(solver, num_steps) for num_steps in STEPS]
    assert errors[0] < 0.2
    # Where the solver is exact or of higher order on Gaussians there is nothing to fit but that it is at least so.
    assert errors[-1] < 1e-10 or fitted_order(errors) > solver.order - 0.15


@pytest.mark.parametrize("name", STOCHASTIC)
def test_weak_order_is_not_understated(name: str) -> None:
    """The declared weak order is what is measured, not a safe guess."""
    solver = SOLVERS[name]()
    assert fitted_order([moment_error(solver, num_steps) for num_steps in STEPS]) == pytest.approx(
        solver.order, abs=0.15
    )


@pytest.mark.parametrize("name", [name for name in [*DETERMINISTIC, *STOCHASTIC] if "angular" not in name])
def test_mean_of_a_gaussian_stays(name: str) -> None:
    """The flow leaves the mean where it is, and so does every solver that is not built around data of mean 0."""
    mean, _ = moments(SOLVERS[name](), grid(9))
    torch.testing.assert_close(mean, GAUSSIAN.mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
def test_last_step_to_zero_lands_on_the_denoised_point(name: str) -> None:
    """At sigma 0 there is no noise left: the last step returns the denoiser's answer, by default."""
    x = MIXTURE.sample(20, torch.Generator().manual_seed(SEED), HIGH)
    sigmas = torch.tensor([HIGH, 0.5, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(SEED)
    *_, last = ptd.trajectory(MIXTURE.denoise, x, sigmas, solver=name, generator=generator)
    assert last.denoised is not None
    torch.testing.assert_close(last.x, last.denoised, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if SOLVERS[name]().order > 1])
def test_half_a_last_step_is_the_middle(name: str) -> None:
    """`final="half"` returns the mean of the point and its denoised one, and is better where the density is smooth."""
    x = MIXTURE.sample(20, torch.Generator().manual_seed(SEED), HIGH)
    sigmas = grid(40, final_zero=True)
    exact = ptd.exact_flow(MIXTURE.denoise, x, HIGH, 0.0).x
    errors = {}
    for final in ("denoise", "half"):
        y = ptd.sample(MIXTURE.denoise, x, sigmas, solver=SOLVERS[name](final=final))
        errors[final] = float((y - exact).norm())
    assert errors["half"] < 0.6 * errors["denoise"]


@pytest.mark.parametrize("lowest", [0.0, 0.03, 0.1])
def test_the_local_end_is_exact_for_a_gaussian_of_any_width(lowest: float) -> None:
    """Two noise levels on the exact flow tell the width, from a point mass to one much wider than the noise.

    Where a network may not be asked below a level, what is meant is the flow down to there and the denoised point.
    """
    for std in (1e-4, 0.02, 0.1, 1.0):
        gaussian = ptd.GaussianMixture([1.0], [[0.0, 0.0]], [(std**2 * torch.eye(2)).tolist()])
        # Exact until the last step.
        solver = Multistep(2, quantity="F", variable="atan", sigma_data=std, final="local", sigma_min=lowest)
        x = gaussian.sample(50, torch.Generator().manual_seed(SEED), 1.0)
        y = ptd.sample(gaussian.denoise, x, torch.tensor([1.0, 0.3, 0.1, 0.0]).double(), solver=solver)
        # The width is found but for the guard of a division by 0, for widths far beyond the noise.
        shrunk = math.hypot(std, lowest) / math.hypot(std, 1.0) * std**2 / (std**2 + lowest**2)
        torch.testing.assert_close(y, x * shrunk, rtol=0, atol=1e-5)


def test_the_local_end_needs_a_memory() -> None:
    with pytest.raises(ValueError, match="needs a multistep method"):
        ptd.HeunODE(final="local")


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_evaluations_are_counted(name: str) -> None:
    """`nfe` is the number of calls, the ones of the first steps included."""
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return MIXTURE.denoise(x, sigma)

    *_, last = ptd.trajectory(denoiser, torch.zeros(3, 2).double(), grid(6, final_zero=True), solver=name)
    assert last.nfe == calls >= 6


@pytest.mark.parametrize(("quantity", "solver"), [("eps", "deis-2"), ("denoised", "dpmpp-2m"), ("F", "angular-2")])
def test_multistep_methods_cost_one_evaluation_a_step(quantity: str, solver: str) -> None:
    *_, last = ptd.trajectory(MIXTURE.denoise, torch.zeros(3, 2).double(), grid(7), solver=solver)
    assert last.nfe == 7
    assert SOLVERS[solver]().form.quantity == quantity  # type: ignore[attr-defined]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_weights_integrate_polynomials_exactly(quantity: str, variable: str) -> None:
    """If the quantity is a parabola in the variable, the step is what SciPy's adaptive quadrature says it is."""
    from scipy.integrate import quad

    form = Form(quantity, variable, sigma_data=0.7, rho=5.0)
    high, low, nodes = 1.7, 0.4, (1.7, 2.5, 4.0)

    def u(s: float) -> float:
        return float(VARIABLES[variable](np.array([s]), 0.7, 5.0)[0])

    def q(s: float) -> float:
        return 0.3 - 1.1 * u(s) + 0.8 * u(s) ** 2

    def scale(s: float) -> float:
        return {"eps": 1.0, "denoised": s, "velocity": 0.7 + s, "F": math.hypot(s, 0.7)}[quantity]

    def speed(s: float) -> float:  # d tau / d sigma
        return {
            "eps": 1.0, "denoised": -1 / s**2, "velocity": 0.7 / (0.7 + s) ** 2, "F": 0.7 / (s**2 + 0.49)
        }[quantity]  # fmt: skip

    factor, weights = form.weights(high, low, nodes)
    expected = scale(low) * quad(lambda s: q(s) * speed(s), high, low, epsabs=1e-13, epsrel=1e-13)[0]
    assert factor == pytest.approx(scale(low) / scale(high), rel=1e-14)
    assert sum(w * q(s) for w, s in zip(weights, nodes, strict=True)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_forms_are_forms_of_the_flow(quantity: str) -> None:
    """d(x / r) = q d tau along the exact flow of a mixture, by central differences."""
    form = Form(quantity, "sigma", sigma_data=0.7)
    x = MIXTURE.sample(10, torch.Generator().manual_seed(SEED), 1.0)
    width = 1e-4
    up, down = (ptd.exact_flow(MIXTURE.denoise, x, 1.0, 1.0 + s * width).x for s in (1, -1))
    measured = up / form.scale(1.0 + width) - down / form.scale(1.0 - width)
    _, (mass,) = form.weights(1.0 + width, 1.0 - width, (1.0,))
    value = form.value(x, MIXTURE.denoise(x, torch.tensor(1.0)), 1.0)
    torch.testing.assert_close(measured, -mass / form.scale(1.0 - width) * value, rtol=1e-5, atol=1e-11)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_solvers_meet_their_tolerance(name: str) -> None:
    """The error follows the tolerance down, and costs evaluations."""
    x = MIXTURE.sample(64, torch.Generator().manual_seed(SEED), HIGH)
    exact = ptd.exact_flow(MIXTURE.denoise, x, HIGH, LOW).x
    sigmas, errors, nfes = torch.tensor([HIGH, LOW]).double(), [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        *_, last = ptd.trajectory(MIXTURE.denoise, x, sigmas, solver=SOLVERS[name](rtol=tolerance, atol=tolerance))
        errors.append(float((last.x - exact).abs().max()))
        nfes.append(last.nfe)
        assert errors[-1] < 20 * tolerance
    assert errors[0] > errors[1] > errors[2]
    assert nfes[0] < nfes[1] < nfes[2]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_rows_do_not_depend_on_their_batch(name: str) -> None:
    """A row far out, which needs other steps, changes nothing for the rest."""
    x = MIXTURE.sample(8, torch.Generator().manual_seed(SEED), HIGH)
    far = torch.cat([x, torch.tensor([[30.0, -50.0]]).double()])
    sigmas = torch.tensor([HIGH, 0.5, LOW]).double()
    alone, together = (ptd.sample(MIXTURE.denoise, rows, sigmas, solver=name) for rows in (x, far))
    torch.testing.assert_close(alone, together[:8], rtol=1e-13, atol=1e-14)


def test_rejected_steps_are_counted() -> None:
    """A first step of half the range at a tight tolerance is refused, and the count says so."""
    solver = ptd.AdaptiveRungeKutta(rtol=1e-10, atol=1e-10)
    x = MIXTURE.sample(8, torch.Generator().manual_seed(SEED), HIGH)
    _, walk = solver.step(MIXTURE.denoise, x, torch.tensor(HIGH), torch.tensor(LOW))
    assert bool((walk.accepted > 10).all())
    assert int(walk.rejected.sum()) > 0


def test_a_tolerance_that_cannot_be_met_is_refused() -> None:
    x = MIXTURE.sample(8, torch.Generator().manual_seed(SEED), HIGH).float()
    with pytest.raises(ValueError, match="cannot be met"):
        ptd.exact_flow(MIXTURE.denoise, x, HIGH, LOW, tolerance=1e-12)


def test_a_denoiser_that_breaks_is_named() -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        return x * math.nan

    with pytest.raises(ValueError, match="not finite"):
        ptd.exact_flow(broken, torch.ones(2, 2).double(), HIGH, LOW)


def test_exact_flow_goes_both_ways() -> None:
    """Up and down again is where it began; the stated error is of the size of the tolerance."""
    x = MIXTURE.sample(32, torch.Generator().manual_seed(SEED))
    up = ptd.exact_flow(MIXTURE.denoise, x, 0.0, 20.0)
    down = ptd.exact_flow(MIXTURE.denoise, up.x, 20.0, 0.0)
    torch.testing.assert_close(down.x, x, rtol=0, atol=1e-7)
    assert 0 < float(down.error.max()) < 1e-8
    assert up.nfe > 0


def test_exact_flow_of_a_gaussian() -> None:
    """The closed form, to the stated error."""
    x = GAUSSIAN.sample(32, torch.Generator().manual_seed(SEED), 5.0)
    found = ptd.exact_flow(GAUSSIAN.denoise, x, 5.0, 0.02)
    torch.testing.assert_close(found.x, gaussian_flow(x, 5.0, 0.02), rtol=0, atol=1e-9)
    assert float(found.error.max()) < 1e-9


def test_langevin_steps_pull_towards_the_marginal() -> None:
    """Started too narrow, the covariance comes nearer to the true one with corrections than without."""

    def error(solver: ptd.Solver) -> float:
        sigmas = torch.tensor([1.0, 0.9]).double()
        _, covariance = moments(solver, sigmas)
        return float((covariance - GAUSSIAN.covariance - 0.81 * torch.eye(2)).norm())

    plain = ptd.EulerODE()
    corrected = [error(LangevinCorrector(ptd.EulerODE(), num_corrections=n, snr=0.1)) for n in (1, 40)]
    assert corrected[1] < corrected[0]
    assert error(plain) > 0


def test_karras_churn_of_nothing_is_heun() -> None:
    x = MIXTURE.sample(8, torch.Generator().manual_seed(SEED), HIGH)
    still = ptd.ChurnSDE(0.0)
    a = ptd.sample(MIXTURE.denoise, x, grid(9), solver=still, generator=torch.Generator())
    torch.testing.assert_close(a, ptd.sample(MIXTURE.denoise, x, grid(9), solver="heun"), rtol=0, atol=0)


def test_noise_follows_the_generator() -> None:
    x = MIXTURE.sample(8, torch.Generator().manual_seed(SEED), HIGH)

    def draw(seed: int) -> Tensor:
        return ptd.sample(MIXTURE.denoise, x, grid(9), solver="ddim", generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_solver_without_noise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="stochastic"):
        ptd.sample(MIXTURE.denoise, torch.zeros(2, 2).double(), grid(3), solver=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multistep(5), "order"),
        (lambda: Multistep(2, quantity="epsilon"), "unknown quantity"),
        (lambda: Multistep(2, variable="lambda"), "unknown variable"),
        (lambda: Multistep(2, quantity="eps", eta=1.0), "eta"),
        (lambda: Multistep(2, start="euler"), "unknown start"),
        (lambda: Singlestep(4), "order"),
        (lambda: Singlestep(2, quantity="F"), "unknown quantity"),
        (lambda: ptd.RungeKutta("rk5"), "unknown Runge-Kutta method"),
        (lambda: ptd.AdaptiveRungeKutta(rtol=-1.0), "rtol"),
        (lambda: ptd.AdaptiveRungeKutta("fehlberg"), "unknown Runge-Kutta pair"),
        (lambda: ptd.HeunODE(final="zero"), "unknown final"),
        (lambda: ptd.DDIM(1.5), "eta"),
        (lambda: ItoSDE(-1.0), "eta"),
        (lambda: ptd.ChurnSDE(-1.0), "s_churn"),
        (lambda: LangevinCorrector(ptd.DDIM()), "draw no noise"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
