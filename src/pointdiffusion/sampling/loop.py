"""The one loop: from noise to data along a grid of noise levels.

`trajectory` is a generator, so that a progress bar, a picture or an early stop needs no callback; `sample` is its last
item. `exact_flow` is the reference: the probability-flow equation solved to a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction, call_denoiser, check_sigmas
from pointdiffusion.sampling.plans import Plan, default_plan
from pointdiffusion.solvers import SOLVERS, AdaptiveRungeKutta, Solver

PointsLike = TypeVar("PointsLike")


@dataclass(frozen=True)
class Step(Generic[PointsLike]):
    """One state of a trajectory.

    Args:
        x: Points, shape `(B, D)`.
        sigma: Their noise level.
        denoised: The denoised points with which the step here began, shape `(B, D)`; None at the start.
        nfe: Calls of the denoiser so far.
    """

    x: PointsLike
    sigma: float
    denoised: PointsLike | None
    nfe: int


class _Recorder:
    """Counts the calls of a denoiser, hands it levels in the type of the points, clamps, and keeps the first result."""

    def __init__(self, denoiser: DenoiserFunction, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        self.denoiser = denoiser
        self.bounds = bounds
        self.nfe = 0
        self.first: Tensor | None = None

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        denoised = call_denoiser(self.denoiser, x, sigma.to(x), **condition)
        if self.nfe == 0 and denoised.shape != x.shape:
            raise ValueError(
                f"the denoiser must return the shape of its points, {tuple(x.shape)}, got {tuple(denoised.shape)}"
            )
        if self.bounds is not None:
            denoised = denoised.clamp(*self.bounds)
        self.nfe += int(getattr(self.denoiser, "cost", 1))  # guided ones call a network twice
        if self.first is None:
            self.first = denoised
        return denoised


def make_solver(solver: str | Solver) -> Solver:
    """Return the solver of that name, or the solver itself.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(solver, Solver):
        return solver
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, [*SOLVERS, "auto"])
    return SOLVERS[solver]()


def resolve_plan(
    sigmas: Tensor | None = None, *, nfe: int | None = None, sigma_max: float | None = None,
    sigma_data: float = 1.0, sigma_min: float = 0.0, solver: str | Solver | None = None,
) -> Plan:  # fmt: skip
    """Return the solver and the grid that the arguments of the same names ask `trajectory` for.

    Raises:
        ValueError: If they contradict each other, or as `trajectory`.
    """
    if (sigmas is None) == (nfe is None):
        raise ValueError(
            "exactly one of sigmas and nfe must be given: a grid of noise levels, or a number of evaluations"
        )
    if sigmas is not None:
        if solver == "auto":
            raise ValueError("solver='auto' places the noise levels itself: give nfe and sigma_max instead of sigmas")
        check_sigmas(sigmas)
        solver = "euler" if solver is None else solver
        name = type(solver).__name__ if isinstance(solver, Solver) else solver
        return Plan(name, make_solver(solver), sigmas.detach().double().cpu())
    if sigma_max is None:
        raise ValueError("nfe needs sigma_max, the noise level of x, in the units of x")
    if solver not in (None, "auto"):
        raise ValueError("nfe is for solver='auto'; a solver of your choice needs a grid: give sigmas instead of nfe")
    return default_plan(int(nfe or 0), float(sigma_max), sigma_data, sigma_min)


