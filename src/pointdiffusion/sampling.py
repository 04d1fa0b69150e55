"""The one loop: from noise to data along a grid of noise levels.

`trajectory` is a generator, so that a progress bar, a picture or an early stop needs no callback; `sample` is its last
item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.denoisers import DenoiserFunction
from pointdiffusion.solvers import SOLVERS, Solver

Array = TypeVar("Array")


@dataclass(frozen=True)
class Step(Generic[Array]):
    """One state of a trajectory.

    Args:
        x: Points, shape `(B, D)`.
        sigma: Their noise level.
        denoised: The denoised points with which the step here began, shape `(B, D)`; None at the start.
        nfe: Calls of the denoiser so far.
    """

    x: Array
    sigma: float
    denoised: Array | None
    nfe: int


class _Recorder:
    """Counts the calls of a denoiser and keeps the result of the first since `restart`."""

    def __init__(self, denoiser: DenoiserFunction) -> None:
        self.denoiser = denoiser
        self.nfe = 0
        self.first: Tensor | None = None

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        denoised = self.denoiser(x, sigma, **condition)
        self.nfe += 1
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
        raise unknown_name("solver", solver, SOLVERS)
    return SOLVERS[solver]()


def _check_grid(sigmas: Tensor) -> None:
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas must be a list of at least two noise levels, got shape {tuple(sigmas.shape)}")
    if not bool(sigmas.isfinite().all()):
        raise ValueError("sigmas must be finite, but some are NaN or infinite")
    if not bool((sigmas[1:] < sigmas[:-1]).all()) or sigmas[-1] < 0:
        raise ValueError("sigmas must decrease strictly and stay at or above 0; sort them, highest first")


@torch.no_grad()
def trajectory(
    denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, *, solver: str | Solver = "euler"
) -> Iterator[Step[Tensor]]:
    """Yield the points at every noise level of the grid, the given ones first.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`.
        x: Points at the noise level `sigmas[0]`, shape `(B, D)`.
        sigmas: Strictly decreasing noise levels, the last may be 0, shape `(num_steps + 1,)`.
        solver: A solver, or a name of `SOLVERS`.

    Raises:
        ValueError: If the grid does not decrease, or the solver is unknown.
    """
    _check_grid(sigmas)
    stepper = make_solver(solver)
    levels = sigmas.tolist()
    grid = sigmas.to(x)
    recorder, state = _Recorder(denoiser), None
    yield Step(x, levels[0], None, 0)
    for k in range(len(levels) - 1):
        recorder.first = None
        x, state = stepper.step(recorder, x, grid[k], grid[k + 1], state)
        yield Step(x, levels[k + 1], recorder.first, recorder.nfe)


def sample(denoiser: DenoiserFunction, x: Tensor, sigmas: Tensor, *, solver: str | Solver = "euler") -> Tensor:
    """Return the points at the last noise level of the grid, shape `(B, D)`; see `trajectory`."""
    for step in trajectory(denoiser, x, sigmas, solver=solver):
        x = step.x
    return x
