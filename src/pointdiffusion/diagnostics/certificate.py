"""The certificate of a sampler: what `certify` measured, and its faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

HIGH, LOW = 2.0, 0.1
"""Range of noise levels, in about standard deviations of the data: starting far above it would hide a lost order."""

SMALL = 0.02
"""Largest rms error per coordinate, on the finest grid, of a sampler that solves the flow.

The data have a standard deviation of about 1. Euler's method has 0.004 to 0.008 in 200 steps on most grids.
"""


@dataclass(frozen=True)
class Certificate:
    """Measurements of a sampler. Errors are in units of the data, whose standard deviation is about 1.

    Args:
        name: Name of the sampler.
        stochastic: Whether two runs differ on the finest grid.
        declared: Declared order, if any.
        order: Fitted order of the error in the number of steps on the mixture, None where it is stochastic.
        errors: Median rms error per coordinate against the exact flow, by number of steps.
        nfe: Evaluations of the denoiser, by number of steps.
        reference: Error of Heun's method with as many evaluations (one less where the number is odd), or, for a sampler
            with its own grid, of Euler's method on the same noise levels, by number of steps.
        error_at_zero: The same error on a grid of 32 steps that ends in 0; NaN if the result is not finite, None for a
            scheduler, whose grid ends where it does.
        error_float32: Error on the finest grid in float32.
        mean_deviation: Largest deviation of the mean on the Gaussian, in standard errors, where it is stochastic.
        covariance_errors: Relative error of the covariance on the Gaussian, by number of steps.
        covariance_floor: The same for exact draws of that number.
        levels: First and last noise level of the finest grid.
        own_grid: Whether the sampler ran on its own grid, as schedulers do.
    """

    name: str
    stochastic: bool
    declared: float | None
    order: float | None
    errors: dict[int, float]
    nfe: dict[int, int]
    reference: dict[int, float]
    error_at_zero: float | None
    error_float32: float
    mean_deviation: float | None = None
    covariance_errors: dict[int, float] | None = None
    covariance_floor: float | None = None
    levels: tuple[float, float] = (HIGH, LOW)
    own_grid: bool = False

    @property
    def reference_name(self) -> str:
        """The method whose error is `reference`."""
        return "Euler, same noise levels" if self.own_grid else "Heun, as many evaluations"

    @property
    def covariance_error(self) -> float | None:
        """Relative error of the covariance on the finest grid."""
        return None if self.covariance_errors is None else self.covariance_errors[max(self.covariance_errors)]

    @property
    def faults(self) -> list[str]:
        """Faults of the sampler, one sentence each; an empty list if it passes."""
        faults = self._faults_of_error() if not self.stochastic else []
        if not all(math.isfinite(error) for error in (*self.errors.values(), self.error_at_zero or 0)):
            last = 0 if self.error_at_zero is not None else self.levels[1]
            faults.insert(0, f"the result is not finite on a grid that ends in {last:.3g}")
        if self.order is not None and self.declared is not None and self.order < self.declared - 0.15:
            faults.append(f"the order is {self.order:.2f}, not the declared {self.declared:g}")
        error = self.errors[max(self.errors)]
        if not self.stochastic and math.isfinite(error) and not self.error_float32 <= max(1e-4, 2 * error):
            faults.append(f"in float32 the error is {self.error_float32:.1e}")
        if self.mean_deviation is not None and not self.mean_deviation <= 5:  # NaN is a fault as well
            faults.append(f"the mean is off by {self.mean_deviation:.0f} standard errors")
        if not (self.covariance_error or 0) <= 0.05 + 3 * (self.covariance_floor or 0):
            faults.append(f"the covariance is wrong by {self.covariance_error:.0%}")
        return faults

    def _faults_of_error(self) -> list[str]:
        steps = max(self.errors)
        error, reference = self.errors[steps], self.reference[steps]
        if self.order is not None and self.order < 0.5 and error > 1.1 * reference:
            return ["the error does not decrease with the steps: this is not a solution of the flow"]
        if self.own_grid and error > max(2 * reference, 1e-3):
            return [f"the error is {error:.2g} in {steps} steps, where Euler's method has {reference:.2g}"]
        if error <= SMALL or not math.isfinite(error):
            return []
        if self.own_grid:
            return [f"the error is {error:.2g} in {steps} steps: the grid is too coarse"]
        return [f"the error is {error:.2g} in {steps} steps: this is not a solution of the flow"]

    def __str__(self) -> str:
        """Return the table and the verdict as text."""
        kind = "stochastic" if self.stochastic else "deterministic"
        lines = [f"{self.name}: {kind}", "noise levels: {:.4g} to {:.4g}".format(*self.levels)]
        if self.stochastic:  # its trajectories are not those of the flow: only its moments can be checked
            lines += [f"evaluations in {steps} steps: {count}" for steps, count in self.nfe.items()]
            if self.error_at_zero is not None:
                lines.append(f"result at noise level 0: {'' if math.isfinite(self.error_at_zero) else 'not '}finite")
        else:
            lines.append(f"steps | evaluations | error | {self.reference_name}")
            for steps, error in self.errors.items():
                lines.append(f"{steps} | {self.nfe[steps]} | {error:.2e} | {self.reference[steps]:.2e}")
            if self.error_at_zero is not None:
                lines.append(f"error at noise level 0: {self.error_at_zero:.2e}")
            lines.append(f"error in float32: {self.error_float32:.2e}")
        if self.order is not None:
            declared = "none declared" if self.declared is None else f"declared {self.declared:g}"
            lines.append(f"order {self.order:.2f} ({declared})")
        if self.mean_deviation is not None:
            lines.append(f"mean: {self.mean_deviation:.1f} standard errors from the exact one")
        if self.covariance_errors is not None:
            errors = ", ".join(f"{error:.1%} in {steps}" for steps, error in self.covariance_errors.items())
            lines.append(f"covariance: wrong by {errors} steps (exact draws: {self.covariance_floor:.1%})")
        lines.append("verdict: " + ("; ".join(self.faults) if self.faults else "as it should be"))
        return "\n".join(lines)

    def plot(self, ax: Any) -> Any:
        """Draw the error against the evaluations, both logarithmic.

        Args:
            ax: Axes of matplotlib.

        Returns:
            The axes.
        """
        evaluations = [self.nfe[steps] for steps in self.errors]
        label = self.name if self.order is None else f"{self.name}, order {self.order:.2f}"
        ax.loglog(evaluations, list(self.errors.values()), "o-", label=label)
        ax.loglog(evaluations, list(self.reference.values()), "--", color="0.6", label=self.reference_name)
        ax.set_xticks(evaluations, [str(count) for count in evaluations])
        ax.minorticks_off()
        ax.set_xlabel("evaluations of the denoiser")
        ax.set_ylabel("median rms error against the exact flow")
        ax.legend()
        return ax