def _box(bounds: tuple[Any, Any] | None, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the bounds as tensors like the points."""
    if bounds is None:
        return None
    low, high = (torch.as_tensor(bound).to(x) for bound in bounds)
    if not bool((low < high).all()):
        raise ValueError("bounds must be the lowest and the highest value of each coordinate, the lowest first")
    return low.expand(x.shape[1:]), high.expand(x.shape[1:])


@torch.no_grad()
def trajectory(
    denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor | None = None, *, nfe: int | None = None,
    sigma_max: float | None = None, sigma_data: float = 1.0, sigma_min: float = 0.0,
    solver: str | Solver | None = None, generator: torch.Generator | None = None,
    noise: Callable[[int, int], Tensor] | None = None, bounds: tuple[Any, Any] | None = None,
) -> Iterator[Step[Tensor]]:  # fmt: skip
    """Yield the points at every noise level of the grid, the given ones first.

    Exactly one of `sigmas` and `nfe` is given.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`; adaptive solvers hand it one noise level a row,
            the others a scalar.
        x: Points at the noise level `sigmas[0]`, or `sigma_max`, shape `(B, D)`.
        sigmas: Strictly decreasing noise levels, the last may be 0, shape `(num_steps + 1,)`.
        nfe: Number of evaluations; grid and solver are then the best known for it, see `default_plan`.
        sigma_max: Noise level of `x`, with `nfe`.
        sigma_data: Standard deviation of the data, with `nfe`.
        sigma_min: Lowest noise level at which the denoiser may be asked, with `nfe`; for networks.
        solver: A solver, or a name of `SOLVERS`; by default `"euler"` with `sigmas` and `"auto"` with `nfe`.
        generator: Where the noise of stochastic solvers comes from.
        noise: In place of a generator, a function of the number of the step and the number of draws that returns
            standard normal numbers, shape `(draws, *x.shape)`.
        bounds: Lowest and highest value of denoised coordinates, numbers or of shape `(D,)`; what the denoiser returns
            is clamped to them (static thresholding; Saharia et al. 2022, arXiv 2205.11487, section 2.3). By default
            nothing is: it changes the flow, and is for data that are known to lie in a box.

    Raises:
        ValueError: If the grid does not decrease, the solver is unknown, or a stochastic one gets no noise.
    """
    _, stepper, grid = resolve_plan(
        sigmas, nfe=nfe, sigma_max=sigma_max, sigma_data=sigma_data, sigma_min=sigma_min, solver=solver
    )
    levels = grid.tolist()
    if stepper.noises and generator is None and noise is None:
        raise ValueError("this solver is stochastic: hand it a generator, torch.Generator().manual_seed(seed)")
    recorder, state = _Recorder(denoiser, _box(bounds, x)), stepper.initial_state(levels)
    yield Step(x, levels[0], None, 0)
    for k in range(len(levels) - 1):
        recorder.first, drawn = None, None
        if stepper.noises:
            shape = (stepper.noises, *x.shape)
            # On the CPU, so that a seed means the same on every device.
            drawn = noise(k, stepper.noises) if noise else torch.randn(shape, generator=generator, dtype=x.dtype).to(x)
        x, state = stepper.step(recorder, x, grid[k], grid[k + 1], state, drawn)
        yield Step(x, levels[k + 1], recorder.first, recorder.nfe)


def sample(
    denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor | None = None, *, nfe: int | None = None,
    sigma_max: float | None = None, sigma_data: float = 1.0, sigma_min: float = 0.0,
    solver: str | Solver | None = None, generator: torch.Generator | None = None,
    noise: Callable[[int, int], Tensor] | None = None, bounds: tuple[Any, Any] | None = None,
) -> Tensor:  # fmt: skip
    """Return the points at the last noise level of the grid, shape `(B, D)`; the arguments are those of `trajectory`.

    Raises:
        ValueError: As `trajectory`.
    """
    for step in trajectory(
        denoiser, x, sigmas, nfe=nfe, sigma_max=sigma_max, sigma_data=sigma_data, sigma_min=sigma_min, solver=solver,
        generator=generator, noise=noise, bounds=bounds,
    ):  # fmt: skip
        x = step.x
    return x


class FlowSolution(NamedTuple):
    """The flow at another noise level.

    Args:
        x: Points, shape `(B, D)`.
        error: Estimated error of each row, the largest over its coordinates, in units of the data, shape `(B,)`.
        nfe: Calls of the denoiser.
    """

    x: Tensor
    error: Tensor
    nfe: int


@torch.no_grad()
def exact_flow(
    denoiser: DenoiserFunction, x: Tensor, sigma_from: float, sigma_to: float, *, tolerance: float = 1e-10,
    sigma_data: float = 1.0,
) -> FlowSolution:  # fmt: skip
    """Solve the probability-flow equation from one noise level to another, up or down.

    By the Dormand-Prince pair of order 8 with steps of each row's own. It is solved twice, the second time to a
    thirtieth of the tolerance, which is what is returned; the difference of the two is the stated error. A level of 0
    is taken as a billionth of `sigma_data`, and the way down ends at the denoised point there.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`.
        x: Points at the noise level `sigma_from`, shape `(B, D)`; float64 for tolerances below 1e-4, and so the weights
            of the denoiser, as `copy.deepcopy(model.denoiser).double()`.
        sigma_from: Where to start.
        sigma_to: Where to end.
        tolerance: Of each step, relative to the size of the point and absolute in units of `sigma_data`.
        sigma_data: Standard deviation of the data.

    Raises:
        ValueError: If a level is negative or not finite, the tolerance cannot be met, or points and weights are of
            different types.
    """
    for name, level in (("sigma_from", sigma_from), ("sigma_to", sigma_to)):
        if not 0 <= level < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {level}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    recorder, floor = _Recorder(denoiser), 1e-9 * sigma_data
    start, end = (torch.tensor(max(level, floor), dtype=torch.float64) for level in (sigma_from, sigma_to))

    def solve(limit: float) -> Tensor:
        pair = AdaptiveRungeKutta(
            "dop853", rtol=limit, atol=limit * sigma_data, sigma_data=sigma_data, max_steps=100_000
        )
        y = x if start == end else pair.step(recorder, x, start, end)[0]
        return recorder(y, end) if sigma_to == 0 < sigma_from else y

    coarse, fine = solve(tolerance), solve(tolerance / 30)
    return FlowSolution(fine, (fine - coarse).abs().flatten(1).amax(dim=1), recorder.nfe)
