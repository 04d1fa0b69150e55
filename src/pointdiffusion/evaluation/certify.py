"""The certificate of a sampler: what it does where the exact answer is known.

`certify` takes a solver of ours, any function of the k-diffusion signature `sampler(denoiser, x, sigmas)`, or a
scheduler of diffusers, and measures it on data of one Gaussian and of a mixture, whose flows are known. From the shell:

    python -m pointdiffusion.evaluation.certify k_diffusion.sampling:sample_dpmpp_2m --order 2
"""

from __future__ import annotations

import argparse
import inspect
import math
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointdiffusion.distributions import GaussianMixture
from pointdiffusion.noise import KarrasSchedule
from pointdiffusion.sampling import exact_flow, make_solver, sample
from pointdiffusion.solvers import SOLVERS, Solver

Walk = Callable[[Any, Tensor, Tensor], Tensor]

HIGH, LOW = 2.0, 0.1
"""Range of noise levels, in about the standard deviation of the data: from far above it a lost order does not show."""

STEPS = (32, 64, 128, 256)

MOMENT_STEPS = (8, 16, 32, 64)
"""Coarse enough for a bias to stand out of what 100,000 draws leave open."""

GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0]], [[[1.0, 0.6], [0.6, 0.8]]])
MIXTURE = GaussianMixture(
    [0.3, 0.3, 0.4],
    [[-1.0, 0.0], [1.0, 0.3], [0.0, -1.0]],
    [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]], [[0.25, -0.05], [-0.05, 0.2]]],
)


@dataclass(frozen=True)
class Certificate:
    """What was measured of a sampler.

    Args:
        name: Its name.
        stochastic: Whether two runs differ.
        declared: The order that was declared, if any.
        order: Fitted order of the error in the number of steps on the mixture, None where it is stochastic.
        errors: Median rms error per coordinate against the exact flow, by number of steps.
        nfe: Evaluations of the denoiser, by number of steps.
        reference: Error of Heun's method with as many evaluations (one less where the number is odd), by number of
            steps.
        error_at_zero: The same error on a grid of 32 steps that ends in 0; NaN if the result is not finite.
        error_float32: Error at the finest grid in float32.
        mean_deviation: Largest deviation of the mean on the Gaussian, in standard errors, where it is stochastic.
        covariance_errors: Relative error of the covariance there, by number of steps.
        covariance_floor: The same of exact draws of that number.
    """

    name: str
    stochastic: bool
    declared: float | None
    order: float | None
    errors: dict[int, float]
    nfe: dict[int, int]
    reference: dict[int, float]
    error_at_zero: float
    error_float32: float
    mean_deviation: float | None = None
    covariance_errors: dict[int, float] | None = None
    covariance_floor: float | None = None

    @property
    def covariance_error(self) -> float | None:
        """Relative error of the covariance at the finest grid."""
        return None if self.covariance_errors is None else self.covariance_errors[MOMENT_STEPS[-1]]

    @property
    def faults(self) -> list[str]:
        """What is wrong, one sentence each; none if all is well."""
        found = []
        if not math.isfinite(self.error_at_zero):
            found.append("the result is not finite on a grid that ends in 0")
        if self.order is not None and self.declared is not None and self.order < self.declared - 0.15:
            found.append(f"the order is {self.order:.2f}, not the declared {self.declared:g}")
        if self.order is not None and self.order < 0.5:
            found.append("the error does not fall with the steps: this is not a solution of the flow")
        if not self.stochastic and not self.error_float32 < max(1e-4, 2 * self.errors[STEPS[-1]]):
            found.append(f"in float32 the error is {self.error_float32:.1e}")
        if self.mean_deviation is not None and self.mean_deviation > 5:
            found.append(f"the mean is off by {self.mean_deviation:.0f} standard errors")
        if (self.covariance_error or 0) > 0.05 + 3 * (self.covariance_floor or 0):
            found.append(f"the covariance is wrong by {self.covariance_error:.0%}")
        return found

    def __str__(self) -> str:
        """Return the table and the verdict."""
        kind = "stochastic" if self.stochastic else "deterministic"
        lines = [f"{self.name}: {kind}"]
        if self.stochastic:  # its paths are not those of the flow: only its moments can be judged
            at_zero = "finite" if math.isfinite(self.error_at_zero) else "not finite"
            lines += [f"evaluations in {steps} steps: {count}" for steps, count in self.nfe.items()]
            lines.append(f"result at noise level 0: {at_zero}")
        else:
            lines.append("steps | evaluations | error | Heun")
            for steps, error in self.errors.items():
                lines.append(f"{steps} | {self.nfe[steps]} | {error:.2e} | {self.reference[steps]:.2e}")
            lines += [
                f"error at noise level 0: {self.error_at_zero:.2e}",
                f"error in float32: {self.error_float32:.2e}",
            ]
        if self.order is not None:
            said = "none declared" if self.declared is None else f"declared {self.declared:g}"
            lines.append(f"order {self.order:.2f} ({said})")
        if self.mean_deviation is not None:
            lines.append(f"mean: {self.mean_deviation:.1f} standard errors from the exact one")
        if self.covariance_errors is not None:
            errors = ", ".join(f"{error:.1%} in {steps}" for steps, error in self.covariance_errors.items())
            lines.append(f"covariance: wrong by {errors} steps (exact draws: {self.covariance_floor:.1%})")
        lines.append("verdict: " + ("; ".join(self.faults) if self.faults else "as it should be"))
        return "\n".join(lines)

    def plot(self, ax: Any) -> Any:
        """Draw the error against the evaluations, both logarithmic, and return the axes."""
        evaluations = [self.nfe[steps] for steps in self.errors]
        label = self.name if self.order is None else f"{self.name}, order {self.order:.2f}"
        ax.loglog(evaluations, list(self.errors.values()), "o-", label=label)
        ax.loglog(evaluations, list(self.reference.values()), "--", color="0.6", label="Heun, as many evaluations")
        ax.set_xticks(evaluations, [str(count) for count in evaluations])
        ax.minorticks_off()
        ax.set_xlabel("evaluations of the denoiser")
        ax.set_ylabel("median rms error against the exact flow")
        ax.legend()
        return ax


