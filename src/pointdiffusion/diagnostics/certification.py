"""Certification of samplers: measurements on data whose exact flow is known.

`certify` takes a solver of this package, any function with the k-diffusion signature `sampler(denoiser, x, sigmas)`, or
a scheduler of diffusers, and measures it on data of one Gaussian and of a mixture, whose flows are known. Functions run
on Karras' grid, schedulers on their own. From the shell:

    python -m pointdiffusion.diagnostics.certification k_diffusion.sampling:sample_dpmpp_2m --order 2
"""

from __future__ import annotations

import argparse
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.diagnostics.certificate import HIGH, LOW, Certificate
from pointdiffusion.diagnostics.schedulers import SchedulerSampler
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.runtime.exit_codes import outcome
from pointdiffusion.sampling.loop import exact_flow, make_solver, sample
from pointdiffusion.solvers import SOLVERS, Solver

STEPS = (32, 64, 128, 256)

MOMENT_STEPS = (8, 16, 32, 64)
"""Coarse enough for a bias to exceed the sampling error of 100,000 draws."""

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0]], [[[1.0, 0.6], [0.6, 0.8]]])
MIXTURE = GaussianMixture(
    [0.3, 0.3, 0.4],
    [[-1.0, 0.0], [1.0, 0.3], [0.0, -1.0]],
    [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]], [[0.25, -0.05], [-0.05, 0.2]]],
)


class FunctionSampler:
    """A function `sampler(denoiser, x, sigmas)` on Karras' grid."""

    steps, moment_steps, moment_points = STEPS, MOMENT_STEPS, 100_000

    def __init__(self, function: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def grid(self, steps: int) -> Tensor:
        """Return the noise levels from `HIGH` to `LOW`."""
        return KarrasSchedule(LOW, HIGH).sigmas(steps, final_zero=False)

    def __call__(self, denoiser: Any, x: Tensor, steps: int) -> Tensor:
        """Return the points at `LOW`."""
        return self.function(denoiser, x, self.grid(steps).to(x.dtype))

    def to_zero(self, denoiser: Any, x: Tensor, steps: int) -> Tensor:
        """Return the points at noise level 0."""
        return self.function(denoiser, x, KarrasSchedule(LOW, HIGH).sigmas(steps))


def certify(sampler: Any, *, order: float | None = None, name: str | None = None, seed: int = 0) -> Certificate:
    """Measure order, errors and moments of a sampler where the exact answer is known.

    Args:
        sampler: A `Solver` or a name of `SOLVERS`; a function `sampler(denoiser, x, sigmas)`, where `x` has shape
            `(B, 2)`; or a scheduler of diffusers, which runs on its own time steps.
        order: Declared order; solvers of this package declare their own.
        name: Name in the certificate.
        seed: Seed of the points and of the noise.

    Returns:
        The certificate; `str()` of it is a table and a verdict.

    Raises:
        ValueError: If it is none of these, or a scheduler that cannot be measured.

    Examples:
        >>> certificate = certify("euler")
        >>> certificate.faults, round(certificate.order), certificate.stochastic
        ([], 1, False)
    """
    subject, default_name, declared = _subject(sampler, seed)
    with torch.random.fork_rng(devices=[]):  # functions and schedulers of others draw from the global generator
        torch.manual_seed(seed)
        measured = _measure(subject, seed)
        stochastic = measured["stochastic"]
        deviation, covariance_errors, floor = _moments(subject, seed) if stochastic else (None, None, None)
    return Certificate(
        name=name or default_name, declared=None if stochastic else declared if order is None else order, **measured,
        mean_deviation=deviation, covariance_errors=covariance_errors, covariance_floor=floor,
    )  # fmt: skip


def _measure(subject: FunctionSampler | SchedulerSampler, seed: int) -> dict[str, Any]:
    """Return the fields of a certificate about the errors on the mixture."""
    errors, counts, reference = {}, {}, {}
    own_grid = isinstance(subject, SchedulerSampler)
    for steps in subject.steps:
        grid = subject.grid(steps)
        x, exact = _problem(float(grid[0]), float(grid[-1]), seed)
        counted = _Counted(MIXTURE.denoise)
        y = subject(counted, x.clone(), steps)  # some samplers modify their input in place
        errors[steps], counts[steps] = _error(y, exact), counted.calls
        if not own_grid:
            grid = subject.grid(max(1, counted.calls // 2))
        reference[steps] = _error(sample(MIXTURE.denoise, x, grid, solver="euler" if own_grid else "heun"), exact)
    stochastic = not torch.allclose(y, subject(MIXTURE.denoise, x.clone(), steps), rtol=0, atol=1e-9, equal_nan=True)
    usable = all(math.isfinite(error) and error > 0 for error in errors.values())
    at_zero = None
    if isinstance(subject, FunctionSampler):
        at_zero = _error(subject.to_zero(MIXTURE.denoise, x.clone(), subject.steps[0]), _problem(HIGH, 0.0, seed)[1])
    return {
        "stochastic": stochastic,
        "order": _order(errors) if usable and not stochastic else None,
        "errors": errors,
        "nfe": counts,
        "reference": reference,
        "own_grid": own_grid,
        "error_at_zero": at_zero,
        "error_float32": _error(subject(MIXTURE.denoise, x.float(), steps).double(), exact),
        "levels": (float(subject.grid(steps)[0]), float(subject.grid(steps)[-1])),
    }


@lru_cache(maxsize=64)
def _problem(high: float, low: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return points of the mixture at one noise level, and their images under the exact flow at another."""
    x = MIXTURE.sample(64, torch.Generator().manual_seed(seed), high)
    return x, exact_flow(MIXTURE.denoise, x, high, low, tolerance=1e-12).x


class _Counted:
    """Counts calls."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        self.calls += 1
        return self.denoiser(x, sigma, **condition)


def _error(y: Tensor, exact: Tensor) -> float:
    rows = (y - exact).square().mean(dim=1).sqrt()
    return float(rows.median()) if bool(rows.isfinite().all()) else math.nan


def _order(errors: dict[int, float]) -> float:
    return -float(np.polyfit(np.log2(list(errors)), np.log2(list(errors.values())), 1)[0])


def _moments(subject: FunctionSampler | SchedulerSampler, seed: int) -> tuple[float, dict[int, float], float]:
    """Return deviation of the mean in standard errors, errors of the covariance, and that of exact draws."""
    count = subject.moment_points
    generator, errors = torch.Generator().manual_seed(seed + 1), {}

    def covariance_error(points: Tensor) -> float:
        return float((points.T.cov() - exact).norm() / exact.norm())

    for steps in subject.moment_steps:
        high, low = float(subject.grid(steps)[0]), float(subject.grid(steps)[-1])
        exact = GAUSSIAN.covariance + low**2 * torch.eye(2).double()
        y = subject(GAUSSIAN.denoise, GAUSSIAN.sample(count, generator, high), steps)
        errors[steps] = covariance_error(y)
    off = (y.mean(dim=0) - GAUSSIAN.mean).abs() / (exact.diag() / count).sqrt()
    return float(off.max()), errors, covariance_error(GAUSSIAN.sample(count, generator, low))


def _subject(sampler: Any, seed: int) -> tuple[FunctionSampler | SchedulerSampler, str, float | None]:
    """Return the object to measure, its name and its declared order."""
    if isinstance(sampler, (str, Solver)):
        solver, generator = make_solver(sampler), torch.Generator().manual_seed(seed)
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        return (
            FunctionSampler(lambda d, x, sigmas: sample(d, x, sigmas, solver=solver, generator=generator)),
            name,
            solver.order,
        )
    if isinstance(sampler, type):
        raise ValueError(f"pass an instance of {sampler.__name__}, not the class")
    if hasattr(sampler, "set_timesteps"):
        return SchedulerSampler(sampler), type(sampler).__name__, None
    if not callable(sampler):
        raise ValueError(
            "sampler must be a solver, a function sampler(denoiser, x, sigmas) or a scheduler of diffusers, got "
            f"{sampler!r}"
        )
    quiet = {"disable": True} if "disable" in inspect.signature(sampler).parameters else {}
    name = getattr(sampler, "__name__", type(sampler).__name__)
    return FunctionSampler(lambda d, x, s: sampler(d, x, s, **quiet)), name, None


def find(name: str) -> Any:
    """Return the sampler of a name.

    Args:
        name: `MODULE:FUNCTION`, or a name of `SOLVERS`.

    Raises:
        ValueError: If it cannot be loaded.
    """
    if name in SOLVERS:
        return name
    if not name.partition(":")[2]:
        raise ValueError(f"{name!r} is neither a solver ({', '.join(SOLVERS)}) nor MODULE:FUNCTION")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Print the certificate; return 0 if there are no faults, 1 if there are, 2 if there is no such sampler."""
    parser = argparse.ArgumentParser(description="Measure a sampler where the exact answer is known.")
    parser.add_argument("sampler", help="MODULE:FUNCTION, called as function(denoiser, x, sigmas), or a solver's name")
    parser.add_argument("--order", type=float, help="declared order")
    args = parser.parse_args(arguments)
    try:
        certificate = certify(find(args.sampler), order=args.order, name=args.sampler)
    except Exception as error:
        found = outcome(error)
        if found is None:
            raise
        code, sentence = found
        print(f"error: {sentence}", file=sys.stderr)
        return code
    print(certificate)
    return 1 if certificate.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