def certify(sampler: Any, *, order: float | None = None, name: str | None = None, seed: int = 0) -> Certificate:
    """Measure a sampler where the exact answer is known.

    Args:
        sampler: A `Solver` or a name of `SOLVERS`; a function `sampler(denoiser, x, sigmas)`; or a scheduler of
            diffusers.
        order: Its declared order; a solver of ours declares its own.
        name: What to call it.
        seed: Seed of the points and of the noise.

    Raises:
        ValueError: If it is none of these.
    """
    walk, found, declared = _walk_of(sampler, seed)
    order = declared if order is None else order
    x = MIXTURE.sample(64, torch.Generator().manual_seed(seed), HIGH)
    exact = exact_flow(MIXTURE.denoise, x, HIGH, LOW, tolerance=1e-12).x
    errors, counts, reference = {}, {}, {}
    for steps in STEPS:
        counted = _Counted(MIXTURE.denoise)
        errors[steps] = _error(walk(counted, x, _grid(steps)), exact)
        counts[steps] = counted.calls
        heun = sample(MIXTURE.denoise, x, _grid(max(1, counted.calls // 2)), solver="heun")
        reference[steps] = _error(heun, exact)
    stochastic = _differs(walk, x)
    finite = all(math.isfinite(error) and error > 0 for error in errors.values())
    fitted = None if stochastic or not finite else _order(errors)
    low = walk(MIXTURE.denoise, x.float(), _grid(STEPS[-1]).float())
    at_zero = walk(MIXTURE.denoise, x, _grid(STEPS[0], final_zero=True))
    return Certificate(
        name or found, stochastic, None if stochastic else order, fitted, errors, counts, reference,
        _error(at_zero, exact_flow(MIXTURE.denoise, x, HIGH, 0.0).x), _error(low.double(), exact),
        *(_moments(walk, seed) if stochastic else (None, None, None)),
    )  # fmt: skip


class _Counted:
    """Counts calls."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        self.calls += 1
        return self.denoiser(x, sigma, **condition)


def _grid(steps: int, *, final_zero: bool = False) -> Tensor:
    return KarrasSchedule(LOW, HIGH).sigmas(steps, final_zero=final_zero)


def _error(y: Tensor, exact: Tensor) -> float:
    rows = (y - exact).square().mean(dim=1).sqrt()
    return float(rows.median()) if bool(rows.isfinite().all()) else math.nan


def _order(errors: dict[int, float]) -> float:
    return -float(np.polyfit(np.log2(list(errors)), np.log2(list(errors.values())), 1)[0])


def _differs(walk: Walk, x: Tensor) -> bool:
    """Return whether two runs with other noise end elsewhere."""
    first, second = (walk(MIXTURE.denoise, x, _grid(8)) for _ in range(2))
    return not torch.allclose(first, second, rtol=0, atol=1e-9, equal_nan=True)


def _moments(walk: Walk, seed: int) -> tuple[float, dict[int, float], float]:
    """Return deviation of the mean in standard errors, errors of the covariance, and that of exact draws."""
    count, generator = 100_000, torch.Generator().manual_seed(seed + 1)
    exact = GAUSSIAN.covariance + LOW**2 * torch.eye(2).double()

    def covariance_error(points: Tensor) -> float:
        return float((points.T.cov() - exact).norm() / exact.norm())

    errors = {}
    for steps in MOMENT_STEPS:
        y = walk(GAUSSIAN.denoise, GAUSSIAN.sample(count, generator, HIGH), _grid(steps))
        errors[steps] = covariance_error(y)
    off = (y.mean(dim=0) - GAUSSIAN.mean).abs() / (exact.diag() / count).sqrt()
    return float(off.max()), errors, covariance_error(GAUSSIAN.sample(count, generator, LOW))


def _walk_of(sampler: Any, seed: int) -> tuple[Walk, str, float | None]:
    """Return the sampler as a function of denoiser, points and grid, its name and its declared order."""
    if isinstance(sampler, (str, Solver)):
        solver, generator = make_solver(sampler), torch.Generator().manual_seed(seed)
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        return (
            lambda denoiser, x, sigmas: sample(denoiser, x, sigmas, solver=solver, generator=generator),
            name,
            solver.order,
        )
    if hasattr(sampler, "set_timesteps") and hasattr(sampler, "step"):
        return _diffusers(sampler), type(sampler).__name__, None
    if not callable(sampler):
        raise ValueError(
            "a sampler is a solver, a function sampler(denoiser, x, sigmas) or a scheduler of diffusers, got "
            f"{sampler!r}"
        )
    quiet = {"disable": True} if "disable" in inspect.signature(sampler).parameters else {}
    return lambda d, x, s: sampler(d, x, s, **quiet), getattr(sampler, "__name__", type(sampler).__name__), None


def _diffusers(scheduler: Any) -> Walk:
    """Return a scheduler of the variance-preserving kind as a function of our variables."""
    if getattr(scheduler.config, "prediction_type", None) != "sample":
        raise ValueError("make the scheduler with prediction_type='sample', so that it takes denoised points")

    def walk(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        fresh = type(scheduler).from_config(scheduler.config)
        fresh.set_timesteps(len(sigmas) - 1)
        fresh.sigmas, fresh.timesteps = sigmas.clone(), torch.arange(len(sigmas) - 1, 0, -1)
        x = x / (1 + sigmas[0] ** 2).sqrt()
        for level, t in zip(sigmas, fresh.timesteps, strict=False):
            denoised = denoiser(x * (1 + level**2).sqrt(), level)
            x = fresh.step(denoised, t, x).prev_sample
        return x * (1 + sigmas[-1] ** 2).sqrt()

    return walk


def find(name: str) -> Any:
    """Return the sampler that `MODULE:FUNCTION`, or a name of `SOLVERS`, stands for.

    Raises:
        ValueError: If there is none.
    """
    if name in SOLVERS:
        return name
    if not name.partition(":")[2]:
        raise ValueError(f"{name!r} is neither a solver of ours ({', '.join(SOLVERS)}) nor MODULE:FUNCTION")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Print the certificate; return 0 if all is as it should be, 1 if not, 2 if there is no such sampler."""
    parser = argparse.ArgumentParser(description="Measure a sampler where the exact answer is known.")
    parser.add_argument("sampler", help="MODULE:FUNCTION, called as function(denoiser, x, sigmas), or a solver's name")
    parser.add_argument("--order", type=float, help="its declared order")
    args = parser.parse_args(arguments)
    try:
        certificate = certify(find(args.sampler), order=args.order, name=args.sampler)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(certificate)
    return 1 if certificate.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
